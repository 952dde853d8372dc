-- Times are Unix milliseconds, flags 0 or 1, words those of the model. Ids are made by the program and grow
-- with time. The text serves SQLite and PostgreSQL alike.

CREATE TABLE accounts (
    id BIGINT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    plan TEXT NOT NULL,
    disabled BIGINT NOT NULL,
    password_hash TEXT,
    -- Follows the plan; here so that a charge is one statement.
    storage_limit_bytes BIGINT NOT NULL,
    -- The sum of charged_bytes, and the number, of the account's pins.
    used_bytes BIGINT NOT NULL CHECK (used_bytes >= 0),
    pin_count BIGINT NOT NULL CHECK (pin_count >= 0),
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE tokens (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    label TEXT,
    -- SHA-256 of the key, in hexadecimal.
    hash TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    last_used_at_ms BIGINT,
    UNIQUE (account_id, name)
);

-- One CID in one cluster: the work queue.
CREATE TABLE placements (
    id BIGINT NOT NULL PRIMARY KEY,
    cid TEXT NOT NULL,
    cluster TEXT NOT NULL,
    state TEXT NOT NULL,
    -- Who works on it; a new number for each claim.
    lease BIGINT,
    -- When somebody shall look at it; while leased, when the lease ends. NULL when there is nothing to do.
    due_at_ms BIGINT,
    -- Its place in the queue: the time it came, later for accounts that have much on its way.
    queue_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    error_code TEXT,
    error_detail TEXT,
    blocks BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    kind TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    UNIQUE (cid, cluster)
);

CREATE INDEX placements_queue ON placements (queue_ms, id) WHERE due_at_ms IS NOT NULL;
CREATE INDEX placements_due ON placements (due_at_ms) WHERE due_at_ms IS NOT NULL;

-- What an account wants: a CID in a cluster.
CREATE TABLE pins (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    placement_id BIGINT NOT NULL REFERENCES placements (id),
    phase TEXT NOT NULL,
    original_name TEXT,
    custom_name TEXT,
    -- 0 until it is kept.
    charged_bytes BIGINT NOT NULL,
    -- How often it was wished for: whoever gives it up must not take a later wish with it.
    request_count BIGINT NOT NULL,
    -- Multiaddrs, one a line.
    origins TEXT,
    error_code TEXT,
    error_detail TEXT,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    UNIQUE (account_id, placement_id)
);

CREATE INDEX pins_list ON pins (account_id, id);
CREATE INDEX pins_placement ON pins (placement_id);
CREATE INDEX pins_pending ON pins (account_id) WHERE phase = 'pending';
CREATE INDEX pins_expiry ON pins (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

CREATE TABLE audit (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    at_ms BIGINT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL
);

CREATE INDEX audit_list ON audit (account_id, id);
