-- enums: labels of every enumerated type, by the name that columns show
SELECT format_type(t.oid, NULL), array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
GROUP BY t.oid

-- triggers: enabled triggers that people made, on the topmost table they were made for
SELECT t.tgrelid::int8, t.tgname
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND coalesce((to_jsonb(t) ->> 'tgparentid')::int8, 0) = 0 AND c.relkind IN ('r', 'p', 'f')
ORDER BY 1, 2

-- rules: rewrite rules other than those that make a view
SELECT r.ev_class::int8, r.rulename
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
WHERE c.relkind IN ('r', 'p') AND r.ev_enabled <> 'D'
ORDER BY 1, 2

-- views: views and materialised views with the relations they read directly
SELECT DISTINCT v.oid::int8, n.nspname || '.' || v.relname, v.relkind::text, d.refobjid::int8
FROM pg_rewrite r
JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
JOIN pg_namespace n ON n.oid = v.relnamespace
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY 2

-- checks: CHECK constraints over exactly one column, of tables and of none else
SELECT con.conrelid::int8, con.conname, a.attname::text, pg_get_expr(con.conbin, con.conrelid)
FROM pg_constraint con
JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = con.conkey[1]
WHERE con.contype = 'c' AND con.conrelid <> 0 AND array_length(con.conkey, 1) = 1
ORDER BY 1, 2

-- partition_keys: columns by which partitioned tables are divided
SELECT p.partrelid::int8, ARRAY(SELECT a.attname::text FROM unnest(p.partattrs::int2[]) k(num)
                                JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k.num)
FROM pg_partitioned_table p
ORDER BY 1

-- index_reads: columns that the expressions and predicates of unique indexes read
SELECT i.indrelid::int8, ic.relname, array_agg(DISTINCT a.attname::text)
FROM pg_index i
JOIN pg_class ic ON ic.oid = i.indexrelid
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refclassid = 'pg_class'::regclass
     AND d.refobjid = i.indrelid AND d.refobjsubid > 0
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
WHERE i.indisunique AND i.indexprs IS NOT NULL
GROUP BY i.indrelid, ic.oid, ic.relname

-- domain_limits: characters at the most of domains over varchar and char
SELECT format_type(t.oid, NULL), t.typtypmod - 4
FROM pg_type t
WHERE t.typtype = 'd' AND t.typtypmod > 4 AND t.typbasetype IN ('varchar'::regtype, 'bpchar'::regtype)
