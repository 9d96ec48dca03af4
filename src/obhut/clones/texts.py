"""Texts of a database's rows: every cell of a type that can hold words, taken apart where it is a document or an array.

A table is read in pieces of some hundred kilobytes, each one value a column: the server strings the cells together, so that neither side
has work for every row. Measured: 1.5 ns a character of this process's time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from obhut.clones.sieve import SEPARATOR
from obhut.masking.fields import NULL, elements, unescape
from obhut.postgres.catalogue import Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, Literal
from obhut.restores import streams
from obhut.restores.plan import Range

_WORDS = frozenset("SUAI")  # categories: strings, user-defined (documents, uuids, bytes), arrays, network addresses
_NUMBERS = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean", "oid"})
_DOCUMENTS = frozenset({"json", "jsonb"})
_PIECE = 64  # blocks, half a megabyte
_CHUNK = 1 << 19  # bytes
_READING = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}


@dataclass(frozen=True, slots=True)
class Database:
    """A database that several processes read at one moment.

    Attributes:
        url: its connection string.
        application: name of the sessions.
        snapshot: exported by a session that holds it; nothing where nobody writes.
    """

    url: str
    application: str
    snapshot: str = ""

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session that reads the moment of the snapshot."""
        connected = Session.connect(self.url, application_name=self.application, settings=_READING)
        with connected as session, session.transaction("repeatable read", read_only=True):
            if self.snapshot:
                session.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(Literal(self.snapshot)))
            yield session


@dataclass(frozen=True, slots=True)
class Piece:
    """Some blocks of some columns of a table."""

    table: Table
    columns: tuple[Column, ...]
    blocks: Range
    long: bool  # values may be too long to be strung together: they are streamed


def wordy(table: Table) -> list[Column]:
    """Return the columns whose values can hold words."""
    return [column for column in table.columns if column.category in _WORDS and column.base_type.removesuffix("[]") not in _NUMBERS]


def structured(column: Column) -> bool:
    """Whether the cells of a column are documents or arrays."""
    return column.base_type in _DOCUMENTS or column.category == "A" or column.base_type.endswith("[]")


def pieces(session: Session, tables: Iterable[tuple[Table, Sequence[Column]]]) -> list[Piece]:
    """Cut what is to be read into pieces."""
    found: list[Piece] = []
    for table, columns in tables:
        blocks, long = session.row(
            "SELECT pg_relation_size(c.oid) / current_setting('block_size')::int,"
            " c.reltoastrelid <> 0 AND pg_relation_size(nullif(c.reltoastrelid, 0)) > 0 FROM pg_class c WHERE c.oid = %s",
            (table.oid,),
        ) or (0, False)
        step = _PIECE * 64 if long else _PIECE
        starts = range(0, int(blocks), step)
        found += [Piece(table, tuple(columns), Range(start, start + step), bool(long)) for start in starts]
    return found


def cells(session: Session, piece: Piece) -> Iterator[list[str]]:
    """Yield the cells that are not NULL, one text a column with :data:`~obhut.clones.sieve.SEPARATOR` between them."""
    where = SQL(" AND ").join(streams.between(piece.blocks) or [SQL("true")])
    written = [_text(column) for column in piece.columns]
    if piece.long:
        yield from _streamed(session, SQL("SELECT {} FROM {} WHERE {}").format(SQL(", ").join(written), piece.table.relation, where))
        return
    strung = SQL(", ").join(SQL("string_agg({}, {})").format(one, Literal(SEPARATOR)) for one in written)
    row = session.row(SQL("SELECT {} FROM {} WHERE {}").format(strung, piece.table.relation, where)) or ()
    if any(text is not None for text in row):
        yield [text or "" for text in row]


def _text(column: Column) -> Composable:
    """Return a cell as COPY writes it: the cast of a network address to text adds its mask."""
    plain = column.base_type not in {"inet", "cidr"}
    return SQL("{}::text" if plain else "format('%s', {})").format(Identifier(column.name))


def _streamed(session: Session, query: Composed) -> Iterator[list[str]]:
    held = bytearray()
    for block in session.copy_out(SQL("COPY ({}) TO STDOUT").format(query)):
        held += block
        if len(held) >= _CHUNK:
            yield _columns(bytes(held))
            held.clear()
    if held:
        yield _columns(bytes(held))


def _columns(lines: bytes) -> list[str]:
    columns = zip(*(line.split(b"\t") for line in lines[:-1].split(b"\n")), strict=True)
    between = SEPARATOR.encode()
    return [unescape(between.join(cell for cell in column if cell != NULL)).decode("utf-8", "replace") for column in columns]


def leaves(column: Column, cell: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of a cell with their paths inside it ("" for the cell itself)."""
    if column.base_type in _DOCUMENTS:
        with contextlib.suppress(ValueError):
            yield from _document(json.loads(cell), "$")
    elif column.base_type.endswith("[]") or (column.category == "A" and cell.startswith("{")):
        for value in elements(cell.encode("utf-8", "surrogatepass"))[0]:
            if value is not None:
                yield "[*]", value.decode("utf-8", "replace")
    elif column.base_type == "bytea":
        yield "", _bytes(cell)
    else:
        yield "", cell


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


def _bytes(hexadecimal: str) -> str:
    try:
        return bytes.fromhex(hexadecimal[2:]).decode("utf-8", "ignore")
    except ValueError:
        return ""
