"""What may enter the journal, and the legal moves of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obhut.journal.facts import checked
from obhut.journal.processes import _started, myself
from obhut.journal.states import MOVES, RunState, before


def test_numbers_hashes_identifiers_and_times_are_facts() -> None:
    """The values come out in JSON's types."""
    facts = checked(
        {
            "rows": 5,
            "rate": 0.5,
            "lsn": "0/16F2398",
            "tables": ["public.course", "public.person"],
            "at": datetime(2026, 3, 1, tzinfo=UTC),
            "span": timedelta(minutes=2),
            "hash": b"\x01\xff",
            "place": Path("/var/lib/my place"),
            "target": "postgresql://obhut@/courses?host=%2Ftmp%2Fs&port=5432",
            "nothing": None,
        }
    )
    assert facts["at"] == "2026-03-01T00:00:00.000000Z"
    assert facts["span"] == 120.0
    assert facts["hash"] == "01ff"
    assert facts["tables"] == ["public.course", "public.person"]


@pytest.mark.parametrize("value", ["Anna Schmidt", "anna@example.org", ["ok", "not ok"], {"k": "Ä"}, object(), "postgresql://u:secret@h/d"])
def test_what_could_be_a_persons_is_refused_without_repeating_it(value: object) -> None:
    """A text with a space or an address does not get in, at any depth, and the error names the fact only."""
    with pytest.raises(ValueError, match="the fact place") as caught:
        checked({"place": value})
    assert "Anna" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_over_stays_over() -> None:
    """Done and cancelled runs make no move; partial is never called cancelled or done without running again."""
    assert not MOVES[RunState.DONE]
    assert not MOVES[RunState.CANCELLED]
    assert MOVES[RunState.PARTIAL] == {RunState.RUNNING}
    assert before(RunState.DONE) == ["running"]


def test_a_process_is_told_apart_from_its_successor_by_number() -> None:
    """The same number with another start time, or of another boot, is another process."""
    me = myself()
    assert me.alive
    assert not replace(me, pid_started=me.pid_started + 1).alive
    assert not replace(me, boot_id="another").alive
    assert not replace(me, boot_id="another").here


def test_a_zombie_does_not_live() -> None:
    """A killed child that nobody has waited for does not keep its run."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert _started(child.pid) is None
    child.wait()
    assert _started(child.pid) is None
