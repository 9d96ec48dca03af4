"""Which keys of the list are laid beside a database: those that occur in it, whatever the type, and all of them where that cannot be told."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from obhut.datamap.check import examine
from obhut.datamap.graph import Graph
from obhut.datamap.load import loads
from obhut.datamap.surroundings import read_surroundings
from obhut.erasure import ledger, reading
from obhut.erasure.entries import Action, NewTombstone
from obhut.foundation.clock import SystemClock
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.restores.occurring import Listed, Place

SHARED = "80000000000000ff"
SCHEMA = """
CREATE TABLE org (id int PRIMARY KEY);
INSERT INTO org VALUES (1);
CREATE TABLE person (id {type} PRIMARY KEY, email text, org_id int DEFAULT 1 REFERENCES org);
CREATE TABLE visit (id int PRIMARY KEY, person_id {other});
"""
MAP = """
obhut: 1
databases:
  courses:
    controller: {table: public.org}
    subjects: {person: {table: public.person, controller: {org_id: id}, identifiers: [email]}}
    tables:
      public.org: {personal: false}
      public.person: {erase: delete, links: [], columns: {email: user.contact.email}, not_personal: [id, org_id]}
      public.visit: {erase: delete, links: [{to: public.person, columns: {person_id: id}}], not_personal: [id, person_id]}
"""


@pytest.fixture
def opened(control: Settings) -> Iterator[Settings]:
    """Open a fresh, empty list."""
    ledger.open_ledger(control)
    yield control
    ledger.close_ledger()


def _graph(session: Session, type_: str, other: str) -> Graph:
    session.execute(SCHEMA.format(type=type_, other=other))
    graph, findings = examine(loads(MAP), "courses", read_catalogue(session), read_surroundings(session))
    assert graph is not None, findings
    return graph


def _record(keys: list[str]) -> None:
    new = [NewTombstone("courses", "ctl_1", "person", (key,), Action.ERASE, "map-1", "ins_1", "") for key in keys]
    ledger.record(new, SystemClock())


def _keys(listed: Listed, name: str) -> tuple[int, list[str]]:
    parts = list(listed.arrays(name, "person"))
    return sum(count for count, _ in parts), [key for _, arrays in parts if arrays for key in arrays[1][1:-1].split(",")]


@pytest.mark.parametrize(("type_", "other"), [("bigint", "integer"), ("smallint", "bigint"), ("integer", "integer")])
def test_of_numbers_those_that_occur_are_asked_about(opened: Settings, database: Any, type_: str, other: str) -> None:
    with database.session() as session:
        graph = _graph(session, type_, other)
        session.execute("INSERT INTO person VALUES (-3, 'a'), (5, 'b'), (70, 'c')")
        session.execute("INSERT INTO visit VALUES (1, 8), (2, NULL), (3, 5)")
        _record([str(number) for number in range(-3, 30)])
        listed = Listed(reading.head().size, whole=Place(session, graph, links=True), own=Place(session, graph, links=False))
        assert _keys(listed, "whole") == (33, ["-3", "5", "8"]), "a person without a row is named by a column without a foreign key"
        assert _keys(listed, "own") == (33, ["-3", "5"])
        assert _keys(Listed(3, own=Place(session, graph, links=False)), "own") == (3, ["-3"]), "the list as it was at a size"


def test_uuids_that_share_an_end_both_go(opened: Settings, database: Any) -> None:
    mine, alike, other = (str(uuid.UUID(digit * 16 + end)) for digit, end in zip("123", (SHARED, SHARED, SHARED[::-1]), strict=True))
    with database.session() as session:
        graph = _graph(session, "uuid", "uuid")
        session.execute("INSERT INTO person VALUES (%s, 'a')", (mine,))
        _record([mine, alike, other])
        listed = Listed(reading.head().size, own=Place(session, graph, links=True))
        assert _keys(listed, "own") == (3, [mine, alike])


@pytest.mark.parametrize(("type_", "other", "why"), [("text", "text", "type"), ("bigint", "text", "column of another type")])
def test_all_are_asked_about_where_sets_cannot_tell(opened: Settings, database: Any, type_: str, other: str, why: str) -> None:
    with database.session() as session:
        graph = _graph(session, type_, other)
        session.execute("INSERT INTO person VALUES ('5', 'b')")
        _record(["4", "5", "6"])
        assert _keys(Listed(reading.head().size, own=Place(session, graph, links=True)), "own") == (3, ["4", "5", "6"]), why


def test_a_key_that_is_no_number_is_left_to_the_server(opened: Settings, database: Any) -> None:
    with database.session() as session:
        graph = _graph(session, "bigint", "bigint")
        _record(["4", "a\tb c", "6"])
        count, keys = _keys(Listed(reading.head().size, own=Place(session, graph, links=False)), "own")
        assert (count, len(keys)) == (3, 3)
