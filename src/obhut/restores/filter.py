"""What the erasure list does to the rows of the quarantine: addresses that are left out, and changes to rows that stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from obhut.erasure.addresses import RowAddresses
from obhut.erasure.closure import Change, Effects
from obhut.restores.plan import DOOMED_IN_A_PART


@dataclass(frozen=True)
class TableFilter:
    """What happens to one leaf table."""

    deleted: RowAddresses = field(default_factory=RowAddresses)
    changes: tuple[Change, ...] = ()
    only: RowAddresses | None = None  # the rows that are wanted at all; None: all of them

    @cached_property
    def changed(self) -> RowAddresses:
        """Rows that stay with other values."""
        found = RowAddresses()
        for change in self.changes:
            found = found | change.rows
        return found

    @cached_property
    def excluded(self) -> RowAddresses:
        """Rows that the plain copy leaves out."""
        return self.deleted | self.changed

    def edges(self, most: int = DOOMED_IN_A_PART) -> list[int]:
        """Return the blocks at which the table is to be cut, so that no range holds many more than ``most`` of these rows."""
        found: list[int] = []
        named = self.excluded if self.only is None else self.only
        for chunk in named.chunks(most):
            block = next(iter(chunk)) >> 16
            if found and block <= found[-1]:
                continue
            found.append(block)
        return found[1:]


NOTHING = TableFilter()


@dataclass(frozen=True)
class Filter:
    """The effect of the whole list, by oid of the leaf table, with the run-time parameters that the expressions read."""

    tables: Mapping[int, TableFilter] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_effects(cls, effects: Effects) -> Filter:
        """Return the filter that the fixpoint's outcome amounts to."""
        tables = {oid: TableFilter(effect.deleted, effect.changes) for oid, effect in effects.tables.items()}
        return cls({oid: rows for oid, rows in tables.items() if rows.excluded}, effects.settings)

    def of(self, oid: int) -> TableFilter:
        """Return what happens to a table."""
        return self.tables.get(oid, NOTHING)

    def touched(self) -> Iterator[int]:
        """Yield the tables of which not every row is carried as it is."""
        return (oid for oid, rows in self.tables.items() if rows.excluded or rows.only is not None)

    @property
    def deleted(self) -> int:
        """Rows left out."""
        return sum(rows.deleted.count for rows in self.tables.values())

    @property
    def changed(self) -> int:
        """Rows with other values."""
        return sum(rows.changed.count for rows in self.tables.values())
