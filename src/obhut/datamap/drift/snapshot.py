"""The stored snapshot of a schema: a file of JSON, one column a line, that lives in git beside the map and reads well in a review.

Format 1: ``{"obhut-snapshot": 1, "database": name, "tables": {"schema.table": {"column": "type"}}}``. ``!`` behind a type is NOT NULL. A
JSON column whose documents were looked at is ``{"type": …, "paths": [...]}``. No value, no default, no comment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from obhut.datamap.drift.state import ColumnState, SchemaState, TableState
from obhut.foundation.errors import ObhutError

FORMAT: Final = 1
MARK: Final = "obhut-snapshot"
SUFFIX: Final = ".snapshot.json"


class SnapshotError(ObhutError):
    """A file is no snapshot of a schema, or one of another database."""

    code = "datamap-snapshot"


def written(database: str, state: SchemaState) -> str:
    """Return the text of a snapshot; the same state always gives the same text."""
    lines = [f'{{"{MARK}": {FORMAT}, "database": {json.dumps(database)}, "tables": {{']
    tables = sorted(state.tables.items())
    for index, (name, table) in enumerate(tables):
        columns = [f"  {json.dumps(column)}: {json.dumps(_value(content))}" for column, content in table.columns.items()]
        body = ("\n" + ",\n".join(columns) + "\n") if columns else ""
        lines.append(f" {json.dumps(name)}: {{{body}}}" + ("," if index < len(tables) - 1 else ""))
    return "\n".join([*lines, "}}"]) + "\n"


def _value(column: ColumnState) -> str | dict[str, object]:
    type_ = column.type + ("!" if column.required else "")
    return {"type": type_, "paths": list(column.paths)} if column.paths else type_


def read(text: str, database: str | None, name: str) -> SchemaState:
    """Read a snapshot.

    Args:
        text: the content of the file.
        database: the database that it has to be of; any when None.
        name: of the file, for messages.

    Raises:
        SnapshotError: it is no snapshot of this format, or of another database.
    """
    hint = 'Write it anew with "obhut datamap snapshot".'
    try:
        value = json.loads(text)
    except ValueError:
        raise SnapshotError(f"{name} is not JSON", hint) from None
    if not isinstance(value, dict) or value.get(MARK) != FORMAT or not isinstance(value.get("tables"), dict):
        raise SnapshotError(f"{name} is no snapshot of format {FORMAT}", hint)
    if database is not None and value.get("database") != database:
        raise SnapshotError(f"{name} is a snapshot of another database than {database}", "Name the right file with --snapshot.")
    try:
        return SchemaState({table: TableState({c: _column(v) for c, v in columns.items()}) for table, columns in value["tables"].items()})
    except (AttributeError, KeyError, TypeError):
        raise SnapshotError(f"{name} is damaged", hint) from None


def _column(value: Any) -> ColumnState:
    type_, paths = (value, ()) if isinstance(value, str) else (value["type"], tuple(map(str, value["paths"])))
    return ColumnState(type_.removesuffix("!"), type_.endswith("!"), paths)


def remembered(fresh: SchemaState, stored: SchemaState | None) -> SchemaState:
    """Return a fresh state with the JSON paths of the stored one: a database without rows shows none, and no path is forgotten for that."""
    if stored is None:
        return fresh
    return SchemaState({name: _remembered(table, stored.tables.get(name)) for name, table in fresh.tables.items()})


def _remembered(table: TableState, stored: TableState | None) -> TableState:
    if stored is None:
        return table
    columns: Mapping[str, ColumnState] = {
        name: replace(column, paths=tuple(sorted({*column.paths, *stored.columns[name].paths})))
        if name in stored.columns and stored.columns[name].type == column.type
        else column
        for name, column in table.columns.items()
    }
    return replace(table, columns=columns)
