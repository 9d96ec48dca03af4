"""A bounded look at values: how many of a sample look like an e-mail address, a telephone number and so on.

The server counts; no value leaves it. A column is judged by shares, so that neither output nor log can hold what was seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from obhut.postgres.catalogue import Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Composed, Identifier, Literal

ROWS: Final = 3_000  # shows a share of 0.1 % with 95 % confidence
_SHARE: Final = 0.5
_TIMEOUT: Final = "5s"
_TEXT: Final = {"text", "character varying", "character", "citext"}

_STREET: Final = r"^[[:alpha:]äöüÄÖÜß .-]{3,}(str\.|straße|strasse|weg|platz|allee|gasse|ring|ufer|damm) ?[0-9]+ ?[a-z]?$"
# Category and what most values of such a column look like (POSIX regular expressions, whole value).
_PATTERNS: Final = {
    "user.contact.email": r"^[^@[:space:]]+@[^@[:space:]]+\.[A-Za-z]{2,}$",
    "user.financial.bank_account": r"^[A-Z]{2}[0-9]{2} ?([A-Z0-9]{4} ?){2,7}[A-Z0-9]{1,4}$",
    "user.device.ip_address": r"^([0-9]{1,3}\.){3}[0-9]{1,3}$|^[0-9a-fA-F]{0,4}(:[0-9a-fA-F]{0,4}){2,7}$",
    "user.contact.phone_number": r"^(\+|00|0)[0-9][0-9 ()/.-]{5,18}[0-9]$",
    "user.contact.address.street": _STREET,
    "user.authorization.password": r"^(\$2[aby]\$|\$argon2|pbkdf2_|\$6\$|scrypt:)",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the values of a column look like: the category that most match, and their share; ``json`` when objects are inside."""

    category: str
    share: float
    rows: int


def look(session: Session, table: Table, leaves: Iterable[Table]) -> dict[str, Sample]:
    """Return the columns whose sampled values look personal. Failing (no privilege, too slow) finds nothing.

    Args:
        session: an open session; the look is a read-only transaction with a timeout of its own.
        table: the table.
        leaves: the tables that hold its rows.
    """
    columns = [column for column in table.columns if column.base_type in _TEXT]
    if not columns or table.kind == "f":
        return {}
    pages = sum(leaf.pages for leaf in leaves)
    counts = [
        SQL("count(*) FILTER (WHERE {column}::text ~ {pattern})").format(column=Identifier(column.name), pattern=Literal(pattern))
        for column in columns
        for pattern in _PATTERNS.values()
    ]
    filled = [SQL("count(*) FILTER (WHERE {column}::text <> '')").format(column=Identifier(column.name)) for column in columns]
    query = SQL("SELECT {counts} FROM (SELECT {columns} FROM {source} LIMIT {limit}) AS sampled").format(
        counts=SQL(", ").join([*filled, *counts]),
        columns=SQL(", ").join(Identifier(column.name) for column in columns),
        source=_source(table, pages),
        limit=Literal(ROWS),
    )
    try:
        with session.transaction(read_only=True):
            session.set("statement_timeout", _TIMEOUT, local=True)
            found = session.row(query)
    except DatabaseError:
        return {}
    return _judge(columns, found or ())


def _source(table: Table, pages: int) -> Composed:
    """The whole of a small table; pages from all over a large one, never only its beginning."""
    per_page = max(1, table.estimated_rows // max(1, pages))
    wanted = 100.0 * (2 * ROWS / per_page) / max(1, pages)
    if pages == 0 or wanted >= 100:
        return table.relation
    return SQL("{} TABLESAMPLE SYSTEM ({})").format(table.relation, Literal(wanted))


def _judge(columns: list[Column], counts: tuple[int, ...]) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    if not counts:
        return found
    width = len(_PATTERNS)
    for index, column in enumerate(columns):
        filled = counts[index]
        hits = counts[len(columns) + index * width : len(columns) + (index + 1) * width]
        for category, hit in zip(_PATTERNS, hits, strict=True):
            if filled and hit / filled >= _SHARE:
                found[column.name] = Sample(category, hit / filled, filled)
                break
    return found
