"""Guards of the key table: a fence never gets a key again and never goes, an epoch never comes back, the counter never falls."""

from django.db import migrations

_GUARDS = """
CREATE FUNCTION keystore_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % make legal moves only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- The conditions are decided without a call: rotation changes every row of a controller.
CREATE TRIGGER keystore_subject_fence BEFORE UPDATE ON keystore_subject
    FOR EACH ROW WHEN (OLD.wrapped IS NULL AND NEW.wrapped IS NOT NULL OR OLD.key_id IS DISTINCT FROM NEW.key_id
        OR OLD.fingerprint <> NEW.fingerprint OR OLD.owner <> NEW.owner OR OLD.life <> NEW.life
        OR OLD.destroyed_at > NEW.destroyed_at)
    EXECUTE FUNCTION keystore_refuse();
CREATE TRIGGER keystore_subject_kept BEFORE DELETE ON keystore_subject
    FOR EACH ROW WHEN (OLD.wrapped IS NULL) EXECUTE FUNCTION keystore_refuse();
CREATE TRIGGER keystore_subject_whole BEFORE TRUNCATE ON keystore_subject
    FOR EACH STATEMENT EXECUTE FUNCTION keystore_refuse();
CREATE TRIGGER keystore_epoch_moves BEFORE UPDATE ON keystore_epoch
    FOR EACH ROW WHEN (OLD.controller <> NEW.controller OR OLD.number <> NEW.number OR OLD.wrapped IS NULL AND NEW.wrapped IS NOT NULL
        OR (OLD.state, NEW.state) NOT IN (('open', 'closing'), ('closing', 'closed'), ('closed', 'closed'), ('closed', 'destroyed')))
    EXECUTE FUNCTION keystore_refuse();
CREATE TRIGGER keystore_epoch_kept BEFORE DELETE OR TRUNCATE ON keystore_epoch
    FOR EACH STATEMENT EXECUTE FUNCTION keystore_refuse();
CREATE TRIGGER keystore_counter_rises BEFORE UPDATE ON keystore_counter
    FOR EACH ROW WHEN (NEW.destructions < OLD.destructions OR OLD.in_use AND NOT NEW.in_use) EXECUTE FUNCTION keystore_refuse();
CREATE TRIGGER keystore_counter_kept BEFORE DELETE OR TRUNCATE ON keystore_counter
    FOR EACH STATEMENT EXECUTE FUNCTION keystore_refuse();
"""

_UNGUARD = """
DROP FUNCTION keystore_refuse() CASCADE;
"""


class Migration(migrations.Migration):
    """Create the guards."""

    dependencies = [("keystore", "0001_initial")]

    operations = [migrations.RunSQL(_GUARDS, _UNGUARD)]
