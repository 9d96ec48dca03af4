"""Composition of SQL: identifiers and literals only through the driver's ``sql`` module, re-exported for the other packages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

__all__ = [
    "SQL",
    "Composable",
    "Composed",
    "Identifier",
    "Literal",
    "array_literal",
    "column_list",
    "copy_field",
    "load",
    "qualified",
    "trusted",
]
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def qualified(schema: str, name: str) -> Identifier:
    """Return the quoted two-part name of a relation."""
    return Identifier(schema, name)


def column_list(columns: tuple[str, ...] | list[str], alias: str | None = None) -> Composed:
    """Return quoted column names joined by commas, each behind ``alias`` when one is given."""
    return SQL(", ").join(Identifier(alias, name) if alias else Identifier(name) for name in columns)


def trusted(fragment: str) -> SQL:
    """Return a fragment that came from the server's own deparser or from the reviewed data map.

    The name marks every place where text becomes SQL, so that a reader can find them all.
    """
    text: LiteralString = fragment
    return SQL(text)


def rendered(query: Composable) -> SQL:
    """Return the same query with its text made once: composing costs more than many a statement that is sent a thousand times."""
    return trusted(query.as_string(None))


def load(package: str, name: str) -> dict[str, SQL]:
    """Return the named statements of ``sql/<name>.sql`` of a package.

    A statement starts with the line ``-- name: purpose in words`` and ends before the next such line.

    Raises:
        KeyError: looking up a name that the file does not have.
    """
    text = resources.files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    statements: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        if line.startswith("-- ") and ": " in line and " " not in line[3:].split(":", 1)[0]:
            current = statements.setdefault(line[3:].split(":", 1)[0], [])
        elif current is not None:
            current.append(line)
    return {key: trusted("\n".join(lines).strip()) for key, lines in statements.items()}


def array_literal(values: Sequence[str]) -> str:
    """Return an array literal; values may hold any character. Many times faster than the driver's array of texts."""
    if not values:
        return "{}"
    text = '","'.join(values)
    if "\\" in text or text.count('"') != 2 * (len(values) - 1):
        text = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return '{"' + text + '"}'


def copy_field(text: str | None) -> str:
    """Return a value as a field of COPY's text format."""
    if text is None:
        return "\\N"
    return text if text.isprintable() and "\\" not in text else text.translate(_COPY_ESCAPES)
