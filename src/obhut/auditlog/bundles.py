"""What a bundle is made of (specification, section 9): paths, its cover page as a value, readable lines, and how its files are read.

Shared by the exporter and the verifier, because it is the format; knows no database, no network and no key store.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec

from obhut.auditlog.entries import Entry
from obhut.auditlog.errors import BundleIncompleteError
from obhut.foundation.errors import ObhutError

FORMAT: Final = "obhut audit bundle 1"
COVER: Final = "bundle.json"
KEYS: Final = "key.txt"
LINES: Final = "entries.jsonl"
TABLE: Final = "entries.csv"
PAGE: Final = "README.html"
CSV_HEAD: Final = (
    "log", "index", "at", "kind", "database", "table", "operation", "session_user", "application", "client", "capture", "subjects",
    "parts", "detail", "values",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would take for a formula


class Stretch(msgspec.Struct, frozen=True):
    """A log as far as a bundle holds it; indices inclusive, ``last`` -1 for none."""

    period: str
    origin: str
    size: int
    first: int
    last: int


class Cover(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """``bundle.json``."""

    format: str
    controller: str
    name: str
    made_at: datetime
    since: datetime | None
    until: datetime | None
    logs: tuple[Stretch, ...]
    values: bool
    proofs: tuple[str, ...] = ()  # files of a bundle about one person


class Source(Protocol):
    """The files of a bundle."""

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            BundleIncompleteError: there is none of that name.
        """
        ...

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a file, however long it is."""
        ...


class Folder:
    """A bundle in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        try:
            return (self._root / path).read_bytes()
        except OSError:
            raise _missing(path) from None

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a file."""
        try:
            with (self._root / path).open("rb") as file:
                yield from file
        except OSError:
            raise _missing(path) from None


class Archive:
    """A bundle in a ZIP file."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile):
            raise _missing(COVER) from None

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        try:
            return self._zip.read(path)
        except (KeyError, OSError, zipfile.BadZipFile):
            raise _missing(path) from None

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a file."""
        try:
            with self._zip.open(path) as file:
                yield from file
        except (KeyError, OSError, zipfile.BadZipFile):
            raise _missing(path) from None


def open_source(path: Path) -> Source:
    """Return the files of a bundle, in a directory or a ZIP file."""
    return Folder(path) if path.is_dir() else Archive(path)


def read_cover(source: Source) -> Cover:
    """Return the cover of a bundle.

    Raises:
        BundleIncompleteError: it is none.
    """
    try:
        cover = msgspec.json.decode(source.read(COVER), type=Cover)
    except msgspec.MsgspecError:
        raise BundleIncompleteError(f"{COVER} is not that of a bundle", "Is this the whole of what was exported?") from None
    if cover.format != FORMAT:
        raise BundleIncompleteError(f"{COVER} names another format", "A later version of Obhut may know it.")
    return cover


def line(period: str, index: int, octets: bytes, values: Sequence[str | None]) -> bytes:
    """Return a line of ``entries.jsonl``; the entry's octets stand in it as they are."""
    shown = b',"values":' + msgspec.json.encode(values) if any(value is not None for value in values) else b""
    return b'{"log":"%b","index":%d,"entry":%b%b}\n' % (period.encode(), index, octets, shown)


def csv_row(period: str, index: int, entry: Entry, values: Sequence[str | None]) -> str:
    """Return a line of ``entries.csv``."""
    fact = entry.fact
    parts = " ".join(f"{part.part}:{part.dropped or ('blob' if part.blob else 'sealed')}" for part in entry.sealed)
    shown = [value for value in values if value is not None]
    cells = [
        period, str(index), f"{entry.at:%Y-%m-%dT%H:%M:%S.%fZ}", str(entry.kind), entry.database, entry.table, entry.operation,
        fact.session_user if fact else "", fact.application if fact else "", fact.client if fact else "", entry.capture,
        " ".join(subject.hex() for subject in entry.subjects), parts,
        json.dumps(entry.detail, ensure_ascii=False, sort_keys=True) if entry.detail else "", "[" + ",".join(shown) + "]" if shown else "",
    ]  # fmt: skip
    return csv_line([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])


def csv_line(cells: Sequence[str]) -> str:
    """Return cells as one line of CSV (RFC 4180, with LF)."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _missing(path: str) -> ObhutError:
    return BundleIncompleteError(f"the bundle has no file {path}", "Is this the whole of what was exported?")
