"""What is captured, what a server must offer, what a stream has missed, whose keys a row's values go under."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.auditlog import pieces
from obhut.auditlog.capture import plan, traces
from obhut.auditlog.capture.texts import array_items, json_items
from obhut.foundation.lsn import lsn_number, lsn_text
from obhut.postgres.timelines import HistoryFormError, TimelineSwitch, parse_history, timeline_at

SERVER = plan.Server("logical", standby=False, version=180_006, slot_limit=1024, free_slots=3, synchronises_slots=False, superuser=True)
SLOT = plan.Slot("pgoutput", active=False, confirmed=500, wal_status="reserved", retained=10, behind=0, left=None)
BEFORE = plan.Standing("7575", 1, 500, 16_384)
TABLE = plan.Table("f", "p", 16_400, "A", published=True, filtered=False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"standby": True}, "standby"),
        ({"wal_level": "replica"}, "wal_level"),
        ({"free_slots": 0}, "slot left"),
        ({"slot_limit": -1}, "fills its disk"),
    ],
)
def test_unsuitable_servers_are_refused(change: dict[str, Any], word: str) -> None:
    """Each missing setting is an obstacle with its own words; a disk without limit only until it is accepted."""
    (found,) = plan.obstacles(replace(SERVER, **change), unlimited_accepted=False)
    assert word in found.fact
    assert not list(plan.obstacles(SERVER, unlimited_accepted=False))
    assert bool(list(plan.obstacles(replace(SERVER, **change), unlimited_accepted=True))) is (word != "fills its disk")


@pytest.mark.parametrize(
    ("now", "slot", "pending", "reason"),
    [
        (BEFORE, SLOT, "", None),
        (BEFORE, replace(SLOT, confirmed=400), "", None),
        (BEFORE, replace(SLOT, confirmed=501), "", "slot-moved"),
        (BEFORE, None, "", "slot-lost"),
        (BEFORE, replace(SLOT, wal_status="lost"), "", "slot-lost"),
        (BEFORE, replace(SLOT, confirmed=900), "slot-lost", "slot-lost"),
        (plan.Standing("7575", 2, 900, 16_384), SLOT, "", "timeline"),
        (plan.Standing("7575", 2, 900, 16_384), None, "", "slot-lost"),
        (plan.Standing("7575", 2, 900, 16_384), SLOT, "slot-lost", "slot-lost"),
        (plan.Standing("8000", 1, 900, 16_384), SLOT, "", "system"),
        (plan.Standing("7575", 1, 900, 16_999), None, "", "database"),
        (plan.Standing("7575", 2, 900, 16_999), replace(SLOT, confirmed=900), "", "database"),
    ],
)
def test_what_a_stream_has_missed(now: plan.Standing, slot: plan.Slot | None, pending: str, reason: str | None) -> None:
    """A stream that goes on where it stopped missed nothing; each way to lose the place has its reason."""
    found = plan.missed(BEFORE, now, [TimelineSwitch(1, 450)], slot, pending)
    assert (found.reason if found else None) == reason
    if found and now.timeline == 2:
        assert {"before": 1, "beyond_fork": "yes"}.items() <= found.detail.items()
    if found and slot is None:
        again = plan.missed(BEFORE, now, [TimelineSwitch(1, 450)], SLOT, found.noted)
        assert again == found, "what was noted says the same when the slot is there again"


def test_an_older_copy_of_the_server() -> None:
    """Less WAL than was read means places that are taken, unless the timeline or the server is another one."""
    behind = replace(BEFORE, acknowledged=499)
    assert plan.set_back(BEFORE, behind)
    assert not any(plan.set_back(BEFORE, now) for now in (BEFORE, replace(behind, timeline=2), replace(behind, system="8000")))


@pytest.mark.parametrize(
    ("kind", "schema", "tag", "ours"),
    [
        ("SCHEMA", "-", "obhut", True),
        ("ACL", "-", "SCHEMA obhut", True),
        ("FUNCTION", "obhut", "context(text, text, text)", True),
        ("TRIGGER", "public", "orders obhut_before_change", True),
        ("COMMENT", "public", "TRIGGER obhut_before_change ON orders", True),
        ("EVENT TRIGGER", "-", "obhut_on_ddl", True),
        ("SCHEMA", "-", "obhut2", False),
        ("TRIGGER", "public", "orders before_change", False),
        ("COMMENT", "public", "COLUMN orders.obhut", False),
        ("EVENT TRIGGER", "-", "on_ddl", False),
        ("TABLE", "public", "obhut", False),
    ],
)
def test_what_a_copy_leaves_behind(kind: str, schema: str, tag: str, ours: bool) -> None:
    """Definitions of capture are told from the vendor's by their names, whatever those are."""
    assert traces.is_trace(kind, schema, tag) is ours


@pytest.mark.parametrize(
    ("now", "reasons"),
    [
        (TABLE, []),
        (replace(TABLE, identity="d"), ["identity"]),
        (replace(TABLE, persistence="u"), ["unlogged"]),
        (replace(TABLE, published=False), ["publication"]),
        (replace(TABLE, filtered=True), ["publication"]),
        (replace(TABLE, trigger="D"), ["unattributed"]),
        (replace(TABLE, file=1), ["rewrite"]),
    ],
)
def test_looks_at_the_catalogue(now: plan.Table, reasons: list[str]) -> None:
    """What changed between two looks is a gap; said once, and a new file only where no event trigger tells rewrites."""
    before = {"16400": TABLE.packed()}
    assert [gap.reason for gap in plan.table_gaps(before, {16_400: now}, told=False, wanted={16_400: True})] == reasons
    assert not plan.table_gaps({"16400": now.packed()}, {16_400: now}, told=False, wanted={16_400: True})
    told = plan.table_gaps(before, {16_400: now}, told=True, wanted={16_400: True})
    assert [gap.reason for gap in told] == [reason for reason in reasons if reason != "rewrite"]
    assert [gap.reason for gap in plan.table_gaps(before, {}, told=False, wanted={})] == ["dropped"]


def test_timelines_by_position() -> None:
    """A record before a fork is of the timeline on which it was written, whoever sends it."""
    history = parse_history("1\t0/3000000\tno recovery target specified\n2\t0/5000000\tat restore point\n")
    assert history == [TimelineSwitch(1, 0x3000000), TimelineSwitch(2, 0x5000000)]
    assert [timeline_at(position, 3, history) for position in (0x2FFFFFF, 0x3000000, 0x5000000)] == [1, 2, 3]
    assert parse_history("") == []
    with pytest.raises(HistoryFormError):
        parse_history("1\tnowhere")


@given(st.integers(0, (1 << 64) - 1))
def test_positions_are_read_as_they_are_written(position: int) -> None:
    """The text form of a position gives the same number back."""
    assert lsn_number(lsn_text(position)) == position


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.none(), max_size=5), st.integers(2, 5))
def test_shares_give_the_piece_only_together(piece: dict[str, str | None], count: int) -> None:
    """All shares give the piece; without any one of them it cannot be had."""
    shares = pieces.split({"new": piece}, count)
    assert pieces.joined(shares) == {"new": piece}
    for missing in range(count):
        rest = shares[:missing] + shares[missing + 1 :]
        with contextlib.suppress(ValueError):  # random octets are rarely JSON, or UTF-8
            assert pieces.joined(rest) != {"new": piece}


def test_an_entry_shows_what_all_of_its_people_can_be_read_for() -> None:
    """Of two pieces one has lost a share with the key of a person: the other is shown, and nothing of the lost one."""
    letter, note = {"old": {"body": "a"}, "new": {"body": "b"}}, {"new": {"note": "c"}}
    (sender, recipient), (third, _) = pieces.split(letter, 2), pieces.split(note, 2)
    opened = [{"new": {"id": "7"}, "split": [sender, third]}, {"split": [recipient]}, None]
    assert pieces.together(opened) == [letter]
    assert pieces.together([{"new": {}}, None]) == []


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("{}", []),
        ("{1,2,NULL}", ["1", "2", None]),
        ('{"a,b","say \\"hi\\"",c,"NULL"}', ["a,b", 'say "hi"', "c", "NULL"]),
        ("[0:1]={4,5}", ["4", "5"]),
    ],
)
def test_arrays(text: str, items: list[str | None]) -> None:
    """Keys inside an array come out as PostgreSQL means them."""
    assert list(array_items(text)) == items
    with pytest.raises(ValueError, match="one dimension"):
        list(array_items("{{1,2},{3,4}}"))


def test_json_paths() -> None:
    """Keys inside a document: numbers keep their spelling, a path that is not there gives none."""
    document = '{"people": [{"id": 10000000000000000001}, {"id": "x"}, {"no": 1}], "flag": true}'
    assert list(json_items(document, ("people", None, "id"))) == ["10000000000000000001", "x"]
    assert list(json_items(document, ("flag",))) == ["true"]
    assert list(json_items("not json", ("flag",))) == []
