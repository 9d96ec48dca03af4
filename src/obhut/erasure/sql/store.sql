-- lock: one writer of list, mirror and anchor at a time, for the session, because the mirror is written after the commit
SELECT pg_advisory_lock(%s)

-- unlock: let the next writer in
SELECT pg_advisory_unlock(%s)

-- head: name, size and hash of the list
SELECT origin, size, hash FROM erasure_head

-- head_and_hash_at: the same, and the head after an entry
SELECT origin, size, hash, (SELECT hash FROM erasure_entry WHERE seq = %s) FROM erasure_head

-- head_for_update: the same, keeping it from every other writer until the transaction ends
SELECT origin, size, hash FROM erasure_head FOR UPDATE

-- create: a new, empty list
INSERT INTO erasure_head (id, origin, size, hash) VALUES (1, %s, 0, %s) ON CONFLICT DO NOTHING

-- grow: the head after an append
UPDATE erasure_head SET size = %s, hash = %s

-- hash_at: the head after an entry
SELECT hash FROM erasure_entry WHERE seq = %s

-- counts: rows that exist, whatever the head says
SELECT (SELECT max(seq) FROM erasure_entry), (SELECT count(*) FROM erasure_tombstone)

-- epochs: current restore epoch of each database
SELECT database, max(number) FROM erasure_epoch WHERE database = ANY(%s) GROUP BY database

-- epochs_of: restore epochs of one database
SELECT number, run, system_identifier, timeline, opened_at FROM erasure_epoch WHERE database = %s ORDER BY number

-- all_epochs: restore epochs as they should follow from the entries
SELECT seq, database, number, run, system_identifier, timeline, to_char(opened_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM erasure_epoch ORDER BY seq

-- known_one: the current restore epoch, and beside it the open tombstones with a key that were recorded in it
SELECT epoch.number, t.seq, id, t.database, controller, subject_kind, key, fingerprint, action, map_version, instruction, t.epoch, erased_at, state
FROM (SELECT coalesce(max(number), 0) AS number FROM erasure_epoch WHERE database = %(database)s) AS epoch
LEFT JOIN erasure_tombstone t ON t.database = %(database)s AND subject_kind = %(kind)s AND action = %(action)s AND t.epoch = epoch.number
  AND state IN ('recorded', 'effective') AND key = %(key)s::text[]

-- known_many: the open tombstones with any of many keys, given as a JSON array of array literals (in the order of the keys, so that the
-- index on keys is read between the lowest and the highest even while the server knows nothing about a list that has just grown)
WITH given AS MATERIALIZED (SELECT key::text[] AS key FROM json_array_elements_text(%s::json) AS one (key))
SELECT t.* FROM (
  SELECT seq, id, database, controller, subject_kind, key, fingerprint, action, map_version, instruction, epoch, erased_at, state
  FROM erasure_tombstone
  WHERE database = %s AND subject_kind = %s AND action = %s AND epoch = %s AND state IN ('recorded', 'effective')
    AND key >= (SELECT min(key) FROM given) AND key <= (SELECT max(key) FROM given)
  ORDER BY key OFFSET 0
) AS t
WHERE t.key IN (SELECT key FROM given)

-- add_entries: append entries
COPY erasure_entry (seq, body, hash) FROM STDIN

-- add_tombstones: state of new tombstones
COPY erasure_tombstone (seq, id, database, controller, subject_kind, key, fingerprint, salt, action, map_version, instruction, epoch, erased_at,
                        state, sealed_under) FROM STDIN

-- record_one: a whole append of one tombstone in one statement, unless the head has moved
WITH head AS (UPDATE erasure_head SET size = %s, hash = %s WHERE size = %s AND hash = %s RETURNING size, hash),
     entry AS (INSERT INTO erasure_entry (seq, body, hash) SELECT size, %s, hash FROM head RETURNING seq),
     tombstone AS (
         INSERT INTO erasure_tombstone (seq, id, database, controller, subject_kind, key, fingerprint, salt, action, map_version, instruction,
                                        epoch, erased_at, state, sealed_under)
         SELECT seq, %s, %s, %s, %s, %s::text[], %s, %s, %s, %s, %s, %s, %s::timestamptz, 'recorded', %s FROM entry RETURNING 1
     )
SELECT count(*) FROM tombstone

-- confirm_one: a whole append of one entry that makes one recorded tombstone effective, unless another writer is at work, or the head or the
-- tombstone has moved. What this statement saw before it had the lock does not matter: both updates look at the newest rows.
WITH head AS (
         UPDATE erasure_head SET size = %(seq)s, hash = %(after)s
         WHERE size = %(size)s AND hash = %(hash)s AND (SELECT pg_try_advisory_xact_lock(%(lock)s))
           AND EXISTS (SELECT FROM erasure_tombstone WHERE seq = %(number)s AND state = 'recorded')
         RETURNING size, hash
     ),
     entry AS (INSERT INTO erasure_entry (seq, body, hash) SELECT size, %(body)s, hash FROM head RETURNING seq),
     moved AS (
         UPDATE erasure_tombstone SET state = 'effective', effective_at = %(at)s::timestamptz
         WHERE seq = %(number)s AND state = 'recorded' AND EXISTS (SELECT FROM entry) RETURNING 1
     )
SELECT count(*) FROM moved

-- add_epoch: a new restore epoch
INSERT INTO erasure_epoch (seq, database, number, run, system_identifier, timeline, opened_at) VALUES (%s, %s, %s, %s, %s, %s, %s)

-- add_resolution: a settled conflict
INSERT INTO erasure_resolution (seq, tombstone, decision, found, salt) VALUES (%s, %s, %s, %s, %s)

-- make_effective: recorded tombstones whose erasure is committed
UPDATE erasure_tombstone t SET state = 'effective', effective_at = %s
FROM unnest(%s::bigint[], %s::bigint[]) AS span (low, high)
WHERE t.seq BETWEEN span.low AND span.high

-- forget: lifted or retired tombstones, whose private part goes
UPDATE erasure_tombstone t SET state = %s, key = NULL, fingerprint = NULL, salt = NULL
FROM unnest(%s::bigint[], %s::bigint[]) AS span (low, high)
WHERE t.seq BETWEEN span.low AND span.high

-- forget_resolutions: what was decided about forgotten tombstones
UPDATE erasure_resolution r SET found = NULL, salt = NULL
FROM unnest(%s::bigint[], %s::bigint[]) AS span (low, high)
WHERE r.tombstone BETWEEN span.low AND span.high

-- count_recorded: how many tombstones in these ranges are recorded
SELECT count(*) FROM unnest(%s::bigint[], %s::bigint[]) AS span (low, high)
JOIN erasure_tombstone t ON t.seq BETWEEN span.low AND span.high AND t.state = 'recorded'

-- states_of: states of tombstones by number
SELECT t.seq, t.state FROM unnest(%s::bigint[]) AS given (seq) JOIN erasure_tombstone t USING (seq)

-- by_id: tombstones by id
SELECT seq, id, database, controller, subject_kind, key, fingerprint, action, map_version, instruction, epoch, erased_at, state
FROM erasure_tombstone WHERE id = ANY(%s) ORDER BY seq

-- next_kind: the next kind of data subject that has a tombstone in a database
SELECT min(subject_kind) FROM erasure_tombstone WHERE database = %s AND subject_kind > %s

-- chunk: the next open tombstones of a database and kind
SELECT seq, id, database, controller, subject_kind, key, fingerprint, action, map_version, instruction, epoch, erased_at, state
FROM erasure_tombstone
WHERE database = %s AND subject_kind = %s AND seq > %s AND seq <= %s AND state IN ('recorded', 'effective')
ORDER BY seq LIMIT %s

-- page: tombstones in any state for a reader, without their private part
SELECT seq, id, database, controller, subject_kind, NULL::text[], '', action, map_version, instruction, epoch, erased_at, state
FROM erasure_tombstone
WHERE (%s::text IS NULL OR database = %s) AND (%s::text IS NULL OR state = %s) AND seq > %s ORDER BY seq LIMIT %s

-- count: open tombstones of a database
SELECT count(*) FROM erasure_tombstone WHERE database = %s AND state IN ('recorded', 'effective')

-- states: tombstones by database and state
SELECT database, state, count(*) FROM erasure_tombstone GROUP BY database, state ORDER BY database, state

-- keys: a part of the keys of open tombstones, as array literals that another server reads as they are, one for each column
SELECT count(*), max(seq), array_agg(seq)::text, {columns} FROM (
  SELECT seq, key FROM erasure_tombstone
  WHERE database = %(database)s AND subject_kind = %(kind)s AND seq > %(after)s AND seq <= %(as_of)s
    AND state IN ('recorded', 'effective') AND cardinality(key) = %(width)s
  ORDER BY seq LIMIT %(size)s
) AS part

-- key_lines: numbers and keys of open tombstones whose key is one column
COPY (
  SELECT seq, key[1] FROM erasure_tombstone
  WHERE database = {} AND subject_kind = {} AND seq <= {} AND state IN ('recorded', 'effective') AND cardinality(key) = 1
) TO STDOUT

-- numbered: tombstones by number
SELECT seq, id, database, controller, subject_kind, key, fingerprint, action, map_version, instruction, epoch, erased_at, state
FROM erasure_tombstone WHERE seq = ANY(%s) ORDER BY seq

-- highest_keys: highest number at each position of the key, of those that a sequence can have handed out
SELECT position, max(value::bigint)
FROM erasure_tombstone t, unnest(t.key) WITH ORDINALITY AS part (value, position)
WHERE database = %s AND subject_kind = %s AND length(value) BETWEEN 1 AND 18 AND translate(value, '0123456789', '') = ''
GROUP BY position ORDER BY position

-- open_without_key: open tombstones that nobody could find any more
SELECT count(*) FROM erasure_tombstone WHERE key IS NULL AND state IN ('recorded', 'effective')

-- retirable: effective tombstones of a database that every existing copy is younger than
SELECT seq FROM erasure_tombstone
WHERE database = %s AND state = 'effective' AND (%s::timestamptz IS NULL OR effective_at < %s::timestamptz) ORDER BY seq

-- resolutions: settled conflicts of a database
SELECT r.tombstone, r.found, r.decision
FROM erasure_resolution r JOIN erasure_tombstone t ON t.seq = r.tombstone
WHERE t.database = %s AND r.found IS NOT NULL ORDER BY r.seq

-- all_resolutions: settled conflicts as they should follow from the entries
SELECT seq, tombstone, decision, found, salt FROM erasure_resolution ORDER BY seq

-- labels_in_use: labels under which a private part is still needed
SELECT DISTINCT sealed_under FROM erasure_tombstone WHERE key IS NOT NULL
UNION
SELECT DISTINCT 'erasure-list/' || substr(e.body, 8, 10) FROM erasure_resolution r JOIN erasure_entry e USING (seq) WHERE r.found IS NOT NULL

-- publish: entries that the mirror lacks, with private parts that are still known
SELECT e.seq, e.body, e.hash, t.key, t.fingerprint, coalesce(t.salt, r.salt), r.found
FROM erasure_entry e LEFT JOIN erasure_tombstone t USING (seq) LEFT JOIN erasure_resolution r USING (seq)
WHERE e.seq > %s ORDER BY e.seq LIMIT %s

-- check_block: entries from a number to a number, as texts, hashes, lines of private parts, parts of keys, and states; and the numbers of
-- those whose row in the table of tombstones does not plainly follow from the entry: it has no such row, another value, or a private part
-- that the entry does not commit to or that has to be escaped. (OFFSET 0: each expression is computed once.)
SELECT count(*), string_agg(body, E'\n'), string_agg(hash, ''),
       string_agg(CASE WHEN follows AND key IS NOT NULL THEN concat(seq, ' ', encode(salt, 'hex'), ' ', private) ELSE '' END, E'\n'),
       coalesce(sum(CASE WHEN follows THEN cardinality(key) END), 0)::bigint,
       string_agg(CASE state WHEN 'recorded' THEN '1' WHEN 'effective' THEN '2' WHEN 'lifted' THEN '3' WHEN 'retired' THEN '4' ELSE '0' END, ''),
       array_agg(seq) FILTER (WHERE NOT follows)
FROM (
  SELECT *,
    coalesce(
      sealed_under IS NOT NULL AND action IN ('erase', 'anonymise')
      AND (key IS NULL OR array_ndims(key) = 1 AND array_lower(key, 1) = 1 AND array_position(key, NULL) IS NULL)
      AND body = concat(
        '{"action":"', action, '","at":"', erased_at, '","commitment":"',
        CASE WHEN key IS NULL THEN substr(body, 63 + length(action), 64)
             ELSE encode(sha256(%(prefix)s || salt || convert_to(private, 'UTF8')), 'hex') END,
        '","controller":"', controller, '","database":"', database, '","epoch":', epoch, ',"erased_at":"', erased_at, '","id":"', id,
        '","instruction":"', instruction, '","kind":"tombstone","map":"', map_version, '","seq":', seq, ',"subject":"', subject_kind, '"}'
      ), false) AS follows
  FROM (
    SELECT e.seq, e.body, e.hash, t.id, t.database, t.controller, t.subject_kind, t.key, t.salt, t.action, t.map_version, t.instruction,
           t.epoch, t.state, t.sealed_under, to_char(t.erased_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS erased_at,
           '{"fingerprint":"' || t.fingerprint || '","key":["' || array_to_string(t.key, '","') || '"]}' AS private
    FROM (SELECT * FROM erasure_entry WHERE seq BETWEEN %(low)s AND %(high)s) e
    LEFT JOIN (SELECT * FROM erasure_tombstone WHERE seq BETWEEN %(low)s AND %(high)s) t USING (seq) ORDER BY e.seq OFFSET 0
  ) AS beside OFFSET 0
) AS judged

-- check_rows: entries beside the state of their tombstones
SELECT e.seq, e.body, e.hash, t.id, t.database, t.controller, t.subject_kind, t.key, t.fingerprint, t.salt, t.action, t.map_version, t.instruction,
       t.epoch, to_char(t.erased_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), t.state, t.sealed_under,
       t.key IS NULL OR coalesce(CASE WHEN array_ndims(t.key) = 1 THEN array_lower(t.key, 1) = 1 AND array_position(t.key, NULL) IS NULL END, false)
FROM (SELECT * FROM erasure_entry WHERE seq = ANY(%(numbers)s)) e
LEFT JOIN (SELECT * FROM erasure_tombstone WHERE seq = ANY(%(numbers)s)) t USING (seq) ORDER BY e.seq

-- reveal: the private part of one tombstone
SELECT key, fingerprint FROM erasure_tombstone WHERE id = %s

-- looked: note that somebody looked
INSERT INTO erasure_access (id, tombstone, actor, purpose, at) SELECT %s, seq, %s, %s, %s FROM erasure_tombstone WHERE id = %s
