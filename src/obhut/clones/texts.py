"""Texts of a database's rows: every cell of a type that can hold words, taken apart where it is a document or an array."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from obhut.masking.fields import NULL, elements, unescape
from obhut.postgres.catalogue import Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Literal, column_list

_WORDS = frozenset("SUAI")  # categories: strings, user-defined (documents, uuids, bytes), arrays, network addresses
_NUMBERS = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean", "oid"})
_DOCUMENTS = frozenset({"json", "jsonb"})
_CHUNK = 1 << 20  # bytes


def wordy(table: Table) -> list[Column]:
    """Return the columns whose values can hold words."""
    return [column for column in table.columns if column.category in _WORDS and column.base_type.removesuffix("[]") not in _NUMBERS]


def cells(session: Session, table: Table, columns: Sequence[Column], *, limit: int | None = None) -> Iterator[list[tuple[bytes, ...]]]:
    """Yield the cells of columns, column by column, in chunks of about a megabyte."""
    query = SQL("SELECT {} FROM {}").format(column_list([column.name for column in columns]), table.relation)
    if limit is not None:
        query = SQL("{} LIMIT {}").format(query, Literal(limit))
    held = bytearray()
    for block in session.copy_out(SQL("COPY ({}) TO STDOUT").format(query)):
        held += block
        if len(held) >= _CHUNK:
            cut = held.rfind(b"\n") + 1
            if cut:
                yield _columns(bytes(held[:cut]))
                del held[:cut]
    if held:
        yield _columns(bytes(held))


def _columns(chunk: bytes) -> list[tuple[bytes, ...]]:
    return list(zip(*(line.split(b"\t") for line in chunk[:-1].split(b"\n")), strict=True))


def leaves(column: Column, cell: bytes) -> Iterator[tuple[str, str]]:
    """Yield the texts of a cell with their paths inside it ("" for the cell itself)."""
    if cell == NULL:
        return
    if column.base_type in _DOCUMENTS:
        with contextlib.suppress(ValueError):
            yield from _document(json.loads(unescape(cell)), "$")
    elif column.base_type.endswith("[]") or (column.category == "A" and cell.startswith(b"{")):
        for value in elements(unescape(cell))[0]:
            if value is not None:
                yield "[*]", value.decode("utf-8", "replace")
    elif column.base_type == "bytea":
        yield "", _bytes(unescape(cell))
    else:
        yield "", unescape(cell).decode("utf-8", "replace")


def _document(value: Any, path: str) -> Iterator[tuple[str, str]]:
    waiting = [(value, path)]
    while waiting:
        found, where = waiting.pop()
        if isinstance(found, dict):
            for name, below in found.items():
                yield f"{where}.~", str(name)
                waiting.append((below, f"{where}.{name}" if str(name).isidentifier() else f"{where}.*"))
        elif isinstance(found, list):
            waiting += [(below, f"{where}[*]") for below in found]
        elif isinstance(found, str):
            yield where, found
        elif isinstance(found, int | float) and not isinstance(found, bool):
            yield where, str(found)


def _bytes(hexadecimal: bytes) -> str:
    try:
        return bytes.fromhex(hexadecimal[2:].decode("ascii")).decode("utf-8", "ignore")
    except ValueError:
        return ""
