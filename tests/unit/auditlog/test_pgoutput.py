"""The decoder against messages written by hand from PostgreSQL's manual, and against every way to cut one short."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.auditlog.capture.pgoutput import (
    UNCHANGED,
    Begin,
    Change,
    Commit,
    Decoder,
    Message,
    Operation,
    Origin,
    PgoutputError,
    Relation,
    Truncated,
    Value,
)

OID = 16_400
values = st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=40))
rows = st.integers(1, 12).flatmap(
    lambda width: st.tuples(st.lists(values, min_size=width, max_size=width), st.lists(values, min_size=width, max_size=width))
)


def relation(width: int = 2, identity: str = "f", oid: int = OID) -> bytes:
    columns = b"".join(
        struct.pack(">B", number == 0) + f"c{number}".encode() + b"\0" + struct.pack(">Ii", 25, -1) for number in range(width)
    )
    return b"R" + struct.pack(">I", oid) + b"public\0person\0" + identity.encode() + struct.pack(">H", width) + columns


def packed(row: list[Value]) -> bytes:
    made = struct.pack(">H", len(row))
    for value in row:
        if value is None:
            made += b"n"
        elif isinstance(value, bytes):
            made += b"t" + struct.pack(">I", len(value)) + value
        else:
            made += b"u"
    return made


def update(old: list[Value], new: list[Value], marker: bytes = b"O") -> bytes:
    return b"U" + struct.pack(">I", OID) + marker + packed(old) + b"N" + packed(new)


def test_frames_of_a_transaction() -> None:
    """Begin names position and time of the commit, commit the position behind it, origin the server it came from."""
    decoder = Decoder()
    begin = decoder.decode(b"B" + struct.pack(">QqI", 0x16B3748, 1_000_001, 700))
    assert isinstance(begin, Begin)
    assert (begin.commit, begin.xid, begin.at) == (0x16B3748, 700, datetime(2000, 1, 1, 0, 0, 1, 1, tzinfo=UTC))
    assert decoder.decode(b"C" + struct.pack(">BQQq", 0, 0x16B3748, 0x16B3780, 5)) == Commit(0x16B3748, 0x16B3780)
    assert decoder.decode(b"O" + struct.pack(">Q", 9) + b"other\0") == Origin("other")
    assert decoder.decode(b"Y" + struct.pack(">I", 1) + b"\0t\0") is None
    content = b'{"k":"fact"}'
    assert decoder.decode(b"M" + struct.pack(">BQ", 1, 9) + b"obhut\0" + struct.pack(">I", len(content)) + content) == Message(
        "obhut", content, True
    )


def test_relation_and_truncate() -> None:
    """A relation keeps its columns for the changes that follow; a TRUNCATE names all of its tables."""
    decoder = Decoder()
    described = decoder.decode(relation())
    assert isinstance(described, Relation)
    assert (described.full_name, described.identity, [c.name for c in described.columns], described.columns[0].is_key) == (
        "public.person",
        "f",
        ["c0", "c1"],
        True,
    )
    decoder.decode(relation(oid=OID + 1))
    found = decoder.decode(b"T" + struct.pack(">IBII", 2, 3, OID, OID + 1))
    assert isinstance(found, Truncated)
    assert [one.oid for one in found.relations] == [OID, OID + 1]
    assert (found.cascade, found.restart_identity) == (True, True)


@given(rows)
def test_every_row_comes_back(pair: tuple[list[Value], list[Value]]) -> None:
    """Values come as they were sent; what was left out of a new row is taken from the whole old one, and stays unknown without."""
    old, new = pair
    decoder = Decoder()
    decoder.decode(relation(len(new)))
    inserted = decoder.decode(b"I" + struct.pack(">I", OID) + b"N" + packed(new))
    assert isinstance(inserted, Change)
    assert (inserted.operation, inserted.old, inserted.new) == (Operation.INSERT, None, new)
    updated = decoder.decode(update(old, new))
    assert isinstance(updated, Change)
    assert updated.new == [before if now is UNCHANGED else now for before, now in zip(old, new, strict=True)]
    assert (updated.old, updated.partial) == (old, False)
    by_key = decoder.decode(update(old, new, b"K"))
    assert isinstance(by_key, Change)
    assert (by_key.new, by_key.partial) == (new, True)
    deleted = decoder.decode(b"D" + struct.pack(">I", OID) + b"O" + packed(old))
    assert isinstance(deleted, Change)
    assert (deleted.operation, deleted.old, deleted.new) == (Operation.DELETE, old, None)


@given(rows, st.data())
def test_a_message_that_is_cut_short_is_refused(pair: tuple[list[Value], list[Value]], data: st.DataObject) -> None:
    """No prefix of a message passes for a row, and the error quotes nothing of it."""
    whole = update(*pair)
    decoder = Decoder()
    decoder.decode(relation(len(pair[0])))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PgoutputError) as caught:
        decoder.decode(whole[:cut])
    assert caught.value.code == "audit-stream-invalid"


def test_a_row_of_an_unknown_relation_is_refused() -> None:
    """A change of a table that was never described cannot be read."""
    with pytest.raises(PgoutputError, match="cannot be read"):
        Decoder().decode(update([b"a", None], [b"b", None]))
    with pytest.raises(PgoutputError):
        Decoder().decode(b"?")
