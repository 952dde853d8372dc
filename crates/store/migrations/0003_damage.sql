-- How many blocks of a placement are known to be damaged. It is due until they are mended.
ALTER TABLE placements ADD COLUMN damaged_blocks BIGINT NOT NULL DEFAULT 0;

CREATE INDEX placements_damaged ON placements (id) WHERE damaged_blocks > 0;
