-- counter: how often keys were destroyed here, and whether keys are in use at all
SELECT destructions, in_use FROM keystore_counter

-- use: from now on erasures leave fences
INSERT INTO keystore_counter AS c (id, destructions, in_use) VALUES (1, 0, true)
    ON CONFLICT (id) DO UPDATE SET in_use = true WHERE NOT c.in_use

-- owners: controllers by name, with the open epoch
SELECT o.controller, o.number, o.lookup, o.epoch, e.number
  FROM keystore_owner o LEFT JOIN keystore_epoch e ON e.controller = o.controller AND e.state = 'open'
 WHERE o.controller = ANY(%(controllers)s)

-- epoch_keys: wrapped keys of epochs
SELECT e.controller, e.number, e.wrapped, e.state
  FROM keystore_epoch e
  JOIN unnest(%(controllers)s::text[], %(numbers)s::int[]) w (controller, number) ON e.controller = w.controller AND e.number = w.number

-- last_epoch: number of a controller's youngest epoch, 0 when it has none
SELECT coalesce(max(number), 0) FROM keystore_epoch WHERE controller = %(controller)s

-- open_epoch: a first or next epoch
INSERT INTO keystore_epoch (controller, number, state, wrapped, opened_at)
VALUES (%(controller)s, %(number)s, 'open', %(wrapped)s, %(now)s) ON CONFLICT DO NOTHING

-- add_owner: a controller's first use of keys
INSERT INTO keystore_owner (controller, lookup, epoch) VALUES (%(controller)s, %(lookup)s, %(number)s) ON CONFLICT DO NOTHING

-- find: the latest life of each subject
SELECT w.n, s.key_id, s.wrapped, s.epoch
  FROM (SELECT owner, substr(%(prints)s::bytea, n::int * 16 - 15, 16) AS fingerprint, n
          FROM unnest(%(owners)s::int[]) WITH ORDINALITY AS u (owner, n)) w
 CROSS JOIN LATERAL (
       SELECT key_id, wrapped, epoch FROM keystore_subject s
        WHERE s.owner = w.owner AND s.fingerprint = w.fingerprint ORDER BY life DESC LIMIT 1) s

-- add: new keys, as long as the epoch that wraps them is open; returned are those that were not there
WITH open AS MATERIALIZED (
     SELECT e.number, o.number AS owner
       FROM keystore_epoch e JOIN keystore_owner o USING (controller)
      WHERE o.number = ANY(%(distinct)s::int[]) AND e.state = 'open' FOR SHARE OF e)
INSERT INTO keystore_subject (owner, fingerprint, life, epoch, key_id, wrapped)
SELECT w.owner, w.fingerprint, 1, w.epoch, w.key_id, w.wrapped
  FROM (SELECT owner, epoch, substr(%(prints)s::bytea, n::int * 16 - 15, 16) AS fingerprint,
               substr(%(ids)s::bytea, n::int * 16 - 15, 16) AS key_id, substr(%(wrapped)s::bytea, n::int * 60 - 59, 60) AS wrapped
          FROM unnest(%(owners)s::int[], %(epochs)s::int[]) WITH ORDINALITY AS u (owner, epoch, n)) w
  JOIN open ON open.owner = w.owner AND open.number = w.epoch
 ORDER BY w.owner, w.fingerprint
ON CONFLICT (owner, fingerprint, life) DO NOTHING
RETURNING key_id

-- begin: a new life of a subject whose key was destroyed before the moment
WITH open AS MATERIALIZED (
     SELECT e.number FROM keystore_epoch e JOIN keystore_owner o USING (controller)
      WHERE o.number = %(owner)s AND e.state = 'open' FOR SHARE OF e)
INSERT INTO keystore_subject (owner, fingerprint, life, epoch, key_id, wrapped, began_at)
SELECT s.owner, s.fingerprint, s.life + 1, open.number, %(id)s, %(wrapped)s, %(at)s
  FROM (SELECT * FROM keystore_subject WHERE owner = %(owner)s AND fingerprint = %(print)s ORDER BY life DESC LIMIT 1) s, open
 WHERE s.wrapped IS NULL AND s.destroyed_at < %(at)s - interval '1 minute' AND open.number = %(epoch)s
ON CONFLICT DO NOTHING

-- by_id: keys for readers
SELECT s.key_id, o.controller, s.wrapped, s.epoch
  FROM keystore_subject s LEFT JOIN keystore_owner o ON o.number = s.owner WHERE s.key_id = ANY(%(ids)s)

-- count_up: one more destruction; its row is the lock of those who destroy
UPDATE keystore_counter SET destructions = greatest(destructions, %(floor)s) + 1 RETURNING destructions

-- destroy: take the keys of subjects away, and leave a fence for each; lives that began later stay
WITH w AS (
     SELECT substr(%(prints)s::bytea, n::int * 16 - 15, 16) AS fingerprint, max(until) AS until
       FROM unnest(%(untils)s::timestamptz[]) WITH ORDINALITY AS u (until, n) GROUP BY 1),
     before AS (
     SELECT w.fingerprint, w.until, l.life, l.began_at, l.wrapped, l.key_id
       FROM w LEFT JOIN LATERAL (
            SELECT life, began_at, wrapped, key_id FROM keystore_subject s
             WHERE s.owner = %(owner)s AND s.fingerprint = w.fingerprint AND (s.began_at IS NULL OR s.began_at <= w.until)
             ORDER BY life DESC LIMIT 1) l ON true),
     done AS (
     INSERT INTO keystore_subject AS s (owner, fingerprint, life, epoch, began_at, destroyed_at, destruction)
     SELECT %(owner)s, fingerprint, coalesce(life, 1), 0, began_at, until, %(number)s FROM before ORDER BY fingerprint
         ON CONFLICT (owner, fingerprint, life) DO UPDATE
        SET wrapped = NULL, destruction = excluded.destruction, destroyed_at = greatest(s.destroyed_at, excluded.destroyed_at))
SELECT count(*) FILTER (WHERE wrapped IS NOT NULL), count(*) FILTER (WHERE wrapped IS NULL AND key_id IS NOT NULL),
       count(*) FILTER (WHERE key_id IS NULL)
  FROM before

-- alive: how many of these subjects have a key that began before the moment
SELECT count(*) FROM keystore_subject s
  JOIN (SELECT substr(%(prints)s::bytea, n::int * 16 - 15, 16) AS fingerprint, until
          FROM unnest(%(untils)s::timestamptz[]) WITH ORDINALITY AS u (until, n)) w USING (fingerprint)
 WHERE s.owner = %(owner)s AND s.wrapped IS NOT NULL AND (s.began_at IS NULL OR s.began_at <= w.until)

-- unfenced: how many of these subjects have no fence
SELECT count(*) FROM (SELECT DISTINCT substr(%(prints)s::bytea, n * 16 - 15, 16) AS p FROM generate_series(1, %(count)s) n) w
 WHERE NOT EXISTS (SELECT FROM keystore_subject s WHERE s.owner = %(owner)s AND s.fingerprint = w.p AND s.wrapped IS NULL)

-- close_epoch: nothing new is wrapped under the open epoch
UPDATE keystore_epoch SET state = 'closing' WHERE controller = %(controller)s AND state = 'open' RETURNING number

-- move_lookup: the lookup key wrapped anew
UPDATE keystore_owner SET lookup = %(lookup)s, epoch = %(number)s WHERE controller = %(controller)s

-- survivors: keys of a controller behind a fingerprint and life, in their order
SELECT fingerprint, life, key_id, wrapped, epoch FROM keystore_subject
 WHERE owner = %(owner)s AND (fingerprint, life) > (%(print)s, %(life)s) AND wrapped IS NOT NULL AND epoch <> %(number)s
 ORDER BY fingerprint, life LIMIT %(size)s

-- move: survivors wrapped anew, unless they were destroyed meanwhile
UPDATE keystore_subject s SET wrapped = w.wrapped, epoch = %(number)s
  FROM (SELECT substr(%(prints)s::bytea, n::int * 16 - 15, 16) AS fingerprint, life, epoch,
               substr(%(wrapped)s::bytea, n::int * 60 - 59, 60) AS wrapped
          FROM unnest(%(lives)s::smallint[], %(epochs)s::int[]) WITH ORDINALITY AS u (life, epoch, n)) w
 WHERE s.owner = %(owner)s AND s.fingerprint = w.fingerprint AND s.life = w.life AND s.epoch = w.epoch AND s.wrapped IS NOT NULL

-- emptied: close the epochs that wrap nothing alive any more
UPDATE keystore_epoch e SET state = 'closed', closed_at = %(now)s, destroy_after = %(after)s
 WHERE controller = %(controller)s AND state = 'closing'
   AND NOT EXISTS (SELECT FROM keystore_subject s WHERE s.owner = %(owner)s AND s.epoch = e.number AND s.wrapped IS NOT NULL)
   AND NOT EXISTS (SELECT FROM keystore_owner o WHERE o.number = %(owner)s AND o.epoch = e.number)
RETURNING number

-- hasten: closed epochs of a controller may be destroyed at once
UPDATE keystore_epoch SET destroy_after = least(destroy_after, %(now)s) WHERE controller = %(controller)s AND state = 'closed'

-- due: closed epochs whose key may be destroyed
SELECT controller, number FROM keystore_epoch
 WHERE state = 'closed' AND destroy_after <= %(now)s AND (%(controller)s::text IS NULL OR controller = %(controller)s) ORDER BY controller, number

-- destroyed: the key of an epoch has gone
UPDATE keystore_epoch SET state = 'destroyed', wrapped = NULL, destroyed_at = %(now)s, final_on = %(final_on)s
 WHERE controller = %(controller)s AND number = %(number)s AND state = 'closed'

-- gone_epochs: epochs whose key was destroyed
SELECT controller, number FROM keystore_epoch WHERE state = 'destroyed'

-- status: controllers with their open epoch, keys, fences, and what is not final yet
SELECT o.controller, e.number, e.opened_at,
       (SELECT count(*) FROM keystore_subject s WHERE s.owner = o.number AND s.wrapped IS NOT NULL),
       (SELECT count(*) FROM keystore_subject s WHERE s.owner = o.number AND s.wrapped IS NULL),
       (SELECT count(*) FROM keystore_subject s WHERE s.owner = o.number AND s.wrapped IS NULL AND s.key_id IS NOT NULL AND s.epoch IN
               (SELECT number FROM keystore_epoch p WHERE p.controller = o.controller AND (p.final_on IS NULL OR p.final_on > %(now)s)))
  FROM keystore_owner o LEFT JOIN keystore_epoch e ON e.controller = o.controller AND e.state = 'open'
 WHERE %(controller)s::text IS NULL OR o.controller = %(controller)s ORDER BY o.controller

-- epochs: all epochs of a controller
SELECT number, state, opened_at, closed_at, destroy_after, destroyed_at, final_on FROM keystore_epoch
 WHERE controller = %(controller)s ORDER BY number

-- rotatable: controllers whose open epoch is older than a moment and wrapped a key that was destroyed
SELECT e.controller FROM keystore_epoch e JOIN keystore_owner o USING (controller)
 WHERE e.state = 'open' AND e.opened_at < %(before)s
   AND EXISTS (SELECT FROM keystore_subject s WHERE s.owner = o.number AND s.destruction IS NOT NULL AND s.epoch = e.number)

-- unfinished: controllers with a rotation that was interrupted
SELECT DISTINCT controller FROM keystore_epoch WHERE state = 'closing'

-- hold: renew a lease and tell how often keys were destroyed
INSERT INTO keystore_holder AS h (id, boot_id, pid, pid_started, lease_until, seen)
SELECT %(id)s, %(boot)s, %(pid)s, %(started)s, now() + %(seconds)s * interval '1 second', c.destructions FROM keystore_counter c
    ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
RETURNING (SELECT destructions FROM keystore_counter), seen

-- seen: this process has forgotten what was destroyed up to a number
UPDATE keystore_holder SET seen = %(number)s WHERE id = %(id)s AND seen < %(number)s

-- release: this process holds no keys any more
DELETE FROM keystore_holder WHERE id = %(id)s

-- destroyed_ids: keys that were destroyed after a number, and whether there are too many to name
SELECT key_id FROM keystore_subject WHERE destruction > %(number)s AND key_id IS NOT NULL LIMIT %(limit)s

-- holders: processes that may still hold keys destroyed under a number
SELECT id, boot_id, pid, pid_started, extract(epoch FROM lease_until - now())::float8 FROM keystore_holder
 WHERE lease_until > now() AND seen < %(number)s AND id <> %(id)s

-- expire: forget processes whose lease ended an hour ago
DELETE FROM keystore_holder WHERE lease_until < now() - interval '1 hour'

-- open_epochs: the open epoch of each controller
SELECT controller, number FROM keystore_epoch WHERE state = 'open' ORDER BY controller

-- drop_lost: take away keys that do not open any more; fences stay, under a number that is nobody's
WITH gone AS (
     DELETE FROM keystore_subject s USING keystore_owner o
      WHERE o.controller = %(controller)s AND s.owner = o.number AND s.wrapped IS NOT NULL RETURNING 1)
SELECT count(*) FROM gone

-- drop_owner: the number of a controller whose lookup key does not open any more
DELETE FROM keystore_owner WHERE controller = %(controller)s

-- lose_open: first move of an epoch whose key is lost
UPDATE keystore_epoch SET state = 'closing' WHERE controller = %(controller)s AND state = 'open'

-- lose_closing: second move; it is destroyed as any other that is due
UPDATE keystore_epoch SET state = 'closed', closed_at = %(now)s, destroy_after = %(now)s WHERE controller = %(controller)s AND state = 'closing'
