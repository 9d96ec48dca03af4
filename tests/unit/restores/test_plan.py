"""Decisions of a restore."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.restores.errors import RestoreTargetError
from obhut.restores.plan import (
    DatabaseFacts,
    Form,
    Range,
    RecoveryTarget,
    RepositoryFacts,
    judge_database,
    judge_repository,
    next_value,
    parse_target,
    split,
)


@pytest.mark.parametrize(
    ("given_text", "form"),
    [
        ("2026-03-01T09:00:00Z", Form.TIME),
        ("2026-03-01T10:00+01:00", Form.TIME),
        ("0/3000148", Form.LSN),
        ("name:before", Form.NAME),
        ("latest", Form.LATEST),
    ],
)
def test_each_form_of_a_target_is_understood(given_text, form):
    """Time with zone, LSN, name and latest are told apart."""
    assert parse_target(given_text).form is form


@pytest.mark.parametrize("given_text", ["2026-03-01", "2026-03-01T09:00", "yesterday", "name:", "name:a b", "name:o'brien", "", "0/", "/1"])
def test_what_is_no_target_is_refused(given_text):
    """A time without its zone, a name with foreign characters and plain words are refused."""
    with pytest.raises(RestoreTargetError):
        parse_target(given_text)


def test_a_target_survives_being_written_down():
    """What the journal keeps leads to the same target."""
    for text in ("2026-03-01T09:00:00.500000Z", "A/3000148", "name:before", "latest"):
        assert parse_target(str(parse_target(text))) == parse_target(text)


def test_recovery_never_starts_without_an_explicit_target():
    """Latest has to be resolved first: without a target the server ends quietly at the first damaged segment."""
    with pytest.raises(RestoreTargetError):
        RecoveryTarget(Form.LATEST).settings()


def _repository(**changes):
    facts = {
        "target": parse_target("latest"), "chain": 1, "chain_missing": False, "wal_hole": None, "wal_reaches": True, "major": 18, "programs": True,
        "needed_bytes": 1, "free_bytes": 2, "list_error": None, "instruction_error": None,
    }  # fmt: skip
    return RepositoryFacts(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"chain_missing": True}, "backup-chain-broken"),
        ({"wal_hole": "segments a to b"}, "wal-gap"),
        ({"wal_reaches": False}, "restore-target-unreachable"),
        ({"programs": False}, "component-missing"),
        ({"free_bytes": 0}, "disk-space"),
        ({"list_error": "the list ends at entry 3"}, "erasure-list-failed"),
        ({"instruction_error": "no instruction"}, "not-instructed"),
        ({"target_empty": False}, "restore-target-not-empty"),
    ],
)
def test_each_obstacle_alone_refuses(changes, code):
    """One thing out of order is enough, and it is named."""
    assert judge_repository(_repository()).allowed
    assert [reason.code for reason in judge_repository(_repository(**changes)).refusals] == [code]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"prepared_transactions": 1}, "prepared-transactions"),
        ({"missing_extensions": ("hstore",)}, "extension-missing"),
        ({"other_extensions": (("hstore", "1.4", "1.8"),)}, "extension-version"),
        ({"missing_collations": ("public.de",)}, "collation-missing"),
        ({"map_findings": ("x",)}, "datamap-invalid"),
        ({"unknown_tables": ("public.x",)}, "datamap-table-unknown"),
        ({"large_objects": 3}, "large-objects-unmapped"),
        ({"reads_everything": False}, "reader-limited"),
        ({"conflicts": 1}, "tombstone-conflict"),
    ],
)
def test_the_recovered_database_can_refuse(changes, code):
    """What could bring a person back unseen, or lose a row unseen, refuses."""
    facts = {"prepared_transactions": 0, **changes}
    assert [reason.code for reason in judge_database(DatabaseFacts(**facts)).refusals] == [code]


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000_000), st.lists(st.integers(0, 10_000_000), max_size=20, unique=True).map(sorted)), max_size=12
    ),
    st.integers(1, 8),
)
def test_parts_cover_every_block_exactly_once(tables, workers):
    """However tables are cut, each block of each table lies in one range of one part, the last range being open-ended."""
    sizes = [(oid, f"t{oid}", blocks) for oid, (blocks, _) in enumerate(tables)]
    edges = {oid: cut for oid, (_, cut) in enumerate(tables)}
    parts = split(sizes, edges, workers=workers)
    assert len({part.name for part in parts}) == len(parts)
    for oid, _, _ in sizes:
        mine = [part for part in parts if part.oid == oid]
        assert all(part.alone == (len(mine) == 1) for part in mine)
        ranges = sorted((piece for part in mine for piece in part.ranges), key=lambda piece: piece.first)
        assert ranges[0].first == 0
        assert ranges[-1].last is None
        assert all(low.last == high.first for low, high in pairwise(ranges))
        assert all(isinstance(piece, Range) and (piece.last is None or piece.last > piece.first) for piece in ranges)


def test_only_a_table_beyond_its_share_is_cut():
    """A cut costs WAL, so it is made only where one table would keep the other workers waiting."""
    assert all(part.alone for part in split([(1, "a", 100_000), (2, "b", 100_000)], {}, workers=2))
    assert [part.alone for part in split([(1, "a", 300_000), (2, "b", 10)], {}, workers=2)] == [False, False, True]


def test_a_sequence_ends_beyond_everything_handed_out():
    """The furthest of all values counts, in the direction of the increment, within the bounds."""
    assert next_value(1, 1, 1000, [5, None, 90]) == 90
    assert next_value(-1, -1000, -1, [-5, -90]) == -90
    assert next_value(1, 1, 50, [70]) == 50
    assert next_value(1, 1, 50, [None]) is None
