"""An erasure on the live database and the filter of a restore give the same rows; both mean what the naive model says.

Three databases from one drawing: in ``a`` the erasure is executed; ``b`` is left alone, its effects are computed, and its rows are
copied to ``c`` as the restore copies them. Then ``a`` and ``c`` must hold the same rows, the foreign keys of ``c`` must hold, and the
rows must be those of the model.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from estates import NOW, Estate, estates
from hypothesis import event, given, note
from naive import Naive, Refused

from obhut.datamap.graph import Graph, require
from obhut.datamap.models import DatabaseMap
from obhut.erasure import direct
from obhut.erasure.closure import Effects, resolve
from obhut.erasure.entries import Action, State, Tombstone
from obhut.erasure.execute import execute
from obhut.erasure.refusals import ErasureRefusedError, PlanConflictError
from obhut.erasure.subjects import Found, find
from obhut.foundation.ids import InstructionId, TombstoneId
from obhut.postgres.catalogue import Catalogue, Table, read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier, column_list

_number = itertools.count(1)
MAC = b"k" * 32


def tombstones(estate: Estate) -> list[Tombstone]:
    """Return the erasures as the list would give them."""
    return [
        Tombstone(
            seq=number,
            id=TombstoneId(f"t{number}"),
            database="d",
            controller="c",
            subject_kind=erasure.kind,
            key=tuple(str(value) for value in erasure.key),
            fingerprint="",
            action=Action(erasure.action),
            map_version="",
            instruction=InstructionId(""),
            epoch=0,
            erased_at=erasure.erased_at,
            state=State.RECORDED,
        )
        for number, erasure in enumerate(estate.erasures)
    ]


@contextmanager
def schemas(session: Session, estate: Estate) -> Iterator[tuple[str, str, str]]:
    """Make the schemas a and b with data and keys, and c without; gone afterwards."""
    number = next(_number)
    a, b, c = (f"{letter}{number}" for letter in "abc")
    try:
        for schema in (a, b):
            session.execute(f"{estate.ddl(schema)}\n{estate.data()}\n{estate.keys()}".replace("%", "%%"))
        session.execute(estate.ddl(c))
        session.execute("SET search_path = pg_catalog")
        yield a, b, c
    finally:
        session.execute(f"SET search_path = pg_catalog; DROP SCHEMA IF EXISTS {a}, {b}, {c} CASCADE")


def graph_of(estate: Estate, schema: str, catalogue: Catalogue) -> Graph:
    return require("d", DatabaseMap.model_validate(estate.rules(schema)), catalogue)


def people(session: Session, graph: Graph, estate: Estate) -> Found:
    return find(session, graph, [tombstones(estate)], MAC, NOW)


def relations(catalogue: Catalogue, schema: str) -> list[Table]:
    return [table for table in catalogue.tables.values() if table.schema == schema and table.kind == "r" and table.name != "ctl"]


def rows(session: Session, catalogue: Catalogue, schema: str) -> dict[str, Counter[str]]:
    """Return the rows of each relation as text, generated columns and all."""
    return {
        table.name: Counter(text for (text,) in session.rows(SQL("SELECT t::text FROM {} t").format(table.relation)))
        for table in relations(catalogue, schema)
    }


def documents(session: Session, catalogue: Catalogue, schema: str, estate: Estate) -> dict[str, list[Any]]:
    """Return the rows of each table as JSON, without generated columns."""
    found: dict[str, list[Any]] = {}
    for table in relations(catalogue, schema):
        name = catalogue.root(table.oid).name
        values = found.setdefault(name, [])
        values.extend(document for (document,) in session.rows(SQL("SELECT to_jsonb(t) - 'g' FROM {} t").format(table.relation)))
    return {name: sorted(values, key=canonical) for name, values in found.items()}


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def filter_copy(session: Session, catalogue: Catalogue, effects: Effects, source: str, target: str) -> None:
    """Copy the rows that stay, and the changed ones with their new values, leaf by leaf, as the restore does."""
    effects.apply_settings(session)
    for table in relations(catalogue, source):
        columns = table.stored_columns
        into = SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE ").format(Identifier(target, table.name), column_list(columns))
        effect = effects.tables.get(table.oid)
        if effect is None:
            session.execute(into + SQL("SELECT {} FROM {}").format(column_list(columns), table.relation))
            continue
        stay = SQL("SELECT {} FROM {} WHERE NOT ctid = ANY(%s)").format(column_list(columns), table.relation)
        session.execute(into + stay, (effect.touched.parameter(),))
        for change in effect.changes:
            values = SQL(", ").join(change.assignments.get(name, Identifier(name)) for name in columns)
            session.execute(into + SQL("SELECT {} FROM {} WHERE ctid = ANY(%s)").format(values, table.relation), (change.rows.parameter(),))


def compare(session: Session, estate: Estate) -> str:
    """Check all that this module promises for one estate; return how it ended."""
    note("\n".join([estate.ddl("x"), estate.data(), estate.keys(), json.dumps(estate.rules("x"), default=str), repr(estate.erasures)]))
    with schemas(session, estate) as (a, b, c):
        catalogue = read_catalogue(session)
        expected: dict[str, list[Any]] | None
        try:
            expected = Naive(estate).run()
        except Refused:
            expected = None
        before = rows(session, catalogue, a)
        live, still = graph_of(estate, a, catalogue), graph_of(estate, b, catalogue)
        with session.transaction("repeatable read"):
            try:
                effects = resolve(session, still, people(session, still, estate).seeds)
            except PlanConflictError as error:
                note(f"refused: {error}")
                effects = None
            else:
                filter_copy(session, catalogue, effects, b, c)
        try:
            execute(session, live, lambda: people(session, live, estate))
        except (DatabaseError, ErasureRefusedError) as error:
            note(f"failed: {error}")
            assert rows(session, catalogue, a) == before, "a failed erasure changed something"
            assert effects is None, "the erasure failed where the plan saw no conflict"
            assert expected is None, "the model sees no conflict"
            return "refused"
        assert effects is not None, "the plan refused what the erasure did"
        assert rows(session, catalogue, a) == rows(session, catalogue, c)
        session.execute(f"SET search_path = {c}, pg_catalog; {estate.keys()}; SET search_path = pg_catalog")
        assert expected is not None, "the model refuses"
        wanted = {name: sorted(values, key=canonical) for name, values in expected.items()}
        assert documents(session, catalogue, a, estate) == wanted
        return "erased" if before != rows(session, catalogue, a) else "nothing to do"


@given(estate=estates())
def test_filter_equals_erasure(session: Session, estate: Estate) -> None:
    """Whatever the schema, the data, the map and the erasures: filter, erasure and model agree, or all refuse."""
    event(compare(session, estate))


@given(estate=estates(tree=True))
def test_short_way_equals_long_way(session: Session, estate: Estate) -> None:
    """Where the map is a tree of foreign keys, the one statement of the short way deletes what the fixpoint deletes, or both refuse."""
    both_ways(session, estate)


@given(estate=estates(tree=True, stay=True))
def test_short_way_changes_what_the_long_way_changes(session: Session, estate: Estate) -> None:
    """The same where the rows of the tree stay and are anonymised, whatever rules their columns have."""
    both_ways(session, estate)


def both_ways(session: Session, estate: Estate) -> None:
    """Erase by the short way in one schema and by the long way in another, and compare."""
    note("\n".join([estate.ddl("x"), estate.data(), estate.keys(), json.dumps(estate.rules("x"), default=str), repr(estate.erasures)]))
    with schemas(session, estate) as (a, b, _):
        catalogue = read_catalogue(session)
        live, short = graph_of(estate, a, catalogue), graph_of(estate, b, catalogue)
        before = rows(session, catalogue, a)
        try:
            with session.transaction("repeatable read"):
                found = people(session, short, estate)
                plans = [direct.compile_plan(short, seed.subject, seed.cohort) for seed in found.seeds]
                if len(plans) != 1 or plans[0] is None or found.seeds[0].missing:
                    event("several cohorts" if len(plans) != 1 else "has to go the long way" if plans[0] is None else "somebody is missing")
                    return
                direct.run(session, plans[0], found)
            refused = False
        except DatabaseError as error:
            note(f"failed: {error}")
            refused = True
        try:
            execute(session, live, lambda: people(session, live, estate))
        except (DatabaseError, ErasureRefusedError) as error:
            note(f"failed: {error}")
            assert refused
            event("both refuse")
            return
        if refused:
            event("the short way refuses, the long way is gone")
            return
        assert rows(session, catalogue, a) == rows(session, catalogue, b)
        event("erased by both" if before != rows(session, catalogue, a) else "nothing to do")


@given(estate=estates(only_keys=True))
def test_foreign_keys_as_the_server_follows_them(session: Session, estate: Estate) -> None:
    """With a map that only says delete, an erasure leaves what ``DELETE FROM subject`` of the server leaves."""
    with schemas(session, estate) as (a, b, _):
        catalogue = read_catalogue(session)
        graph = graph_of(estate, a, catalogue)
        try:
            with session.transaction():
                for table in estate.tables.values():
                    for erasure in estate.erasures:
                        if erasure.kind == table.name:
                            where = " AND ".join(f"{name} = %s::{kind}" for name, kind in zip(table.key, table.types, strict=True))
                            session.execute(
                                f"DELETE FROM ONLY {b}.{table.name} WHERE {where}".replace("ONLY ", "" if table.partition else "ONLY "),
                                [str(v) for v in erasure.key],
                            )
        except DatabaseError:
            # The server looks at RESTRICT and NO ACTION on the way, one key after the other; where it refuses, erasing may succeed.
            event("the server refuses")
            return
        execute(session, graph, lambda: people(session, graph, estate))
        assert rows(session, catalogue, a) == rows(session, catalogue, b)
        event("same rows")
