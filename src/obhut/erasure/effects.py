"""The outcome of the fixpoint as a value: per relation, which rows go and which change how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from obhut.datamap.graph import Subject
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.plan import Cohort, PlannedEffect
from obhut.erasure.queries import Absent
from obhut.masking.expressions import Expression
from obhut.postgres.catalogue import Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import Composable, Identifier


@dataclass(frozen=True)
class Seed:
    """People to start from: rows of the subject table, and keys whose row is not there."""

    cohort: Cohort
    subject: Subject
    rows: dict[int, RowAddresses]
    missing: Absent | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Keys of deleted rows that rows without a foreign key may still name, or may come to name while the erasure runs."""

    cohort: Cohort
    absent: Absent


@dataclass(frozen=True, slots=True)
class Change:
    """Rows that stay, and the new value of each changed column."""

    rows: RowAddresses
    assignments: Mapping[str, Composable]


@dataclass(frozen=True, slots=True)
class TableEffect:
    """What becomes of one relation's rows (a plain table or a leaf partition); all other rows stay as they are."""

    table: Table
    deleted: RowAddresses
    changes: tuple[Change, ...]
    reached: RowAddresses

    @property
    def changed(self) -> int:
        """Number of rows that stay with other values."""
        return sum(change.rows.count for change in self.changes)

    @property
    def touched(self) -> RowAddresses:
        """Rows that are deleted or changed."""
        rows = self.deleted
        for change in self.changes:
            rows = rows | change.rows
        return rows


@dataclass(frozen=True)
class Effects:
    """The outcome of the fixpoint.

    Attributes:
        tables: by oid of the relation that holds the rows; relations without effect are left out.
        settings: run-time parameters that the assignments read; to be set in each session that applies them.
        planned: counts with reasons.
    """

    tables: dict[int, TableEffect]
    settings: dict[str, str]
    planned: tuple[PlannedEffect, ...]

    @property
    def deleted(self) -> int:
        """Rows deleted, over all tables."""
        return sum(effect.deleted.count for effect in self.tables.values())

    @property
    def changed(self) -> int:
        """Rows changed, over all tables."""
        return sum(effect.changed for effect in self.tables.values())

    def apply_settings(self, session: Session, *, local: bool = False) -> None:
        """Set the run-time parameters that the assignments read; ``local`` for the open transaction only."""
        for name, value in self.settings.items():
            session.set(name, value, local=local)


@dataclass(frozen=True, slots=True)
class NamedChange:
    """A kind of change: its place in the order, the columns it makes null or default, and its expressions."""

    order: int  # the server's own first, then unlinking, anonymising last: a later expression wraps an earlier one
    name: str
    expressions: Mapping[str, Expression] = field(compare=False)
    nulls: frozenset[str] = field(default=frozenset(), compare=False)

    def __hash__(self) -> int:
        """Return a hash of the name."""
        return hash(self.name)


@dataclass
class Relation:
    """The growing state of one relation while the fixpoint runs."""

    deleted: RowAddresses = field(default_factory=RowAddresses)
    deleted_by: dict[Cohort, RowAddresses] = field(default_factory=dict)
    reached: dict[Cohort, RowAddresses] = field(default_factory=dict)
    kept: RowAddresses = field(default_factory=RowAddresses)
    soft: RowAddresses = field(default_factory=RowAddresses)  # anonymised: they stay, but no longer stand for a person
    candidates: RowAddresses = field(default_factory=RowAddresses)  # shared parents that a link led to
    changes: dict[NamedChange, RowAddresses] = field(default_factory=dict)

    def nulled(self, columns: Iterable[str]) -> RowAddresses:
        """Return the rows in which one of the columns becomes null (or its default)."""
        wanted = frozenset(columns)
        return union(rows for change, rows in self.changes.items() if change.nulls & wanted)


def group_changes(table: Table, changed: Mapping[NamedChange, RowAddresses], deleted: RowAddresses) -> Iterator[Change]:
    """Split the changed rows by which changes apply, so that each row is written once with all its new values."""
    groups: list[tuple[RowAddresses, tuple[NamedChange, ...]]] = []
    for change in sorted(changed, key=lambda each: (each.order, each.name)):
        rest = changed[change] - deleted
        split: list[tuple[RowAddresses, tuple[NamedChange, ...]]] = []
        for members, applied in groups:
            if inside := members & rest:
                split.append((inside, (*applied, change)))
            if outside := members - rest:
                split.append((outside, applied))
            rest = rest - inside
        if rest:
            split.append((rest, (change,)))
        groups = split
    for members, applied in groups:
        yield Change(members, _assignments(table, applied))


def _assignments(table: Table, changes: Sequence[NamedChange]) -> dict[str, Composable]:
    values: dict[str, Composable] = {}
    for change in changes:
        for column, expression in change.expressions.items():
            values[column] = expression(values.get(column, Identifier(column)))
    return {column: values[column] for column in table.by_name if column in values}


def union(sets: Iterable[RowAddresses]) -> RowAddresses:
    """Return the union of sets of addresses."""
    rows = RowAddresses()
    for each in sets:
        rows = rows | each
    return rows
