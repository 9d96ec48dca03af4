"""WAL segments made byte by byte: names, headers, holes, duplicates, timelines."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from obhut.backups import sealing, wal
from obhut.backups.errors import SealBrokenError, WalConflictError, WalError
from obhut.backups.layout import Layout
from obhut.backups.wal import WalIdentity, WalSource
from obhut.foundation.lsn import lsn_number, lsn_text

SYSTEM = 7711258375065990640
SIZE = 1 << 20
SERVER = WalIdentity(SYSTEM, 18, SIZE)
KEY = bytes(32)


def keys(_label: str) -> bytes:
    return KEY


def page(position: int, *, magic: int = 0xD118, timeline: int = 1, system: int = SYSTEM, size: int = SIZE) -> bytes:
    first = position % SIZE == 0
    head = struct.pack("<HHIQI", magic, 2 if first else 0, timeline, position, 0)
    if first:
        head += struct.pack("<4xQII", system, size, 8192)
    return head + os.urandom(8192 - len(head))


def content(number: int, used: int = 128, **changes) -> bytearray:
    """Return a segment with ``used`` pages of random records, the rest unused."""
    start = number * SIZE
    return bytearray(b"".join(page(start + 8192 * index, **changes) for index in range(used)) + bytes(8192 * (128 - used)))


class Store:
    """A repository of WAL without an engine."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / str(SYSTEM), "courses")
        self.layout.streaming.mkdir(parents=True)
        self.layout.errors.mkdir(parents=True)
        self.staged = root / "staged"
        self.staged.mkdir()

    def archive(self, number: int, data: bytes | None = None, timeline: int = 1) -> Path:
        name = wal.segment_name(timeline, number * SIZE, SIZE)
        path = self.layout.wals / name[:16] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            sealer = sealing.Sealer(file, KEY, "label", "wal", compress=True)
            sealer.write(bytes(data if data is not None else content(number, timeline=timeline)))
            sealer.finish()
        return path

    def stream(self, number: int, data: bytes | None = None, suffix: str = "") -> Path:
        path = self.layout.streaming / (wal.segment_name(1, number * SIZE, SIZE) + suffix)
        path.write_bytes(data if data is not None else content(number))
        return path

    def chosen(self, start: int = 0, end: int | None = None, stretches=((1, 0, None),)) -> list[wal.WalSegment]:
        return wal.chosen(wal.inventory(self.layout, SIZE), stretches, start, end)

    def stage(self, segments) -> list[str]:
        return [path.name for path in wal.stage(segments, self.staged, keys, SERVER)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize(
    ("timeline", "position", "size", "name"),
    [
        (1, 0x1000000, 16 << 20, "000000010000000000000001"),
        (1, 0x1_FF000000, 16 << 20, "0000000100000001000000FF"),
        (2, 0x2_00000000, 16 << 20, "000000020000000200000000"),
        (10, 0x5_40000000, 1 << 30, "0000000A0000000500000001"),
        (1, 0xFFF00000, 1 << 20, "000000010000000000000FFF"),
    ],
)
def test_names_are_the_servers(timeline, position, size, name) -> None:
    """Segment names follow xlog_internal.h for every segment size."""
    assert wal.segment_name(timeline, position, size) == name


def test_positions_as_text() -> None:
    """An LSN is read and written as the server does."""
    assert lsn_number("1A/2B3C") == 0x1A00002B3C
    assert lsn_text(0x1A00002B3C) == "1A/2B3C"


def test_sources_complement_each_other(store) -> None:
    """Archived, streamed and partial segments make one chain; of one segment the archived file is taken."""
    store.archive(1)
    store.archive(2)
    store.stream(2, content(2))
    store.stream(3)
    store.stream(4, content(4, used=7), ".partial")
    found = store.chosen(SIZE)
    assert [segment.source for segment in found] == [WalSource.ARCHIVED, WalSource.ARCHIVED, WalSource.STREAMED, WalSource.PARTIAL]
    assert wal.hole(found, SIZE, None, 1, SIZE) is None
    assert store.stage(found)[-1] == wal.segment_name(1, 4 * SIZE, SIZE)


def test_a_range_ends_where_it_is_asked_to(store) -> None:
    """The segment of the last position is the last one that is needed."""
    for number in range(1, 6):
        store.archive(number)
    assert [segment.start // SIZE for segment in store.chosen(2 * SIZE + 5, 4 * SIZE)] == [2, 3]
    assert [segment.start // SIZE for segment in store.chosen(2 * SIZE, 4 * SIZE + 1)] == [2, 3, 4]


def test_a_hole_is_named(store) -> None:
    """Missing segments in the middle and at the end are named, first and last."""
    for number in (1, 2, 5):
        store.archive(number)
    missing = wal.hole(store.chosen(SIZE), SIZE, None, 1, SIZE)
    assert (missing.first[-2:], missing.last[-2:], missing.start_lsn) == ("03", "04", "0/300000")
    at_the_end = wal.hole(store.chosen(SIZE, 2 * SIZE), SIZE, 4 * SIZE, 1, SIZE)
    assert (at_the_end.first[-2:], at_the_end.last[-2:]) == ("02", "03")
    assert wal.hole([], SIZE, None, 1, SIZE) is not None
    assert wal.hole(store.chosen(SIZE, 3 * SIZE), SIZE, 3 * SIZE, 1, SIZE) is None


@pytest.mark.parametrize(
    ("why", "damage"),
    [
        ("too long", lambda data: data + bytes(8192)),
        ("size", lambda data: data[: SIZE // 2]),
        ("size", lambda data: data[:-1]),
        ("size", lambda data: b""),
        ("place", lambda data: bytes(8192) + data[8192:]),
        ("place", lambda data: data[: 8192 * 5] + data[8192 * 6 : 8192 * 7] + data[8192 * 6 :]),
        ("place", lambda data: data[: 8192 * 9] + b"\x17" + data[8192 * 9 + 1 :]),
        ("place", lambda data: content(9)),
        ("another server", lambda data: content(3, system=SYSTEM + 1)),
        ("place", lambda data: content(3, magic=0xD110)),
        ("timeline", lambda data: content(3, timeline=2)),
        ("segment or block size", lambda data: content(3, size=SIZE * 2)),
    ],
)
@pytest.mark.parametrize("archived", [True, False])
def test_a_segment_that_is_not_what_its_name_says_is_refused(store, why, damage, archived) -> None:
    """Length, position, version, server and timeline are checked on every page; nothing of a bad segment is left in the open."""
    data = bytes(damage(bytes(content(3))))
    (store.archive if archived else store.stream)(3, data)
    expected = "longer" if why == "too long" else why
    with pytest.raises(WalError, match=expected):
        store.stage(store.chosen(SIZE))
    assert list(store.staged.iterdir()) == []


def test_a_changed_or_plain_archived_segment_is_refused(store) -> None:
    """A flipped byte in a sealed segment does not open; a plain file among the sealed ones is foreign."""
    path = store.archive(3)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(SealBrokenError):
        store.stage(store.chosen(SIZE))
    path.write_bytes(content(3))
    with pytest.raises(SealBrokenError, match="not sealed"):
        store.stage(store.chosen(SIZE))


def test_two_files_of_one_name_must_be_equal(store) -> None:
    """A duplicate with the same bytes is harmless (a crash while archiving); with other bytes it is refused."""
    data = content(3)
    store.archive(3, data)
    store.stream(3, data)
    everything = wal.inventory(store.layout, SIZE)
    wal.refuse_conflicts(store.chosen(SIZE), everything, store.layout.errors, keys)
    store.stream(3, content(3))
    with pytest.raises(WalConflictError, match="two different files"):
        wal.refuse_conflicts(store.chosen(SIZE), wal.inventory(store.layout, SIZE), store.layout.errors, keys)


def test_a_duplicate_that_the_engine_put_aside_counts(store) -> None:
    """Which of two files the server wrote cannot be told from who came first."""
    store.archive(3)
    name = wal.segment_name(1, 3 * SIZE, SIZE)
    (store.layout.errors / f"{name}.20261123T070000Z.duplicate").write_bytes(content(3))
    with pytest.raises(WalConflictError):
        wal.refuse_conflicts(store.chosen(SIZE), wal.inventory(store.layout, SIZE), store.layout.errors, keys)


def test_a_later_timeline_takes_over_at_its_switch(store) -> None:
    """WAL up to the switch comes from the ancestor; in the segment of the switch the later timeline wins."""
    for number in (1, 2, 3, 4):
        store.archive(number)
    for number in (3, 4):
        store.archive(number, timeline=2)
    switches = wal.parse_history("1\t0/340000\tno recovery target specified\n")
    found = store.chosen(SIZE, None, wal.path_of(2, switches))
    assert [(segment.timeline, segment.start // SIZE) for segment in found] == [(1, 1), (1, 2), (2, 3), (2, 4)]


@pytest.mark.parametrize("text", ["one 0/1", "1", "1 zz"])
def test_a_malformed_history_is_refused(text) -> None:
    """A history file that cannot be read leads nowhere rather than somewhere."""
    with pytest.raises(WalError):
        wal.parse_history(text)


def test_identity_is_read_from_the_first_page(store) -> None:
    """Server, version and segment size stand in the first page, sealed or not."""
    assert wal.identity_of(store.archive(1), keys) == SERVER
    assert wal.identity_of(store.stream(2), keys) == SERVER
    with pytest.raises(WalError):
        wal.identity_of(store.stream(3, b"short"), keys)


def test_an_empty_partial_segment_is_passed_over(store) -> None:
    """The receiver makes the next segment before the first byte arrives: that is the end of the WAL, not damage."""
    store.archive(1)
    store.stream(2, bytes(SIZE), ".partial")
    assert store.stage(store.chosen(SIZE)) == [wal.segment_name(1, SIZE, SIZE)]
