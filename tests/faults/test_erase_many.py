"""People are deleted while their tombstones are recorded: what is committed, and when, whatever dies in between."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from support.installation import Installation, installed
from support.sweep import names_of, sweep

MANY = 100

MAP = """
obhut: 1
databases:
  gym:
    controller: {table: public.studio}
    subjects:
      member: {table: public.member, controller: {studio_id: id}, incarnation: [joined_at], created: joined_at, identifiers: [email]}
    tables:
      public.studio: {personal: false, not_personal: "*"}
      public.member: {erase: delete, columns: {email: {category: user.contact.email, anonymise: {template: "{id}@example.invalid"}}}, not_personal: "*"}
      public.visit: {erase: delete, links: [{to: public.member}], not_personal: "*"}
      public.remark: {erase: delete, links: [{to: public.visit}], columns: {said: {category: user.content.private, anonymise: "null"}}, not_personal: "*"}
"""
SCHEMA = """
CREATE TABLE studio (id int PRIMARY KEY, name text);
CREATE TABLE member (id int PRIMARY KEY, studio_id int NOT NULL REFERENCES studio, email text, joined_at timestamptz DEFAULT '2020-01-01');
CREATE TABLE visit (id int PRIMARY KEY, member_id int NOT NULL REFERENCES member);
CREATE TABLE remark (id int PRIMARY KEY, visit_id int NOT NULL REFERENCES visit, said text);
CREATE INDEX ON visit (member_id);
CREATE INDEX ON remark (visit_id);
INSERT INTO studio VALUES (1, 'one'), (2, 'two');
INSERT INTO member SELECT n, 1 + n % 2, 'm' || n || '@example.com' FROM generate_series(1, 4000) n;
INSERT INTO visit SELECT n, 1 + n % 4000 FROM generate_series(1, 12000) n;
INSERT INTO remark SELECT n, n, 'remark ' || n FROM generate_series(1, 12000) n;
"""
_fresh = itertools.count(1, MANY)


@pytest.fixture(scope="module")
def gym() -> Iterator[Installation]:
    """Give an installation whose map is a tree of foreign keys: what is erased in one statement."""
    with installed("gym", map_text=MAP) as made:
        made.sql(SCHEMA)
        made.register({"1": "One", "2": "Two"})
        yield made


def _batch(people: int = MANY) -> range:
    first = next(_fresh)
    return range(first, first + people)


def _rows(gym: Installation, members: range) -> tuple[int, int, int]:
    with gym.session() as session:
        row = session.row(
            "SELECT (SELECT count(*) FROM member WHERE id = ANY(%(m)s)), (SELECT count(*) FROM visit WHERE member_id = ANY(%(m)s)),"
            " (SELECT count(*) FROM remark JOIN visit v ON v.id = visit_id WHERE v.member_id = ANY(%(m)s))",
            {"m": list(members)},
        )
    return tuple(row)  # type: ignore[return-value]  # three counts


def _everybody_else(gym: Installation) -> tuple[int, int, int]:
    with gym.session() as session:
        return tuple(session.row("SELECT (SELECT count(*) FROM member), (SELECT count(*) FROM visit), (SELECT count(*) FROM remark)"))  # type: ignore[arg-type, return-value]


def _states(gym: Installation) -> dict[str, int]:
    with gym.control_session() as control:
        return dict(control.rows("SELECT state, count(*) FROM erasure_tombstone GROUP BY state"))  # type: ignore[arg-type]


@pytest.mark.parametrize("people", [1, MANY])
def test_killed_anywhere_all_go_or_none(gym: Installation, people: int) -> None:
    """After SIGKILL at each fault point: all rows are there or none; none only with every tombstone recorded; finishing ends it."""
    gym.erase("member", *_batch(people))  # makes the list, when it is the first
    names = names_of(lambda env: gym.obhut("erase", "gym", "member", *_batch(people), env=env))
    assert {"erase.applied", "erasure-list.anchored", "erase.recorded", "erase.committed", "erase.effective"} <= set(names)

    def case(name: str) -> None:
        members = _batch(people)
        others = _everybody_else(gym)
        gym.obhut.killed_at(name, "erase", "gym", "member", *members)
        here = _rows(gym, members)
        assert here in {(people, 3 * people, 3 * people), (0, 0, 0)}, f"half of an erasure is visible: {here}"
        if not here[0]:
            with gym.control_session() as control:
                known = control.value("SELECT count(*) FROM erasure_tombstone WHERE key[1]::int = ANY(%s)", (list(members),))
            assert known == people, "rows are gone whose tombstones nobody recorded"
        gym.obhut("erase", "gym", "--finish")
        gym.obhut("erase", "gym", "member", *members)
        assert _rows(gym, members) == (0, 0, 0)
        assert _everybody_else(gym) == (others[0] - people, others[1] - 3 * people, others[2] - 3 * people)
        assert set(_states(gym)) == {"effective"}

    sweep(names, case)
    assert gym.obhut("erasures", "verify")["size"] >= people * len(names)


def test_nobody_goes_when_the_tombstones_cannot_be_written(gym: Installation) -> None:
    """The mirror cannot be written while the rows are being deleted: nothing is committed, and the next attempt erases."""
    members = _batch()
    mirror = gym.folder / "mirror"
    aside = mirror.rename(gym.folder / "aside")
    mirror.write_text("no directory", encoding="utf-8")
    gym.obhut.refused("erase", "gym", "member", *members)
    assert _rows(gym, members) == (MANY, 3 * MANY, 3 * MANY)
    mirror.unlink()
    aside.rename(mirror)
    gym.obhut("erase", "gym", "member", *members)
    assert _rows(gym, members) == (0, 0, 0)
    gym.obhut("erasures", "verify")


def test_one_row_outside_the_map_keeps_everybody(gym: Installation) -> None:
    """A table that the foreign keys forbid to lose stops all of them; lifted of it, all go."""
    members = _batch()
    gym.sql(f"CREATE TABLE locker (member_id int REFERENCES member); INSERT INTO locker VALUES ({members[3]})")
    try:
        gym.obhut.refused("erase", "gym", "member", *members)
        assert _rows(gym, members) == (MANY, 3 * MANY, 3 * MANY)
    finally:
        gym.sql("DROP TABLE locker")
    gym.obhut("erase", "gym", "member", *members)
    assert _rows(gym, members) == (0, 0, 0)


def test_one_unknown_person_keeps_everybody(gym: Installation) -> None:
    """Nobody is erased, and nobody recorded, when one of many is not there."""
    members = _batch()
    before = _states(gym)
    gym.obhut.refused("erase", "gym", "member", *members, 999_999, code="subject-missing")
    assert _rows(gym, members) == (MANY, 3 * MANY, 3 * MANY)
    assert _states(gym) == before
