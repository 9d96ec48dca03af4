"""A small vendor of courses with everything that makes a restore difficult, backed up, then some people erased."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from obhut.backups import run as backups
from obhut.controllers import register
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action, Channel, InstructionKind
from obhut.erasure import canary, known, ledger
from obhut.erasure.entries import Action as ErasureAction
from obhut.erasure.erase import Eraser
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.ids import new_id
from obhut.foundation.settings import Settings, load
from obhut.postgres import control as control_module
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session

ACTOR = Actor(Role.OPERATOR, "acc-7")
CLOCK = SystemClock()
HASH = hashlib.sha256(b"document").hexdigest()
ERASED_EMAIL = "gelöscht.petra@example.org"
HERE = Path(__file__).parent

SCHEMA = """
CREATE TYPE mood AS ENUM ('gut', 'schlecht');
CREATE TABLE org (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE person (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, org_id int NOT NULL REFERENCES org, email text NOT NULL, name text,
  shown text GENERATED ALWAYS AS (upper(name)) STORED, mood mood DEFAULT 'gut', extra jsonb, boss bigint REFERENCES person ON DELETE SET NULL,
  created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE booking (
  id serial PRIMARY KEY, person_id bigint NOT NULL REFERENCES person ON DELETE CASCADE, title text, price numeric(10,2), at timestamptz,
  CHECK (price >= 0));
CREATE TABLE event (person_id bigint NOT NULL, at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE event_2025 PARTITION OF event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX event_person ON event (person_id);
CREATE TABLE message (id bigserial PRIMARY KEY, sender bigint REFERENCES person ON DELETE SET NULL,
  recipient bigint NOT NULL REFERENCES person ON DELETE CASCADE, body text);
CREATE TABLE team (id int PRIMARY KEY, members bigint[]);
CREATE TABLE setting (key text PRIMARY KEY, value json);
CREATE MATERIALIZED VIEW names AS SELECT org_id, array_agg(name ORDER BY id) AS names FROM person GROUP BY 1;
CREATE VIEW people AS SELECT id, email FROM person;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trigger fired during the load'; END $$;
INSERT INTO org VALUES (1, 'VHS Nord'), (2, 'VHS Süd');
INSERT INTO person (org_id, email, name, extra, created_at)
  SELECT 1 + g % 2, 'mensch' || g || '@example.org', 'Vorname' || g, jsonb_build_object('n', g), now() - interval '1 day'
  FROM generate_series(1, 300) g;
UPDATE person SET email = 'gelöscht.petra@example.org', name = 'Petra Einzigartig' WHERE id = 7;
UPDATE person SET boss = 7 WHERE id IN (20, 21);
INSERT INTO booking (person_id, title, price, at) SELECT 1 + g % 300, 'Kurs ' || g, g % 90, now() FROM generate_series(1, 3000) g;
INSERT INTO event SELECT 1 + g % 300, DATE '2025-06-01' + (g % 500), 'war da' FROM generate_series(1, 4000) g;
INSERT INTO message (sender, recipient, body) SELECT 1 + g % 300, 1 + (g * 7) % 300, 'Nachricht ' || g FROM generate_series(1, 900) g;
INSERT INTO team SELECT g, ARRAY[g, g + 1, 7] FROM generate_series(1, 10) g;
CREATE TABLE watched (what regclass, seen timestamptz);
INSERT INTO watched VALUES ('booking', now());
INSERT INTO setting VALUES ('a', '{"x":  1}');
REFRESH MATERIALIZED VIEW names;
CREATE TRIGGER no_touch BEFORE INSERT ON setting FOR EACH ROW EXECUTE FUNCTION touch();
CREATE ROLE "app user" LOGIN;
GRANT SELECT ON person TO "app user";
"""

MAP = """
obhut: 1
databases:
  courses:
    controller: {table: public.org}
    subjects:
      participant:
        table: public.person
        controller: {org_id: id}
        incarnation: [created_at]
        created: created_at
        identifiers: [email]
    canary:
      subject: participant
      rows:
        - table: public.person
          values: {org_id: 1, email: "{token}@canary.invalid", name: "{token}"}
        - table: public.booking
          values: {person_id: "{public.person.id}", title: "{token}", price: 1}
    tables:
      public.org: {personal: false}
      public.person:
        erase: delete
        when_anonymised: anonymise
        links: []
        columns:
          email: {category: user.contact.email, anonymise: {constant: "x@anonym.invalid"}}
          name: {category: user.name, anonymise: "null"}
          shown: user.name
          extra: {category: user.account, anonymise: "null"}
        not_personal: [id, org_id, mood, boss, created_at]
      public.booking:
        erase: delete
        links: [{to: public.person}]
        columns:
          title: {category: user.content, anonymise: "null"}
        not_personal: [id, person_id, price, at]
      public.event:
        erase: delete
        links: [{to: public.person, columns: {person_id: id}}]
        columns:
          what: {category: user.behavior, anonymise: "null"}
        not_personal: [person_id, at]
      public.message:
        erase: delete
        links:
          - {to: public.person, columns: {recipient: id}}
          - {to: public.person, columns: {sender: id}, erase: unlink}
        columns:
          body: {category: user.content, anonymise: "null"}
        not_personal: [id, sender, recipient]
      public.team:
        links: [{to: public.person, array: members, erase: unlink}]
        not_personal: [id, members]
      public.setting: {personal: false}
      public.watched: {personal: false}
"""


@dataclass
class Story:
    """What happened to the vendor before the tests begin."""

    settings: Settings
    vendor: Cluster
    lsn: str = ""
    moment: datetime | None = None
    before: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The protected database."""
        return self.vendor.url("courses")

    def flush(self) -> None:
        """Finish the WAL segment, wait until it is here, archive it."""
        with Session.connect(self.url) as session:
            session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            session.execute("SELECT pg_switch_wal()")
            session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            target = session.value("SELECT pg_current_wal_flush_lsn()")
            for _ in range(400):
                if session.value("SELECT coalesce(bool_and(sent_lsn >= %s::pg_lsn), false) FROM pg_stat_replication", (target,)):
                    break
                session.execute("SELECT pg_sleep(0.05)")
            session.execute("SELECT pg_sleep(0.3)")
        backups.archive_wal(self.settings, "courses", CLOCK)


def instruct(settings: Settings) -> None:
    """Register both controllers, with a contract and a standing instruction for everything."""
    for key, name in (("1", "VHS Nord"), ("2", "VHS Süd")):
        controller = register.add_controller("courses", [key], name, actor=ACTOR, clock=CLOCK)
        terms = ContractTerms("course booking", "storage", "bookings", "term", ("user.contact.email",), ("participant",))
        register.add_contract(
            controller.id,
            version="2026-1",
            terms=terms,
            document_hash=HASH,
            valid_from=CLOCK.now() - timedelta(days=1),
            actor=ACTOR,
            clock=CLOCK,
        )
        register.give_instruction(
            controller.id, kind=InstructionKind.STANDING, actions=list(Action), database="courses", given_by="acc-1", channel=Channel.TICKET,
            document_hash=HASH, actor=ACTOR, clock=CLOCK,
        )  # fmt: skip


@pytest.fixture(scope="module")
def story(workplace: Path, control_server: Cluster, control_schema: str) -> Iterator[Story]:
    """Back the vendor up, erase one person and anonymise another, and archive all WAL."""
    place = workplace / "story"
    place.mkdir(mode=0o711)
    (place / "datamap.yaml").write_text(MAP, encoding="utf-8")
    file = place / "obhut.toml"
    vendor_directory = place / "vendor"
    file.write_text(
        f'[state]\ndirectory = "var"\n[control]\nurl = "{control_schema}"\n[databases.courses]\nurl = "postgresql:///x"\n', encoding="utf-8"
    )
    settings = load(file)
    vendor = Cluster(vendor_directory, binaries(settings, 18), server_user(settings))
    try:
        vendor.init(durable=False)
        vendor.configure(
            {"wal_level": "replica", "max_wal_senders": 10, "summarize_wal": True, "fsync": False, "max_prepared_transactions": 5}
        )
        vendor.start()
        with Session.connect(vendor.url()) as session:
            session.execute("CREATE DATABASE courses")
        with Session.connect(vendor.url("courses")) as session:
            session.execute(SCHEMA)
        file.write_text(
            f'[state]\ndirectory = "var"\n[control]\nurl = "{control_schema}"\n[databases.courses]\nurl = "{vendor.url("courses")}"\n'
            'map = "datamap.yaml"\n[databases.courses.backup]\nfull_every = "P1D"\nincremental_every = "PT6H"\n',
            encoding="utf-8",
        )
        settings = load(file)
        story = Story(settings, vendor)
        _open_control(settings)
        ledger.open_ledger(settings)
        instruct(settings)
        with Eraser(settings, "courses") as eraser:
            canary.plant(eraser, ACTOR, CLOCK)
            backups.start(settings, "courses", ACTOR, CLOCK)

            _more(story, 10)
            backups.run(settings, "courses", backups.Wanted.INCREMENTAL, ACTOR, CLOCK)
            _more(story, 20)
            with Session.connect(story.url) as session:
                story.before = {
                    name: session.value(f"SELECT count(*) FROM {name}")
                    for name in ("person", "booking", "event", "message", "team", "setting")
                }
                story.moment = session.value("SELECT clock_timestamp()")
                session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
                story.lsn = session.value("SELECT pg_current_wal_insert_lsn()::text")
                session.execute("SELECT pg_sleep(0.01)")
                session.execute("SELECT pg_create_restore_point('before_erasure')")
            eraser.erase("participant", [["7"]], ErasureAction.ERASE, ACTOR, CLOCK)
            eraser.erase("participant", [["8"]], ErasureAction.ANONYMISE, ACTOR, CLOCK)
        _more(story, 5)
        story.flush()
        yield story
    finally:
        try:
            backups.stop(settings, "courses", drop_slot=True)
        finally:
            ledger.close_ledger()
            control_module.close_control(settings)
            for cluster in place.glob("var/restores/*/*/data"):
                Cluster(cluster.parent, binaries(settings, 18), server_user(settings)).remove()
            vendor.remove()
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(autouse=True)
def production_again(request: pytest.FixtureRequest) -> None:
    """Go back to the vendor's server where an earlier test has opened a restored one: the list knows which of them is in use."""
    if "story" not in request.fixturenames:
        return
    story: Story = request.getfixturevalue("story")
    identifier = str(story.vendor.system_identifier())
    if known.opened_system("courses") not in {None, identifier}:
        ledger.new_epoch("courses", new_id("run"), identifier, 1, CLOCK)


def _more(story: Story, number: int) -> None:
    with Session.connect(story.url) as session:
        session.execute(
            "INSERT INTO booking (person_id, title, price, at) SELECT 1 + g %% 300, 'später ' || g, 3, now() FROM generate_series(1, %s) g",
            (number,),
        )


def _open_control(settings: Settings) -> None:
    try:
        control_module.open_control(settings)
    except control_module.ControlSchemaError:
        control_module.migrate()
    with control_module.control_session() as session:
        session.set("session_replication_role", "replica")
        session.execute(
            "DO $$ DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND relname NOT LIKE 'django\\_%' LOOP EXECUTE format('TRUNCATE %I CASCADE', t); END LOOP; END $$"
        )
