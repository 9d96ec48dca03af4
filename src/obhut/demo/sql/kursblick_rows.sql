-- addresses: the first five belong to companies
INSERT INTO addresses (id, street, postal_code, city)
SELECT i, s.streets[1 + i % cardinality(s.streets)] || ' ' || 1 + i / 7 % 120, lpad((10000 + i * 37 % 89000)::text, 5, '0'), s.cities[1 + i / 3 % cardinality(s.cities)]
FROM generate_series(1, 5 + 60000) AS i, (SELECT
  '{Lindenstraße,Hafenweg,Am Mühlbach,Rosengasse,Goethestraße,Kirchplatz,Bahnhofstraße,Schulweg,Eichenallee,Marktplatz,Gartenweg,Brunnengasse,Talstraße,Bergweg}'::text[] AS streets,
  '{Hamburg,Berlin,München,Köln,Frankfurt,Stuttgart,Leipzig,Dresden,Bremen,Hannover,Nürnberg,Freiburg,Münster,Rostock,Kassel,Jena,Wien,Zürich}'::text[] AS cities) AS s;

-- tenants: five companies
INSERT INTO tenants (id, slug, name, address_id, tariff, created_at) VALUES
  (1, 'vhs-nordhafen', 'Volkshochschule Nordhafen', 1, 'large', '2023-02-01'), (2, 'lindenhof', 'Sprachschule Lindenhof', 2, 'large', '2023-05-10'),
  (3, 'isartal', 'Yogahaus Isartal', 3, 'basic', '2023-09-01'), (4, 'it-main', 'IT-Akademie am Main', 4, 'basic', '2024-01-15'),
  (5, 'elbufer', 'Kochwerkstatt Elbufer', 5, 'basic', '2024-04-01');

-- courses: rooms, courses and trainers
INSERT INTO rooms (id, tenant_id, name, seats) SELECT i, 1 + i % 5, 'Raum ' || 100 + i, 8 + i % 5 * 4 FROM generate_series(1, 60) AS i;
INSERT INTO courses (id, tenant_id, title, language, price)
SELECT i, 1 + (i - 1) / 24, s.titles[1 + i % cardinality(s.titles)] || ' ' || (ARRAY['I', 'II', 'III'])[1 + i % 3], 'de', 49 + i % 12 * 20
FROM generate_series(1, 120) AS i, (SELECT '{Spanisch,Yoga am Morgen,Python,Brotbacken,Aquarell,Buchhaltung,Italienisch,Rückenfit,SQL,Sushi,Fotografie,Rhetorik}'::text[] AS titles) AS s;
INSERT INTO trainers (id, tenant_id, display_name, email, hourly_rate, created_at)
SELECT i, 1 + i % 5, (ARRAY['Ines', 'Jonas', 'Aylin', 'Marek', 'Chiara', 'Tomasz', 'Leyla'])[1 + i % 7] || ' ' || (ARRAY['Brandt', 'Okafor', 'Yıldız', 'Novák', 'Seidel'])[1 + i % 5],
       'trainer' || i || '@kursblick.example', 35 + i % 8 * 5, timestamptz '2024-01-01' + i * interval '1 day'
FROM generate_series(1, 90) AS i;

-- participants: 60,000 people; households share addresses, one in eight has a billing address of their own
INSERT INTO participants (id, tenant_id, address_id, billing_address_id, first_name, last_name, email, phone, born_on, locale, active, settings, created_at, last_seen_at, updated_at)
OVERRIDING SYSTEM VALUE
SELECT i, CASE WHEN i % 100 < 40 THEN 1 WHEN i % 100 < 65 THEN 2 WHEN i % 100 < 83 THEN 3 WHEN i % 100 < 95 THEN 4 ELSE 5 END,
       6 + i / 2, CASE WHEN i % 8 = 7 THEN 6 + 30000 + i / 2 END, s.first, s.last,
       lower(translate(s.first || '.' || s.last, 'äöüéçğışńłÖÜÇŞ ', 'aouecgisnlouccs-')) || '.' || i || (ARRAY['@example.com', '@example.org', '@example.net', '@mail.example'])[1 + i % 4],
       CASE WHEN i % 3 > 0 THEN (ARRAY['+49 30 23125 ', '+49 69 90009 ', '+49 40 66969 ', '+49 89 99998 '])[1 + i % 4] || lpad((i % 1000)::text, 3, '0') END,
       date '1950-01-01' + i * 7 % 20000, (ARRAY['de-DE', 'de-DE', 'de-AT', 'en-GB', 'tr-TR'])[1 + i % 5], i % 11 > 0,
       jsonb_build_object('reminders', i % 2 = 0, 'nickname', s.first || i % 100), s.created,
       CASE WHEN i % 100 < 95 THEN now() - i % 30 * interval '1 day' ELSE s.created + i * 13 % 400 * interval '1 day' END, s.created
FROM (SELECT i, timestamptz '2025-01-01' + i * interval '9 minutes' AS created, n.firsts[1 + i * 7 % cardinality(n.firsts)] AS first,
             n.lasts[1 + (i / 64 + i * 3) % cardinality(n.lasts)] AS last
      FROM generate_series(1, 60000) AS i, (SELECT
        '{Anna,Lukas,Zeynep,Mehmet,Olena,Giulia,Jakub,Marie,Felix,Aylin,Noah,Emilia,Łukasz,Chloé,Ravi,Mei,Amara,Sofia,Jonas,Lea,Paul,Ida,Omar,Nadia,Ben,Clara,Yusuf,Hanna,Elif,Moritz,Freya,Tariq,Greta,Ivan,Luana,Kofi,Johanna,Samir,Mila,Anton,Linh,Theo,Rosa,Emre,Ella,Mateo,Frieda,Dario,Selin,Hugo,Carla}'::text[] AS firsts,
        '{Müller,Schmidt,Yılmaz,Kowalski,Rossi,Fischer,Nguyen,Weber,Hoffmann,Novák,Schäfer,Koch,Kaya,Richter,Petrov,Klein,Wolf,Schröder,Neumann,García,Braun,Zimmermann,Krüger,Hartmann,Lange,Okafor,Werner,Krause,Lehmann,Öztürk,Maier,Köhler,König,Huber,Singh,Fuchs,Peters,Lang,Scholz,Möller,Weiß,Jung,Hahn,Vogel,Friedrich,Keller,Günther,Berger,Winkler,Lorenz,Kumar,Baumann,Franke,Albrecht,Ludwig,Simon,Böhm,Schulte,Kraus,Dubois,Silva,Haddad,Lindqvist}'::text[] AS lasts) AS n) AS s;

-- course_runs: twenty runs of each course, some with a waiting list
INSERT INTO course_runs (id, course_id, room_id, trainer_id, starts_at, seats, waitlist)
SELECT r, 1 + (r - 1) / 20, 1 + r % 60, 1 + r % 90, timestamptz '2025-02-01 18:00' + r % 500 * interval '1 day', 12,
       CASE WHEN r % 6 = 0 THEN ARRAY[1 + r * 97 % 60000, 1 + r * 131 % 60000, 1 + r * 173 % 60000]
            WHEN r = 1003 THEN ARRAY[815, 4711, 42] ELSE '{}' END
FROM generate_series(1, 2400) AS r;

-- bookings: three courses of the own company for each participant
INSERT INTO bookings (id, participant_id, run_id, status, price, note, booked_at, updated_at)
SELECT (p.id - 1) * 3 + n, p.id, (p.tenant_id - 1) * 480 + 1 + (p.id * 17 + n * 161) % 480,
       (ARRAY['attended', 'attended', 'booked', 'cancelled', 'waiting'])[1 + (p.id + n + 3) % 5]::booking_status, 49 + (p.id + n) % 12 * 20,
       CASE WHEN (p.id + n) % 9 = 0 THEN 'vegetarisch, bitte Platz am Fenster' END, p.created_at + n * interval '20 days', p.created_at + n * interval '20 days'
FROM participants AS p, generate_series(1, 3) AS n;

-- payments: for two bookings in three
INSERT INTO payments (id, booking_id, participant_id, paid_at, amount, method, payer_name, iban_end)
SELECT row_number() OVER (ORDER BY b.id), b.id, b.participant_id, b.booked_at + interval '2 days', b.price, (ARRAY['sepa', 'card', 'invoice'])[1 + b.id % 3],
       p.full_name, lpad((b.id % 10000)::text, 4, '0')
FROM bookings AS b JOIN participants AS p ON p.id = b.participant_id WHERE b.id % 3 > 0;

-- invoices: one for each payment
INSERT INTO invoices (number, tenant_id, participant_id, booking_id, recipient, recipient_city, amount, issued_on)
SELECT 2025000000 + m.id, p.tenant_id, p.id, m.booking_id, p.full_name, a.city, m.amount, m.paid_at::date
FROM payments AS m JOIN participants AS p ON p.id = m.participant_id JOIN addresses AS a ON a.id = p.address_id;

-- messages: between two people of one company
INSERT INTO messages (id, sender_id, sender_name, recipient_id, recipient_name, subject, body, sent_at)
SELECT i, s.id, s.full_name, r.id, r.full_name, 'Frage zum Kurs', 'Hallo ' || r.first_name || ', kommst du am ' || 1 + i % 28 || '. auch? Viele Grüße, ' || s.first_name,
       greatest(s.created_at, r.created_at) + i % 90 * interval '1 day'
FROM generate_series(1, 80000) AS i JOIN participants AS s ON s.id = 1 + (i * 3 + i / 60000) % 60000 JOIN participants AS r ON r.id = 1 + (s.id + 99 + i / 20000 * 100) % 60000;

-- course_comments: every second one is an answer to the one before
INSERT INTO course_comments (id, run_id, participant_id, reply_to, body, created_at)
SELECT i, 1 + i / 2 % 2400, 1 + (i + 1) * 3 % 60000, CASE WHEN i % 2 = 0 THEN i - 1 END, (ARRAY['Toller Kurs!', 'Gibt es eine Fortsetzung?', 'Der Raum war etwas kalt.', 'Danke an alle!'])[1 + i % 4],
       timestamptz '2025-03-01' + i * interval '15 minutes'
FROM generate_series(1, 20000) AS i;

-- certificates: for half of those who attended, each looked up now and then
INSERT INTO certificates (id, participant_id, run_id, holder, score, issued_on)
SELECT md5('certificate ' || b.id)::uuid, b.participant_id, b.run_id, p.full_name, 55 + b.id % 46, (b.booked_at + interval '60 days')::date
FROM bookings AS b JOIN participants AS p ON p.id = b.participant_id WHERE b.status = 'attended' AND b.id % 2 = 0;
INSERT INTO certificate_checks (id, certificate_id, checked_at, checker_ip)
SELECT row_number() OVER (ORDER BY id), id, issued_on + interval '10 days', ('198.51.100.' || score)::inet FROM certificates WHERE score % 5 = 0;

-- newsletter_consents: one list in two
INSERT INTO newsletter_consents (participant_id, list, granted_at, granted_ip)
SELECT id, (ARRAY['Programm', 'Angebote'])[n], created_at + interval '1 hour', ('203.0.113.' || id % 254)::inet FROM participants, generate_series(1, 2) AS n WHERE (id + n) % 2 = 0;

-- sessions: one for each participant
INSERT INTO sessions (token, participant_id, ip, user_agent, created_at, expires_at)
SELECT md5('session ' || id)::uuid, id, ('192.0.2.' || id % 254)::inet, (ARRAY['Firefox/140', 'Safari/19', 'Chrome/139'])[1 + id % 3], last_seen_at, last_seen_at + interval '30 days'
FROM participants;

-- attachments: of participants, bookings and courses, told apart by a word
INSERT INTO attachments (id, owner_type, owner_id, file_name, content_hash, created_at)
SELECT i, (ARRAY['participant', 'booking', 'course'])[1 + i % 3], CASE i % 3 WHEN 0 THEN 1 + i * 5 % 60000 WHEN 1 THEN 1 + (i * 5 + 11) % 180000 ELSE 1 + i % 120 END,
       (ARRAY['foto.jpg', 'anmeldung.pdf', 'plan.pdf'])[1 + i % 3], sha256(int4send(i)), timestamptz '2025-04-01' + i * interval '20 minutes'
FROM generate_series(1, 24000) AS i;

-- activity_log: ids inside JSON, without a foreign key
INSERT INTO activity_log (id, tenant_id, at, event, details)
SELECT i, p.tenant_id, p.created_at + i / 60000 * interval '9 days', (ARRAY['login', 'booking.opened', 'profile.viewed'])[1 + i % 3],
       CASE WHEN i % 3 <> 0 THEN jsonb_build_object('participant_id', p.id, 'ip', '192.0.2.' || i % 254, 'seen_by', jsonb_build_array(1 + (p.id + 51) % 60000, 1 + (p.id + 503) % 60000))
            ELSE jsonb_build_object('participant_id', p.id, 'ip', '192.0.2.' || i % 254) END
FROM generate_series(1, 120000) AS i JOIN participants AS p ON p.id = 1 + i * 7 % 60000;

-- sequences: behind the highest key
SELECT setval(pg_get_serial_sequence(t, 'id'), s.highest) FROM (VALUES ('addresses', (SELECT max(id) FROM addresses)), ('tenants', 5), ('rooms', 60), ('courses', 120), ('trainers', 90),
  ('course_runs', 2400), ('participants', 60000), ('bookings', (SELECT max(id) FROM bookings)), ('payments', (SELECT max(id) FROM payments)), ('messages', 80000),
  ('course_comments', 20000), ('certificate_checks', (SELECT max(id) FROM certificate_checks)), ('attachments', 24000), ('activity_log', 120000)) AS s (t, highest);
SELECT setval('invoice_number', (SELECT max(number) FROM invoices));
