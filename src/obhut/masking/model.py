"""The plan of a masked copy as frozen values that carry their reasons.

Order of a stream: the columns that the client masks or reads come first, the rest of the line stays one piece that nobody looks into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from obhut.datamap.kinds import Kind
from obhut.datamap.models import Mask
from obhut.datamap.transformers import CATALOGUE, Effect, Per, Place
from obhut.masking.errors import MaskingRefusedError
from obhut.masking.identity import JsonKey, KeyDomain, Variant
from obhut.postgres.sql import SQL, Composable, Identifier


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is copied: a stable code, the place, the fact and what to do."""

    code: str
    table: str
    column: str | None
    fact: str
    todo: str


@dataclass(frozen=True, slots=True)
class Person:
    """Whose value a cell holds: the column of the same row with the person's key."""

    subject: str
    column: str


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """What becomes of one column.

    Attributes:
        name, kind: of the column.
        not_null: whether it must hold a value.
        transformer, options: from the catalogue.
        category: of the data map, None where it says "not personal" or the column is a key.
        reason: why this one, in words for the report.
        per: what decides the result.
        identity: the identity domain, whose sub-key is used.
        person: the column with the person's key, for ``per`` person.
        limit: characters at the most that the result may have: the narrowest column of the identity domain.
        expression: what the SELECT says in place of the column, None for the column itself.
        unique: whether it stands in a unique index.
        key: the domain of re-issued keys that it follows, by the value of another column where that decides.
        keys_at: JSON paths with re-issued keys.
        reads: columns of the same row that the client needs.
    """

    name: str
    kind: Kind
    not_null: bool
    transformer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    category: str | None = None
    reason: str = ""
    per: Per | None = None
    identity: str = ""
    person: Person | None = None
    limit: int | None = None
    expression: Composable | None = None
    unique: bool = False
    key: tuple[Variant, ...] = ()
    keys_at: tuple[JsonKey, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """Where it is masked."""
        return CATALOGUE[self.transformer].place

    @property
    def effect(self) -> Effect:
        """What of the original is left."""
        return CATALOGUE[self.transformer].effect

    @property
    def inside(self) -> Mapping[str, Effect]:
        """What of the original is left at the paths of a document that have their own transformer."""
        paths = (self.options.get("paths") or {}) if self.transformer == "json" else {}
        return {str(path): CATALOGUE[Mask.model_validate(written).transformer].effect for path, written in paths.items()}


@dataclass(frozen=True, slots=True)
class Pool:
    """A distribution to read from the source before the stream: classes with their counts, or quantiles."""

    name: str
    oid: int
    column: str
    quantiles: bool
    k: int


@dataclass(frozen=True)
class TablePlan:
    """One table: its stored columns in the order of the stream; the first ``leading`` of them are taken apart.

    ``domains`` are those of the re-issued keys that its columns hold; ``limits`` the characters of the narrowest column by identity domain.
    """

    oid: int
    name: str
    columns: tuple[ColumnPlan, ...]
    leading: int
    domains: tuple[KeyDomain, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in the order of the stream, for both sides' COPY."""
        return tuple(column.name for column in self.columns)

    @property
    def masked(self) -> tuple[ColumnPlan, ...]:
        """Columns that the client masks; none: the stream may go from server to server untouched."""
        return tuple(column for column in self.columns if column.place is Place.CLIENT)

    def select_list(self, alias: str | None = None) -> Composable:
        """Return what the SELECT lists; rules of the server are expressions over the row, so the value never leaves it."""
        if alias is not None and any(column.expression is not None for column in self.columns):
            raise ValueError("expressions read bare column names: give the relation no alias, or name its columns")
        cells = (column.expression or (Identifier(alias, column.name) if alias else Identifier(column.name)) for column in self.columns)
        return SQL(", ").join(cells)

    def column(self, name: str) -> ColumnPlan:
        """Return the plan of a column."""
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True)
class MaskPlan:
    """A whole database.

    Attributes:
        database: its name in the map.
        version: SHA-256 (hex) of the map.
        locale: of word lists.
        tables: by oid of the topmost table; partitions follow it.
        keys: domains of re-issued keys, whose ranges must be read.
        pools: distributions that must be read.
        refusals: why nothing may be copied; empty when all is well.
        identifiers: columns (oid of the table, name) that the map lists as identifiers of its subjects.
    """

    database: str
    version: str
    locale: str
    tables: Mapping[int, TablePlan]
    keys: tuple[KeyDomain, ...]
    pools: tuple[Pool, ...]
    refusals: tuple[Refusal, ...]
    identifiers: frozenset[tuple[int, str]] = frozenset()

    def require(self) -> None:
        """Refuse a plan with refusals.

        Raises:
            MaskingRefusedError: carries all of them.
        """
        if self.refusals:
            raise MaskingRefusedError(self.refusals)
