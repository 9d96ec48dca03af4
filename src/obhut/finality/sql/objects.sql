-- heaps: files of tables and materialised views, and of their TOAST
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, pg_catalog.pg_relation_filenode(c.oid)::int8, pg_catalog.pg_relation_size(c.oid),
       t.oid::int8, pg_catalog.pg_relation_filenode(t.oid)::int8, coalesce(pg_catalog.pg_relation_size(t.oid), 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
WHERE c.oid = ANY(%s::oid[]) AND c.relkind IN ('r', 'm') ORDER BY n.nspname, c.relname

-- indexes: of tables, where one of the listed columns is part of them, also inside an expression; every index of a materialised view
WITH personal AS (SELECT * FROM unnest(%s::oid[], %s::int2[]) AS p (relation, number))
SELECT i.indexrelid::int8, i.indrelid::int8, n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid)::int8, pg_catalog.pg_relation_size(c.oid),
       i.indisvalid, i.indisexclusion
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'i' AND i.indrelid = ANY(%s::oid[]) AND (
  EXISTS (SELECT FROM pg_catalog.pg_class m WHERE m.oid = i.indrelid AND m.relkind = 'm')
  OR EXISTS (SELECT FROM personal p WHERE p.relation = i.indrelid AND (
    p.number = ANY(i.indkey::int2[])
    OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
               AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = p.number))))
ORDER BY n.nspname, c.relname

-- views: filled materialised views that read one of the tables, also through other views
WITH RECURSIVE uses AS (
  SELECT DISTINCT r.ev_class AS view, d.refobjid AS used FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')
  WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class),
reading AS (SELECT view FROM uses WHERE used = ANY(%s::oid[]) UNION SELECT u.view FROM reading r JOIN uses u ON u.used = r.view)
SELECT c.oid::int8 FROM reading r JOIN pg_catalog.pg_class c ON c.oid = r.view WHERE c.relkind = 'm' AND c.relispopulated

-- analysed: when the statistics of tables were renewed, and whether there are any
SELECT c.oid::int8, n.nspname, c.relname, greatest(s.last_analyze, s.last_autoanalyze),
       EXISTS (SELECT FROM pg_catalog.pg_stats p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
WHERE c.oid = ANY(%s::oid[]) ORDER BY n.nspname, c.relname

-- catalogue: the file that holds all statistics
SELECT 'pg_catalog.pg_statistic'::regclass::oid::int8

-- mark: where the server stands: its identifier, the next transaction, the position in the WAL, and its clock
SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()), pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8,
       pg_catalog.pg_current_wal_insert_lsn()::text, clock_timestamp(),
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')

-- older: snapshots, transactions, slots and prepared transactions that are older than a transaction
WITH mark AS (SELECT age((%s::text::xid8)::xid) AS years)
SELECT count(*) FROM mark, (
  SELECT backend_xid FROM pg_catalog.pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_xid IS NOT NULL
  UNION ALL SELECT backend_xmin FROM pg_catalog.pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_xmin IS NOT NULL
  UNION ALL SELECT xmin FROM pg_catalog.pg_replication_slots WHERE xmin IS NOT NULL
  UNION ALL SELECT transaction FROM pg_catalog.pg_prepared_xacts) AS held (x)
WHERE age(held.x) > mark.years

-- slots: replication slots that keep old rows of the catalogue
SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE catalog_xmin IS NOT NULL AND age(catalog_xmin) > age((%s::text::xid8)::xid)

-- wal: address of the first and of the last page of each file of the WAL, as they lie on the disk
SELECT f.name, encode(substr(pg_catalog.pg_read_binary_file('pg_wal/' || f.name, o.at, 16, true), 9, 8), 'hex')
FROM pg_catalog.pg_ls_waldir() f, LATERAL (VALUES (0::int8), (f.size - current_setting('wal_block_size')::int8)) AS o (at)
WHERE f.name ~ '^[0-9A-F]{24}$'

-- readable: whether the role may read the server's files
SELECT pg_catalog.has_function_privilege('pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)', 'EXECUTE')
   AND pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE')
   AND (pg_catalog.pg_has_role(current_user, 'pg_read_server_files', 'USAGE'))
