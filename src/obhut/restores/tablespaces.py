"""Tablespaces of production stay out of reach: WAL that makes one names the directory in which production keeps its files.

A server that replays the making of a tablespace links to that directory, and from then on writes, and removes, production's own files
in it, if the quarantine is on the same machine. So in the staged WAL, which is a copy of the archived one, the record loses its path. A
tablespace without a path lies inside the data directory (``allow_in_place_tablespaces``; PostgreSQL 10.22, 14.5, 15 and later), as those
that the base backup knows do.

The layout of records and pages is that of PostgreSQL's ``access/xlogrecord.h``, ``access/xlog_internal.h`` and ``commands/tablespace.h``,
the same from 14 to 18. The program that finds the records, ``pg_waldump``, reads WAL with the server's own code, and ends where recovery
would.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

from obhut.foundation.lsn import lsn_number
from obhut.postgres.clusters import Binaries
from obhut.restores.errors import RecoveryError

_MADE: Final = re.compile(r"^rmgr: Tablespace .* lsn: ([0-9A-F]+/[0-9A-F]+), prev \S+ desc: CREATE ", re.MULTILINE)
# Where the last segment is not full, or a record is damaged: recovery reads no further either.
_ENDED: Final = re.compile("error in WAL record at|could not find a valid record after")
_HEADER: Final = struct.Struct("<IIQBBxxI")  # XLogRecord: total length, transaction, previous, info, resource manager, CRC-32C
_CHECKED: Final = 20  # bytes of the header that the checksum covers
_TABLESPACE: Final = 5  # RM_TBLSPC_ID
_OPERATION: Final = 0xF0  # bits of info that the resource manager owns; 0: XLOG_TBLSPC_CREATE
_SHORT, _LONG, _ORIGIN, _TOPLEVEL = 255, 254, 253, 252  # XLR_BLOCK_ID_*
_PAGE: Final = 8192  # XLOG_BLCKSZ, as all packages have it
_LONG_PAGE, _SHORT_PAGE = 40, 24  # bytes of the headers of a segment's first page, and of its others
_LONGEST: Final = 4096  # bytes; a path has at most 1,023
_TIMELINE: Final = 8  # hexadecimal digits in a segment's name


class _Piece(NamedTuple):
    """A stretch of a record in one file."""

    file: Path
    offset: int
    length: int


class Segments:
    """Staged WAL as one stretch of bytes, the newest timeline of each segment.

    Args:
        directory: with the staged segments.
        names: of them.
        size: of a segment, in bytes.
    """

    def __init__(self, directory: Path, names: Sequence[str], size: int) -> None:
        self.size = size
        self.files = {name[_TIMELINE:]: directory / name for name in sorted(names)}

    def read(self, position: int, length: int) -> bytes:
        """Return bytes of a record from a position on, without the headers of pages between them."""
        return b"".join(_bytes(piece) for piece in self._pieces(position, length))

    def write(self, position: int, skip: int, data: bytes) -> None:
        """Overwrite what is ``skip`` bytes into the record at a position."""
        done = 0
        for piece in self._pieces(position, skip + len(data)):
            first = max(skip - done, 0)
            if first < piece.length:
                start = done + first - skip
                with piece.file.open("r+b") as file:
                    file.seek(piece.offset + first)
                    file.write(data[start : start + piece.length - first])
            done += piece.length

    def _pieces(self, position: int, length: int) -> Iterator[_Piece]:
        while length > 0:
            within = position % self.size
            if position % _PAGE == 0:
                header = _SHORT_PAGE if within else _LONG_PAGE
                position, within = position + header, within + header
            step = min(length, _PAGE - position % _PAGE)
            yield _Piece(self._file(position // self.size), within, step)
            position, length = position + step, length - step

    def _file(self, number: int) -> Path:
        a_log = (1 << 32) // self.size
        name = f"{number // a_log:08X}{number % a_log:08X}"
        if name not in self.files:
            raise RecoveryError(f"WAL segment {name} is missing", "The archive has a hole; choose an earlier point.")
        return self.files[name]


def keep_inside(programs: Binaries, directory: Path, names: Sequence[str], size: int) -> int:
    """Take the path out of every staged record that makes a tablespace; return their number. Repeating it is harmless.

    Args:
        programs: of the major version that wrote the WAL.
        directory: with the staged segments, which are changed in place.
        names: of these segments.
        size: of a segment, in bytes.

    Raises:
        RecoveryError: a record is not what it should be; the WAL must not be replayed.
    """
    segments = Segments(directory, names, size)
    found = _making(programs, directory, segments)
    for position in found:
        _without_path(segments, position)
    return len(found)


def _making(programs: Binaries, directory: Path, segments: Segments) -> list[int]:
    """Return the positions of records that make a tablespace. All segments are read as one timeline, as recovery goes through them."""
    if not segments.files:
        return []
    scan = directory.with_name("scan")
    shutil.rmtree(scan, ignore_errors=True)
    scan.mkdir(mode=0o700)
    try:
        ordered = sorted(segments.files)
        for name in ordered:
            (scan / f"{1:08X}{name}").symlink_to(segments.files[name])
        first, last = (f"{1:08X}{name}" for name in (ordered[0], ordered[-1]))
        done = programs.run(["pg_waldump", "--rmgr=Tablespace", "--path", scan, first, last], check=False, timeout=86_400)
    finally:
        shutil.rmtree(scan, ignore_errors=True)
    if done.returncode and not _ENDED.search(done.stderr):
        raise RecoveryError("pg_waldump could not look through the WAL", "Nothing was replayed: a record could lead to production's files.")
    return [lsn_number(lsn) for lsn in _MADE.findall(done.stdout)]


def _without_path(segments: Segments, position: int) -> None:
    total, _, _, info, manager, checksum = _HEADER.unpack(segments.read(position, _HEADER.size))
    if manager != _TABLESPACE or info & _OPERATION or not _HEADER.size < total <= _LONGEST:
        raise _unreadable(position)
    record = segments.read(position, total)
    if _checksum(record) != checksum:
        raise _unreadable(position)
    path = _path(record)
    if path is None:
        raise _unreadable(position)
    cleared = record[: path.start] + bytes(total - path.start)
    # Both or neither: a server that meets one without the other stops, and stops short of the link.
    segments.write(position, path.start, cleared[path.start :])
    segments.write(position, _CHECKED, struct.pack("<I", _checksum(cleared)))


def _path(record: bytes) -> slice | None:
    """Return where the path of a record lies: behind the oid in its main data, up to its end."""
    place = _HEADER.size
    while place < len(record):
        kind = record[place]
        if kind == _ORIGIN:
            place += 3
        elif kind == _TOPLEVEL:
            place += 5
        elif kind in {_SHORT, _LONG}:
            size, head = (record[place + 1], 2) if kind == _SHORT else (int.from_bytes(record[place + 1 : place + 5], "little"), 5)
            start = place + head + 4
            return slice(start, len(record)) if place + head + size == len(record) and size > 4 else None
        else:
            return None
    return None


def _checksum(record: bytes) -> int:
    return int(google_crc32c.value(record[_HEADER.size :] + record[:_CHECKED]))


def _bytes(piece: _Piece) -> bytes:
    with piece.file.open("rb") as file:
        file.seek(piece.offset)
        return file.read(piece.length)


def _unreadable(position: int) -> RecoveryError:
    return RecoveryError(
        f"the record at {position >> 32:X}/{position & 0xFFFFFFFF:X} makes a tablespace and cannot be read",
        "Replaying it could change production's own files, so nothing was replayed. Restore from a backup made after it.",
    )
