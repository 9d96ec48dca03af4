-- Everything that Obhut adds to a protected database: one schema with four functions, no table. Run as a whole; running it again changes nothing.
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
CREATE OR REPLACE FUNCTION obhut.before_change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  PERFORM set_config('obhut.known', '1', true);
  PERFORM pg_logical_emit_message(true, 'obhut', ('{"k":"fact"}'::jsonb || obhut.known())::text);
  RETURN NULL;
END $function$;
REVOKE ALL ON FUNCTION obhut.before_change() FROM PUBLIC;

-- Makes a table tell its old values and its session: called for each captured table, and for each of their partitions.
CREATE OR REPLACE FUNCTION obhut.watch(relation oid, whole_rows boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  IF whole_rows AND (SELECT relreplident <> 'f' FROM pg_class WHERE oid = relation) THEN
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', relation::regclass);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'obhut_before_change') THEN
    EXECUTE format($sql$CREATE TRIGGER obhut_before_change BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT
                   WHEN (coalesce(current_setting('obhut.known', true), '') = '') EXECUTE FUNCTION obhut.before_change()$sql$, relation::regclass);
  END IF;
  IF (SELECT tgenabled <> 'A' FROM pg_trigger WHERE tgrelid = relation AND tgname = 'obhut_before_change') THEN
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER obhut_before_change', relation::regclass);
  END IF;
END $function$;
REVOKE ALL ON FUNCTION obhut.watch(oid, boolean) FROM PUBLIC;
