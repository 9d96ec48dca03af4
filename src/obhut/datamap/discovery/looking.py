"""A bounded look at the values of a table: how many of a sample are e-mail addresses, names and so on, and which paths JSON has.

The sample is read in a read-only transaction with a time limit of its own, judged in memory and forgotten: only counts, and the names of
JSON paths that many documents share, ever leave this module.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from obhut.datamap.discovery.documents import Inventory
from obhut.datamap.discovery.values import Kind, kinds
from obhut.postgres.catalogue import Catalogue, Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Composed, Identifier, Literal

ROWS: Final = 3_000  # shows a share of 0.1 % with 95 % confidence
_LENGTH: Final = 400  # characters of a text
_DOCUMENT: Final = 16_384  # bytes of a JSON document or array; larger ones are left out
_WHILE_LOOKING: Final = {"default_transaction_read_only": "on", "statement_timeout": "5s"}
_SKETCH: Final = 1_024  # digests of a column
_COMPARED: Final = 16  # fewer say nothing about a share
TEXT: Final = frozenset({"text", "character varying", "character", "citext"})
JSON: Final = frozenset({"json", "jsonb"})
ARRAYS: Final = frozenset(f"{base}[]" for base in TEXT)


@dataclass
class Look:
    """What the sampled values of one column look like.

    Attributes:
        filled: values that were neither NULL nor empty.
        distinct: different values among them.
        hits: how many of them can be of a kind.
        years: birth years that a date column could hold, and how many different ones.
        paths: JSON paths with a look of their own.
        unruly: whether a document has so many different keys that keys themselves may be values.
        sketch: keyed digests of some values, to see which columns share them; says nothing without the key, which nobody keeps.
    """

    filled: int = 0
    distinct: int = 0
    hits: dict[Kind, int] = field(default_factory=dict)
    years: tuple[int, int] = (0, 0)
    paths: dict[str, Look] = field(default_factory=dict)
    unruly: bool = False
    sketch: frozenset[bytes] = field(default=frozenset(), repr=False)

    def share(self, kind: Kind) -> float:
        """Return the share of the filled values that can be of a kind."""
        return self.hits.get(kind, 0) / self.filled if self.filled else 0.0


@dataclass(frozen=True)
class Sampled:
    """The looks at all tables by oid and column, and the tables that could not be looked at."""

    looks: dict[int, dict[str, Look]] = field(default_factory=dict)
    unseen: tuple[int, ...] = ()


def sample(session: Session, catalogue: Catalogue, *, documents_only: bool = False) -> Sampled:
    """Look at every table.

    Args:
        session: an open session outside a transaction; while it looks, it can write nothing.
        catalogue: the tables.
        documents_only: look at JSON columns only, and at nothing of them but their paths.
    """
    wanted = JSON if documents_only else TEXT | JSON | ARRAYS | {"date"}
    looks, unseen, key = {}, [], None if documents_only else secrets.token_bytes(32)
    with _only_looking(session):
        for table in catalogue.roots:
            found = look(session, table, catalogue.leaves(table.oid), wanted, key)
            if found is None:
                unseen.append(table.oid)
            else:
                looks[table.oid] = found
    return Sampled(looks, tuple(unseen))


@contextmanager
def _only_looking(session: Session) -> Iterator[None]:
    """Let every statement be a read-only transaction with a time limit; one round trip a table instead of five."""
    before = {name: str(session.value("SELECT current_setting(%s)", (name,))) for name in _WHILE_LOOKING}
    try:
        for name, value in _WHILE_LOOKING.items():
            session.set(name, value)
        yield
    finally:
        for name, value in before.items():
            session.set(name, value)


def look(session: Session, table: Table, leaves: Iterable[Table], wanted: frozenset[str], key: bytes | None) -> dict[str, Look] | None:
    """Return the looks at the columns of a table; None where it could not be read (no privilege, too slow, foreign).

    Args:
        session: one that only looks.
        table: the table.
        leaves: the tables that hold its rows.
        wanted: types of columns.
        key: for sketches; without one only the paths of documents are looked at.
    """
    columns = [column for column in table.columns if column.base_type in wanted]
    if not columns:
        return {}
    if table.kind == "f":
        return None
    leaves = list(leaves)
    if not sum(leaf.heap_bytes for leaf in leaves):
        return {column.name: Look() for column in columns}
    query = SQL("SELECT {columns} FROM {source} LIMIT {limit}").format(
        columns=SQL(", ").join(_value(column) for column in columns),
        source=_source(table, sum(leaf.pages for leaf in leaves)),
        limit=Literal(ROWS),
    )
    try:
        rows = session.rows(query)
    except DatabaseError:
        return None
    return {column.name: _judge(column, [row[index] for row in rows], key) for index, column in enumerate(columns)}


def _value(column: Column) -> Composed:
    name = Identifier(column.name)
    if column.base_type == "date":
        return SQL("CASE WHEN isfinite({0}) THEN extract(year FROM {0})::int END").format(name)
    if column.base_type in TEXT:
        return SQL("left({}::text, {})").format(name, Literal(_LENGTH))
    document = SQL("{}::text").format(name) if column.base_type in JSON else SQL("to_jsonb({})::text").format(name)
    return SQL("CASE WHEN pg_column_size({}) < {} THEN {} END").format(name, Literal(_DOCUMENT), document)


def _source(table: Table, pages: int) -> Composed:
    """The whole of a small table; pages from all over a large one, never only its beginning."""
    per_page = max(1, table.estimated_rows // max(1, pages))
    wanted = 100.0 * (2 * ROWS / per_page) / max(1, pages)
    if pages == 0 or wanted >= 100:
        return table.relation
    return SQL("{} TABLESAMPLE SYSTEM ({})").format(table.relation, Literal(wanted))


def _judge(column: Column, values: list[Any], key: bytes | None) -> Look:
    filled = [value for value in values if value not in (None, "")]
    if column.base_type == "date":
        return Look(len(filled), len(set(filled)), years=(sum(1 for year in filled if 1900 <= year <= _YOUNGEST), len(set(filled))))
    if column.base_type in TEXT:
        return judged(filled, key)
    return _documents(filled, key)


_YOUNGEST: Final = 2012


def judged(values: list[str], key: bytes | None = None) -> Look:
    """Return the look at texts; each different one is judged once. With a key their sketch is made, too."""
    counted: dict[str, int] = {}
    for value in values:
        counted[value] = counted.get(value, 0) + 1
    hits: dict[Kind, int] = {}
    for value, count in counted.items():
        for kind in kinds(value):
            hits[kind] = hits.get(kind, 0) + count
    return Look(len(values), len(counted), hits, sketch=sketched(counted, key) if key else frozenset())


def sketched(values: Iterable[str], key: bytes) -> frozenset[bytes]:
    """Return the smallest keyed digests of values, case and outer blanks aside: of any two columns they are comparable samples."""
    digests = {hashlib.blake2b(value.strip().casefold().encode(), digest_size=8, key=key).digest() for value in values}
    return frozenset(heapq.nsmallest(_SKETCH, digests))


def contained(inner: frozenset[bytes], outer: frozenset[bytes]) -> float:
    """Return about which share of one column's values the other has, from their sketches; nothing where too few can be compared."""
    # Below the larger end of the shorter range both sketches are complete; a sketch that is not full has no end.
    ends = [max(sketch) for sketch in (inner, outer) if len(sketch) >= _SKETCH]
    end = min(ends, default=b"\xff" * 9)
    compared = {digest for digest in inner if digest <= end}
    return len(compared & outer) / len(compared) if len(compared) >= _COMPARED else 0.0


def _documents(written: list[str], key: bytes | None) -> Look:
    inventory = Inventory()
    for text in written:
        try:
            inventory.add(json.loads(text))
        except (RecursionError, ValueError):
            inventory.unruly = True  # nested deeper than anybody can name, or a number that is none
    texts = inventory.texts()
    if key is None:
        return Look(len(written), 0, paths=dict.fromkeys(texts, Look()), unruly=inventory.unruly)
    if set(texts) == {"$[*]"}:
        return judged(texts["$[*]"], key)  # an array of texts: its elements are the values
    paths = {path: judged(found) for path, found in texts.items()}
    return Look(len(written), 0, paths=paths, unruly=inventory.unruly)
