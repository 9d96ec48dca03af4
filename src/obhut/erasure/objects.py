"""Large objects: what a row only names by its oid goes with the last row that names it, in the same transaction.

A column of type ``oid`` (or ``lo``) may also name something else, a table for instance. So only what is a large object is unlinked, and
only when no row of any such column names it any more: what a restore would leave out, by the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable

from obhut.erasure.effects import Effects
from obhut.postgres.catalogue import Catalogue, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier

TYPES = frozenset({"oid", "lo"})


def columns(table: Table) -> tuple[str, ...]:
    """Return the columns of a table that can hold oids of large objects."""
    return tuple(column.name for column in table.columns if column.base_type in TYPES)


def naming(catalogue: Catalogue) -> dict[int, tuple[str, ...]]:
    """Return those columns of every table that holds rows, by oid of the table; an extension's own tables are left out."""
    return {
        table.oid: found
        for table in catalogue.tables.values()
        if table.kind == "r" and table.extension is None and (found := columns(table))
    }


def named(session: Session, effects: Effects) -> set[int]:
    """Return the oids that rows to be deleted hold, and those that changed rows lose; asked before the effects are applied."""
    found: set[int] = set()
    for effect in effects.tables.values():
        for column in columns(effect.table):
            rows = effect.deleted
            for change in effect.changes:
                if column in change.assignments:
                    rows = rows | change.rows
            if rows:
                query = SQL("SELECT DISTINCT {c}::oid::int8 FROM {t} WHERE ctid = ANY(%s) AND {c}::oid <> 0").format(
                    c=Identifier(column), t=effect.table.relation
                )
                found.update(int(oid) for (oid,) in session.rows(query, (rows.parameter(),)))
    return found


def unlink(session: Session, catalogue: Catalogue, oids: Iterable[int]) -> int:
    """Unlink those large objects that no row names any more, inside the open transaction; return how many.

    Raises:
        PermissionDeniedError: they belong to another role.
    """
    left = sorted(oids)
    if not left:
        return 0
    # A trigger (lo_manage) may have unlinked some already.
    query = "SELECT oid::int8 FROM pg_catalog.pg_largeobject_metadata WHERE oid = ANY(%s::int8[]::oid[])"
    left = [int(oid) for (oid,) in session.rows(query, (left,))]
    for table, names in naming(catalogue).items():
        for name in names:
            if not left:
                return 0
            still = SQL("SELECT DISTINCT {c}::oid::int8 FROM {t} WHERE {c}::oid = ANY(%s::int8[]::oid[])").format(
                c=Identifier(name), t=catalogue.tables[table].relation
            )
            kept = {int(oid) for (oid,) in session.rows(still, (left,))}
            left = [oid for oid in left if oid not in kept]
    if left:
        session.rows("SELECT pg_catalog.lo_unlink(u) FROM unnest(%s::int8[]::oid[]) AS u", (left,))
    return len(left)
