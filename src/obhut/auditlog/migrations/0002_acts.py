"""The outbox fills itself: whatever Obhut does with a controller's data is noted in the transaction that does it.

By the table that every path has to write, so that no code can forget it, and a transaction that is rolled back notes nothing.
"""

from django.db import migrations

_NOTE = """
CREATE FUNCTION auditlog_note_controller() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO auditlog_act (controller, database, at, name, detail)
    VALUES (NEW.id, NEW.database, NEW.recorded_at, 'controller.added', jsonb_build_object('actor', NEW.recorded_by));
    RETURN NULL;
END $$;
CREATE TRIGGER auditlog_note AFTER INSERT ON controllers_controller FOR EACH ROW EXECUTE FUNCTION auditlog_note_controller();

CREATE FUNCTION auditlog_note_contract() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO auditlog_act (controller, database, at, name, detail)
    SELECT NEW.controller_id, c.database, CASE TG_OP WHEN 'INSERT' THEN NEW.recorded_at ELSE clock_timestamp() END,
           CASE TG_OP WHEN 'INSERT' THEN 'contract.added' ELSE 'contract.changed' END,
           jsonb_build_object('contract', NEW.id, 'version', NEW.version, 'document', NEW.document_hash)
           || CASE TG_OP WHEN 'INSERT' THEN jsonb_build_object('actor', NEW.recorded_by) ELSE '{}' END
           || CASE WHEN NEW.valid_until IS NULL THEN '{}'
                   ELSE jsonb_build_object('until', to_char(NEW.valid_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) END
    FROM controllers_controller c WHERE c.id = NEW.controller_id;
    RETURN NULL;
END $$;
CREATE TRIGGER auditlog_note AFTER INSERT OR UPDATE ON controllers_contract FOR EACH ROW EXECUTE FUNCTION auditlog_note_contract();

CREATE FUNCTION auditlog_note_instruction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO auditlog_act (controller, database, at, name, detail)
    VALUES (
        NEW.controller_id, NEW.database,
        CASE TG_OP WHEN 'INSERT' THEN NEW.recorded_at ELSE coalesce(NEW.revoked_at, NEW.used_at, clock_timestamp()) END,
        CASE WHEN TG_OP = 'INSERT' THEN 'instruction.given'
             WHEN NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL THEN 'instruction.revoked'
             WHEN NEW.used_by_run <> OLD.used_by_run THEN 'instruction.used' ELSE 'instruction.changed' END,
        jsonb_build_object('instruction', NEW.id, 'contract', NEW.contract_id, 'actions', array_to_string(NEW.actions, ' '),
                           'kind', NEW.kind, 'document', NEW.document_hash,
                           'actor', CASE TG_OP WHEN 'INSERT' THEN NEW.recorded_by ELSE NEW.revoked_by END, 'run', NEW.used_by_run));
    RETURN NULL;
END $$;
CREATE TRIGGER auditlog_note AFTER INSERT OR UPDATE ON controllers_instruction FOR EACH ROW EXECUTE FUNCTION auditlog_note_instruction();

CREATE FUNCTION auditlog_note_refusal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO auditlog_act (controller, database, at, name, detail)
    VALUES (NEW.controller, NEW.database, NEW.at, 'refusal.' || NEW.action,
            jsonb_build_object('actor', NEW.actor, 'code', NEW.reason, 'run', NEW.run));
    RETURN NULL;
END $$;
CREATE TRIGGER auditlog_note AFTER INSERT ON controllers_refusal FOR EACH ROW EXECUTE FUNCTION auditlog_note_refusal();

-- A restore or a copy is everybody's: each controller of the database reads it in its own log.
CREATE FUNCTION auditlog_note_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO auditlog_act (controller, database, at, name, detail)
    VALUES (NULL, NEW.database, coalesce(NEW.finished_at, NEW.heartbeat_at),
            NEW.kind || '.' || CASE NEW.state WHEN 'running' THEN 'started' ELSE NEW.state END,
            jsonb_build_object('run', NEW.id, 'actor', NEW.actor, 'code', NEW.error_code, 'instruction', NEW.instruction_id));
    RETURN NULL;
END $$;
CREATE TRIGGER auditlog_note_begun AFTER INSERT ON journal_run FOR EACH ROW
    WHEN (NEW.kind IN ('restore', 'clone')) EXECUTE FUNCTION auditlog_note_run();
CREATE TRIGGER auditlog_note_moved AFTER UPDATE ON journal_run FOR EACH ROW
    WHEN (NEW.kind IN ('restore', 'clone') AND NEW.state <> OLD.state) EXECUTE FUNCTION auditlog_note_run();

-- Erasures come by the million: one act a statement and controller, with the numbers of the tombstones.
CREATE FUNCTION auditlog_note_tombstones() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO auditlog_act (controller, database, at, name, detail)
    SELECT controller, database, clock_timestamp(), action || '.' || state,
           jsonb_build_object('people', count(*), 'first', min(seq), 'last', max(seq), 'instruction', min(instruction))
    FROM added GROUP BY controller, database, action, state;
    RETURN NULL;
END $$;
CREATE TRIGGER auditlog_note_recorded AFTER INSERT ON erasure_tombstone REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION auditlog_note_tombstones();

CREATE TRIGGER auditlog_note_moved AFTER UPDATE ON erasure_tombstone REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION auditlog_note_tombstones();
"""
_NOTE_NO_MORE = """
DROP FUNCTION auditlog_note_controller, auditlog_note_contract, auditlog_note_instruction, auditlog_note_refusal, auditlog_note_run,
    auditlog_note_tombstones CASCADE
"""


class Migration(migrations.Migration):
    dependencies = [
        ("auditlog", "0001_initial"),
        ("controllers", "0003_refusal"),
        ("journal", "0001_initial"),
        ("erasure", "0003_canary"),
    ]

    operations = [migrations.RunSQL(_NOTE, _NOTE_NO_MORE)]
