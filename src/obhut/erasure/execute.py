"""Carry an erasure out in one transaction.

The transaction is REPEATABLE READ: row addresses hold, and a concurrent change of the same rows is a serialization failure, upon which the
whole transaction is repeated. The people's own rows are locked first, so that nobody can attach new rows to them by a foreign key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from obhut.datamap.graph import Graph
from obhut.erasure.closure import Effects, TableEffect, resolve
from obhut.erasure.refusals import ErasureIncompleteError
from obhut.erasure.subjects import Found
from obhut.foundation.faultpoints import reach
from obhut.foundation.ids import Lsn
from obhut.postgres.catalogue import Catalogue
from obhut.postgres.connections import Session, retrying
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Composable, Composed, Identifier

PASSES = 5
TRIGGERED_CHANGE = "27000"  # triggered_data_change_violation: a BEFORE trigger changed a row of the same statement


@dataclass(frozen=True, slots=True)
class Executed:
    """What one transaction did.

    Attributes:
        effects: plan of the first pass.
        deleted: rows deleted, over all passes.
        changed: rows changed in the first pass.
        lsn: write-ahead log position after the commit.
    """

    effects: Effects
    people: int
    deleted: int
    changed: int
    lsn: Lsn


def execute(session: Session, graph: Graph, find: Callable[[], Found]) -> Executed:
    """Delete, change and unlink all that the people found lead to; commit, and return what was done.

    Args:
        session: on the protected database, outside a transaction.
        graph: the data map resolved against the database's current catalogue.
        find: looks the people up; called anew in every attempt.

    Raises:
        ErasureIncompleteError: rows came back in each pass (a trigger writes them anew, or forbids the deletion).
        SerializationError: other transactions changed the same rows in every attempt.
        PlanConflictError: the data map forbids what would happen.
    """
    try:
        people, effects, deleted, changed = retrying(lambda: _transaction(session, graph, find, ordered=False))
    except DatabaseError as error:
        if error.sqlstate != TRIGGERED_CHANGE:
            raise
        people, effects, deleted, changed = retrying(lambda: _transaction(session, graph, find, ordered=True))
    return Executed(effects, people, deleted, changed, Lsn(str(session.value("SELECT pg_current_wal_insert_lsn()"))))


def _transaction(session: Session, graph: Graph, find: Callable[[], Found], *, ordered: bool) -> tuple[int, Effects, int, int]:
    with session.transaction("repeatable read"):
        found = find()
        _fence(session, graph, found)
        first: Effects | None = None
        people, deleted, changed = found.people, 0, 0
        for _ in range(PASSES):
            effects = resolve(session, graph, found.seeds, check_conflicts=False)
            if first is None:
                first, changed = effects, effects.changed
            elif not effects.deleted and effects.changed <= changed:
                break  # the re-scan inside the transaction: nothing is left to do
            reach("erase.resolved")
            apply(session, graph.catalogue, effects, ordered=ordered)
            deleted += effects.deleted
            reach("erase.applied")
            found = find()
        else:
            raise ErasureIncompleteError(
                f"rows of the person came back in each of {PASSES} passes, so the erasure was rolled back",
                "Does a trigger or rule write them anew, or forbid the deletion? The tombstone stays, so a restore leaves the person out.",
            )
    return people, first, deleted, changed


def _fence(session: Session, graph: Graph, found: Found) -> None:
    """Lock the people's rows: a concurrent insert that references them waits, and then fails at its foreign key."""
    for seed in found.seeds:
        for oid, rows in seed.rows.items():
            table = graph.catalogue.tables[oid]
            session.execute(
                SQL("SELECT FROM ONLY {} WHERE ctid = ANY(%s) ORDER BY ctid FOR UPDATE").format(Identifier(table.schema, table.name)),
                (rows.parameter(),),
            )


def apply(session: Session, catalogue: Catalogue, effects: Effects, *, ordered: bool = False) -> None:
    """Write the effects inside the open transaction: changes first, then deletions.

    All deletions are one statement: foreign keys are checked at its end, so neither cycles nor RESTRICT keys need an order. With
    ``ordered``, children go before parents in statements of their own, which triggers that touch other rows of the plan can bear.
    """
    effects.apply_settings(session)
    for effect in effects.tables.values():
        for change in effect.changes:
            assignments = SQL(", ").join(SQL("{} = {}").format(Identifier(column), value) for column, value in change.assignments.items())
            statement = SQL("UPDATE ONLY {} SET {} WHERE ctid = ANY(%s)").format(_name(effect), assignments)
            session.execute(statement, (change.rows.parameter(),))
    deletions = [effect for effect in effects.tables.values() if effect.deleted]
    if not deletions:
        return
    if ordered or len(deletions) == 1:
        for effect in _children_first(catalogue, deletions):
            session.execute(SQL("DELETE FROM ONLY {} WHERE ctid = ANY(%s)").format(_name(effect)), (effect.deleted.parameter(),))
        return
    parts: list[Composable] = [
        SQL("{} AS (DELETE FROM ONLY {} WHERE ctid = ANY(%s))").format(Identifier(f"d{number}"), _name(effect))
        for number, effect in enumerate(deletions)
    ]
    session.execute(Composed([SQL("WITH "), SQL(", ").join(parts), SQL(" SELECT")]), [effect.deleted.parameter() for effect in deletions])


def _children_first(catalogue: Catalogue, deletions: Sequence[TableEffect]) -> list[TableEffect]:
    """Order by foreign keys; in a cycle any order, since only deferrable keys let a cycle be deleted piecemeal."""
    remaining = {effect.table.oid: effect for effect in deletions}
    roots = {oid: catalogue.root(oid).oid for oid in remaining}
    ordered: list[TableEffect] = []
    while remaining:
        referenced = {
            catalogue.root(key.references).oid
            for key in catalogue.foreign_keys
            if catalogue.root(key.table).oid in {roots[oid] for oid in remaining} and catalogue.root(key.table).oid != catalogue.root(key.references).oid
        }
        free = [oid for oid in remaining if roots[oid] not in referenced] or [next(iter(remaining))]
        ordered.extend(remaining.pop(oid) for oid in free)
    return ordered


def _name(effect: TableEffect) -> Composable:
    return Identifier(effect.table.schema, effect.table.name)
