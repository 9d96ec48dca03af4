"""What is in a database, read by plain SQL: the oracle that restores are compared with. Nothing of Obhut decides here."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from obhut.postgres.connections import Session

Rows = dict[str, list[str]]

_RELATIONS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'obhut')
ORDER BY 1
"""


def rows(session: Session, *, schema: str | None = None) -> Rows:
    """Return every row of every leaf table and materialised view in COPY's text form, sorted; generated columns included."""
    session.set("search_path", "")
    session.set("enable_indexscan", "off")  # a damaged index must not hide a row
    session.set("enable_indexonlyscan", "off")
    session.set("enable_bitmapscan", "off")
    found: Rows = {}
    for name, kind in session.rows(_RELATIONS):
        if schema is None or name.startswith(f"{schema}."):
            text = lines(session, f"SELECT * FROM {name}")
            found[name] = sorted(map(_unordered, text)) if kind == "m" else text
    return found


def _unordered(line: str) -> str:
    """Sort lists inside the fields: a view that aggregates without ORDER BY (Pagila's do) gives each refresh another order."""
    return "\t".join(", ".join(sorted(field.split(", "))) for field in line.split("\t"))


def lines(session: Session, query: str) -> list[str]:
    """Return the rows of a query in COPY's text form, sorted."""
    from obhut.postgres.sql import trusted

    text = b"".join(bytes(block) for block in session.copy_out(trusted(f"COPY ({query}) TO STDOUT"))).decode()
    return sorted(text.splitlines())


def differences(expected: Rows, found: Rows) -> dict[str, tuple[list[str], list[str]]]:
    """Return for each relation the rows that are missing and those that are too many."""
    result = {}
    for name in sorted({*expected, *found}):
        left, right = Counter(expected.get(name, [])), Counter(found.get(name, []))
        if left != right or (name in expected) != (name in found):
            result[name] = (sorted((left - right).elements())[:5], sorted((right - left).elements())[:5])
    return result


def without(everything: Rows, gone: Mapping[str, list[str]]) -> Rows:
    """Return the rows with some of them taken away; each has to be there."""
    result = {}
    for name, found in everything.items():
        counted = Counter(found)
        counted.subtract(gone.get(name, []))
        assert min(counted.values(), default=0) >= 0, f"{name}: the test takes away rows that are not there"
        result[name] = sorted(counted.elements())
    assert set(gone) <= set(everything)
    return result


def replaced(everything: Rows, changes: Mapping[str, tuple[list[str], list[str]]]) -> Rows:
    """Return the rows with some of them in another form."""
    changed = without(everything, {name: old for name, (old, _) in changes.items()})
    return {name: sorted([*found, *changes[name][1]]) if name in changes else found for name, found in changed.items()}


def schema(programs: Path, url: str) -> str:
    """Return the definitions of a database as pg_dump writes them, without its random words."""
    done = subprocess.run([programs / "pg_dump", "--schema-only", "--dbname", url], check=True, capture_output=True, text=True)
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict", "-- Dumped")))


def sequences(session: Session) -> dict[str, int]:
    """Return the next value that each sequence would hand out."""
    names = [name for (name,) in session.rows("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S' AND oid >= 16384 ORDER BY 1")]
    return {
        name: session.value(
            f"SELECT last_value + CASE WHEN is_called THEN (SELECT seqincrement FROM pg_sequence WHERE seqrelid = '{name}'::regclass) ELSE 0 END FROM {name}"
        )
        for name in names
    }
