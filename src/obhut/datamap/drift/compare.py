"""The differences between two states of a schema. Pure.

A renamed table or column is told from a dropped and a new one: a table by the columns it kept, a column by its type and its neighbours, for
renaming moves nothing while a new column always comes last.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from obhut.datamap.drift.state import ColumnState, SchemaState, TableState

_SAME_TABLE: Final = 0.7  # share of columns that two tables must have in common to be one
_LIKE: Final = 0.5  # likeness of two names, between 0 and 1


class Kind(StrEnum):
    """What happened."""

    TABLE_NEW = "table-new"
    TABLE_DROPPED = "table-dropped"
    TABLE_RENAMED = "table-renamed"
    COLUMN_NEW = "column-new"
    COLUMN_DROPPED = "column-dropped"
    COLUMN_RENAMED = "column-renamed"
    COLUMN_RETYPED = "column-retyped"
    PATH_NEW = "json-path-new"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``table`` and ``column`` are today's names where there are such; ``was`` is the old name or type."""

    kind: Kind
    table: str
    column: str = ""
    was: str = ""
    now: str = ""  # a type, or a JSON path


def compare(before: SchemaState, after: SchemaState) -> list[Change]:
    """Return every difference, by table."""
    renamed = _renamed_tables(before, after)
    changes = [Change(Kind.TABLE_RENAMED, new, was=old) for new, old in renamed.items()]
    changes += [Change(Kind.TABLE_NEW, name) for name in after.tables if name not in before.tables and name not in renamed]
    gone = set(before.tables) - set(after.tables) - set(renamed.values())
    changes += [Change(Kind.TABLE_DROPPED, name, was=name) for name in gone]
    for name, table in after.tables.items():
        old = before.tables.get(renamed.get(name, name))
        if old is not None:
            changes += _columns(name, old, table)
    return sorted(changes, key=lambda change: (change.table, change.column, change.kind, change.now))


def _renamed_tables(before: SchemaState, after: SchemaState) -> dict[str, str]:
    """Return old names by new ones."""
    fresh = [name for name in after.tables if name not in before.tables]
    gone = [name for name in before.tables if name not in after.tables]
    found = _moved(before, after, fresh, gone)
    fresh, gone = [name for name in fresh if name not in found], [name for name in gone if name not in found.values()]
    scored = [
        (share, difflib.SequenceMatcher(None, old, new).ratio(), new, old)
        for new in fresh
        for old in gone
        if (share := _shared(before.tables[old], after.tables[new])) >= _SAME_TABLE
    ]
    taken: set[str] = set()
    for _, _, new, old in sorted(scored, reverse=True):
        if new not in found and old not in taken:
            found[new] = old
            taken.add(old)
    return found


def _moved(before: SchemaState, after: SchemaState, fresh: list[str], gone: list[str]) -> dict[str, str]:
    """Return the tables that only went to another schema: a thousand at once when a schema is renamed."""
    left: dict[str, list[str]] = {}
    for old in gone:
        left.setdefault(old.partition(".")[2], []).append(old)
    found: dict[str, str] = {}
    for new in fresh:
        for old in left.get(new.partition(".")[2], []):
            if old not in found.values() and _shared(before.tables[old], after.tables[new]) >= _SAME_TABLE:
                found[new] = old
                break
    return found


def _shared(old: TableState, new: TableState) -> float:
    """Return which share of the columns two tables have in common; nothing for tables of one column, which are all alike."""
    common = sum(1 for name, column in new.columns.items() if name in old.columns and _same_type(old.columns[name], column))
    return common / max(len(old.columns), len(new.columns)) if common > 1 else 0.0


def _same_type(old: ColumnState, new: ColumnState) -> bool:
    return not (old.type and new.type) or old.type == new.type


def _columns(name: str, old: TableState, new: TableState) -> Iterator[Change]:
    renamed = {} if old.partial else _renamed_columns(old.columns, new.columns)
    for column, state in new.columns.items():
        former = old.columns.get(renamed.get(column, column))
        if column in renamed:
            yield Change(Kind.COLUMN_RENAMED, name, column, was=renamed[column], now=state.type)
        if former is not None:
            yield from _within(name, column, former, state)
        elif not old.partial:
            yield Change(Kind.COLUMN_NEW, name, column, now=state.type)
    for column, state in old.columns.items():
        if not new.partial and column not in new.columns and column not in renamed.values():
            yield Change(Kind.COLUMN_DROPPED, name, column, was=state.type)


def _within(name: str, column: str, old: ColumnState, new: ColumnState) -> Iterator[Change]:
    if not _same_type(old, new):
        yield Change(Kind.COLUMN_RETYPED, name, column, was=old.type, now=new.type)
    for path in new.paths:
        if path not in old.paths:
            yield Change(Kind.PATH_NEW, name, column, now=path)


def _renamed_columns(old: Mapping[str, ColumnState], new: Mapping[str, ColumnState]) -> dict[str, str]:
    """Return old names by new ones."""
    gone, fresh = [name for name in old if name not in new], [name for name in new if name not in old]
    before, after = _neighbours(old, set(new)), _neighbours(new, set(old))
    found: dict[str, str] = {}
    for column in fresh:
        for former in gone:
            if former in found.values() or not _same_type(old[former], new[column]):
                continue
            alike = difflib.SequenceMatcher(None, former, column).ratio() >= _LIKE
            # A place between the same neighbours proves it; at the end of a table, where new columns come, the name has to be alike, too.
            # A map lists columns in any order, so without types only the name tells.
            same_place = before[former] == after[column] and (alike or after[column][1] is not None)
            if same_place if old[former].type else alike:
                found[column] = former
                break
    return found


def _neighbours(columns: Mapping[str, ColumnState], kept: set[str]) -> dict[str, tuple[str | None, str | None]]:
    """Return by column the nearest ones before and behind it that both states have."""
    names = list(columns)
    found = {}
    for index, name in enumerate(names):
        left = next((other for other in reversed(names[:index]) if other in kept), None)
        right = next((other for other in names[index + 1 :] if other in kept), None)
        found[name] = (left, right)
    return found
