-- What is to be released has a queue of its own, so that nobody's new pin stands behind all that ended at one moment.
DROP INDEX placements_queue;
CREATE INDEX placements_queue ON placements (queue_ms, id, state) WHERE ready = 1 AND state <> 'releasing';
CREATE INDEX placements_releases ON placements (queue_ms, id) WHERE ready = 1 AND state = 'releasing';
