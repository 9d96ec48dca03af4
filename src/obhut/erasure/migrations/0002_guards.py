"""Guards of the erasure list: entries are append-only, tombstones make legal moves only, whoever is connected."""

from django.db import migrations

_GUARDS = """
-- Full pages would move every row that becomes effective; room in the page keeps the move off the indexes.
ALTER TABLE erasure_tombstone SET (fillfactor = 60);

CREATE FUNCTION erasure_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER erasure_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON erasure_entry
    FOR EACH STATEMENT EXECUTE FUNCTION erasure_refuse();
CREATE TRIGGER erasure_access_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON erasure_access
    FOR EACH STATEMENT EXECUTE FUNCTION erasure_refuse();
CREATE TRIGGER erasure_epoch_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON erasure_epoch
    FOR EACH STATEMENT EXECUTE FUNCTION erasure_refuse();
CREATE TRIGGER erasure_tombstone_kept BEFORE DELETE OR TRUNCATE ON erasure_tombstone
    FOR EACH STATEMENT EXECUTE FUNCTION erasure_refuse();
CREATE TRIGGER erasure_head_kept BEFORE DELETE OR TRUNCATE ON erasure_head
    FOR EACH STATEMENT EXECUTE FUNCTION erasure_refuse();

CREATE FUNCTION erasure_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The table of legal moves: docs/spec/erasure-list.md, section 8.
    IF (OLD.state, NEW.state) NOT IN
       (('recorded', 'effective'), ('recorded', 'lifted'), ('effective', 'lifted'), ('effective', 'retired')) THEN
        RAISE EXCEPTION 'a tombstone cannot go from % to %', OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
    END IF;
    IF (OLD.seq, OLD.id, OLD.database, OLD.controller, OLD.subject_kind, OLD.action, OLD.map_version, OLD.instruction, OLD.epoch,
        OLD.erased_at, OLD.sealed_under)
        IS DISTINCT FROM
       (NEW.seq, NEW.id, NEW.database, NEW.controller, NEW.subject_kind, NEW.action, NEW.map_version, NEW.instruction, NEW.epoch,
        NEW.erased_at, NEW.sealed_under)
       OR NEW.state = 'effective' AND (OLD.key, OLD.fingerprint, OLD.salt) IS DISTINCT FROM (NEW.key, NEW.fingerprint, NEW.salt) THEN
        RAISE EXCEPTION 'a tombstone changes its state only' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER erasure_tombstone_moves BEFORE UPDATE ON erasure_tombstone
    FOR EACH ROW EXECUTE FUNCTION erasure_move();

CREATE FUNCTION erasure_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size <= OLD.size OR NEW.origin <> OLD.origin THEN
        RAISE EXCEPTION 'the head of the erasure list only grows' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER erasure_head_grows BEFORE UPDATE ON erasure_head
    FOR EACH ROW EXECUTE FUNCTION erasure_grow();
"""

_UNGUARD = """
DROP FUNCTION erasure_refuse() CASCADE;
DROP FUNCTION erasure_move() CASCADE;
DROP FUNCTION erasure_grow() CASCADE;
ALTER TABLE erasure_tombstone RESET (fillfactor);
"""


class Migration(migrations.Migration):
    """Add the triggers."""

    dependencies = [("erasure", "0001_initial")]

    operations = [migrations.RunSQL(_GUARDS, _UNGUARD)]
