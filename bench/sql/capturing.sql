-- trigger: the usual alternative: a row trigger that writes old and new row as JSONB into a table
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), account text NOT NULL DEFAULT session_user,
                    relation regclass NOT NULL, operation text NOT NULL, old jsonb, new jsonb);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit (relation, operation, old, new)
  VALUES (TG_RELID, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
  RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON pgbench_accounts FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON pgbench_history FOR EACH ROW EXECUTE FUNCTION audit();

-- people: a table of people with twelve columns, about 550 bytes a row
CREATE TABLE tenant (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO tenant SELECT i, 'Tenant ' || i FROM generate_series(1, 8) i;
CREATE TABLE person (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, name text, email text, street text, town text, phone text, born date,
                     score int, note text, made timestamptz DEFAULT now(), seen timestamptz);
INSERT INTO person SELECT i, 1 + i % 8, 'Name ' || i, 'mail' || i || '@mail.invalid', 'Street ' || i, 'Town', '+49 30 ' || i, '1980-01-01', i, repeat('x', 200)
FROM generate_series(1, 2000) i;

-- change: every person's row once
UPDATE person SET email = 'mail' || id || '@' || %s || '.invalid', seen = now(), score = score + 1
