"""What the preflight makes of the data map and of a real schema."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from obhut.datamap.check import errors, examine
from obhut.datamap.load import loads
from obhut.erasure.entries import Action as ErasureAction
from obhut.erasure.entries import State, Tombstone
from obhut.erasure.execute import execute
from obhut.erasure.plan import Cohort
from obhut.erasure.subjects import find, lookup
from obhut.erasure.verify import verify
from obhut.foundation.ids import InstructionId, TombstoneId
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import read_catalogue
from obhut.restores import plan, preflight
from obhut.restores.plan import DatabaseFacts

SCHEMA = """
CREATE TABLE org (id int PRIMARY KEY);
CREATE TABLE person (id int PRIMARY KEY, org_id int NOT NULL REFERENCES org, email text, created_at timestamptz NOT NULL);
CREATE TABLE bill (id int PRIMARY KEY, person_id int NOT NULL REFERENCES person);
"""
MAP = """
obhut: 1
databases:
  courses:
    controller: {table: public.org}
    subjects:
      participant: {table: public.person, controller: {org_id: id}, incarnation: [created_at], identifiers: [email]}
    tables:
      public.org: {personal: false}
      public.person:
        erase: delete
        columns: {email: {category: user.contact.email, anonymise: "null"}}
        not_personal: [created_at]
      public.bill:
        erase: %s
        links: [{to: public.person}]
        not_personal: [id]
"""


def _fits(make_settings: Callable[..., Settings], database, treatment: str, more: str = ""):  # type: ignore[no-untyped-def]
    settings = make_settings(courses=database.url)
    Path(settings.database("courses").map).write_text(MAP % treatment, encoding="utf-8")
    with database.session() as session:
        session.execute(SCHEMA + more)
        return preflight.fitting_map(settings, "courses", read_catalogue(session))


def _reasons(found) -> list[tuple[str, str]]:  # type: ignore[no-untyped-def]
    facts = DatabaseFacts(prepared_transactions=0, map_findings=tuple(found[1]), unknown_tables=tuple(found[2]))
    return [(reason.code, reason.fact) for reason in plan.judge_database(facts).refusals]


def test_a_map_without_errors_fits(make_settings, database) -> None:
    """The map that the other tests break is taken."""
    graph, findings, unknown = _fits(make_settings, database, "delete")
    assert graph is not None
    assert (findings, unknown) == ([], [])


def test_any_error_of_the_map_refuses(make_settings, database) -> None:
    """Rows that are kept while their parent goes are an error for an erasure, so a restore does not follow such a map either."""
    found = _fits(make_settings, database, "{keep: § 147 AO, for: P9Y}")
    assert found[0] is None
    ((code, fact),) = _reasons(found)
    assert code == "datamap-invalid"
    assert "public.bill is kept while its parent public.person is deleted" in fact


def test_an_unknown_table_is_named_once(make_settings, database) -> None:
    """The words say once that it is a table."""
    found = _fits(make_settings, database, "delete", "CREATE TABLE note (id int)")
    assert found[0] is None
    assert _reasons(found) == [
        ("datamap-table-unknown", "the data map does not know all of the schema: table public.note is not in the map")
    ]


TENANTS = """
ALTER TABLE person ADD UNIQUE (org_id, id);
CREATE TABLE task (id int PRIMARY KEY, org_id int NOT NULL, person_id int, FOREIGN KEY (org_id, person_id) REFERENCES person (org_id, id)%s);
INSERT INTO org VALUES (1);
INSERT INTO person VALUES (7, 1, 'x', '2026-01-01Z'), (8, 1, 'y', '2026-01-01Z');
INSERT INTO task VALUES (1, 1, 7), (2, 1, 8)
"""
TASK = "      public.task: {erase: %s, links: [{to: public.person}], not_personal: [id]}\n"


@pytest.mark.parametrize("treatment", ["unlink", "anonymise"])
@pytest.mark.parametrize("action", ["", " ON DELETE SET NULL", " ON DELETE SET NULL (person_id)", " ON DELETE CASCADE"])
def test_a_composite_key_loses_only_what_may_be_null(database, action: str, treatment: str) -> None:
    """A task of a tenant is unlinked from a person though the tenant's column is NOT NULL: the check allows it, and the server bears it."""
    rules = loads(MAP % "delete" + TASK % treatment).database("courses")
    with database.session() as session:
        session.execute(SCHEMA)
        session.execute(TENANTS % action)
        graph, findings = examine(rules, "courses", read_catalogue(session))
        assert errors(findings) == []
        assert graph is not None
        people = lookup(session, graph, "participant", [("7",)], b"m" * 32)
        now = datetime(2026, 11, 23, tzinfo=UTC)
        tombstone = Tombstone(
            1, TombstoneId("t"), "courses", "c", "participant", ("7",), people[0].fingerprint, ErasureAction.ERASE, "", InstructionId(""), 0,
            now, State.RECORDED,
        )  # fmt: skip
        execute(session, graph, lambda: find(session, graph, [[tombstone]], b"m" * 32, now))
        assert session.rows("SELECT * FROM task ORDER BY id") == [(1, 1, None), (2, 1, 8)]
        assert verify(session, graph, "participant", [("7",)], Cohort(ErasureAction.ERASE)).passed


@pytest.mark.parametrize("nullable", ["", " MATCH FULL"])
def test_a_composite_key_that_cannot_be_unlinked_is_refused(database, nullable: str) -> None:
    """Without a column that may be null, or with MATCH FULL, unlinking is impossible, and the check says so."""
    rules = loads(MAP % "delete" + TASK % "unlink").database("courses")
    with database.session() as session:
        session.execute(SCHEMA)
        session.execute(TENANTS % nullable)
        if not nullable:
            session.execute("ALTER TABLE task ALTER person_id SET NOT NULL")
        _, findings = examine(rules, "courses", read_catalogue(session))
    assert [finding.code for finding in errors(findings)] == ["unlink-not-null"]


def test_extensions_of_another_version_are_refused(database, database15) -> None:
    """A given target would make an extension in its own version: that refuses, the same version does not, nor does a new cluster."""
    with database.session() as source, database15.session() as target:
        source.execute("CREATE EXTENSION hstore VERSION '1.4'")
        facts = preflight.inspect(source, read_catalogue(source), 0, target=target)
        theirs = target.value("SELECT default_version FROM pg_available_extensions WHERE name = 'hstore'")
        assert facts.other_extensions == (("hstore", "1.4", theirs),)
        assert [reason.code for reason in plan.judge_database(facts).refusals] == ["extension-version"]
        assert preflight.inspect(source, read_catalogue(source), 0).other_extensions == ()
        target.execute("CREATE EXTENSION hstore VERSION '1.4'")
        assert preflight.inspect(source, read_catalogue(source), 0, target=target).other_extensions == ()
