-- Plans that an operator saved: each takes the place of the configured one of its code.
CREATE TABLE plans (
    code TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- One a line.
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

-- What an operator saved of clusters: it takes the place of what is configured to be shown.
CREATE TABLE cluster_infos (
    cluster TEXT NOT NULL PRIMARY KEY,
    label TEXT NOT NULL,
    region TEXT,
    country TEXT,
    -- A URL, a tab and a label; one a line.
    gateways TEXT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

-- An account's own storage, whatever its plan says.
ALTER TABLE accounts ADD COLUMN storage_override_bytes BIGINT;
-- When it was told to go; it is disabled, and its pins are being removed.
ALTER TABLE accounts ADD COLUMN removing_since_ms BIGINT;

CREATE INDEX accounts_plan ON accounts (plan, id);
CREATE INDEX accounts_admin ON accounts (id) WHERE role = 'admin';
CREATE INDEX accounts_disabled ON accounts (id) WHERE disabled = 1;
CREATE INDEX accounts_removing ON accounts (id) WHERE removing_since_ms IS NOT NULL;

-- Sums for statistics, kept with each change: nobody counts millions of rows.
CREATE TABLE account_sums (
    plan TEXT NOT NULL,
    disabled BIGINT NOT NULL,
    accounts BIGINT NOT NULL,
    PRIMARY KEY (plan, disabled)
);
INSERT INTO account_sums (plan, disabled, accounts)
    SELECT plan, disabled, COUNT(*) FROM accounts GROUP BY plan, disabled;

CREATE TABLE pin_sums (
    cluster TEXT NOT NULL,
    phase TEXT NOT NULL,
    pins BIGINT NOT NULL,
    -- What accounts are charged for them.
    bytes BIGINT NOT NULL,
    PRIMARY KEY (cluster, phase)
);
INSERT INTO pin_sums (cluster, phase, pins, bytes)
    SELECT p.cluster, n.phase, COUNT(*), SUM(n.charged_bytes)
    FROM pins n JOIN placements p ON p.id = n.placement_id GROUP BY p.cluster, n.phase;

-- Those in work, which are few.
CREATE INDEX placements_pinning ON placements (id) WHERE state = 'pinning';
-- Unique as ids are, so that a list by placement and pin needs no sorting.
DROP INDEX placements_damaged;
CREATE UNIQUE INDEX placements_damaged ON placements (id) WHERE damaged_blocks > 0;
-- Lists of pins across accounts: those of a placement in their order, those that failed, those that wait.
DROP INDEX pins_placement;
CREATE INDEX pins_placement ON pins (placement_id, id);
CREATE INDEX pins_failed ON pins (id) WHERE phase = 'failed';
CREATE INDEX pins_all_pending ON pins (id) WHERE phase = 'pending';
-- The audit log of all accounts, of one action, and of who acted.
CREATE INDEX audit_actor ON audit (actor_id, at_ms, id, action) WHERE actor_id IS NOT NULL;
