"""Proposes how a personal column is anonymised: the strongest way that its type and constraints allow."""

from __future__ import annotations

from typing import Final

from obhut.datamap.discovery.findings import Document
from obhut.datamap.discovery.looking import JSON, TEXT
from obhut.datamap.discovery.weighing import TIMES
from obhut.datamap.surroundings import Surroundings
from obhut.datamap.writing import scalar
from obhut.postgres.catalogue import Column, Table

_UNIQUE_ROOM: Final = 16  # characters of "erased-" and a key
_WORD_ROOM: Final = 6  # characters of "erased"
_ADDRESS_ROOM: Final = 40
_PLENTY: Final = 1_000


def treatment(table: Table, column: Column, category: str, document: Document | None, surroundings: Surroundings) -> str:
    """Return the YAML text of a rule; empty where the column needs none."""
    if column.is_generated or column.name in table.primary_key:
        return ""
    if document is not None and document.complete and document.personal:
        return "{json: [" + ", ".join(f'"{path}"' for path in document.personal) + "]}"
    if not column.not_null:
        return "null"
    if column.base_type in TEXT:
        return _text(table, column, category)
    if column.category == "A" or column.base_type in JSON | {"bytea"}:
        return "empty"
    if column.base_type in TIMES and "time without" not in column.base_type:
        return "{constant: 1900-01-01}"
    if column.base_type in {"inet", "cidr"}:
        return "{constant: 0.0.0.0}"
    labels = surroundings.enums.get(column.type)
    return f"{{constant: {scalar(labels[0])}}}" if labels else "{constant: 0}" if column.category == "N" else "null"


def _text(table: Table, column: Column, category: str) -> str:
    key = table.primary_key[0] if table.primary_key else None
    unique = any(column.name in found.columns for found in table.keys)
    room = column.modifier - 4 if column.base_type != "text" and column.modifier > 0 else _PLENTY
    if unique and key and category == "user.contact.email" and room >= _ADDRESS_ROOM:
        return f'{{template: "erased-{{{key}}}@example.invalid"}}'
    if unique and key and room >= _UNIQUE_ROOM:
        return f'{{template: "erased-{{{key}}}"}}'
    return "{constant: erased}" if room >= _WORD_ROOM and not unique else "empty"
