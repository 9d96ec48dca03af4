-- tables: every ordinary, partitioned and foreign table outside the system schemas, with its partition parent
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relispartition,
       (SELECT i.inhparent::int8 FROM pg_inherits i WHERE i.inhrelid = c.oid AND c.relispartition),
       NOT c.relispartition AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid),
       greatest(c.reltuples, 0)::int8, greatest(c.relpages, 0)::int8,
       pg_relation_size(c.oid), pg_total_relation_size(c.oid),
       e.extname, c.relrowsecurity, obj_description(c.oid, 'pg_class'), c.reltoastrelid <> 0
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
LEFT JOIN pg_extension e ON e.oid = d.refobjid
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY n.nspname, c.relname

-- columns: every live column of those tables and of materialised views
SELECT a.attrelid::int8, a.attname, format_type(a.atttypid, a.atttypmod), format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), NULL),
       a.attnotnull OR coalesce(t.typnotnull, false), pg_get_expr(ad.adbin, ad.adrelid), a.attgenerated::text, a.attidentity::text,
       bt.typcategory::text, t.typtype::text, col_description(a.attrelid, a.attnum), a.attnum, a.atttypmod
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type bt ON bt.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
LEFT JOIN pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY a.attrelid, a.attnum

-- keys: primary keys and unique indexes; an index with an expression has a null among its columns
SELECT i.indrelid::int8, ic.relname, i.indisprimary, i.indisunique,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, n)
             LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num AND k.num > 0
             WHERE k.n <= i.indnkeyatts ORDER BY k.n),
       pg_get_expr(i.indpred, i.indrelid), i.indisvalid,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) -- since version 15
FROM pg_index i
JOIN pg_class ic ON ic.oid = i.indexrelid
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND c.relkind IN ('r', 'p')
ORDER BY i.indrelid, NOT i.indisprimary, ic.relname

-- foreign_keys: declared ones only; the copies that partitions inherit are left out
SELECT con.oid::int8, con.conname, con.conrelid::int8, con.confrelid::int8,
       ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY k(num, n)
             JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.num ORDER BY k.n),
       ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY k(num, n)
             JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.num ORDER BY k.n),
       con.confdeltype::text, con.confupdtype::text, con.confmatchtype::text, con.convalidated, con.condeferrable,
       coalesce(to_jsonb(con) ->> 'conenforced', 'true') = 'true',
       ARRAY(SELECT a.attname::text
             FROM jsonb_array_elements_text(CASE jsonb_typeof(to_jsonb(con) -> 'confdelsetcols')
                                            WHEN 'array' THEN to_jsonb(con) -> 'confdelsetcols' ELSE '[]' END) s(num)
             JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = s.num::int2)
FROM pg_constraint con
JOIN pg_class c ON c.oid = con.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE con.contype = 'f' AND con.conparentid = 0 AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY con.conrelid, con.conname

-- sequences: each with its column, whether owned or only used in a default
SELECT c.oid::int8, n.nspname, c.relname, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
       coalesce(own.refobjid, used.refobjid)::int8, coalesce(owna.attname, useda.attname), own.refobjid IS NOT NULL,
       e.extname
FROM pg_sequence s
JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend own ON own.classid = 'pg_class'::regclass AND own.objid = c.oid AND own.refclassid = 'pg_class'::regclass
     AND own.deptype IN ('a', 'i') AND own.refobjsubid > 0
LEFT JOIN pg_attribute owna ON owna.attrelid = own.refobjid AND owna.attnum = own.refobjsubid
LEFT JOIN LATERAL (SELECT ad.adrelid AS refobjid, ad.adnum AS num
                   FROM pg_depend u JOIN pg_attrdef ad ON u.classid = 'pg_attrdef'::regclass AND ad.oid = u.objid
                   WHERE u.refclassid = 'pg_class'::regclass AND u.refobjid = c.oid ORDER BY 1 LIMIT 1) used ON true
LEFT JOIN pg_attribute useda ON useda.attrelid = used.refobjid AND useda.attnum = used.num
LEFT JOIN pg_depend de ON de.classid = 'pg_class'::regclass AND de.objid = c.oid AND de.deptype = 'e'
LEFT JOIN pg_extension e ON e.oid = de.refobjid
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY n.nspname, c.relname

-- extensions: installed ones with their versions
SELECT extname, extversion FROM pg_extension ORDER BY extname

-- matviews: materialised views
SELECT c.oid::int8, n.nspname, c.relname, c.relispopulated
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' ORDER BY n.nspname, c.relname
