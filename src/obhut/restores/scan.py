"""Searches for identifiers where no row is: schema text, roles, planner statistics, and the bytes of the data directory.

A search says where something was found, never what. Its positive control is the canary: the same search has to find it in the quarantine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from obhut.datamap.graph import Graph
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier
from obhut.restores.filter import Filter
from obhut.restores.schema import Entry

SHORTEST = 4  # characters: shorter values occur by chance
_PLAIN = 8  # characters: shorter values of letters only count as whole words only
BYTE_SEARCHED = 500  # identifiers whose bytes are looked for in files
_LITERALS = re.compile(r"'((?:[^']|'')*)'|\$(\w*)\$(.*?)\$\2\$|\"((?:[^\"]|\"\")+)\"", re.DOTALL)
_BLOCK = 4 << 20
_SEARCHERS = 2  # processes side by side
_BATCH = 64 << 20  # bytes for one of them
_BATCH_FILES = 500


def identifiers(source: Session, graph: Graph, rows: Filter, *, size: int = 20_000, as_stored: bool = False) -> Iterator[list[str]]:
    """Yield the values of the identifier columns of everybody who is left out or anonymised, in lists, lower case.

    They are personal data: used in memory, never stored, never shown.

    Args:
        source: a session on the quarantine.
        graph: the data map resolved against it.
        rows: the filter.
        size: rows in a list at the most.
        as_stored: keep capital letters, for a search of bytes.
    """
    for subject in graph.subjects.values():
        if not subject.identifiers:
            continue
        for table in graph.catalogue.leaves(subject.table):
            form = SQL("{}::text" if as_stored else "lower({}::text)")
            values = SQL(", ").join(form.format(Identifier(name)) for name in subject.identifiers)
            query = SQL("SELECT {} FROM {} WHERE ctid = ANY(%s)").format(values, table.relation)
            for chunk in rows.of(table.oid).excluded.chunks(size):
                yield [value for row in source.rows(query, (chunk.parameter(),)) for value in row if value and len(value) >= SHORTEST]


@dataclass(frozen=True, slots=True)
class Place:
    """A named place and its text."""

    name: str
    text: str


class TextIndex:
    """Texts in which very many values are looked for: each value costs one look at a set, unless its beginning occurs."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = [(place.name, place.text.lower(), _quoted_in(place.text)) for place in places]
        everything = [form for _, text, quoted in self._places for form in (text, quoted)]
        self._grams = {text[start : start + SHORTEST] for text in everything for start in range(len(text) - SHORTEST + 1)}

    def find(self, values: Iterable[str]) -> set[str]:
        """Return the names of the places that hold one of the values."""
        found: set[str] = set()
        for value in values:
            if value[:SHORTEST] in self._grams:
                found.update(name for name, text, quoted in self._places if name not in found and _holds(value, text, quoted))
        return found


def _quoted_in(text: str) -> str:
    """Return what a definition says in its constants, bodies and comments: words of the language itself are no finding."""
    return (
        "\n".join(part for match in _LITERALS.finditer(text) for part in (match[1], match[3], match[4]) if part).replace("''", "'").lower()
    )


def _holds(value: str, text: str, quoted: str) -> bool:
    if not value.isalpha():
        return (value in text or value in quoted) if len(value) >= _PLAIN else _word(value, quoted)
    return _word(value, quoted)


def _word(value: str, text: str) -> bool:
    return value in text and re.search(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", text) is not None


def schema_places(entries: Iterable[Entry], roles: Sequence[str]) -> list[Place]:
    """Return the definitions of a schema and of the roles, ready to be searched."""
    return [Place(entry.name, entry.sql) for entry in entries] + [
        Place(f"ROLE statement {number}", text) for number, text in enumerate(roles, 1)
    ]


def statistics_places(target: Session) -> tuple[list[Place], dict[str, tuple[str, str, str]]]:
    """Return what the planner of the target remembers of each column and extended statistics, and which column each place is about."""
    columns: dict[str, tuple[str, str, str]] = {}
    places: list[Place] = []
    for schema, table, column, text in target.rows(
        "SELECT schemaname, tablename, attname, concat_ws(' ', most_common_vals::text, histogram_bounds::text,"
        " most_common_elems::text) FROM pg_stats WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'"
    ):
        name = f"planner statistics of {schema}.{table}.{column}"
        columns[name] = str(schema), str(table), str(column)
        places.append(Place(name, f"'{str(text).replace(chr(39), '')}'"))
    for name, text in target.rows(
        "SELECT schemaname || '.' || statistics_name, coalesce(array_to_string(most_common_vals, ' '), '') FROM pg_stats_ext"
    ):
        places.append(Place(f"planner statistics of {name}", f"'{str(text).replace(chr(39), '')}'"))
    return places, columns


def foreign_to(target: Session, column: tuple[str, str, str], values: Sequence[str]) -> list[str]:
    """Return those values that no row of a column holds: statistics that know them were not gathered from these rows."""
    schema, table, name = column
    query = SQL("SELECT v FROM unnest(%s::text[]) v WHERE NOT EXISTS (SELECT FROM {} WHERE position(v IN lower({}::text)) > 0)").format(
        Identifier(schema, table), Identifier(name)
    )
    return [str(value) for (value,) in target.rows(query, (list(values),))]


def still_there(target: Session, graph: Graph, values: Sequence[str]) -> set[str]:
    """Return those values that also belong to somebody who stays (people share names), asked by value in the identifier columns."""
    shared: set[str] = set()
    for subject in graph.subjects.values():
        table = graph.catalogue.tables[subject.table]
        for column in subject.identifiers:
            query = SQL("SELECT DISTINCT lower({c}::text) FROM {t} WHERE lower({c}::text) = ANY(%s)").format(
                c=Identifier(column), t=table.relation
            )
            shared.update(str(value) for (value,) in target.rows(query, (list(values),)))
    return shared


# -- bytes ------------------------------------------------------------------------------------------------------------------------


def which_occur(directory: Path, tokens: Sequence[str], scratch: Path) -> set[str]:
    """Return those texts, all of them looked for in every form, that stand in a file below a directory.

    Raises:
        OSError: a file or folder cannot be read.
    """
    holding = files_with(directory, [form for token in tokens for form in variants(token)], scratch)
    return {token for token in tokens if any(_search([directory / name for name in holding], list(variants(token))))}


def files_with(directory: Path, patterns: Sequence[bytes], scratch: Path) -> dict[str, int]:
    """Return the files below a directory that hold one of the patterns, with their sizes, by path relative to it.

    Args:
        directory: walked in full: heaps, indexes, statistics, WAL, temporary files, logs. Nobody may write in it.
        patterns: bytes to look for, none with a line break.
        scratch: private directory for the list of patterns while the search runs.

    Raises:
        OSError: a file or folder cannot be read.
    """
    wanted = [pattern for pattern in patterns if pattern and b"\n" not in pattern]
    if not wanted:
        return {}
    sizes = dict(_files(directory))
    grep = shutil.which("grep", path="/usr/local/bin:/usr/bin:/bin")
    found = _grep(Path(grep), sizes, wanted, scratch) if grep else _search(sizes, wanted)
    return {str(path.relative_to(directory)): sizes[path] for path in found}


def _files(directory: Path) -> Iterator[tuple[Path, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_size


def _batches(sizes: Mapping[Path, int]) -> Iterator[list[Path]]:
    """Yield the files in lists for one search each, the largest files first."""
    batch: list[Path] = []
    filled = 0
    for path in sorted(sizes, key=lambda path: -sizes[path]):
        batch.append(path)
        filled += sizes[path]
        if filled >= _BATCH or len(batch) >= _BATCH_FILES:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch


def _grep(grep: Path, sizes: Mapping[Path, int], patterns: Sequence[bytes], scratch: Path) -> list[Path]:
    listing = scratch / "patterns"
    listing.unlink(missing_ok=True)
    descriptor = os.open(listing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def search(batch: list[Path]) -> list[Path]:
        ended = subprocess.run(
            [grep, "-l", "-a", "-F", "-Z", "-f", listing, "--", *batch],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"LC_ALL": "C"}, check=False,
        )  # fmt: skip
        if ended.returncode not in {0, 1}:  # it could not read everything; whoever tries again says what
            return list(_search(batch, patterns))
        return [Path(os.fsdecode(name)) for name in ended.stdout.split(b"\0") if name]

    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\n".join(patterns) + b"\n")
        with ThreadPoolExecutor(_SEARCHERS) as threads:
            return [path for found in threads.map(search, _batches(sizes)) for path in found]
    finally:
        listing.unlink(missing_ok=True)


def _search(paths: Iterable[Path], patterns: Sequence[bytes]) -> Iterator[Path]:
    longest = max(len(pattern) for pattern in patterns)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            tail = b""
            while block := file.read(_BLOCK):
                window = tail + block
                if any(pattern in window for pattern in patterns):
                    yield path
                    break
                tail = window[-longest:]


def variants(value: str) -> set[bytes]:
    """Return the bytes under which a text may lie in a file: as it is, in lower case, and as hexadecimal digits."""
    forms = {value, value.lower()}
    found = {form.encode() for form in forms} | {value.encode().hex().encode()}
    with contextlib.suppress(ValueError):
        found.add(uuid.UUID(value).bytes)  # a uuid column keeps sixteen bytes
    return found
