"""Search the files of a server for values that were erased: the proof for whoever still knows one, and for canaries.

The structural judgement needs no value. This is its control by other means: it reads the bytes of heaps, indexes, the catalogue of
statistics and the WAL as they lie on the disk, through the server, and counts. Values that TOAST has compressed are not found as bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from obhut.finality.errors import FinalityError
from obhut.finality.look import Site
from obhut.finality.objects import File
from obhut.finality.vocabulary import Place
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, load

_SQL = load("obhut.finality", "objects")
BLOCK = 4 << 20
SEGMENT = 1 << 30
SHORTEST = 6  # characters; shorter texts occur by chance


@dataclass(frozen=True, slots=True)
class Hits:
    """How often the values occur in one object, in bytes on the disk."""

    place: Place
    name: str
    bytes_read: int
    hits: int


def search(site: Site, values: Sequence[str]) -> list[Hits]:
    """Return for each object of the site how often one of the values lies in it.

    Args:
        site: see :func:`obhut.finality.look.take_in`.
        values: sent nowhere: what is read is compared here.

    Raises:
        FinalityError: no value is long enough, or the role may not read the server's files.
    """
    patterns = sorted({form.encode() for value in values if len(value) >= SHORTEST for form in (value, value.lower())})
    if not patterns:
        raise FinalityError("no value is long enough to be looked for", f"Give texts of {SHORTEST} characters or more, such as an address.")
    session = site.session
    if not session.value(_SQL["readable"]):
        raise FinalityError(
            "the role may not read the server's files", "GRANT pg_read_server_files, pg_monitor and EXECUTE on pg_read_binary_file."
        )
    try:
        session.execute("CHECKPOINT")  # what is in memory only has to be on the disk to be read
    except DatabaseError:
        raise FinalityError("the role may not make a checkpoint", "GRANT pg_checkpoint TO the role.") from None
    files = {(file.place, file.name): file for files in site.files.values() for file in files if file.oid}
    found = [_relation(session, file, patterns) for file in files.values()]
    return [*found, _wal(session, patterns)]


def _relation(session: Session, file: File, patterns: Sequence[bytes]) -> Hits:
    path = session.value("SELECT pg_catalog.pg_relation_filepath(%s::oid::regclass)", (file.oid,))
    read = hits = 0
    for number in range(1 << 16):
        name = f"{path}.{number}" if number else str(path)
        size = session.value("SELECT size FROM pg_catalog.pg_stat_file(%s, true)", (name,))
        if size is None:
            break
        read, hits = read + int(size), hits + _count(_blocks(session, name, int(size)), patterns)
    return Hits(file.place, file.name, read, hits)


def _wal(session: Session, patterns: Sequence[bytes]) -> Hits:
    read = hits = 0
    for name, size in session.rows("SELECT name, size FROM pg_catalog.pg_ls_waldir()"):
        read, hits = read + int(size), hits + _count(_blocks(session, f"pg_wal/{name}", int(size)), patterns)
    return Hits(Place.WAL, "pg_wal", read, hits)


def _blocks(session: Session, name: str, size: int) -> Iterator[bytes]:
    query = SQL("SELECT pg_catalog.pg_read_binary_file(%s, %s::int8, %s::int8, true)")
    for start in range(0, size, BLOCK):
        (block,) = session.addresses(query, (name, start, BLOCK))[0]
        yield bytes(block or b"")


def _count(blocks: Iterable[bytes], patterns: Sequence[bytes]) -> int:
    longest, tail, hits = max(len(pattern) for pattern in patterns), b"", 0
    for block in blocks:
        window = tail + block
        # What lies in the tail alone was counted with the block before.
        hits += sum(window.count(pattern) - tail.count(pattern) for pattern in patterns)
        tail = window[-(longest - 1) :] if longest > 1 else b""
    return hits
