"""The catalogue of a database as frozen values: tables, columns, keys, foreign keys, sequences.

Read in a handful of set-based queries (a thousand tables take well under a second), the same on PostgreSQL 14 to 18.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composed, load, qualified

_SQL = load("obhut.postgres", "catalogue")
_ONLY = SQL("ONLY ")


class Action(StrEnum):
    """What a foreign key does to the referencing row (the letters of ``pg_constraint.confdeltype``)."""

    NO_ACTION = "a"
    RESTRICT = "r"
    CASCADE = "c"
    SET_NULL = "n"
    SET_DEFAULT = "d"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``base_type`` is the type behind a domain, ``category`` the letter of ``pg_type.typcategory``."""

    name: str
    type: str
    base_type: str
    not_null: bool
    default: str | None
    generated: str  # "" | "s" stored | "v" virtual
    identity: str  # "" | "a" always | "d" by default
    category: str
    type_kind: str  # "b" base, "d" domain, "e" enum, …
    comment: str | None
    number: int
    modifier: int

    @property
    def is_generated(self) -> bool:
        """Whether the value is computed, so that it can be neither copied nor set."""
        return self.generated != ""


@dataclass(frozen=True, slots=True)
class Key:
    """A unique index; ``columns`` holds None for an expression."""

    name: str
    primary: bool
    columns: tuple[str | None, ...]
    predicate: str | None
    one_null: bool = False  # NULLS NOT DISTINCT: a second NULL is refused, too


@dataclass(frozen=True)
class Table:
    """A table by oid; ``kind`` is ``r`` ordinary, ``p`` partitioned, ``f`` foreign."""

    oid: int
    schema: str
    name: str
    kind: str
    persistence: str
    is_partition: bool
    parent: int | None
    inherits: bool
    estimated_rows: int
    pages: int
    heap_bytes: int
    total_bytes: int
    extension: str | None
    row_security: bool
    comment: str | None
    has_toast: bool
    columns: tuple[Column, ...] = ()
    keys: tuple[Key, ...] = ()

    @property
    def full_name(self) -> str:
        """``schema.name``, as the data map writes it."""
        return f"{self.schema}.{self.name}"

    @property
    def relation(self) -> Composed:
        """Quoted name for FROM; ``ONLY`` for anything but a partitioned table, so that inheritance never mixes row addresses."""
        name = qualified(self.schema, self.name)
        return Composed([name]) if self.kind == "p" else Composed([_ONLY, name])

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Columns of the primary key, empty when there is none."""
        for key in self.keys:
            if key.primary:
                return tuple(name for name in key.columns if name)
        return ()

    @property
    def stored_columns(self) -> tuple[str, ...]:
        """Columns that a copy carries: all but the generated ones."""
        return tuple(column.name for column in self.columns if not column.is_generated)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A declared foreign key; ``set_columns`` is the column list of ``ON DELETE SET NULL (…)`` (PostgreSQL 15+)."""

    oid: int
    name: str
    table: int
    references: int
    columns: tuple[str, ...]
    referenced_columns: tuple[str, ...]
    on_delete: Action
    on_update: Action
    match_full: bool
    validated: bool
    deferrable: bool
    enforced: bool
    set_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence and the column it feeds, if one is known."""

    oid: int
    schema: str
    name: str
    increment: int
    minimum: int
    maximum: int
    cycles: bool
    table: int | None
    column: str | None
    owned: bool
    extension: str | None


@dataclass(frozen=True, slots=True)
class MaterialisedView:
    """A materialised view and whether it holds data."""

    oid: int
    schema: str
    name: str
    populated: bool
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """What one database contains."""

    server_version: int
    tables: dict[int, Table]
    foreign_keys: tuple[ForeignKey, ...]
    sequences: tuple[Sequence, ...]
    extensions: dict[str, str]
    materialised_views: tuple[MaterialisedView, ...]
    _names: dict[str, int] = field(repr=False, default_factory=dict)

    def find(self, full_name: str) -> Table | None:
        """Return the table called ``schema.name``, or none."""
        oid = self._names.get(full_name)
        return None if oid is None else self.tables[oid]

    def root(self, oid: int) -> Table:
        """Return the topmost partitioned table above a partition, or the table itself."""
        table = self.tables[oid]
        while table.parent is not None:
            table = self.tables[table.parent]
        return table

    def ancestors(self, oid: int) -> Iterator[int]:
        """Yield a table and every partitioned table above it."""
        current: int | None = oid
        while current is not None:
            yield current
            current = self.tables[current].parent

    @cached_property
    def _children(self) -> dict[int, list[Table]]:
        children: dict[int, list[Table]] = {}
        for table in self.tables.values():
            if table.parent is not None:
                children.setdefault(table.parent, []).append(table)
        return children

    def leaves(self, oid: int) -> Iterator[Table]:
        """Yield the tables that hold the rows: the leaf partitions, or the table itself."""
        table = self.tables[oid]
        if table.kind != "p":
            yield table
            return
        for child in self._children.get(oid, ()):
            yield from self.leaves(child.oid)

    @property
    def roots(self) -> list[Table]:
        """Tables that are nobody's partition, extension members left out: the unit in which the data map speaks."""
        return [table for table in self.tables.values() if not table.is_partition and table.extension is None]

    def fingerprint(self) -> str:
        """Return SHA-256 (hex) over names, types and keys: equal fingerprints mean that a data map fits both schemas alike."""
        content: list[Any] = []
        for table in sorted(self.tables.values(), key=lambda t: t.full_name):
            parent = self.tables[table.parent].full_name if table.parent else None
            content.append(
                [
                    table.full_name,
                    table.kind,
                    parent,
                    [[c.name, c.type, c.not_null, c.generated] for c in table.columns],
                    list(table.primary_key),
                ]
            )
        for key in self.foreign_keys:
            content.append(
                [
                    self.tables[key.table].full_name,
                    key.columns,
                    self.tables[key.references].full_name,
                    key.referenced_columns,
                    key.on_delete.value,
                    key.set_columns,
                ]
            )
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def read_catalogue(session: Session) -> Catalogue:
    """Read the catalogue of the session's database.

    Raises:
        DatabaseError: the role may not read the catalogue.
    """
    columns: dict[int, list[Column]] = {}
    for oid, *rest in session.rows(_SQL["columns"]):
        columns.setdefault(oid, []).append(Column(*rest))
    keys: dict[int, list[Key]] = {}
    for oid, name, primary, unique, names, predicate, valid, one_null in session.rows(_SQL["keys"]):
        if unique and valid:
            keys.setdefault(oid, []).append(Key(name, primary, tuple(names), predicate, one_null))
    tables = {row[0]: Table(*(*row, tuple(columns.get(row[0], ())), tuple(keys.get(row[0], ())))) for row in session.rows(_SQL["tables"])}
    foreign_keys = tuple(
        ForeignKey(
            oid=row[0],
            name=row[1],
            table=row[2],
            references=row[3],
            columns=tuple(row[4]),
            referenced_columns=tuple(row[5]),
            on_delete=Action(row[6]),
            on_update=Action(row[7]),
            match_full=row[8] == "f",
            validated=row[9],
            deferrable=row[10],
            enforced=row[11],
            set_columns=tuple(row[12]),
        )
        for row in session.rows(_SQL["foreign_keys"])
    )
    return Catalogue(
        server_version=session.server_version,
        tables=tables,
        foreign_keys=foreign_keys,
        sequences=tuple(Sequence(*row) for row in session.rows(_SQL["sequences"])),
        extensions={str(name): str(version) for name, version in session.rows(_SQL["extensions"])},
        materialised_views=tuple(
            MaterialisedView(oid, schema, name, populated, tuple(columns.get(oid, ())))
            for oid, schema, name, populated in session.rows(_SQL["matviews"])
        ),
        _names={table.full_name: oid for oid, table in tables.items()},
    )
