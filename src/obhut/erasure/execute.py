"""Carry an erasure out in one transaction.

The transaction is REPEATABLE READ: row addresses hold, and a concurrent change of the same rows is a serialization failure, upon which the
whole transaction is repeated. The people's own rows are locked first, so that nobody can attach new rows to them by a foreign key. A
foreign key that fails nevertheless may be a row that was attached just before: that is repeated, too.

After the changes the same transaction looks again, because triggers may have written rows anew. Rows that a concurrent transaction
adds without a foreign key are seen only after the commit; they are looked for once more then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from obhut.datamap.graph import Graph
from obhut.erasure import objects
from obhut.erasure.closure import Effects, TableEffect, Trace, traces
from obhut.erasure.refusals import ErasureIncompleteError
from obhut.erasure.subjects import Found
from obhut.foundation.faultpoints import reach
from obhut.foundation.ids import Lsn
from obhut.postgres.catalogue import Catalogue
from obhut.postgres.connections import Session, retrying
from obhut.postgres.errors import DatabaseError, ForeignKeyError
from obhut.postgres.sql import SQL, Composable, Composed, Identifier

PASSES = 5
TRIES = 3  # after a foreign key failed
TRIGGERED_CHANGE = "27000"  # triggered_data_change_violation: a BEFORE trigger changed a row of the same statement
NOT_SUPPORTED = "0A000"  # a table with a rule for DELETE cannot stand in WITH


@dataclass(frozen=True, slots=True)
class Executed:
    """What one transaction did.

    Attributes:
        effects: plan of the first pass.
        deleted: rows deleted, over all passes.
        changed: rows changed in the first pass.
        lsn: write-ahead log position after the commit.
        large_objects: large objects unlinked, over all passes.
    """

    effects: Effects
    people: int
    deleted: int
    changed: int
    lsn: Lsn
    large_objects: int = 0


@dataclass(slots=True)
class _Done:
    """Outcome of one committed transaction."""

    people: int
    effects: Effects
    deleted: int
    traces: list[Trace]
    worked: bool = True
    large_objects: int = 0


def execute(session: Session, graph: Graph, find: Callable[[], Found], prepare: Callable[[], None] | None = None) -> Executed:
    """Delete, change and unlink all that the people found lead to; commit, and return what was done.

    Args:
        session: on the protected database, outside a transaction.
        graph: the data map resolved against the database's current catalogue.
        find: looks the people up; called anew in every attempt, and again when the same transaction looks whether anything is left.
        prepare: called first in every attempt, inside its transaction: to lock people and to decide who of them is to be found.

    Raises:
        ErasureIncompleteError: rows came back in each pass (a trigger writes them anew, or forbids the deletion).
        ForeignKeyError: rows that stay reference rows that would go; nothing was done.
        SerializationError: other transactions changed the same rows in every attempt.
        PlanConflictError: the data map forbids what would happen.
    """
    done = _committed(session, graph, find, [], late=False, prepare=prepare)
    deleted, unlinked = done.deleted, done.large_objects
    for _ in range(PASSES if done.traces else 0):
        # Only a row that names a deleted one without a foreign key can have been missed, and only if it was committed meanwhile.
        late = _committed(session, graph, Found, done.traces, late=True)
        deleted, unlinked = deleted + late.deleted, unlinked + late.large_objects
        if not late.worked:
            break
    lsn = Lsn(str(session.value("SELECT pg_current_wal_insert_lsn()")))
    return Executed(done.effects, done.people, deleted, done.effects.changed, lsn, unlinked)


def _committed(
    session: Session,
    graph: Graph,
    find: Callable[[], Found],
    known: Sequence[Trace],
    *,
    late: bool,
    prepare: Callable[[], None] | None = None,
) -> _Done:
    ordered = False
    for attempt in range(TRIES):
        try:
            return retrying(
                lambda: _transaction(session, graph, find, known, ordered=ordered, late=late, prepare=prepare)  # noqa: B023 - called at once
            )
        except ForeignKeyError:
            if attempt == TRIES - 1:
                raise
        except DatabaseError as error:
            if ordered or error.sqlstate not in {TRIGGERED_CHANGE, NOT_SUPPORTED}:
                raise
            ordered = True
    raise AssertionError("the last try returns or raises")


def _transaction(
    session: Session,
    graph: Graph,
    find: Callable[[], Found],
    known: Sequence[Trace],
    *,
    ordered: bool,
    late: bool,
    prepare: Callable[[], None] | None = None,
) -> _Done:
    with session.transaction("repeatable read"):
        if prepare is not None:
            prepare()
        found = find()
        fence(session, graph, found)
        effects, left = traces(session, graph, found.seeds, known)
        reach("erase.resolved")
        done = _Done(found.people, effects, effects.deleted, [*known, *left])
        if late and not effects.deleted and settled(session, effects):
            done.worked = False
            return done
        named: set[int] = set()
        for _ in range(PASSES):
            named |= objects.named(session, effects)
            apply(session, graph.catalogue, effects, ordered=ordered)
            reach("erase.applied")
            if not effects.deleted and not effects.changed:
                return done
            # The re-scan inside the transaction: is anything left to do, or written anew by a trigger?
            effects, left = traces(session, graph, find().seeds, done.traces)
            done.traces.extend(left)
            if not effects.deleted and settled(session, effects):
                done.large_objects = objects.unlink(session, graph.catalogue, named)
                return done
            done.deleted += effects.deleted
        # Inside the block: raising is what rolls back.
        raise ErasureIncompleteError(
            f"rows of the person came back in each of {PASSES} passes, so the erasure was rolled back",
            "Does a trigger or rule write them anew, or forbid the deletion? The tombstone stays, so a restore leaves the person out.",
        )


def settled(session: Session, effects: Effects) -> bool:
    """Whether the rows to be changed hold the new values already, as anonymised rows do when they are looked at again."""
    effects.apply_settings(session, local=True)
    for effect in effects.tables.values():
        for change in effect.changes:
            differs = SQL(" OR ").join(
                SQL("{}::text IS DISTINCT FROM ({})::text").format(Identifier(column), value)
                for column, value in change.assignments.items()
            )
            query = SQL("SELECT EXISTS (SELECT FROM ONLY {} WHERE ctid = ANY(%s) AND ({}))").format(_name(effect), differs)
            if session.value(query, (change.rows.parameter(),)):
                return False
    return True


def fence(session: Session, graph: Graph, found: Found) -> None:
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
    effects.apply_settings(session, local=True)
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
    edges = {(catalogue.root(key.table).oid, catalogue.root(key.references).oid) for key in catalogue.foreign_keys}
    ordered: list[TableEffect] = []
    while remaining:
        present = {roots[oid] for oid in remaining}
        referenced = {parent for child, parent in edges if child in present and child != parent}
        free = [oid for oid in remaining if roots[oid] not in referenced] or [next(iter(remaining))]
        ordered.extend(remaining.pop(oid) for oid in free)
    return ordered


def _name(effect: TableEffect) -> Composable:
    return Identifier(effect.table.schema, effect.table.name)
