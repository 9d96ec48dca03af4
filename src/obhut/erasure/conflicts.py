"""What the server would refuse of an erasure, found before it is asked: references to deleted rows, nulls where none may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from obhut.erasure import changes
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.effects import Effects, NamedChange, Relation, TableEffect, union
from obhut.erasure.plan import Cohort
from obhut.erasure.queries import Queries
from obhut.postgres.catalogue import Action as OnDelete
from obhut.postgres.catalogue import Catalogue, ForeignKey, Table

_NONE = RowAddresses()


class Conflicts:
    """Looks at the outcome of one fixpoint.

    Args:
        catalogue: of the database.
        queries: to it.
        relations: the state of each relation when nothing was added any more.
        foreign_keys: enforced ones, by the table that they reference.
        deletes_along: whether a link on the very columns deletes, for a cohort, all rows that a foreign key leads to.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        queries: Queries,
        relations: Mapping[int, Relation],
        foreign_keys: Mapping[int, Sequence[ForeignKey]],
        deletes_along: Callable[[Cohort, ForeignKey], bool],
    ) -> None:
        self._catalogue = catalogue
        self._queries = queries
        self._relations = relations
        self._foreign_keys = foreign_keys
        self._deletes_along = deletes_along

    def found(self, effects: Effects) -> Iterator[tuple[str, str]]:
        """Yield fact and hint for everything that the server would refuse: references to deleted rows, nulls where none may be."""
        for oid, effect in effects.tables.items():
            yield from self._null_conflicts(effect)
            if effect.deleted:
                for ancestor in self._catalogue.ancestors(oid):
                    for key in self._foreign_keys.get(ancestor, ()):
                        if count := self._remaining(key, effect):
                            child = self._catalogue.root(key.table).full_name
                            yield (
                                f"{count} rows of {child} that stay would still reference deleted rows (foreign key {key.name})",
                                f"Give {child} a treatment for this link (delete, unlink, or keep with the subject anonymised).",
                            )

    def _remaining(self, key: ForeignKey, effect: TableEffect) -> int:
        if key.on_delete in {OnDelete.CASCADE, OnDelete.SET_NULL}:
            return 0  # followed already: each such row is deleted or has lost the key
        if key.on_delete is OnDelete.SET_DEFAULT:
            return self._defaulting_to(key, effect)
        if all(self._deletes_along(cohort, key) for cohort in self._relations[effect.table.oid].deleted_by):
            return 0
        count = 0
        for child, rows in self._queries.children(key, effect.table, effect.deleted).items():
            state = self._relations[child]
            count += (rows - state.deleted - state.nulled(key.columns)).count
        return count

    def _defaulting_to(self, key: ForeignKey, effect: TableEffect) -> int:
        """Return how many rows would get a default that names a deleted row."""
        change = changes.defaulting(key)
        rows: dict[int, RowAddresses] = {}
        for leaf in self._catalogue.leaves(key.table):
            state = self._relations[leaf.oid]
            # Unlinking comes after the default and makes it null.
            nulled = union(found for other, found in state.changes.items() if other.order > changes.SET and other.nulls & set(key.columns))
            if left := state.changes.get(change, _NONE) - state.deleted - nulled:
                rows[leaf.oid] = left
        if not rows or not self._queries.defaults(key).get(effect.table.oid, _NONE) & effect.deleted:
            return 0
        return sum(each.count for each in rows.values())

    def _null_conflicts(self, effect: TableEffect) -> Iterator[tuple[str, str]]:
        state, table = self._relations[effect.table.oid], effect.table
        for change, rows in state.changes.items():
            for column in sorted(change.nulls & change.expressions.keys()):
                if table.by_name[column].not_null and rows - state.deleted and not self._set_otherwise(table, change, column):
                    fact = f"{table.full_name}.{column} would become NULL, and it is NOT NULL"
                    yield fact, "Give the rows another treatment in the data map."
        for ancestor in self._catalogue.ancestors(table.oid):
            for key in self._catalogue.foreign_keys:
                if key.enforced and key.table == ancestor and key.match_full and len(key.columns) > 1:
                    for written in effect.changes:
                        gone = frozenset(name for name, value in written.assignments.items() if value.as_string(None) == "NULL")
                        left = [name for name in key.columns if name not in gone]
                        if left and len(left) < len(key.columns) and self._queries.partly_null(table, left, written.rows):
                            yield (
                                f"{key.name} of {table.full_name} is MATCH FULL and would be null in part",
                                "Unlink all its columns, or delete the rows.",
                            )

    def _set_otherwise(self, table: Table, change: NamedChange, column: str) -> bool:
        """Whether a default stands in for the null."""
        return change.name.startswith("set default") and table.by_name[column].default is not None
