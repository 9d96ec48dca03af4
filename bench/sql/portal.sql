-- tables: people who sign in, what they ordered and where they live; no keys yet
CREATE TABLE shops (id bigint NOT NULL, name text NOT NULL);
CREATE TABLE users (id bigint NOT NULL, shop_id bigint NOT NULL, name text NOT NULL, email text NOT NULL, phone text, seen_at timestamptz, created_at timestamptz NOT NULL);
CREATE TABLE addresses (id bigint NOT NULL, user_id bigint NOT NULL, street text NOT NULL, city text NOT NULL);
CREATE TABLE orders (id bigint NOT NULL, user_id bigint NOT NULL, ordered_at timestamptz NOT NULL, total numeric(10,2) NOT NULL, contact text, remarks text);

-- fill: one in ten was seen three years ago, the others this year
INSERT INTO shops SELECT i, 'Shop ' || i FROM generate_series(1, 4) AS i;
INSERT INTO users SELECT u, 1 + u % 4, 'Person ' || u, 'person.' || u || '@example.com', '+49 30 ' || u, now() - CASE WHEN u % 10 = 0 THEN interval '3 years' ELSE u % 300 * interval '1 day' END,
  now() - interval '5 years' + u % 500 * interval '1 hour' FROM generate_series(1, {people}) AS u;
INSERT INTO addresses SELECT u, u, 'Street ' || md5(u::text), 'City ' || u % 997 FROM generate_series(1, {people}) AS u;
INSERT INTO orders SELECT u * 2 - n, u, now() - CASE WHEN u % 10 = 0 THEN interval '4 years' ELSE interval '1 year' END, u % 1000, 'person.' || u || '@example.com', repeat(md5(u::text), 2)
FROM generate_series(1, {people}) AS u, generate_series(0, 1) AS n;

-- keys: primary and foreign keys, and the indexes of an application
ALTER TABLE shops ADD PRIMARY KEY (id);
ALTER TABLE users ADD PRIMARY KEY (id), ADD UNIQUE (email), ADD FOREIGN KEY (shop_id) REFERENCES shops;
ALTER TABLE addresses ADD PRIMARY KEY (id), ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE orders ADD PRIMARY KEY (id), ADD FOREIGN KEY (user_id) REFERENCES users;
CREATE INDEX ON addresses (user_id);
CREATE INDEX ON orders (user_id);

-- by_hand: what a careful engineer writes to anonymise whoever was not seen for two years: one UPDATE a table
CREATE TEMPORARY TABLE gone ON COMMIT DROP AS SELECT id FROM users u WHERE greatest(seen_at, created_at) < now() - interval '2 years' AND name NOT LIKE 'Former %'
  AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = u.id AND o.ordered_at >= now() - interval '2 years');
UPDATE orders SET contact = NULL, remarks = NULL FROM gone WHERE user_id = gone.id;
UPDATE addresses SET street = '-', city = '-' FROM gone WHERE user_id = gone.id;
UPDATE users SET name = 'Former ' || users.id, email = 'former-' || users.id || '@example.invalid', phone = NULL FROM gone WHERE users.id = gone.id;
