-- Until when nothing may end a pin but an operator.
ALTER TABLE pins ADD COLUMN retain_until_ms BIGINT;

-- A pin ends at its time, and never while it is locked, whatever its row says.
DROP INDEX pins_expiry;
CREATE INDEX pins_expiry ON pins (
    (CASE WHEN retain_until_ms > expires_at_ms THEN retain_until_ms ELSE expires_at_ms END), id
) WHERE expires_at_ms IS NOT NULL;

-- What an account that goes has locked.
CREATE INDEX pins_locked ON pins (account_id, retain_until_ms) WHERE retain_until_ms IS NOT NULL;
