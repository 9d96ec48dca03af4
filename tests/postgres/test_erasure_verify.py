"""The second look after an erasure: asks by key, sees what is left, and nothing else."""

from __future__ import annotations

import pytest

from obhut.datamap.graph import require
from obhut.datamap.models import DatabaseMap
from obhut.erasure.entries import Action
from obhut.erasure.plan import Cohort
from obhut.erasure.verify import scan, verify
from obhut.postgres.catalogue import read_catalogue

SCHEMA = """
CREATE TABLE tenant (id int PRIMARY KEY);
CREATE TABLE person (id int PRIMARY KEY, tenant_id int REFERENCES tenant, email text, created_at timestamptz DEFAULT now());
CREATE TABLE visit (id int PRIMARY KEY, person_id int, note text);
CREATE TABLE club (id int PRIMARY KEY, members int[], log jsonb);
INSERT INTO tenant VALUES (1);
INSERT INTO person SELECT n, 1, 'p' || n || '@example.com' FROM generate_series(1, 50) n;
INSERT INTO visit SELECT n, n, 'visit of p' || n || '@example.com' FROM generate_series(1, 50) n;
INSERT INTO club VALUES (1, '{3,7,9}', '{"seen": [{"id": 3}, {"id": 8}]}');
"""


def rules(erase: str) -> DatabaseMap:
    return DatabaseMap.model_validate(
        {
            "controller": {"table": "public.tenant"},
            "subjects": {"person": {"table": "public.person", "controller": {"tenant_id": "id"}, "incarnation": ["created_at"]}},
            "tables": {
                "public.person": {
                    "erase": erase,
                    "columns": {"email": {"category": "user.contact.email", "anonymise": {"template": "gone-{id}@example.invalid"}}},
                },
                "public.visit": {"erase": "delete", "links": [{"to": "public.person", "columns": {"person_id": "id"}}]},
                "public.club": {
                    "links": [
                        {"to": "public.person", "array": "members", "erase": "unlink"},
                        {"to": "public.person", "json": "log", "path": "$.seen[*].id", "erase": "unlink"},
                    ]
                },
            },
        }
    )


@pytest.fixture
def filled(database):
    with database.session() as session:
        session.execute(SCHEMA)
        yield session


def left(session, erase, keys):
    graph = require("courses", rules(erase), read_catalogue(session))
    found = verify(session, graph, "person", [(str(key),) for key in keys], Cohort(Action.ERASE))
    return {(answer.table.split(".")[1], answer.rows) for answer in found.failed}


def test_rows_of_the_person_are_found_wherever_a_link_leads(filled):
    """A row, a child without a foreign key, an array element and an id in JSON are each counted."""
    assert left(filled, "delete", [3]) == {("person", 1), ("visit", 1), ("club", 1)}


def test_only_the_people_asked_for_are_counted(filled):
    """With everything of one person gone the look passes, although fifty others are there."""
    filled.execute("DELETE FROM person WHERE id = 8; DELETE FROM visit WHERE person_id = 8; UPDATE club SET log = '{}'")
    assert left(filled, "delete", [8]) == set()


def test_a_value_that_is_not_anonymised_is_counted_once(filled):
    """A template that names the key column is compared for the person asked for, not for the whole table."""
    filled.execute("DELETE FROM visit; UPDATE club SET members = '{}', log = '{}'")
    assert left(filled, "anonymise", [5]) == {("person", 1)}
    filled.execute("UPDATE person SET email = 'gone-5@example.invalid' WHERE id = 5")
    assert left(filled, "anonymise", [5]) == set()


def test_a_scan_finds_copies_of_an_identifier(filled):
    """An e-mail address copied into a note is found after the person's row is gone; short values are not searched."""
    graph = require("courses", rules("delete"), read_catalogue(filled))
    filled.execute("DELETE FROM person WHERE id = 7")
    found = scan(filled, graph, ["p7@example.com", "p7"])
    assert {(answer.table, answer.rows) for answer in found.failed} == {("public.visit", 1)}
    assert not scan(filled, graph, ["p7"]).passed
