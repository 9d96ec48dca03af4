"""The second place of the erasure list: append-only files of signed segments (specification, section 6).

Knows files, not the control database. Every reader here is told how far the anchor reaches, because that alone decides whether an
incomplete end is a write that a crash tore (it was never acknowledged) or a loss.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from obhut.erasure.entries import Canonical, Private
from obhut.erasure.errors import MirrorDamagedError, MirrorTornError, MirrorUnwritableError
from obhut.erasure.notes import NOTE_LINES
from obhut.foundation import faultpoints

MAX_COUNT: Final = 10_000
LABEL_PREFIX: Final = "erasure-list/"
_NAME: Final = re.compile(r"\d{4}-\d{2}\.segments")
_HEADER: Final = re.compile(rb"segment ([1-9]\d{0,15}) ([1-9]\d{0,4}) ([1-9]\d{0,11})\n")
_FOOTER: Final = re.compile(rb"(?<=\n)end ([1-9]\d{0,15}) ([1-9]\d{0,4}) ([1-9]\d{0,11})\n\Z")
_LONGEST_FRAME: Final = 64  # octets, more than any header or footer line has


@dataclass(frozen=True, slots=True)
class Place:
    """An offset in a file of the mirror."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One append, parsed but not verified."""

    first: int
    entries: list[str]
    label: str | None
    sealed: bytes | None
    note: str
    start: Place
    end: int

    @property
    def last(self) -> int:
        """Number of the last entry."""
        return self.first + len(self.entries) - 1


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the mirror: its last complete segment, and whether torn bytes follow it."""

    segment: Segment | None
    place: Place | None
    torn: bool


class _Broken(Exception):  # noqa: N818 - never leaves this module
    """A segment does not parse; ``last`` is the number of its last entry as far as it can be known, ``after`` what follows it."""

    def __init__(self, last: int, after: int) -> None:
        super().__init__()
        self.last = last
        self.after = after


def frame(first: int, entries: Sequence[str], sealed: tuple[str, bytes] | None, note: str) -> tuple[bytes, bytes]:
    """Return a segment as header with entries, and the rest."""
    count = len(entries)
    body = "\n".join(entries).encode() + b"\n"
    secret = f"sealed {sealed[0]} {base64.b64encode(sealed[1]).decode()}\n" if sealed else "sealed -\n"
    rest = (secret + note).encode()
    # The footer repeats the number of octets, so its own length depends on that number's length; two rounds settle it.
    footer, octets = b"", 0
    for _ in range(3):
        octets = len(body) + len(rest) + len(footer)
        footer = f"end {first} {count} {octets}\n".encode()
    return f"segment {first} {count} {octets}\n".encode() + body, rest + footer


def associated_data(origin: str, first: int, count: int) -> bytes:
    """Return what binds a sealed part to its segment."""
    return f"obhut erasure list v1 sealed\n{origin}\n{first} {count}".encode()


def private_lines(privates: Sequence[Private]) -> bytes:
    """Return the plaintext of a sealed part."""
    return "".join([f"{seq} {salt.hex()} {text}\n" for seq, salt, text in privates]).encode()


def parse_private_lines(plain: bytes) -> list[Private]:
    """Return the private parts of an opened sealed part.

    Raises:
        ValueError: it is not of this form.
    """
    found = []
    for line in plain.decode().split("\n")[:-1]:
        seq, salt, text = line.split(" ", 2)
        found.append(Private(int(seq), bytes.fromhex(salt), Canonical(text)))
    return found


class Mirror:
    """The directory of the mirror."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def files(self) -> list[str]:
        """Return the names of the files in the order of the list; none when the directory is missing."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(path.name for path in self.directory.iterdir() if _NAME.fullmatch(path.name))
        return []

    def size_of_last(self) -> Place | None:
        """Return where the last file ends now, or None when there is no file."""
        names = self.files()
        return Place(names[-1], (self.directory / names[-1]).stat().st_size) if names else None

    def tail(self, anchored: int) -> Tail:
        """Return the last complete segment, reading the end of the last file only.

        Args:
            anchored: size of the anchor.

        Raises:
            MirrorDamagedError: what was acknowledged is incomplete.
        """
        names = self.files()
        torn = False
        while names:
            name = names[-1]
            with (self.directory / name).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                segment = self._last_complete(file, name, size)
                if segment is None and not torn:
                    segment, torn = self._scan(file, name, size, anchored)
            if segment is not None:
                return Tail(segment, Place(name, segment.end), torn)
            if torn or size == 0:
                previous = self._tail_before(names[:-1])
                return Tail(previous, Place(name, 0), torn)
            names.pop()
        return Tail(None, None, torn=False)

    def segments(self, anchored: int, until: Place | None) -> Iterator[Segment]:
        """Yield every segment in order, one in memory at a time.

        Args:
            anchored: size of the anchor.
            until: where the last file ended when the reader began; what is appended later is not read.

        Raises:
            MirrorDamagedError: a segment is incomplete or does not parse.
            MirrorTornError: the last one is torn.
        """
        names = [name for name in self.files() if until is not None and name <= until.file]
        expected = 1
        for name in names:
            is_last = until is not None and name == until.file
            with (self.directory / name).open("rb") as file:
                size = until.offset if is_last and until else os.fstat(file.fileno()).st_size
                if os.fstat(file.fileno()).st_size < size:
                    raise MirrorDamagedError(f"file {name} of the mirror shrank while it was read")
                while file.tell() < size:
                    try:
                        segment = _read(file, name, expected, size)
                    except _Broken as broken:
                        torn = is_last and broken.last > anchored and broken.after >= size
                        raise (_torn(name, expected) if torn else _damaged(name, expected)) from None
                    expected = segment.last + 1
                    yield segment
                    del segment  # megabytes: gone before the next one is read

    def append(self, place: Place | None, file: str, parts: tuple[bytes, bytes]) -> Place:
        """Append one segment durably and return where it ends.

        Args:
            place: where the mirror ends; torn bytes behind it are cut off.
            file: the file to append to; a new one when it sorts behind the last.
            parts: what :func:`frame` returned.

        Raises:
            MirrorUnwritableError: no space, no permission, no directory.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = max(file, place.file) if place else file
            path = self.directory / name
            is_new = not path.exists()
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                end = place.offset if place and place.file == name else 0
                if place and place.file != name:
                    self.cut(place)
                if os.fstat(handle).st_size > end:
                    os.ftruncate(handle, end)
                _write(handle, parts[0])
                faultpoints.reach("erasure-list.mirror-half")
                _write(handle, parts[1])
                faultpoints.reach("erasure-list.mirror-written")
                os.fdatasync(handle)
            finally:
                os.close(handle)
            if is_new:
                self._sync()
        except OSError as error:
            raise MirrorUnwritableError(
                f"the mirror of the erasure list cannot be written ({error.strerror})",
                "Nothing was erased. Free the disk or fix the permissions of the directory erasure_list.mirror, then run it again.",
            ) from None
        return Place(name, end + len(parts[0]) + len(parts[1]))

    def cut(self, place: Place) -> None:
        """Cut torn bytes off, durably; harmless when there are none."""
        path = self.directory / place.file
        if path.stat().st_size > place.offset:
            handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(handle, place.offset)
                os.fsync(handle)
            finally:
                os.close(handle)

    def _sync(self) -> None:
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _last_complete(self, file: BinaryIO, name: str, size: int) -> Segment | None:
        """Return the segment whose footer ends the file, or None when the end is no complete segment."""
        file.seek(max(0, size - _LONGEST_FRAME))
        end = file.read(_LONGEST_FRAME)
        found = _FOOTER.search(end)
        if not found:
            return None
        first, count, octets = (int(part) for part in found.groups())
        start = size - octets - len(b"segment %d %d %d\n" % (first, count, octets))
        if start < 0:
            return None
        file.seek(start)
        try:
            return _read(file, name, first, size)
        except _Broken:
            return None

    def _scan(self, file: BinaryIO, name: str, size: int, anchored: int) -> tuple[Segment | None, bool]:
        """Return the last complete segment of a file whose end is broken, hopping from header to header."""
        file.seek(0)
        segment: Segment | None = None
        while file.tell() < size:
            before = file.tell()
            try:
                segment = _read(file, name, segment.last + 1 if segment else None, size)
            except _Broken as broken:
                if broken.last <= anchored or broken.after < size:
                    raise _damaged(name, segment.last + 1 if segment else 0) from None
                file.seek(before)
                return segment, True
        return segment, False

    def _tail_before(self, names: list[str]) -> Segment | None:
        for name in reversed(names):
            with (self.directory / name).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    segment = self._last_complete(file, name, size)
                    if segment is None:
                        raise _damaged(name, 0)
                    return segment
        return None


def _write(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def _read(file: BinaryIO, name: str, expected: int | None, size: int) -> Segment:
    start = file.tell()
    header = file.readline(_LONGEST_FRAME)
    found = _HEADER.fullmatch(header)
    if not found:
        # Without a header nothing can be told of what follows: it counts as the end of the file.
        raise _Broken(expected or 0, size)
    first, count, octets = (int(part) for part in found.groups())
    last, after = first + count - 1, start + len(header) + octets
    if (expected is not None and first != expected) or count > MAX_COUNT:
        raise _Broken(0, 0)
    if after > size:
        raise _Broken(last, after)
    try:
        lines = file.read(octets).decode().split("\n")
        if len(lines) != count + NOTE_LINES + 3 or lines[-1] or lines[-2] != f"end {first} {count} {octets}":
            raise _Broken(last, after)
        words = lines[count].split(" ")
        label, sealed = None, None
        if len(words) == 3 and words[0] == "sealed":
            label, sealed = words[1], base64.b64decode(words[2], validate=True)
        elif words != ["sealed", "-"]:
            raise _Broken(last, after)
    except (UnicodeDecodeError, binascii.Error):
        raise _Broken(last, after) from None
    note = "\n".join(lines[count + 1 : count + 1 + NOTE_LINES]) + "\n"
    return Segment(first, lines[:count], label, sealed, note, Place(name, start), after)


def _damaged(name: str, number: int) -> MirrorDamagedError:
    return MirrorDamagedError(
        f"file {name} of the mirror is damaged at entry {number}",
        "Which disk, copy or person changed it? Keep it as evidence, then bring the file back from a copy.",
    )


def _torn(name: str, number: int) -> MirrorTornError:
    return MirrorTornError(
        f"the last write to file {name} of the mirror broke off at entry {number}",
        'It was never acknowledged. The next erasure heals it, or run "obhut erasures recover".',
    )
