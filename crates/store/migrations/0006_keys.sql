-- From where a key may be used: networks, separated by commas; empty for everywhere.
ALTER TABLE tokens ADD COLUMN ip_allowlist TEXT NOT NULL DEFAULT '';

-- The word under which an account brings others, made when it is first asked for, and who brought an account.
ALTER TABLE accounts ADD COLUMN referral_code TEXT;
ALTER TABLE accounts ADD COLUMN referred_by BIGINT;
CREATE UNIQUE INDEX accounts_referral_code ON accounts (referral_code);
CREATE INDEX accounts_referred_by ON accounts (referred_by, id) WHERE referred_by IS NOT NULL;

-- The audit log anew: also for what concerns no account, and with where an act came from.
ALTER TABLE audit RENAME TO audit_before;
DROP INDEX audit_list;
CREATE TABLE audit (
    id BIGINT NOT NULL PRIMARY KEY,
    -- In whose log it stands; NULL for what concerns no account.
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
INSERT INTO audit (id, account_id, at_ms, source, action, subject, status)
    SELECT id, account_id, at_ms, 'OPERATOR', action, subject, 'success' FROM audit_before;
DROP TABLE audit_before;
-- An account's log; the whole log by time, of which the oldest end is swept. Each has the action as well, so that what
-- is of another one is passed over within the index. An index by action would cost each write a page of its own.
CREATE INDEX audit_of_account ON audit (account_id, at_ms, id, action);
CREATE INDEX audit_by_time ON audit (at_ms, id, action);
