"""The WAL archive: which segments are there, whether each is what its name says, and whether the chain has a hole.

Sources: a segment is archived (sealed), streamed but not yet archived (plain), or the one being streamed (``.partial``). Names and page
headers as in PostgreSQL's ``xlog_internal.h``; sizes in bytes, positions (LSN) as numbers inside, as text at the border.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from obhut.backups import sealing
from obhut.backups.errors import SealBrokenError, WalConflictError, WalError
from obhut.backups.layout import Layout, fsync_directory
from obhut.foundation.ids import Lsn
from obhut.foundation.lsn import lsn_text
from obhut.postgres import timelines
from obhut.postgres.timelines import TimelineSwitch

_SEGMENT: Final = re.compile(r"[0-9A-F]{24}")
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")
_LONG_HEADER: Final = struct.Struct("<HHIQI4xQII")  # XLogLongPageHeaderData
_SHORT_HEADER: Final = struct.Struct("<HHIQI")
_LONG: Final = 0x0002  # XLP_LONG_HEADER
_BLOCK: Final = 8192
_UNUSED: Final = bytes(_BLOCK)
# XLOG_PAGE_MAGIC by major version of the server.
PAGE_MAGIC: Final = {14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}


def segment_name(timeline: int, position: int, size: int) -> str:
    """Return the file name of the segment that holds a position."""
    number = position // size
    per_file = (1 << 32) // size
    return f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"


class WalSource(StrEnum):
    """Where a segment lies."""

    ARCHIVED = "archived"
    STREAMED = "streamed"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class WalSegment:
    """One segment in the repository."""

    name: str
    system_identifier: int  # of the server whose archive it lies in
    timeline: int
    start: int  # first position, in bytes
    size: int  # of the plain segment, in bytes
    source: WalSource
    path: Path
    sealed: bool
    stored_size: int
    modified: datetime  # last write of its WAL

    @property
    def end(self) -> int:
        """The position behind the segment."""
        return self.start + self.size

    @property
    def start_lsn(self) -> Lsn:
        """The first position as text."""
        return lsn_text(self.start)


@dataclass(frozen=True, slots=True)
class WalHole:
    """A run of missing segments."""

    timeline: int
    first: str  # name of the first missing segment
    last: str
    start_lsn: Lsn
    end_lsn: Lsn


@dataclass(frozen=True, slots=True)
class WalIdentity:
    """What every segment of one server has in common."""

    system_identifier: int
    major: int
    segment_size: int


def inventory(layout: Layout, size: int) -> list[WalSegment]:
    """Return every segment, ordered by timeline, position and source (archived first); duplicates are all listed."""
    found: list[WalSegment] = []
    server = int(layout.root.name)
    if layout.wals.is_dir():
        for directory in layout.wals.iterdir():
            if directory.is_dir():
                found.extend(_scan(directory, WalSource.ARCHIVED, size, server))
    if layout.streaming.is_dir():
        found.extend(_scan(layout.streaming, WalSource.STREAMED, size, server))
    order = list(WalSource)
    return sorted(found, key=lambda segment: (segment.timeline, segment.start, order.index(segment.source)))


def _scan(directory: Path, source: WalSource, size: int, server: int) -> Iterator[WalSegment]:
    for path in directory.iterdir():
        name, _, suffix = path.name.partition(".")
        if not _SEGMENT.fullmatch(name) or suffix not in {"", "partial"}:
            continue
        try:
            status = path.stat()
            if suffix and _untouched(path):
                continue  # made ahead of the first byte
        except FileNotFoundError:
            continue  # archived or finished between listing and looking
        number = int(name[8:16], 16) * ((1 << 32) // size) + int(name[16:24], 16)
        yield WalSegment(
            name=name,
            system_identifier=server,
            timeline=int(name[:8], 16),
            start=number * size,
            size=size,
            source=WalSource.PARTIAL if suffix else source,
            path=path,
            sealed=source is WalSource.ARCHIVED,
            stored_size=status.st_size,
            modified=datetime.fromtimestamp(status.st_mtime, UTC),
        )


def _untouched(path: Path) -> bool:
    with path.open("rb") as file:
        return not any(file.read(_LONG_HEADER.size))


def histories(layout: Layout) -> dict[int, Path]:
    """Return the timeline history files by timeline."""
    found: dict[int, Path] = {}
    for directory in (layout.wals, layout.streaming):
        if directory.is_dir():
            for path in directory.iterdir():
                if match := _HISTORY.fullmatch(path.name):
                    found.setdefault(int(match[1], 16), path)
    return found


def parse_history(content: str) -> list[TimelineSwitch]:
    """Return the ancestors of a timeline, oldest first.

    Raises:
        WalError: a line is not what PostgreSQL writes.
    """
    try:
        return timelines.parse_history(content)
    except timelines.HistoryFormError:
        raise WalError("a timeline history file is malformed", "Was it changed on the disk?") from None


def path_of(timeline: int, ancestors: Sequence[TimelineSwitch]) -> list[tuple[int, int, int | None]]:
    """Return (timeline, first position, end or None) for each stretch of WAL that leads to the end of a timeline."""
    stretches: list[tuple[int, int, int | None]] = []
    start = 0
    for switch in ancestors:
        stretches.append((switch.timeline, start, switch.switch))
        start = switch.switch
    stretches.append((timeline, start, None))
    return stretches


def chosen(
    segments: Iterable[WalSegment],
    stretches: Sequence[tuple[int, int, int | None]],
    start: int,
    end: int | None,
) -> list[WalSegment]:
    """Return one segment for each position from ``start`` up to ``end`` (None: as far as there is WAL), in order.

    Of several files for one segment the archived one is taken, then the streamed, then the partial one. A timeline's first segment
    repeats the end of its ancestor, so the later timeline wins in the segment of the switch, as it does in the server.
    """
    picked: dict[int, WalSegment] = {}
    for segment in segments:
        for timeline, first, last in stretches:
            if segment.timeline != timeline or segment.end <= first or (last is not None and segment.start >= last):
                continue
            if segment.end <= start or (end is not None and segment.start >= end):
                continue
            present = picked.get(segment.start)
            if present is None or present.timeline < segment.timeline:
                picked[segment.start] = segment
    return [picked[position] for position in sorted(picked)]


def hole(segments: Sequence[WalSegment], start: int, end: int | None, timeline: int, size: int) -> WalHole | None:
    """Return the first run of missing segments between two positions; with no end, between the first and the last segment there is."""
    expected = start // size * size
    limit = end if end is not None else (segments[-1].end if segments else expected + size)
    have = {segment.start for segment in segments}
    position = expected
    while position < limit and position in have:
        position += size
    if position >= limit:
        return None
    last = position
    while last + size < limit and last + size not in have:
        last += size
    return WalHole(
        timeline, segment_name(timeline, position, size), segment_name(timeline, last, size), lsn_text(position), lsn_text(last + size)
    )


def identity_of(path: Path, keys: sealing.KeySource) -> WalIdentity:
    """Return what the first page of a segment says about its server.

    Raises:
        WalError: it does not begin with a long page header of a known version.
    """
    with path.open("rb") as file:
        blocks = _plain(file, keys, path)
        head = next(blocks, b"")
    if len(head) < _LONG_HEADER.size:
        raise WalError("a WAL segment is too short", "Was the disk full?")
    magic, flags, _, _, _, identifier, size, _ = _LONG_HEADER.unpack_from(head)
    major = next((version for version, value in PAGE_MAGIC.items() if value == magic), None)
    if major is None or not flags & _LONG:
        raise WalError("a WAL segment does not begin with a page header", "Was it changed on the disk?")
    return WalIdentity(identifier, major, size)


def stage(
    segments: Iterable[WalSegment], directory: Path, keys: sealing.KeySource, expected: WalIdentity, owner: tuple[int, int] | None = None
) -> list[Path]:
    """Write segments in plain under their server names, each checked as a whole; a file that fails is removed again.

    Args:
        segments: from :func:`chosen`; a partial one is written under its final name.
        directory: exists, private.
        keys: returns the data key for a label.
        expected: the server the segments must come from.
        owner: uid and gid to give the files to.

    Raises:
        WalError: wrong size, page header, server, timeline or position.
        WalConflictError: an archived and a streamed file of one name differ.
        SealBrokenError: a sealed segment was changed or truncated.
    """
    staged: list[Path] = []
    for segment in segments:
        target = directory / segment.name
        temporary = directory / f".{segment.name}.tmp"
        try:
            with segment.path.open("rb") as source, temporary.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                checker = _PageChecker(segment, expected)
                for block in _plain(source, keys, segment.path):
                    checker.feed(block)
                    file.write(block)
                checker.finish()
                if owner is not None:
                    os.fchown(file.fileno(), *owner)
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        staged.append(target)
    fsync_directory(directory)
    return staged


def verify(segment: WalSegment, keys: sealing.KeySource, expected: WalIdentity) -> None:
    """Read a segment through and raise what :func:`stage` would raise."""
    with segment.path.open("rb") as source:
        checker = _PageChecker(segment, expected)
        for block in _plain(source, keys, segment.path):
            checker.feed(block)
        checker.finish()


def refuse_conflicts(segments: Iterable[WalSegment], everything: Iterable[WalSegment], errors: Path, keys: sealing.KeySource) -> None:
    """Refuse when another file of the same name has other content: nobody can tell which one the server wrote.

    Raises:
        WalConflictError: names the segment.
    """
    rivals: dict[str, list[WalSegment]] = {}
    for segment in everything:
        if segment.source is not WalSource.PARTIAL:
            rivals.setdefault(segment.name, []).append(segment)
    refused = [path for path in errors.iterdir() if path.name.endswith(".duplicate")] if errors.is_dir() else []
    for segment in segments:
        others = [rival for rival in rivals.get(segment.name, []) if rival.path != segment.path]
        others += [replace(segment, path=path, sealed=False) for path in refused if path.name.startswith(segment.name + ".")]
        for other in others:
            if segment.source is not WalSource.PARTIAL and not _same(segment, other, keys):
                raise WalConflictError(
                    f"two different files claim to be WAL segment {segment.name}",
                    "Does another server with the same name write here? Look into the errors directory of the repository.",
                )


def _same(one: WalSegment, other: WalSegment, keys: sealing.KeySource) -> bool:
    with one.path.open("rb") as first, other.path.open("rb") as second:
        left, right = b"".join(_plain(first, keys, one.path)), b"".join(_plain(second, keys, other.path))
    return left == right


def plain_copy(path: Path, target: Path, keys: sealing.KeySource, owner: tuple[int, int] | None = None) -> None:
    """Write a small sealed or plain file (a timeline history) in plain."""
    with path.open("rb") as source, target.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        for block in _plain(source, keys, path):
            file.write(block)


def read_text(path: Path, keys: sealing.KeySource) -> str:
    """Return a small sealed or plain text file (a timeline history)."""
    with path.open("rb") as source:
        return b"".join(_plain(source, keys, path)).decode("utf-8", "replace")


def _plain(source: BinaryIO, keys: sealing.KeySource, path: Path) -> Iterator[bytes]:
    head = source.read(len(sealing.MAGIC))
    source.seek(0)
    if head == sealing.MAGIC:
        yield from sealing.unsealed(source, keys, "wal")
    elif path.parent.name in {"streaming", "errors"}:
        while block := source.read(1 << 20):
            yield block
    else:
        raise SealBrokenError("a file of the WAL archive is not sealed", "Was it written or changed by another program?")


class _PageChecker:
    """Checks the header of every page of one segment while its bytes stream by."""

    def __init__(self, segment: WalSegment, expected: WalIdentity) -> None:
        self._segment = segment
        self._expected = expected
        self._magic = PAGE_MAGIC.get(expected.major)
        self._seen = 0
        self._rest = b""

    def feed(self, block: bytes) -> None:
        """Check the pages that begin in the block."""
        data = self._rest + block if self._rest else block
        whole = len(data) // _BLOCK * _BLOCK
        for offset in range(0, whole, _BLOCK):
            self._check(data, offset, self._segment.start + self._seen + offset)
        self._seen += whole
        self._rest = data[whole:]
        if self._seen + len(self._rest) > self._segment.size:
            raise self._wrong("it is longer than a segment")

    def finish(self) -> None:
        """Check the length."""
        if self._rest or self._seen != self._segment.size or self._segment.size != self._expected.segment_size:
            raise self._wrong("its size is not that of a segment")

    def _check(self, data: bytes, offset: int, position: int) -> None:
        magic, flags, timeline, address, _ = _SHORT_HEADER.unpack_from(data, offset)
        first = position == self._segment.start
        if not first and magic == 0 and data[offset : offset + _BLOCK] == _UNUSED:
            return  # the unused end of a segment
        if magic != self._magic or address != position:
            raise self._wrong("a page header does not fit its place")
        if timeline > self._segment.timeline or (first and not flags & _LONG):
            raise self._wrong("a page header names another timeline or has the wrong form")
        if first:
            _, _, _, _, _, identifier, size, block_size = _LONG_HEADER.unpack_from(data, offset)
            if identifier != self._expected.system_identifier:
                raise self._wrong("it comes from another server")
            if size != self._expected.segment_size or block_size != _BLOCK:
                raise self._wrong("its segment or block size is not the server's")

    def _wrong(self, why: str) -> WalError:
        return WalError(f"WAL segment {self._segment.name} is not usable: {why}", 'Run "obhut backup check" to see how far it reaches.')


def free_bytes(directory: Path) -> tuple[int, int]:
    """Return free and total bytes of the file system of a directory."""
    usage = shutil.disk_usage(directory)
    return usage.free, usage.total
