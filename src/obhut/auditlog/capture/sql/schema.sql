-- Everything that Obhut adds to a protected database: one schema with five functions, no table. Run as a whole; running it again changes nothing.
--
-- Messages go into the WAL with the transaction and vanish with it, also when a savepoint is rolled back. Nothing is kept in the session
-- beyond the transaction, so a pooler in transaction mode is fine.

CREATE SCHEMA IF NOT EXISTS obhut;
REVOKE ALL ON SCHEMA obhut FROM PUBLIC;
GRANT USAGE ON SCHEMA obhut TO PUBLIC;
COMMENT ON SCHEMA obhut IS 'Obhut: audit log. obhut.context(actor, reason, request) names who acts.';

-- What the server knows about the session; kept by the consumer as fact.
CREATE OR REPLACE FUNCTION obhut.known() RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
  SELECT jsonb_build_object('u', session_user, 'r', nullif(current_setting('role'), 'none'), 'a', current_setting('application_name'),
                            'c', host(inet_client_addr()))
$function$;
REVOKE ALL ON FUNCTION obhut.known() FROM PUBLIC;

-- Says who acts in this transaction, why, and for which request: the application's word, kept as claim. It holds for the changes that follow.
CREATE OR REPLACE FUNCTION obhut.context(actor text, reason text DEFAULT NULL, request text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  PERFORM set_config('obhut.known', '1', true);
  PERFORM pg_logical_emit_message(true, 'obhut', (jsonb_build_object('k', 'context', 'actor', left(actor, 200), 'reason', left(reason, 1000),
                                  'request', left(request, 200)) || obhut.known())::text);
END $function$;
GRANT EXECUTE ON FUNCTION obhut.context(text, text, text) TO PUBLIC;

-- Before the first change of a transaction: the facts of the session. The trigger's condition skips the call for every later statement.
--
-- This runs in every transaction, so it is written to be cheap: the same members as obhut.known() without a call; one assignment, which needs
-- no plan of its own; and every name with its schema instead of a search path that would be switched twice a call.
CREATE OR REPLACE FUNCTION obhut.before_change() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $function$
DECLARE
  told pg_catalog.pg_lsn;
BEGIN
  told := pg_catalog.pg_logical_emit_message(
    pg_catalog.set_config('obhut.known', '1', true) IS NOT NULL, 'obhut',
    pg_catalog.json_build_object(
      'k', 'fact', 'u', session_user,
      'r', CASE WHEN pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none' THEN pg_catalog.current_setting('role') END,
      'a', pg_catalog.current_setting('application_name'), 'c', pg_catalog.host(pg_catalog.inet_client_addr()))::pg_catalog.text);
  RETURN NULL;
END $function$;
REVOKE ALL ON FUNCTION obhut.before_change() FROM PUBLIC;

-- Makes a table tell its old values and its session: called for each captured table, and for each of their partitions.
CREATE OR REPLACE FUNCTION obhut.watch(relation oid, whole_rows boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  before text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'obhut_before_change') THEN
    EXECUTE format($sql$CREATE TRIGGER obhut_before_change BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT
                   WHEN (coalesce(current_setting('obhut.known', true), '') = '') EXECUTE FUNCTION obhut.before_change()$sql$, relation::regclass);
  END IF;
  IF (SELECT tgenabled <> 'A' FROM pg_trigger WHERE tgrelid = relation AND tgname = 'obhut_before_change') THEN
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER obhut_before_change', relation::regclass);
  END IF;
  IF whole_rows AND (SELECT relreplident <> 'f' FROM pg_class WHERE oid = relation) THEN
    -- The table's own identity is noted on the trigger, in the same transaction: it travels with backups, and obhut.unwatch gives it back.
    SELECT CASE c.relreplident WHEN 'n' THEN 'NOTHING' WHEN 'i' THEN coalesce('INDEX ' || i.relname, 'DEFAULT') ELSE 'DEFAULT' END INTO before
    FROM pg_class c LEFT JOIN (pg_index x JOIN pg_class i ON i.oid = x.indexrelid) ON x.indrelid = c.oid AND x.indisreplident WHERE c.oid = relation;
    EXECUTE format('COMMENT ON TRIGGER obhut_before_change ON %s IS %L', relation::regclass, 'Obhut: audit log. Replica identity before: ' || before);
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', relation::regclass);
  END IF;
END $function$;
REVOKE ALL ON FUNCTION obhut.watch(oid, boolean) FROM PUBLIC;

-- Gives a table back the identity that obhut.watch has noted; one whose index is gone gets its primary key. A table that had FULL keeps it.
CREATE OR REPLACE FUNCTION obhut.unwatch(relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  before text := (SELECT substring(obj_description(oid, 'pg_trigger') FROM 'Replica identity before: (.*)$') FROM pg_trigger
                  WHERE tgrelid = relation AND tgname = 'obhut_before_change');
BEGIN
  IF before LIKE 'INDEX %' AND EXISTS (SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = relation AND i.relname = substr(before, 7)) THEN
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', relation::regclass, substr(before, 7));
  ELSIF before IS NOT NULL THEN
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', relation::regclass, CASE before WHEN 'NOTHING' THEN 'NOTHING' ELSE 'DEFAULT' END);
  END IF;
END $function$;
REVOKE ALL ON FUNCTION obhut.unwatch(oid) FROM PUBLIC;
