-- by_keys: open tombstones of people given by their keys, as a JSON array of array literals
SELECT seq, id, database, controller, subject_kind, key, fingerprint, action, map_version, instruction, epoch, erased_at, state
FROM erasure_tombstone
WHERE database = %s AND subject_kind = %s AND state IN ('recorded', 'effective')
  AND key IN (SELECT given.key::text[] FROM json_array_elements_text(%s::json) AS given (key))
ORDER BY seq

-- in_state: the next tombstones of a database in one state
SELECT seq, id, database, controller, subject_kind, key, fingerprint, action, map_version, instruction, epoch, erased_at, state
FROM erasure_tombstone
WHERE database = %s AND state = %s AND seq > %s
ORDER BY seq LIMIT %s

-- opened_system: server of the newest restore epoch of a database
SELECT system_identifier FROM erasure_epoch WHERE database = %s ORDER BY number DESC LIMIT 1

-- anonymised_since: people of a controller and kind whose anonymisation was recorded since a moment
SELECT count(*) FROM erasure_tombstone
WHERE database = %s AND subject_kind = %s AND controller = %s AND action = 'anonymise' AND erased_at >= %s AND state IN ('recorded', 'effective')

-- opened_at: when a restore opened a server
SELECT max(opened_at) FROM erasure_epoch WHERE database = %s AND system_identifier = %s
