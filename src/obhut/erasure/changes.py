"""What rows that stay get: the rules of anonymising, keys taken away, and what a foreign key's ON DELETE action sets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from obhut.datamap.graph import Link, LinkForm, TableNode
from obhut.datamap.models import Anonymisation
from obhut.erasure.effects import NamedChange
from obhut.masking import expressions
from obhut.postgres.catalogue import Action as OnDelete
from obhut.postgres.catalogue import Catalogue, ForeignKey, Table

SET: Final = 0  # first, as the server does it; the orders of changes to one row
_UNLINK, _ANONYMISE = 1, 2


def rules(node: TableNode | None, only: Iterable[str] = ()) -> Mapping[str, Anonymisation]:
    """Return the rules of a table's columns; with ``only``, of these columns."""
    wanted = frozenset(only)
    return {column: rule for column, rule in (node.anonymise if node else {}).items() if not wanted or column in wanted}


def anonymising(table: Table, by: Mapping[str, Anonymisation]) -> NamedChange:
    """Return the change that anonymises rows of a table by these rules."""
    made = {column: expressions.anonymised(rule, table.by_name[column]) for column, rule in by.items()}
    nulls = frozenset(column for column, rule in by.items() if rule.way == "null")
    return NamedChange(_ANONYMISE, f"anonymise {table.oid} {','.join(sorted(by))}", made, nulls)


def unlinking(catalogue: Catalogue, link: Link, number: int) -> NamedChange:
    """Return the change that takes the key of a link away, without expressions when no column may be null.

    Args:
        catalogue: of the database.
        link: the link.
        number: its place among the links of its child.
    """
    name = f"unlink {link.child} {number}"
    if link.form is LinkForm.COLUMNS:
        columns = link.unlinked_columns(catalogue)
        return NamedChange(_UNLINK, name, dict.fromkeys(columns, expressions.null), frozenset(columns))
    column = catalogue.tables[link.child].by_name[link.columns[0]]
    keys = setting(NamedChange(_UNLINK, name, {}))
    without = expressions.array_without(keys, column) if link.form is LinkForm.ARRAY else expressions.json_without(keys, column, link.path)
    return NamedChange(_UNLINK, name, {column.name: without})


def following(key: ForeignKey, table: Table) -> NamedChange:
    """Return what the server sets in rows whose foreign key led to a deleted row: NULL, or the columns' defaults."""
    columns = key.set_columns or key.columns
    if key.on_delete is OnDelete.SET_NULL:
        return NamedChange(SET, f"set null {key.oid}", dict.fromkeys(columns, expressions.null), frozenset(columns))
    return NamedChange(SET, defaulting(key).name, {name: expressions.column_default(table.by_name[name]) for name in columns})


def defaulting(key: ForeignKey) -> NamedChange:
    """Return the change of a foreign key with ON DELETE SET DEFAULT as it is found again: by its name."""
    return NamedChange(SET, f"set default {key.oid}", {})


def setting(change: NamedChange) -> str:
    """Return the run-time parameter that holds the keys which a change takes out of arrays or JSON values."""
    return "obhut.keys_" + change.name.removeprefix("unlink ").replace(" ", "_")
