-- Where accounts want to be told of what happens to their pins. Also the queue of that work: a webhook is claimed
-- with a lease, and tells what is due.
CREATE TABLE webhooks (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    description TEXT,
    -- The sum of: 1 pin.pinned, 2 pin.failed, 4 pin.expired, 8 pin.removed.
    events BIGINT NOT NULL,
    -- In clear text, because it signs deliveries.
    secret TEXT NOT NULL,
    -- The secret before the last rotation. It also signs deliveries until this time.
    previous_secret TEXT,
    previous_secret_until_ms BIGINT,
    active BIGINT NOT NULL,
    -- 1 while its rows are being taken away: nobody sees it any more.
    removed BIGINT NOT NULL DEFAULT 0,
    -- Why it was turned off, if not by its owner.
    disabled_reason TEXT,
    -- Failures since the last success, and when the first of them was.
    failures BIGINT NOT NULL DEFAULT 0,
    failing_since_ms BIGINT,
    -- Nothing is told before, since the receiver seems to be down.
    paused_until_ms BIGINT NOT NULL DEFAULT 0,
    -- When somebody shall look at it; while leased, when the lease ends. NULL when nothing waits.
    due_at_ms BIGINT,
    lease BIGINT,
    -- The deliveries that wait, and how many were not written down because too many did.
    pending BIGINT NOT NULL DEFAULT 0 CHECK (pending >= 0),
    dropped BIGINT NOT NULL DEFAULT 0,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

CREATE INDEX webhooks_list ON webhooks (account_id, id);
CREATE INDEX webhooks_active ON webhooks (account_id) WHERE active = 1;
CREATE INDEX webhooks_due ON webhooks (due_at_ms, id) WHERE active = 1 AND due_at_ms IS NOT NULL;
CREATE INDEX webhooks_leased ON webhooks (account_id) WHERE lease IS NOT NULL;
CREATE INDEX webhooks_removed ON webhooks (id) WHERE removed = 1;

-- What happened and is to be told to a webhook, as it was then: the pin may be gone.
CREATE TABLE webhook_deliveries (
    id BIGINT NOT NULL PRIMARY KEY,
    webhook_id BIGINT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    state TEXT NOT NULL,
    -- When it is to be tried next; NULL when it is over.
    due_at_ms BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    tried_at_ms BIGINT,
    response_status BIGINT,
    error TEXT,
    -- The pin. Of a test there is none.
    pin_id BIGINT,
    cid TEXT,
    cluster TEXT,
    pin_status TEXT,
    kind TEXT,
    bytes BIGINT,
    original_name TEXT,
    custom_name TEXT,
    error_code TEXT,
    error_detail TEXT,
    pin_created_at_ms BIGINT,
    expires_at_ms BIGINT
);

CREATE INDEX webhook_deliveries_list ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, due_at_ms, id) WHERE due_at_ms IS NOT NULL;
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (webhook_id, id) WHERE due_at_ms IS NULL;
CREATE INDEX webhook_deliveries_old ON webhook_deliveries (at_ms, id) WHERE due_at_ms IS NOT NULL;

-- Requests that their clients gave a name (Idempotency-Key), and what was answered.
CREATE TABLE named_requests (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    -- SHA-256 of the name and of what its credential may do, in hexadecimal.
    name_hash TEXT NOT NULL,
    -- SHA-256 of method, path and query; of the body once that has been read.
    head_hash TEXT NOT NULL,
    body_hash TEXT,
    -- While it runs: by whom, and until when that counts. NULL once it was answered.
    lease BIGINT,
    lease_until_ms BIGINT,
    status BIGINT,
    -- Lines of NAME: VALUE.
    headers TEXT,
    -- NULL when it holds a secret.
    body TEXT,
    body_bytes BIGINT NOT NULL DEFAULT 0,
    created_at_ms BIGINT NOT NULL,
    UNIQUE (account_id, name_hash)
);

CREATE INDEX named_requests_old ON named_requests (created_at_ms, id);
CREATE INDEX named_requests_account ON named_requests (account_id, created_at_ms, id);
CREATE INDEX named_requests_running ON named_requests (id) WHERE lease IS NOT NULL;

-- What the named requests of an account take together.
CREATE TABLE named_request_sums (
    account_id BIGINT NOT NULL PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    requests BIGINT NOT NULL CHECK (requests >= 0),
    bytes BIGINT NOT NULL CHECK (bytes >= 0)
);
