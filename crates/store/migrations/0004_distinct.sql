-- What an account's pins take when blocks that they share count once.
ALTER TABLE accounts ADD COLUMN distinct_bytes BIGINT NOT NULL DEFAULT 0;
-- Whether that is to be counted anew: 0 no, 1 yes, 2 it is being counted.
ALTER TABLE accounts ADD COLUMN distinct_due BIGINT NOT NULL DEFAULT 0;

CREATE INDEX accounts_distinct ON accounts (id) WHERE distinct_due > 0;
