-- What decoding cannot see, told by event triggers in the same transaction (needs a superuser, or the provider's stand-in for one).

CREATE OR REPLACE FUNCTION obhut.on_rewrite() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  PERFORM pg_logical_emit_message(true, 'obhut', (jsonb_build_object('k', 'rewrite', 'oid', pg_event_trigger_table_rewrite_oid()::bigint,
                                  'why', pg_event_trigger_table_rewrite_reason()) || obhut.known())::text);
END $function$;

-- Names the objects, never the statement: its text may hold values. A new partition of a captured table is made like its siblings here,
-- before its first row; the vendor's statement goes on where that is not allowed, and the message says how the table stands.
CREATE OR REPLACE FUNCTION obhut.on_ddl() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  command record;
  part record;
BEGIN
  FOR command IN SELECT DISTINCT classid, objid, command_tag, object_type, schema_name FROM pg_event_trigger_ddl_commands()
                 WHERE object_type IN ('table', 'table column', 'trigger', 'event trigger', 'publication', 'publication relation', 'publication namespace')
                   AND schema_name IS DISTINCT FROM 'pg_temp'
  LOOP
    IF command.classid = 'pg_class'::regclass THEN
      FOR part IN SELECT c.oid, c.relreplident, p.relreplident AS wanted FROM pg_partition_tree(command.objid) t JOIN pg_class c ON c.oid = t.relid AND t.isleaf
                  CROSS JOIN LATERAL (SELECT a.relid FROM pg_partition_ancestors(c.oid) a JOIN pg_trigger g ON g.tgrelid = a.relid
                                      WHERE g.tgname = 'obhut_before_change' AND a.relid <> c.oid LIMIT 1) root
                  JOIN pg_class p ON p.oid = root.relid
                  WHERE NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = 'obhut_before_change')
      LOOP
        BEGIN
          PERFORM obhut.watch(part.oid, part.wanted = 'f');
        EXCEPTION WHEN OTHERS THEN
          NULL;
        END;
      END LOOP;
    END IF;
    PERFORM pg_logical_emit_message(true, 'obhut', (jsonb_build_object('k', 'ddl', 'tag', command.command_tag, 'type', command.object_type,
              'oid', command.objid::bigint) || coalesce((SELECT jsonb_build_object('identity', c.relreplident, 'persistence', c.relpersistence)
              FROM pg_class c WHERE c.oid = command.objid AND command.classid = 'pg_class'::regclass), '{}') || obhut.known())::text);
  END LOOP;
END $function$;

CREATE OR REPLACE FUNCTION obhut.on_drop() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  dropped record;
BEGIN
  FOR dropped IN SELECT DISTINCT objid, object_type, coalesce(schema_name, '') AS schema_name, original FROM pg_event_trigger_dropped_objects()
                 WHERE NOT is_temporary AND object_type IN ('table', 'table column', 'trigger', 'event trigger', 'publication', 'publication relation', 'publication namespace')
                   AND (original OR object_type <> 'trigger')
  LOOP
    PERFORM pg_logical_emit_message(true, 'obhut', (jsonb_build_object('k', 'drop', 'type', dropped.object_type, 'oid', dropped.objid::bigint) || obhut.known())::text);
  END LOOP;
END $function$;

REVOKE ALL ON FUNCTION obhut.on_rewrite(), obhut.on_ddl(), obhut.on_drop() FROM PUBLIC;

DO $block$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'obhut_on_rewrite') THEN
    CREATE EVENT TRIGGER obhut_on_rewrite ON table_rewrite EXECUTE FUNCTION obhut.on_rewrite();
    CREATE EVENT TRIGGER obhut_on_ddl ON ddl_command_end EXECUTE FUNCTION obhut.on_ddl();
    CREATE EVENT TRIGGER obhut_on_drop ON sql_drop EXECUTE FUNCTION obhut.on_drop();
    ALTER EVENT TRIGGER obhut_on_rewrite ENABLE ALWAYS;
    ALTER EVENT TRIGGER obhut_on_ddl ENABLE ALWAYS;
    ALTER EVENT TRIGGER obhut_on_drop ENABLE ALWAYS;
  END IF;
END $block$;
