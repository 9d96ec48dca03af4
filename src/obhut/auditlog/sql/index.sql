-- lock: one writer of the logs of a database at a time, for the session, because tiles are written before the commit and checkpoints after it
SELECT pg_advisory_lock(1096107081, hashtext(%s))

-- unlock: let the next writer in
SELECT pg_advisory_unlock(1096107081, hashtext(%s))

-- mark: how far a source was read
SELECT system, timeline, lsn, ordinal FROM auditlog_mark WHERE database = %s AND source = %s

-- set_mark: note how far a source was read
INSERT INTO auditlog_mark (database, source, system, timeline, lsn, ordinal, at) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (database, source) DO UPDATE
SET system = EXCLUDED.system, timeline = EXCLUDED.timeline, lsn = EXCLUDED.lsn, ordinal = EXCLUDED.ordinal, at = EXCLUDED.at

-- heads: the last log of each controller
SELECT DISTINCT ON (controller) id, controller, period, origin, size, root, tail, removed_at
FROM auditlog_log WHERE controller = ANY(%s) ORDER BY controller, period DESC

-- add_log: a new log, empty until the same transaction ends
INSERT INTO auditlog_log (controller, period, origin, size, root, tail, opened_at, grown_at, checkpoint)
VALUES (%s, %s, %s, 0, '', 0, %s, %s, '') RETURNING id

-- grow: size and root after an append, for many logs at once
UPDATE auditlog_log AS l SET size = g.size, root = g.root, tail = g.tail, grown_at = %s
FROM unnest(%s::int[], %s::bigint[], %s::bytea[], %s::bigint[]) AS g (id, size, root, tail) WHERE l.id = g.id

-- add_topic: the number of a topic, made on first use
INSERT INTO auditlog_topic (database, relation, kind, operation) VALUES (%s, %s, %s, %s)
ON CONFLICT (database, relation, kind, operation) DO UPDATE SET kind = EXCLUDED.kind RETURNING id

-- has_partition: whether the index of a month exists
SELECT to_regclass(%s) IS NOT NULL

-- lock_partitions: one maker of partitions at a time
SELECT pg_advisory_xact_lock(1096107081, 0)

-- settle: acts that are entries now
DELETE FROM auditlog_act WHERE id = ANY(%s)

-- logs: the logs of controllers, the youngest first
SELECT id, controller, period, origin, size, root, tail, removed_at, opened_at, grown_at, checkpoint
FROM auditlog_log WHERE (%(controllers)s::text[] IS NULL OR controller = ANY(%(controllers)s)) ORDER BY period DESC, controller

-- topics: numbers of the topics that are asked for
SELECT id FROM auditlog_topic
WHERE (%(table)s::text IS NULL OR relation = %(table)s) AND (%(operation)s::text IS NULL OR operation = %(operation)s)
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)

-- find_by_topic: the youngest entries of some topics in a log; one probe a topic, whatever the size of the log
SELECT DISTINCT at, seq FROM unnest(%(topics)s::int[]) AS wanted (topic)
CROSS JOIN LATERAL (
    SELECT at, seq FROM auditlog_index i
    WHERE i.period = %(period)s AND i.log = %(log)s AND i.topic = wanted.topic
      AND i.at >= %(since)s AND i.at < %(until)s AND (i.at, i.seq) < (%(before_at)s, %(before_seq)s)
    ORDER BY at DESC, seq DESC LIMIT %(limit)s
) AS found ORDER BY at DESC, seq DESC LIMIT %(limit)s

-- find_by_subject: the youngest entries about a person in a log; one probe a quarter of a million entries, whatever the planner believes of them
SELECT DISTINCT at, seq FROM generate_series(0, %(size)s >> 18) AS part (number)
CROSS JOIN LATERAL (
    SELECT at, seq, topic FROM auditlog_index i
    WHERE i.period = %(period)s AND i.log = %(log)s AND (i.seq >> 18) = part.number AND i.subject = ANY(%(subjects)s::uuid[])
      AND i.subject IS NOT NULL
    OFFSET 0
) AS found
WHERE topic = ANY(%(topics)s) AND at >= %(since)s AND at < %(until)s AND (at, seq) < (%(before_at)s, %(before_seq)s)
ORDER BY at DESC, seq DESC LIMIT %(limit)s

-- acts: what Obhut did and no log says yet, oldest first
SELECT id, controller, database, at, name, detail FROM auditlog_act WHERE database = %s ORDER BY id LIMIT %s

-- pending: how many acts no log says yet, and the oldest
SELECT count(*), min(at) FROM auditlog_act

-- controllers_of: the controllers of a protected database
SELECT id FROM controllers_controller WHERE database = %s ORDER BY id

-- note: note an act by hand, where no row of another table stands for it
INSERT INTO auditlog_act (controller, database, at, name, detail) VALUES (%s, %s, %s, %s, %s)

-- removed: a period whose entries are gone
UPDATE auditlog_log SET removed_at = %s, checkpoint = %s WHERE id = %s

-- drop_rows: the index of a log that goes while others of its month stay
DELETE FROM auditlog_index WHERE period = %s AND log = %s

-- alone: whether every log of a month is gone
SELECT NOT EXISTS (SELECT FROM auditlog_log WHERE period = %s AND removed_at IS NULL)

-- bounds: first and last entry of a time in a log
SELECT min(seq), max(seq) FROM auditlog_index WHERE period = %(period)s AND log = %(log)s AND at >= %(since)s AND at < %(until)s

-- key_ids: keys that a person has or had
SELECT key_id FROM keystore_subject WHERE owner = %s AND fingerprint = %s AND key_id IS NOT NULL ORDER BY life

-- retentions: how long logs are kept, where a controller wants another time than the default
SELECT controller, days FROM auditlog_retention

-- set_retention: how long a controller's logs are kept
INSERT INTO auditlog_retention (controller, days, set_by, set_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (controller) DO UPDATE SET days = EXCLUDED.days, set_by = EXCLUDED.set_by, set_at = EXCLUDED.set_at

-- keep_checkpoint: a checkpoint that a witness was asked about, or cosigned
UPDATE auditlog_log SET checkpoint = %s WHERE id = %s

-- witnesses: keys whose cosignatures are accepted for a controller
SELECT key FROM auditlog_witness WHERE controller = %s ORDER BY id

-- declare_witness: accept a key's cosignatures
INSERT INTO auditlog_witness (controller, key, declared_by, declared_at) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING

-- drop_partition: whether the month has a partition of its own, and its name
SELECT to_regclass(%s)::text

-- recover_log: a log that the control database had forgotten
INSERT INTO auditlog_log (controller, period, origin, size, root, tail, opened_at, grown_at, checkpoint)
VALUES (%s, %s, %s, 0, '', 0, %s, %s, '') ON CONFLICT (controller, period) DO UPDATE SET origin = EXCLUDED.origin RETURNING id, size

-- raise_marks: how far sources were read, at least as far as the entries say
UPDATE auditlog_mark SET timeline = %(timeline)s, lsn = %(lsn)s, ordinal = %(ordinal)s
WHERE database = %(database)s AND system = %(system)s
  AND (timeline, lsn::pg_lsn, ordinal) < (%(timeline)s, %(lsn)s::pg_lsn, %(ordinal)s)

-- captured: when the last position of a database was noted
SELECT max(at) FROM auditlog_mark WHERE database = %s
