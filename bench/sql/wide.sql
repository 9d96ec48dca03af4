-- people: the people that all rows belong to.
CREATE TABLE firm (id integer PRIMARY KEY, title text NOT NULL);
CREATE TABLE person (id integer PRIMARY KEY, firm_id integer NOT NULL REFERENCES firm, made_at timestamptz NOT NULL, email text);
INSERT INTO firm VALUES (1, 'Nord');
INSERT INTO person SELECT n, 1, now(), 'p' || n || '@example.invalid' FROM generate_series(1, 200) n;

-- tables: {first} to {last}; one in ten has documents.
DO $$
BEGIN
  FOR n IN {first}..{last} LOOP
    EXECUTE format(
      'CREATE TABLE t%s (id integer PRIMARY KEY, person_id integer NOT NULL REFERENCES person, kind text, amount numeric, made_at timestamptz,'
      ' done boolean, state text, size integer, email text, note text%s)',
      n, CASE WHEN n % 10 = 0 THEN ', data jsonb' ELSE '' END);
    EXECUTE format('CREATE INDEX ON t%s (person_id)', n);
    IF n % 10 = 0 THEN
      EXECUTE format(
        $q$INSERT INTO t%s SELECT g, g, 'a', 1, now(), true, 'new', g, NULL, NULL,
          jsonb_build_object('name', 'x', 'level', g, 'list', jsonb_build_array(1, 2)) FROM generate_series(1, 200) g$q$, n);
    END IF;
  END LOOP;
END $$;

-- migration: what a release changes: a table, a column, a name, a type, and what documents hold.
CREATE TABLE guest (id integer PRIMARY KEY, person_id integer NOT NULL REFERENCES person, surname text);
ALTER TABLE t1 ADD mobile text;
ALTER TABLE t2 RENAME COLUMN note TO notes;
ALTER TABLE t3 ALTER note TYPE jsonb USING NULL;
UPDATE t0 SET data = data || '{"emergency": {"phone": "x"}}';
