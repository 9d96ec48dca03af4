"""The record that makes a tablespace loses its path, wherever its bytes lie, and nothing beside it changes."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obhut.restores.errors import RecoveryError
from obhut.restores.tablespaces import Segments, _without_path

SIZE, PAGE = 1 << 16, 8192
FIRST = 5 * SIZE
NAMES = [f"00000001{0:08X}{number:08X}" for number in (5, 6, 7)]


def _record(path: bytes, *, origin: bool, manager: int = 5, info: int = 0) -> bytes:
    data = struct.pack("<I", 16576) + path + b"\0"
    head = b"\xfd\x01\x00" if origin else b""
    head += b"\xff" + bytes([len(data)]) if len(data) < 256 else b"\xfe" + struct.pack("<I", len(data))
    body = head + data
    start = struct.pack("<IIQBBxx", 24 + len(body), 785, FIRST, info, manager)
    return start + struct.pack("<I", google_crc32c.value(body + start)) + body


def _lay(folder: Path, position: int, record: bytes) -> set[tuple[str, int]]:
    """Write segments full of noise with the record in them; return the places of its bytes."""
    content = {name: bytearray(b"\xa5" * SIZE) for name in NAMES}
    places = set()
    for byte in record:
        if position % PAGE == 0:
            position += 24 if position % SIZE else 40
        name = NAMES[position // SIZE - 5]
        content[name][position % SIZE] = byte
        places.add((name, position % SIZE))
        position += 1
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return places


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=1023).map(lambda path: b"/" + path.replace(b"\0", b"0")), st.booleans(), st.data())
def test_only_the_path_is_taken(tmp_path_factory: pytest.TempPathFactory, path: bytes, origin: bool, data: st.DataObject) -> None:
    """Across the ends of pages and segments, too: header, oid and length stay, the path is empty and the checksum right."""
    folder = tmp_path_factory.mktemp("wal")
    border = data.draw(st.sampled_from([FIRST + SIZE, FIRST + PAGE, FIRST + 3 * PAGE, FIRST + 2 * SIZE - PAGE]))
    # Records begin at multiples of eight, never in the header of a page.
    position = border - 8 * data.draw(st.integers(1, 130))
    record = _record(path, origin=origin)
    places = _lay(folder, position, record)
    before = {name: (folder / name).read_bytes() for name in NAMES}
    segments = Segments(folder, NAMES, SIZE)
    assert segments.read(position, len(record)) == record
    _without_path(segments, position)
    changed = segments.read(position, len(record))
    kept = len(record) - len(path) - 1
    assert changed[:20] == record[:20] and changed[24:kept] == record[24:kept]
    assert changed[kept:] == bytes(len(path) + 1)
    assert struct.unpack("<I", changed[20:24])[0] == google_crc32c.value(changed[24:] + changed[:20])
    for name in NAMES:
        after = (folder / name).read_bytes()
        assert all(old == new or (name, place) in places for place, (old, new) in enumerate(zip(before[name], after, strict=True)))
    _without_path(segments, position)
    assert segments.read(position, len(record)) == changed, "once more changes nothing"


@pytest.mark.parametrize(
    "record",
    [
        _record(b"/there", origin=False, manager=4),
        _record(b"/there", origin=False, info=0x10),
        _record(b"/there", origin=False)[:-3] + b"x\0\0",
        b"\xa5" * 64,
    ],
)
def test_anything_else_is_refused(tmp_path: Path, record: bytes) -> None:
    """Another record, or one that is damaged, is left as it is."""
    _lay(tmp_path, FIRST + 40, record)
    before = {name: (tmp_path / name).read_bytes() for name in NAMES}
    with pytest.raises(RecoveryError):
        _without_path(Segments(tmp_path, NAMES, SIZE), FIRST + 40)
    assert before == {name: (tmp_path / name).read_bytes() for name in NAMES}


def test_the_newest_timeline_is_read(tmp_path: Path) -> None:
    """As recovery does; a segment that is not there is a hole."""
    for timeline in (1, 2):
        (tmp_path / f"{timeline:08X}{0:08X}{5:08X}").write_bytes(bytes([timeline]) * SIZE)
    segments = Segments(tmp_path, [path.name for path in tmp_path.iterdir()], SIZE)
    assert segments.read(FIRST + 40, 4) == bytes([2]) * 4
    with pytest.raises(RecoveryError, match="missing"):
        segments.read(FIRST + SIZE, 1)
