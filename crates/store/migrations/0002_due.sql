-- Many pins can end at the same millisecond: the index has the whole order, so that a batch of them sorts nothing.

DROP INDEX pins_expiry;
CREATE INDEX pins_expiry ON pins (expires_at_ms, id) WHERE expires_at_ms IS NOT NULL;
