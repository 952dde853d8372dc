-- What is random and made once for this database, in hexadecimal.
CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- The second factor: its secret in base32, NULL when none was set up.
ALTER TABLE accounts ADD COLUMN totp_secret TEXT;
-- 1 if logging in needs it.
ALTER TABLE accounts ADD COLUMN totp_on BIGINT NOT NULL DEFAULT 0;
-- The time step of the last code that was taken: it and those before are used up.
ALTER TABLE accounts ADD COLUMN totp_step BIGINT NOT NULL DEFAULT 0;
-- The bucket of tries, as the time when it will be full again.
ALTER TABLE accounts ADD COLUMN totp_full_at_ms BIGINT NOT NULL DEFAULT 0;

-- Who is logged in. A session token names its row; without the row it proves nothing.
CREATE TABLE sessions (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);

CREATE INDEX sessions_list ON sessions (account_id, id);
CREATE INDEX sessions_expiry ON sessions (expires_at_ms);

-- Logins that had the right password and wait for a code.
CREATE TABLE challenges (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    -- SHA-256 of the temporary token, in hexadecimal.
    hash TEXT NOT NULL UNIQUE,
    tries BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);

CREATE INDEX challenges_list ON challenges (account_id, id);
CREATE INDEX challenges_expiry ON challenges (expires_at_ms);

-- What an account's clients want to remember.
CREATE TABLE preferences (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    -- JSON.
    value TEXT NOT NULL,
    PRIMARY KEY (account_id, name)
);
