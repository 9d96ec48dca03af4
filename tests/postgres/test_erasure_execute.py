"""Erasures on a live database: triggers, rules, concurrent writers, identities, periods. On PostgreSQL 18 and 15."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from obhut.datamap.graph import Graph, require
from obhut.datamap.models import DatabaseMap
from obhut.erasure import direct
from obhut.erasure import execute as execute_module
from obhut.erasure.closure import resolve, select_rows
from obhut.erasure.entries import Action, Decision, State, Tombstone
from obhut.erasure.execute import Executed, execute
from obhut.erasure.plan import Cohort
from obhut.erasure.refusals import ErasureIncompleteError, IncarnationConflictError, PlanConflictError, SubjectMissingError
from obhut.erasure.subjects import Found, find, lookup
from obhut.foundation.ids import InstructionId, TombstoneId
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError, ForeignKeyError

NOW = datetime(2030, 6, 1, tzinfo=UTC)
MAC = b"m" * 32

SCHEMA = """
CREATE TABLE vendor (id int PRIMARY KEY, name text);
CREATE TABLE site (id int PRIMARY KEY, vendor_id int REFERENCES vendor);
CREATE TABLE person (id bigint PRIMARY KEY, site_id int REFERENCES site, email text, created_at timestamptz NOT NULL DEFAULT '2025-01-01Z');
CREATE TABLE visit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person_id bigint REFERENCES person ON DELETE CASCADE, note text);
CREATE TABLE event (about bigint, what text);
CREATE TABLE invoice (id bigint GENERATED ALWAYS AS IDENTITY, person_id bigint, amount int);
INSERT INTO vendor VALUES (1, 'V'), (2, 'W');
INSERT INTO site VALUES (1, 1), (2, 2);
INSERT INTO person SELECT n, 1 + n % 2, 'p' || n FROM generate_series(1, 20) n;
INSERT INTO visit (person_id, note) SELECT 1 + n % 20, 'v' || n FROM generate_series(1, 60) n;
INSERT INTO event SELECT 1 + n % 20, 'e' || n FROM generate_series(1, 40) n;
INSERT INTO invoice (person_id, amount) SELECT n, n FROM generate_series(1, 20) n;
"""


def rules(**tables: Any) -> dict[str, Any]:
    """Return the data map of the schema; tables given replace or add entries."""
    given = {
        "vendor": {"personal": False},
        "site": {"personal": False},
        "person": {"erase": "delete", "columns": {"email": {"category": "user.contact.email", "anonymise": {"template": "gone-{id}"}}}},
        "visit": {"erase": "delete", "links": [{"to": "public.person"}]},
        "event": {"erase": "delete", "links": [{"to": "public.person", "columns": {"about": "id"}}]},
        "invoice": {
            "erase": {"keep": "§ 147 AO", "for": "P1Y1M"},
            "links": [{"to": "public.person", "columns": {"person_id": "id"}}],
        },
    } | tables
    return {
        "controller": {"table": "public.vendor"},
        "subjects": {
            "person": {
                "table": "public.person",
                "controller": [{"to": "public.site"}, {"to": "public.vendor"}],
                "incarnation": ["created_at"],
                "created": "created_at",
            }
        },
        "tables": {f"public.{name}": rule for name, rule in given.items() if rule is not None},
    }


@dataclass
class Place:
    """A filled database with the helpers of these tests."""

    connect: Callable[[], Session]
    session: Session
    map: dict[str, Any]

    @property
    def graph(self) -> Graph:
        return require("d", DatabaseMap.model_validate(self.map), read_catalogue(self.session))

    def sql(self, text: str) -> None:
        self.session.execute(text)

    def count(self, table: str, where: str = "true") -> int:
        return int(self.session.value(f"SELECT count(*) FROM {table} WHERE {where}"))

    def tombstone(self, key: int | str, action: Action = Action.ERASE, *, at: datetime = NOW, fingerprint: str | None = None) -> Tombstone:
        if fingerprint is None:
            people = lookup(self.session, self.graph, "person", [(str(key),)], MAC)
            fingerprint = people[0].fingerprint if people else ""
        return Tombstone(
            int(key), TombstoneId("t"), "d", "c", "person", (str(key),), fingerprint, action, "", InstructionId(""), 0, at, State.RECORDED
        )  # fmt: skip

    def erase(
        self, tombstones: Sequence[Tombstone], *, now: datetime = NOW, decisions: Any = None, session: Session | None = None
    ) -> Executed:
        graph, used = self.graph, session or self.session
        return execute(used, graph, lambda: find(used, graph, [tombstones], MAC, now, decisions))

    def found(self, tombstones: Sequence[Tombstone], *, decisions: Any = None) -> Found:
        return find(self.session, self.graph, [tombstones], MAC, NOW, decisions)


@pytest.fixture(params=["database", "database15"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Give the filled database, on both major versions."""
    database = request.getfixturevalue(request.param)
    with database.session() as session:
        session.execute(SCHEMA)
        yield Place(database.session, session, rules())


def test_rows_go_as_the_map_says(place: Place) -> None:
    """The person, its visits and its events go; its invoice is kept; everybody else stays."""
    done = place.erase([place.tombstone(3)])
    assert (done.people, done.deleted) == (1, 1 + 3 + 2)
    assert place.count("person") == 19
    assert place.count("visit") == 57
    assert place.count("event") == 38
    assert place.count("invoice") == 20


def test_kept_rows_go_when_the_period_is_over(place: Place) -> None:
    """An invoice kept for a year and a month after 31 January is there on the last of February a year later, and gone a second after."""
    erased = datetime(2028, 1, 31, 12, tzinfo=UTC)
    tombstone = place.tombstone(3, at=erased)
    place.erase([tombstone], now=erased)
    over = datetime(2029, 2, 28, 12, tzinfo=UTC)
    place.erase([tombstone], now=over - timedelta(seconds=1))
    assert place.count("invoice", "person_id = 3") == 1
    place.erase([tombstone], now=over)
    assert place.count("invoice", "person_id = 3") == 0
    assert place.count("invoice") == 19


def test_orphan_rows_of_a_missing_person_go(place: Place) -> None:
    """A person whose row is gone already still loses the rows that only a declared link leads to."""
    place.sql("DELETE FROM person WHERE id = 5")
    assert place.count("event", "about = 5") == 2
    done = place.erase([place.tombstone(5)])
    assert (done.people, done.deleted) == (0, 2)


def test_another_incarnation_is_left_alone_when_it_came_later(place: Place) -> None:
    """Who registers after the erasure and gets the same key, e-mail and all, is not the erased person."""
    old = place.tombstone(3)
    place.erase([old])
    place.sql("INSERT INTO person VALUES (3, 1, 'p3', '2030-07-01Z'); INSERT INTO event VALUES (3, 'new')")
    done = place.erase([old])
    assert (done.people, done.deleted) == (0, 0)
    assert place.found([old]).later == 1
    assert place.count("person", "id = 3") == 1


def test_an_older_incarnation_stops_the_run_until_somebody_decides(place: Place) -> None:
    """After a restore the same key may be somebody else's: a conflict stops the run, and a decision settles it either way."""
    old = place.tombstone(3)
    place.sql("UPDATE person SET created_at = '2024-05-05Z' WHERE id = 3")
    with pytest.raises(IncarnationConflictError) as caught:
        place.erase([old])
    assert "2024" not in str(caught.value)
    now_there = lookup(place.session, place.graph, "person", [("3",)], MAC)[0].fingerprint
    assert place.erase([old], decisions={old.seq: {now_there: Decision.OTHER_PERSON}}).people == 0
    assert place.count("person", "id = 3") == 1
    assert place.erase([old], decisions={old.seq: {now_there: Decision.SAME_PERSON}}).people == 1
    assert place.count("person", "id = 3") == 0


def test_same_email_under_another_key_is_left_alone(place: Place) -> None:
    """A person is a key and an incarnation, never an e-mail address."""
    place.sql("INSERT INTO person VALUES (99, 1, 'p3')")
    place.erase([place.tombstone(3)])
    assert place.count("person", "email = 'p3'") == 1


def test_lookup_leads_to_the_controller_over_two_hops(place: Place) -> None:
    """The controller's key comes from the end of the path, however many tables are between."""
    found = {person.key[0]: person for person in lookup(place.session, place.graph, "person", [("3",), ("4",), ("777",)], MAC)}
    assert {key: person.controller_key for key, person in found.items()} == {"3": ("2",), "4": ("1",)}
    assert "3" not in repr(found["3"]).replace("relation", "").split()[0]


def test_lookup_refuses_a_key_of_another_type(place: Place) -> None:
    """A key that is no value of the key's type is a missing person, and its text is not repeated."""
    with pytest.raises(SubjectMissingError) as caught:
        lookup(place.session, place.graph, "person", [("alice@example.org",)], MAC)
    assert "alice" not in str(caught.value)


# -- triggers and rules -------------------------------------------------------------------------------------------------------


def _trigger(table: str, when: str, body: str) -> str:
    return (
        f"CREATE FUNCTION f_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
        f"CREATE TRIGGER t_{table} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION f_{table}();"
    )


def test_history_written_by_a_trigger_goes_too(place: Place) -> None:
    """A trigger copies deleted visits, which name the person, into a history table of the map: the copies go in the same transaction."""
    place.sql("CREATE TABLE history (visit_id bigint, note text)")
    place.sql(_trigger("visit", "AFTER DELETE", "INSERT INTO history VALUES (OLD.id, OLD.note); RETURN NULL;"))
    place.map = rules(history={"erase": "delete", "links": [{"to": "public.visit", "columns": {"visit_id": "id"}}]})
    done = place.erase([place.tombstone(3)])
    assert place.count("history") == 0
    assert done.deleted == 1 + 3 + 2 + 3


def test_a_trigger_that_changes_rows_of_the_plan_is_borne(place: Place) -> None:
    """BEFORE DELETE updates another row that goes as well: the server refuses one statement, so children go before parents."""
    place.sql(_trigger("visit", "BEFORE DELETE", "UPDATE person SET email = 'x' WHERE id = OLD.person_id; RETURN OLD;"))
    place.erase([place.tombstone(3)])
    assert place.count("person", "id = 3") == 0
    assert place.count("visit", "person_id = 3") == 0


def test_a_trigger_that_suppresses_the_deletion_rolls_everything_back(place: Place) -> None:
    """Rows that will not go make the erasure incomplete, and nothing of it stays."""
    place.sql(_trigger("event", "BEFORE DELETE", "RETURN NULL;"))
    with pytest.raises(ErasureIncompleteError):
        place.erase([place.tombstone(3)])
    assert place.count("person", "id = 3") == 1
    assert place.count("visit", "person_id = 3") == 3


def test_a_trigger_that_undoes_the_anonymisation_is_noticed(place: Place) -> None:
    """An UPDATE that a trigger turns back leaves the old value: that is incomplete, not done."""
    place.sql(_trigger("person", "BEFORE UPDATE", "NEW.email := OLD.email; RETURN NEW;"))
    with pytest.raises(ErasureIncompleteError):
        place.erase([place.tombstone(3, Action.ANONYMISE)])
    assert place.count("person", "email = 'p3'") == 1


def test_a_rule_instead_of_deletion_is_noticed(place: Place) -> None:
    """A rule that marks instead of deleting keeps the row: incomplete, rolled back."""
    place.sql(
        "ALTER TABLE event ADD gone bool; CREATE RULE soft AS ON DELETE TO event DO INSTEAD UPDATE event SET gone = true WHERE what = OLD.what"
    )
    with pytest.raises(ErasureIncompleteError):
        place.erase([place.tombstone(3)])
    assert place.count("event", "gone") == 0


def test_a_rule_beside_the_deletion_is_borne(place: Place) -> None:
    """A table with a rule that logs deletions cannot stand in WITH; the rows go in statements of their own."""
    place.sql("CREATE TABLE log (n int); CREATE RULE also AS ON DELETE TO event DO ALSO INSERT INTO log VALUES (1)")
    place.erase([place.tombstone(3)])
    assert place.count("event", "about = 3") == 0


def test_row_security_never_hides_rows(place: Place) -> None:
    """A role that a policy applies to gets an error, not a shorter plan."""
    place.sql("ALTER TABLE event ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON event USING (about <> 3)")
    place.sql("DROP ROLE IF EXISTS reader; CREATE ROLE reader; GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO reader")
    graph, tombstones = place.graph, [place.tombstone(3)]
    place.sql("SET ROLE reader")
    try:
        with pytest.raises(DatabaseError) as caught:
            execute(place.session, graph, lambda: find(place.session, graph, [tombstones], MAC, NOW))
        assert caught.value.sqlstate == "42501"
    finally:
        place.sql("RESET ROLE; DROP OWNED BY reader; DROP ROLE reader")
    assert place.count("event") == 40


def test_short_way_steps_aside_for_triggers(place: Place) -> None:
    """The one statement does not look again, so a trigger that suppresses deletions sends the erasure the long way."""
    place.map = rules(event={"personal": False}, invoice={"personal": False})
    place.sql(_trigger("visit", "BEFORE DELETE", "RETURN NULL;"))
    plan = direct.compile_plan(place.graph, place.graph.subject("person"), Cohort(Action.ERASE))
    assert plan is not None
    with place.session.transaction("repeatable read"):
        assert direct.run(place.session, plan, place.found([place.tombstone(3)])) is None


def test_short_way_refuses_partitioned_people(place: Place) -> None:
    """An address is unique in one leaf only: people in partitions go the long way."""
    place.sql("DROP TABLE visit; DROP TABLE person; CREATE TABLE person (id bigint PRIMARY KEY, site_id int REFERENCES site, email text,"
              " created_at timestamptz DEFAULT '2025-01-01Z') PARTITION BY HASH (id)")  # fmt: skip
    place.sql("CREATE TABLE pa PARTITION OF person FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
    place.sql("CREATE TABLE pb PARTITION OF person FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    place.sql("INSERT INTO person SELECT n, 1, 'p' || n FROM generate_series(1, 20) n")
    place.map = rules(visit=None, event={"personal": False}, invoice={"personal": False})
    assert direct.compile_plan(place.graph, place.graph.subject("person"), Cohort(Action.ERASE)) is None
    place.erase([place.tombstone(3)])
    assert place.count("person") == 19


# -- concurrent writers -------------------------------------------------------------------------------------------------------


def _meanwhile(monkeypatch: pytest.MonkeyPatch, point: str, act: Callable[[], None]) -> None:
    """Let another session act when the erasure reaches a point for the first time."""
    pending = [act]

    def reach(name: str) -> None:
        if name == point and pending:
            pending.pop()()

    monkeypatch.setattr(execute_module, "reach", reach)


def test_a_child_inserted_meanwhile_waits_and_fails_at_its_foreign_key(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the people's rows are locked nobody can attach a row to them: the writer gets the foreign key's error."""
    failed: list[DatabaseError] = []

    def insert() -> None:
        with place.connect() as other, pytest.raises(ForeignKeyError) as caught:
            other.execute("INSERT INTO visit (person_id, note) VALUES (3, 'late')")
        failed.append(caught.value)

    writer = threading.Thread(target=insert)
    _meanwhile(monkeypatch, "erase.resolved", writer.start)
    place.erase([place.tombstone(3)])
    writer.join(10)
    assert failed
    assert place.count("visit", "person_id = 3") == 0


@pytest.mark.parametrize("action", ["CASCADE", "NO ACTION"])
def test_a_child_committed_just_before_the_lock_is_erased(place: Place, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """A row that was attached after the snapshot and before the lock fails the first attempt; the second sees it."""
    place.sql(
        f"ALTER TABLE visit DROP CONSTRAINT visit_person_id_fkey, ADD CONSTRAINT k FOREIGN KEY (person_id) REFERENCES person ON DELETE {action}"
    )
    graph, tombstone, calls = place.graph, place.tombstone(3), []

    def people() -> Found:
        found = find(place.session, graph, [[tombstone]], MAC, NOW)
        if not calls:
            with place.connect() as other:
                other.execute("INSERT INTO visit (person_id, note) VALUES (3, 'late')")
        calls.append(1)
        return found

    execute(place.session, graph, people)
    assert place.count("visit", "person_id = 3") == 0
    assert place.count("person", "id = 3") == 0


def test_a_row_without_foreign_key_added_meanwhile_is_found_after_the_commit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stops a writer whose table has no foreign key; what it commits during the erasure goes in a second look."""

    def insert() -> None:
        with place.connect() as other:
            other.execute("INSERT INTO event VALUES (3, 'late')")

    _meanwhile(monkeypatch, "erase.applied", insert)
    done = place.erase([place.tombstone(3)])
    assert place.count("event", "about = 3") == 0
    assert done.deleted == 1 + 3 + 3


def test_a_concurrent_update_repeats_the_erasure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that another transaction changed meanwhile has moved; the attempt fails as a whole and the next one erases it."""

    def update() -> None:
        with place.connect() as other:
            other.execute("UPDATE visit SET note = 'changed' WHERE person_id = 3")

    _meanwhile(monkeypatch, "erase.resolved", update)
    place.erase([place.tombstone(3)])
    assert place.count("visit", "person_id = 3") == 0


# -- shapes -------------------------------------------------------------------------------------------------------------------


def test_composite_keys_with_a_tenant_unlink_only_the_person(place: Place) -> None:
    """Where the key holds the controller too and that column must not be null, unlinking takes the person's part."""
    place.sql("CREATE TABLE member (vendor_id int REFERENCES vendor, no int, name text, PRIMARY KEY (vendor_id, no))")
    place.sql(
        "CREATE TABLE post (id int, vendor_id int NOT NULL, member_no int, body text, FOREIGN KEY (vendor_id, member_no) REFERENCES member)"
    )
    place.sql("INSERT INTO member VALUES (1, 7, 'a'), (2, 7, 'b'); INSERT INTO post VALUES (1, 1, 7, 'x'), (2, 2, 7, 'y')")
    place.map = rules(member={"erase": "delete", "columns": {}}, post={"erase": "unlink", "links": [{"to": "public.member"}]})
    place.map["subjects"]["member"] = {"table": "public.member", "controller": {"vendor_id": "id"}}
    tombstone = place.tombstone(1, fingerprint="")._replace(subject_kind="member", key=("1", "7"))
    place.erase([tombstone])
    assert place.session.rows("SELECT * FROM post ORDER BY id") == [(1, 1, None, "x"), (2, 2, 7, "y")]
    assert place.session.rows("SELECT vendor_id, no FROM member") == [(2, 7)]


def test_two_people_of_several_controllers_in_one_row(place: Place) -> None:
    """A letter between two controllers' people loses the erased one's columns and keeps the other's."""
    place.sql("CREATE TABLE letter (id int, sender bigint, receiver bigint, sender_name text, receiver_name text)")
    place.sql("INSERT INTO letter VALUES (1, 3, 4, 'three', 'four'), (2, 4, 3, 'four', 'three'), (3, 4, 6, 'four', 'six')")
    gone = {"category": "user.name", "anonymise": "null"}
    place.map = rules(
        letter={
            "erase": "anonymise",
            "columns": {"sender_name": gone, "receiver_name": gone},
            "links": [
                {"to": "public.person", "columns": {"sender": "id"}, "anonymises": ["sender_name"]},
                {"to": "public.person", "columns": {"receiver": "id"}, "anonymises": ["receiver_name"]},
            ],
        }
    )
    place.erase([place.tombstone(3)])
    assert place.session.rows("SELECT * FROM letter ORDER BY id") == [
        (1, None, 4, None, "four"),
        (2, 4, None, "four", None),
        (3, 4, 6, "four", "six"),
    ]


def test_two_json_paths_and_two_kinds_in_one_column(place: Place) -> None:
    """Each link has its own list of keys: another path of the column, or another kind with the same number, is not touched by mistake."""
    place.sql("CREATE TABLE doc (id int, kind text, ids bigint[], j jsonb)")
    place.sql(
        """INSERT INTO doc VALUES (1, 'person', '{3,4}', '{"author": 3, "editors": [{"id": 3}, {"id": 4}]}'), (2, 'site', '{3}', '{"author": 4}')"""
    )
    place.map = rules(
        doc={
            "erase": "unlink",
            "links": [
                {"to": "public.person", "array": "ids", "when": {"kind": "person"}},
                {"to": "public.site", "array": "ids", "when": {"kind": "site"}},
                {"to": "public.person", "json": "j", "path": "$.author"},
                {"to": "public.person", "json": "j", "path": "$.editors[*].id"},
            ],
        }
    )
    place.erase([place.tombstone(3)])
    assert place.session.rows("SELECT id, ids, j FROM doc ORDER BY id") == [(1, [4], {"editors": [{"id": 4}]}), (2, [3], {"author": 4})]


def test_erased_by_one_tombstone_and_anonymised_by_another(place: Place) -> None:
    """The second look inside the erasure must not treat a kept row differently because the person is gone by then (found by random estates)."""
    place.map = rules(
        event={
            "erase": {"keep": "§ 257 HGB", "for": "P9Y"},
            "when_anonymised": "anonymise",
            "columns": {"what": {"category": "user", "anonymise": "null"}},
            "links": [{"to": "public.person", "columns": {"about": "id"}}],
        }
    )
    both = [place.tombstone(3), place.tombstone(3, Action.ANONYMISE)]
    with place.session.transaction("repeatable read"):
        effects = resolve(place.session, place.graph, place.found(both).seeds)
    assigned = {name for effect in effects.tables.values() for change in effect.changes for name in change.assignments}
    assert assigned == {"what"}
    place.erase(both)
    assert place.session.rows("SELECT about, what FROM event WHERE about = 3") == [(3, None), (3, None)]


def test_json_rules_remove_list_elements_and_stay_small(place: Place) -> None:
    """A rule may empty a list, paths that lead nowhere do nothing, and ten rules make no statement of a megabyte (found by random estates)."""
    place.sql('ALTER TABLE person ADD j jsonb; UPDATE person SET j = \'{"tags": [1, 2], "a": {"b": 1}, "c": [7]}\' WHERE id = 3')
    place.sql("UPDATE person SET j = '\"scalar\"' WHERE id = 4")
    paths = ["$.tags[*]", "$.a.b", "$.c.d", "$.x.y.z", *(f"$.n{number}[*].m" for number in range(8))]
    place.map = rules(
        person={
            "erase": "anonymise",
            "columns": {"j": {"category": "user", "anonymise": {"json": paths}}},
        }
    )
    graph = place.graph
    with place.session.transaction("repeatable read"):
        effects = resolve(place.session, graph, place.found([place.tombstone(3), place.tombstone(4)]).seeds)
    change = effects.tables[graph.subject("person").table].changes[0]
    assert len(change.assignments["j"].as_string(None)) < 10_000
    place.erase([place.tombstone(3), place.tombstone(4)])
    assert place.session.rows("SELECT j FROM person WHERE id IN (3, 4) ORDER BY id") == [({"tags": [], "a": {}, "c": [7]},), ("scalar",)]


def test_plan_refuses_what_the_server_would_refuse(place: Place) -> None:
    """A foreign key outside the map is a conflict in the plan and an error of the erasure; both leave everything as it is."""
    place.sql("CREATE TABLE badge (person_id bigint REFERENCES person); INSERT INTO badge VALUES (3)")
    with place.session.transaction("repeatable read"), pytest.raises(PlanConflictError):
        resolve(place.session, place.graph, place.found([place.tombstone(3)]).seeds)
    with pytest.raises(ForeignKeyError):
        place.erase([place.tombstone(3)])
    assert place.count("event", "about = 3") == 2


class Counting(Session):
    """A session that counts its statements."""

    statements = 0

    def execute(self, *args: Any) -> int:
        type(self).statements += 1
        return super().execute(*args)

    def addresses(self, *args: Any) -> Any:
        type(self).statements += 1
        return super().addresses(*args)


def test_statements_do_not_grow_with_the_number_of_people(place: Place) -> None:
    """Ten thousand people cost as many statements as one."""
    place.sql(
        "INSERT INTO person SELECT n, 1, 'q' FROM generate_series(1000, 11100) n; INSERT INTO event SELECT n, 'x' FROM generate_series(1000, 11100) n"
    )
    place.sql("CREATE INDEX ON visit (person_id); ANALYZE")
    counts = []
    with place.connect() as plain:
        session = Counting(plain._connection)
        for keys in ([1000], range(1001, 11001)):
            Counting.statements = 0
            done = place.erase([place.tombstone(key, fingerprint="") for key in keys], session=session)
            assert done.people == len(keys)
            counts.append(Counting.statements)
    assert counts[0] == counts[1]


def test_select_rows_of_one_controller_and_of_one_person(place: Place) -> None:
    """A controller's rows are its people and all that is theirs; a person's rows are its own and nobody else's."""
    graph = place.graph

    def selected(table: str, where: str) -> dict[str, int]:
        oid, tid = place.session.addresses(f"SELECT tableoid, ctid FROM {table} WHERE {where}")[0]
        found = select_rows(place.session, graph, {oid: execute_rows([tid])})
        return {graph.catalogue.tables[each].name: rows.count for each, rows in found.items()}

    assert selected("vendor", "id = 2") == {"vendor": 1, "site": 1, "person": 10, "visit": 30, "event": 20, "invoice": 10}
    assert selected("person", "id = 3") == {"person": 1, "visit": 3, "event": 2, "invoice": 1}


def execute_rows(tids: Sequence[bytes]) -> Any:
    """Return addresses as a set."""
    from obhut.erasure.addresses import RowAddresses

    return RowAddresses.from_tids(tids)


# -- large objects ------------------------------------------------------------------------------------------------------------


def _with_scans(place: Place, *, anonymise: bool = False) -> dict[str, int]:
    """Give people scans as large objects: one of person 3 alone, one shared with person 4, one that a kept invoice names, too."""
    place.sql(
        "CREATE DOMAIN scan AS oid; ALTER TABLE person ADD scan scan; ALTER TABLE visit ADD picture oid; ALTER TABLE invoice ADD page oid"
    )
    made = {name: int(place.session.value("SELECT lo_from_bytea(0, 'x')::int8")) for name in ("own", "shared", "kept", "other", "table")}
    place.sql(
        f"UPDATE person SET scan = {made['own']} WHERE id = 3;"
        f"UPDATE visit SET picture = {made['shared']} WHERE person_id IN (3, 4) AND id = (SELECT min(id) FROM visit v WHERE v.person_id = visit.person_id);"
        f"UPDATE visit SET picture = {made['kept']} WHERE id = (SELECT max(id) FROM visit v WHERE v.person_id = 3);"
        f"UPDATE invoice SET page = {made['kept']} WHERE person_id = 3;"
        f"UPDATE person SET scan = {made['other']} WHERE id = 5"
    )
    if anonymise:
        place.map = rules(
            person={
                "erase": "delete",
                "columns": {
                    "email": {"category": "user.contact.email", "anonymise": "null"},
                    "scan": {"category": "user.content", "anonymise": "null"},
                },
            },
            visit={"erase": "delete", "when_anonymised": "anonymise", "links": [{"to": "public.person"}]},
        )
    return made


def _objects(place: Place) -> set[int]:
    return {int(oid) for (oid,) in place.session.rows("SELECT oid::int8 FROM pg_largeobject_metadata")}


def test_large_objects_go_with_the_last_row_that_names_them(place: Place) -> None:
    """What only the person's rows name is unlinked in the same transaction; what another person or a kept row names stays."""
    made = _with_scans(place)
    done = place.erase([place.tombstone(3)])
    assert done.large_objects == 1
    assert set(made.values()) - _objects(place) == {made["own"]}
    assert place.erase([place.tombstone(4)]).large_objects == 1
    assert set(made.values()) - _objects(place) == {made["own"], made["shared"]}


def test_large_objects_go_with_the_value_that_is_anonymised(place: Place) -> None:
    """A column that is made null names its object no more."""
    made = _with_scans(place, anonymise=True)
    assert place.erase([place.tombstone(3, Action.ANONYMISE)]).large_objects == 1
    assert set(made.values()) - _objects(place) == {made["own"]}


def test_large_objects_stay_when_the_erasure_is_rolled_back(place: Place) -> None:
    """An erasure that cannot be completed unlinks nothing."""
    made = _with_scans(place)
    place.sql(_trigger("event", "BEFORE DELETE", "RETURN NULL;"))
    with pytest.raises(ErasureIncompleteError):
        place.erase([place.tombstone(3)])
    assert set(made.values()) <= _objects(place)


def test_a_number_that_is_no_large_object_is_left_alone(place: Place) -> None:
    """A column of type oid may name a table: nothing is unlinked, and nothing fails."""
    made = _with_scans(place)
    place.sql("UPDATE person SET scan = 'vendor'::regclass::oid WHERE id = 6")
    assert place.erase([place.tombstone(6)]).large_objects == 0
    assert set(made.values()) <= _objects(place)


def test_the_short_way_is_not_taken_past_large_objects(place: Place) -> None:
    """A map that is a plain tree of deletions goes the long way once a column may name large objects."""
    plain = rules(event=None, invoice=None)
    plain["tables"] |= {"public.event": {"personal": False}, "public.invoice": {"personal": False}}
    place.map = plain
    subject = place.graph.subject("person")
    assert direct.compile_plan(place.graph, subject, Cohort(Action.ERASE)) is not None
    place.sql("ALTER TABLE visit ADD picture oid")
    subject = place.graph.subject("person")
    assert direct.compile_plan(place.graph, subject, Cohort(Action.ERASE)) is None
