-- settings: what the server must offer
SELECT current_setting('wal_level'), pg_is_in_recovery(), current_setting('server_version_num')::int,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
       current_setting('sync_replication_slots', true),
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)

-- forgeable: overloads of the function that writes messages which everybody may call
SELECT p.oid::regprocedure::text FROM pg_proc p
WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')

-- messages: overloads of that function
SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace

-- closed: whether it was Obhut who took the right to it from everybody
SELECT obj_description(to_regprocedure('obhut.known()'), 'pg_proc') = %s

-- functions: Obhut's own in its schema
SELECT p.oid::regprocedure::text FROM pg_proc p
WHERE p.pronamespace = to_regnamespace('obhut')
  AND p.proname IN ('known', 'context', 'before_change', 'watch', 'unwatch', 'on_rewrite', 'on_ddl', 'on_drop')

-- shared: whether something lies in the schema once Obhut's functions are gone
SELECT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace('obhut') AND deptype IN ('n', 'a'))

-- strangers: tables and views in Obhut's schema; it has none of its own
SELECT count(*)::int FROM pg_class WHERE relnamespace = to_regnamespace('obhut') AND relkind IN ('r', 'p', 'v', 'm', 'f')

-- namesake: whether a role has the schema's name, and so makes tables there that it means for another
SELECT EXISTS (
  SELECT FROM pg_roles r
  WHERE r.rolname = 'obhut' AND r.rolcanlogin AND has_schema_privilege(r.oid, to_regnamespace('obhut')::oid, 'CREATE')
    AND NOT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) AS c (setting)
                    WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                      AND c.setting LIKE 'search\_path=%' AND c.setting NOT LIKE '%$user%'))

-- watched: tables that Obhut watches, also those that the map no longer names
SELECT tgrelid::bigint FROM pg_trigger WHERE tgname = 'obhut_before_change' AND tgfoid = to_regprocedure('obhut.before_change()')

-- identities: tables whose replica identity Obhut has changed, with the one before
SELECT n.nspname::text, c.relname::text, substring(obj_description(g.oid, 'pg_trigger') FROM 'Replica identity before: (.*)$')
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE g.tgname = 'obhut_before_change' AND g.tgfoid = to_regprocedure('obhut.before_change()')
  AND obj_description(g.oid, 'pg_trigger') LIKE '%%Replica identity before: %%'

-- has_table: whether there is a table of a name
SELECT true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s

-- identity_index: whether a table has an index of a name
SELECT true FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND i.relname = %s

-- publication: whether the publication is made as Obhut makes it
SELECT NOT puballtables AND pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot AND coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's'
FROM pg_publication p WHERE pubname = %s

-- members: tables that the publication names, and whether it sends their rows whole
SELECT r.prrelid::bigint, coalesce(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') IS NULL
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = %s

-- published: leaf tables that the publication has, with row filters or column lists
SELECT c.oid::bigint, coalesce(r.prqual IS NOT NULL OR r.prattrs IS NOT NULL, false)
FROM pg_publication_tables t JOIN pg_class c ON c.relname = t.tablename AND c.relnamespace = quote_ident(t.schemaname)::regnamespace
LEFT JOIN (pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = %(name)s) ON r.prrelid = c.oid
WHERE t.pubname = %(name)s

-- published14: leaf tables that the publication has, on a server before PostgreSQL 15
SELECT c.oid::bigint, false
FROM pg_publication_tables t JOIN pg_class c ON c.relname = t.tablename AND c.relnamespace = quote_ident(t.schemaname)::regnamespace
WHERE t.pubname = %(name)s

-- tables: how tables stand (oid, kept values, persistence, file, trigger)
SELECT c.oid::bigint, c.relreplident::text, c.relpersistence::text, c.relfilenode::bigint,
       coalesce((SELECT g.tgenabled::text FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = 'obhut_before_change'), '-')
FROM pg_class c WHERE c.oid = ANY(%s::oid[])

-- event_triggers: event triggers of Obhut that are on
SELECT count(*)::int FROM pg_event_trigger WHERE evtname LIKE 'obhut\_on\_%%' AND evtenabled = 'A'

-- identity: which database of the server this is
SELECT oid::bigint FROM pg_database WHERE datname = current_database()

-- end: position behind all WAL of the server
SELECT pg_current_wal_insert_lsn()::text

-- slot: state of the slot
SELECT plugin, slot_type, database, active, confirmed_flush_lsn::text, restart_lsn::text, wal_status,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn)::bigint END,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), confirmed_flush_lsn)::bigint END, safe_wal_size,
       datoid::bigint
FROM pg_replication_slots WHERE slot_name = %s

-- create_slot: a slot for the output plug-in, before PostgreSQL 17
SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')

-- create_failover_slot: a slot that standbys keep, from PostgreSQL 17
SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)

-- drop_slot: away with the slot, if it is there
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s

-- heartbeat: a message that shows whether the stream is alive
SELECT pg_logical_emit_message(true, 'obhut', 'heartbeat')
