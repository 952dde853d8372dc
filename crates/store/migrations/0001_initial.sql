-- The schema for SQLite and PostgreSQL 15 and later, which apply this file unchanged.
--
-- Times are Unix milliseconds, flags 0 or 1, sizes in bytes. Ids are created by the program and grow with time. Words
-- for states, roles and the like are those of crates/model.

CREATE TABLE accounts (
    id BIGINT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    plan TEXT NOT NULL,
    disabled BIGINT NOT NULL,
    -- A PHC string.
    password_hash TEXT,
    -- That of the plan unless overridden. A copy, so that charging an account is one statement.
    storage_limit_bytes BIGINT NOT NULL,
    storage_override_bytes BIGINT,
    -- The sum of charged_bytes, and the number, of the account's pins.
    used_bytes BIGINT NOT NULL CHECK (used_bytes >= 0),
    pin_count BIGINT NOT NULL CHECK (pin_count >= 0),
    -- The size of the account's pins when blocks that they share count once.
    dedup_bytes BIGINT NOT NULL DEFAULT 0,
    -- Whether dedup_bytes is current: 0 current, 1 to be counted, 2 being counted.
    dedup_state BIGINT NOT NULL DEFAULT 0,
    -- In base32; NULL when no second factor was set up.
    totp_secret TEXT,
    totp_enabled BIGINT NOT NULL DEFAULT 0,
    -- The time step of the last accepted code. That step and all before it are used up.
    totp_step BIGINT NOT NULL DEFAULT 0,
    -- The bucket of attempts, as the time when it will be full again.
    totp_full_at_ms BIGINT NOT NULL DEFAULT 0,
    -- Created when the account first asks for it.
    referral_code TEXT,
    referred_by BIGINT,
    -- When removal of the account began. It is disabled, and its pins are being removed.
    removing_since_ms BIGINT,
    created_at_ms BIGINT NOT NULL
);

CREATE UNIQUE INDEX accounts_referral_code ON accounts (referral_code);
CREATE INDEX accounts_referred_by ON accounts (referred_by, id) WHERE referred_by IS NOT NULL;
CREATE INDEX accounts_dedup ON accounts (id) WHERE dedup_state > 0;
CREATE INDEX accounts_plan ON accounts (plan, id);
CREATE INDEX accounts_admin ON accounts (id) WHERE role = 'admin';
CREATE INDEX accounts_disabled ON accounts (id) WHERE disabled = 1;
CREATE INDEX accounts_removing ON accounts (id) WHERE removing_since_ms IS NOT NULL;

-- API keys.
CREATE TABLE tokens (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    label TEXT,
    -- SHA-256 of the key, in hexadecimal.
    hash TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    scopes TEXT NOT NULL,
    -- Networks, separated by commas; empty for all.
    ip_allowlist TEXT NOT NULL DEFAULT '',
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    last_used_at_ms BIGINT,
    UNIQUE (account_id, name)
);

-- A session token names its row; without the row it is not valid.
CREATE TABLE sessions (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);

CREATE INDEX sessions_list ON sessions (account_id, id);
CREATE INDEX sessions_expiry ON sessions (expires_at_ms);

-- Logins with the right password that wait for a code.
CREATE TABLE login_challenges (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    -- SHA-256 of the temporary token, in hexadecimal.
    hash TEXT NOT NULL UNIQUE,
    attempts BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);

CREATE INDEX login_challenges_list ON login_challenges (account_id, id);
CREATE INDEX login_challenges_expiry ON login_challenges (expires_at_ms);

-- Values that clients store for an account.
CREATE TABLE preferences (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    -- JSON.
    value TEXT NOT NULL,
    PRIMARY KEY (account_id, name)
);

-- Random values created once for this database, in hexadecimal.
CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- One CID in one cluster. The rows are the work queue.
CREATE TABLE placements (
    id BIGINT NOT NULL PRIMARY KEY,
    cid TEXT NOT NULL,
    cluster TEXT NOT NULL,
    state TEXT NOT NULL,
    -- The lease of the worker that processes it; a new number for each lease.
    lease BIGINT,
    -- When it is to be processed; while leased, when the lease ends. NULL when there is nothing to do.
    due_at_ms BIGINT,
    -- Position in the queue: the time of arrival, later for accounts with many pins in flight.
    queue_ms BIGINT NOT NULL,
    -- 1 from when it was found due until it is leased. Only then does queue_ms count.
    ready BIGINT NOT NULL DEFAULT 0,
    -- 1 if a pin of it was requested since it was leased.
    requested BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL,
    error_code TEXT,
    error_detail TEXT,
    blocks BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    kind TEXT NOT NULL,
    -- Blocks known to be damaged. The placement is due until they are repaired.
    damaged_blocks BIGINT NOT NULL DEFAULT 0,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    UNIQUE (cid, cluster)
);

-- Releases have a queue of their own, so that new pins do not wait behind many pins that end at one moment.
CREATE INDEX placements_queue ON placements (queue_ms, id, state) WHERE ready = 1 AND state <> 'releasing';
CREATE INDEX placements_releases ON placements (queue_ms, id) WHERE ready = 1 AND state = 'releasing';
CREATE INDEX placements_due ON placements (ready, due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX placements_pinning ON placements (id) WHERE state = 'pinning';
-- Unique as ids are, so that a list by placement and pin needs no sorting.
CREATE UNIQUE INDEX placements_damaged ON placements (id) WHERE damaged_blocks > 0;

-- An account's request to keep a CID in a cluster.
CREATE TABLE pins (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    placement_id BIGINT NOT NULL REFERENCES placements (id),
    phase TEXT NOT NULL,
    original_name TEXT,
    custom_name TEXT,
    -- 0 until it is active.
    charged_bytes BIGINT NOT NULL,
    -- How often it was requested. Cancelling one request must not remove the pin of a later one.
    request_count BIGINT NOT NULL,
    -- Multiaddrs, one per line.
    origins TEXT,
    error_code TEXT,
    error_detail TEXT,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    -- Until then only an operator can remove the pin.
    retain_until_ms BIGINT,
    UNIQUE (account_id, placement_id)
);

CREATE INDEX pins_list ON pins (account_id, id);
CREATE INDEX pins_pending ON pins (account_id) WHERE phase = 'pending';
CREATE INDEX pins_locked ON pins (account_id, retain_until_ms) WHERE retain_until_ms IS NOT NULL;
-- Lists across accounts: by placement, of failed pins, of pending pins.
CREATE INDEX pins_placement ON pins (placement_id, id);
CREATE INDEX pins_failed ON pins (id) WHERE phase = 'failed';
CREATE INDEX pins_all_pending ON pins (id) WHERE phase = 'pending';
-- A pin expires at its time, but not while it is locked. With the id, so that pins that expire at the same millisecond
-- need no sorting.
CREATE INDEX pins_expiry ON pins (
    (CASE WHEN retain_until_ms > expires_at_ms THEN retain_until_ms ELSE expires_at_ms END), id
) WHERE expires_at_ms IS NOT NULL;

-- Sums for statistics, so that nothing counts millions of rows. Each write that changes a counted row changes the sum
-- in the same transaction.
CREATE TABLE account_sums (
    plan TEXT NOT NULL,
    disabled BIGINT NOT NULL,
    accounts BIGINT NOT NULL,
    PRIMARY KEY (plan, disabled)
);

CREATE TABLE pin_sums (
    cluster TEXT NOT NULL,
    phase TEXT NOT NULL,
    pins BIGINT NOT NULL,
    charged_bytes BIGINT NOT NULL,
    PRIMARY KEY (cluster, phase)
);

CREATE TABLE audit_log (
    id BIGINT NOT NULL PRIMARY KEY,
    -- The account in whose log the entry is; NULL for what concerns no account.
    account_id BIGINT,
    -- The account that acted; NULL for operators and the service itself.
    actor_id BIGINT,
    at_ms BIGINT NOT NULL,
    source TEXT NOT NULL,
    address TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    status TEXT NOT NULL,
    -- A JSON object.
    details TEXT
);

-- An account's log; the whole log by time, of which the oldest entries are deleted; the log of an actor. Each has the
-- action as well, so that entries of other actions are skipped within the index.
CREATE INDEX audit_of_account ON audit_log (account_id, at_ms, id, action);
CREATE INDEX audit_by_time ON audit_log (at_ms, id, action);
CREATE INDEX audit_actor ON audit_log (actor_id, at_ms, id, action) WHERE actor_id IS NOT NULL;

-- Plans that an operator saved. Each replaces the configured one of its code.
CREATE TABLE plans (
    code TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- One per line.
    descriptions TEXT NOT NULL,
    price_cents BIGINT NOT NULL,
    self_service BIGINT NOT NULL,
    storage_bytes BIGINT NOT NULL,
    file_bytes_max BIGINT,
    directory_bytes_max BIGINT,
    timelock BIGINT NOT NULL,
    retention_lock BIGINT NOT NULL,
    -- Ids, separated by commas; NULL for all.
    clusters TEXT,
    in_flight_pins_max BIGINT NOT NULL,
    requests_per_minute BIGINT NOT NULL,
    requests_per_second BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

-- Cluster descriptions that an operator saved. Each replaces the configured one.
CREATE TABLE cluster_infos (
    cluster TEXT NOT NULL PRIMARY KEY,
    label TEXT NOT NULL,
    region TEXT,
    country TEXT,
    -- A URL, a tab and a label per line.
    gateways TEXT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

-- Requests with an Idempotency-Key, and their responses.
CREATE TABLE idempotent_requests (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    -- SHA-256 of the key and of what its credential may do, in hexadecimal.
    name_hash TEXT NOT NULL,
    -- SHA-256 of method, path and query; of the body once that has been read.
    head_hash TEXT NOT NULL,
    body_hash TEXT,
    -- While the request runs: its lease, and when that ends. NULL once it has a response.
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

CREATE INDEX idempotent_requests_old ON idempotent_requests (created_at_ms, id);
CREATE INDEX idempotent_requests_account ON idempotent_requests (account_id, created_at_ms, id);
CREATE INDEX idempotent_requests_running ON idempotent_requests (id) WHERE lease IS NOT NULL;

CREATE TABLE idempotent_request_sums (
    account_id BIGINT NOT NULL PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    requests BIGINT NOT NULL CHECK (requests >= 0),
    bytes BIGINT NOT NULL CHECK (bytes >= 0)
);

-- Webhooks, and the queue of their deliveries: a webhook is leased, and its due deliveries are sent.
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
    -- 1 while its rows are being deleted; it is hidden by then.
    removed BIGINT NOT NULL DEFAULT 0,
    -- Why it was disabled, if not by its owner.
    disabled_reason TEXT,
    -- Failures since the last success, and when the first of them was.
    failures BIGINT NOT NULL DEFAULT 0,
    failing_since_ms BIGINT,
    -- No delivery is attempted before, because the receiver seems to be down.
    paused_until_ms BIGINT NOT NULL DEFAULT 0,
    -- When it is to be processed; while leased, when the lease ends. NULL when nothing is pending.
    due_at_ms BIGINT,
    lease BIGINT,
    -- Pending deliveries, and how many were dropped because too many were pending.
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

-- Events to deliver to a webhook, with the pin as it was at that time: the pin may be gone.
CREATE TABLE webhook_deliveries (
    id BIGINT NOT NULL PRIMARY KEY,
    webhook_id BIGINT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    state TEXT NOT NULL,
    -- When it is to be attempted next; NULL when it is over.
    due_at_ms BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    tried_at_ms BIGINT,
    response_status BIGINT,
    error TEXT,
    -- The pin. NULL for a test.
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
