-- The sums follow the rows that they count, whoever changes those.

CREATE TRIGGER account_sums_added AFTER INSERT ON accounts BEGIN
    INSERT INTO account_sums (plan, disabled, accounts) VALUES (NEW.plan, NEW.disabled, 1)
        ON CONFLICT (plan, disabled) DO UPDATE SET accounts = accounts + 1;
END;

CREATE TRIGGER account_sums_removed AFTER DELETE ON accounts BEGIN
    UPDATE account_sums SET accounts = accounts - 1 WHERE plan = OLD.plan AND disabled = OLD.disabled;
END;

CREATE TRIGGER account_sums_moved AFTER UPDATE OF plan, disabled ON accounts BEGIN
    UPDATE account_sums SET accounts = accounts - 1 WHERE plan = OLD.plan AND disabled = OLD.disabled;
    INSERT INTO account_sums (plan, disabled, accounts) VALUES (NEW.plan, NEW.disabled, 1)
        ON CONFLICT (plan, disabled) DO UPDATE SET accounts = accounts + 1;
END;

CREATE TRIGGER pin_sums_added AFTER INSERT ON pins BEGIN
    INSERT INTO pin_sums (cluster, phase, pins, bytes)
        SELECT cluster, NEW.phase, 1, NEW.charged_bytes FROM placements WHERE id = NEW.placement_id
        ON CONFLICT (cluster, phase) DO UPDATE SET pins = pins + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER pin_sums_removed AFTER DELETE ON pins BEGIN
    UPDATE pin_sums SET pins = pins - 1, bytes = bytes - OLD.charged_bytes
        WHERE cluster = (SELECT cluster FROM placements WHERE id = OLD.placement_id) AND phase = OLD.phase;
END;

CREATE TRIGGER pin_sums_moved AFTER UPDATE OF phase, charged_bytes ON pins BEGIN
    UPDATE pin_sums SET pins = pins - 1, bytes = bytes - OLD.charged_bytes
        WHERE cluster = (SELECT cluster FROM placements WHERE id = OLD.placement_id) AND phase = OLD.phase;
    INSERT INTO pin_sums (cluster, phase, pins, bytes)
        SELECT cluster, NEW.phase, 1, NEW.charged_bytes FROM placements WHERE id = NEW.placement_id
        ON CONFLICT (cluster, phase) DO UPDATE SET pins = pins + 1, bytes = bytes + excluded.bytes;
END;
