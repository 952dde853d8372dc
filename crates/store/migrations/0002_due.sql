-- What runs all the time costs what it finds, not what waits.

-- Many pins can end at the same millisecond: the index has the whole order, so that a batch of them sorts nothing.
DROP INDEX pins_expiry;
CREATE INDEX pins_expiry ON pins (expires_at_ms, id) WHERE expires_at_ms IS NOT NULL;

-- 1 from when it was found to be due until it is claimed: only then does its place in the queue count.
ALTER TABLE placements ADD COLUMN ready BIGINT NOT NULL DEFAULT 0;
-- 1 if a pin of it was wished for since it was claimed.
ALTER TABLE placements ADD COLUMN asked BIGINT NOT NULL DEFAULT 0;
DROP INDEX placements_queue;
DROP INDEX placements_due;
CREATE INDEX placements_queue ON placements (queue_ms, id) WHERE ready = 1;
CREATE INDEX placements_due ON placements (ready, due_at_ms) WHERE due_at_ms IS NOT NULL;
