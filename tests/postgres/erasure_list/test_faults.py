"""Killed at every named instant of an append: nothing that was acknowledged is lost, nothing is doubled, and the next call heals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from obhut.erasure import errors, ledger, reading
from obhut.erasure.entries import Inventory, State
from obhut.keystore import KeyState

_PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import load
from obhut.postgres.control import open_control
settings, clock = load(Path(sys.argv[1])), FixedClock(datetime(2026, 11, 23, 10, tzinfo=UTC))
open_control(settings)
from obhut.erasure import ledger
from obhut.erasure.entries import Action, NewTombstone
ledger.open_ledger(settings)
if sys.argv[2] == "record":
    ledger.record([NewTombstone("courses", "ctl_1", "user", (str(key),), Action.ERASE, "map-1", "ins_1") for key in (2, 3)], clock)
elif sys.argv[2] == "recover":
    ledger.recover(settings, clock)
print("acknowledged")
"""
APPEND = ["locked", "inserted", "committed", "mirror-half", "mirror-written", "mirrored", "anchored"]


def run(settings, what, die_at=None, trace=None):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if die_at:
        environment["OBHUT_DIE_AT"] = f"erasure-list.{die_at}"
    if trace:
        environment["OBHUT_TRACE_FAULTPOINTS"] = str(trace)
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(settings.path), what], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_instants_are_those_that_the_code_passes(opened_list, tmp_path):
    """The list of instants below is complete: an append passes exactly these."""
    done = run(opened_list, "record", trace=tmp_path / "trace")
    assert done.stdout == "acknowledged\n", done.stderr
    assert (tmp_path / "trace").read_text().split() == [f"erasure-list.{name}" for name in ["created", *APPEND]]


@pytest.mark.parametrize(("begun", "instant"), [(True, name) for name in APPEND] + [(False, name) for name in ["created", *APPEND]])
def test_a_killed_append_is_whole_or_absent_after_the_next_one(opened_list, clock, new, instant, begun):
    """Killed anywhere, the repeat records each person once, and the three places agree again."""
    first = ledger.record([new(1)], clock) if begun else []
    killed = run(opened_list, "record", die_at=instant)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout == ""
    done = run(opened_list, "record")
    assert done.stdout == "acknowledged\n", done.stderr
    assert ledger.verify_list(opened_list).size == len(first) + 2
    assert reading.count("courses") == len(first) + 2


@pytest.mark.parametrize("instant", APPEND)
def test_verification_after_a_kill_says_crash_and_never_tampering(opened_list, clock, new, instant):
    """What a kill leaves is told as nothing, behind or torn; recover makes it whole."""
    ledger.record([new(1)], clock)
    run(opened_list, "record", die_at=instant)
    ledger.close_ledger()
    try:
        ledger.verify_list(opened_list)
    except (errors.MirrorBehindError, errors.MirrorTornError):
        assert instant in {"committed", "mirror-half", "mirror-written"}
        ledger.recover(opened_list, clock)
    assert ledger.verify_list(opened_list).size in {1, 3}


def test_a_killed_recovery_continues(opened_list, clock, new):
    """A rebuild of the control database that is killed after a segment goes on where it was."""
    for key in range(5):
        ledger.record([new(key)], clock)
    session = ledger.places().session()
    session.execute("SET session_replication_role = replica")
    for table in ("erasure_entry", "erasure_tombstone", "erasure_head"):
        session.execute(f"DELETE FROM {table}")
    session.execute("RESET session_replication_role")
    assert run(opened_list, "recover", die_at="recovered-segment").returncode == -signal.SIGKILL
    assert session.value("SELECT count(*) FROM erasure_entry") == 1
    assert run(opened_list, "recover").stdout == "acknowledged\n"
    assert ledger.verify_list(opened_list).size == 5


def test_a_retirement_that_died_before_the_key_is_finished_by_the_next(opened_list, clock, new, monkeypatch):
    """The data key is destroyed late rather than never when the process dies between the entry and the key."""
    from datetime import timedelta

    (tombstone,) = ledger.record([new(1)], clock)
    ledger.mark_effective("run_1", [tombstone], "0/1", clock)
    clock.move(timedelta(days=40))
    inventory = Inventory("courses", complete=True, copies_since=None, taken_at=clock.now())
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "forget_labels", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ledger.retire(inventory, clock)
    assert ledger.verify_list(opened_list).states[State.RETIRED] == 1
    assert ledger.retire(inventory, clock) == 0
    assert ledger.places().keystore.state("erasure-list/2026-11-23") is KeyState.DESTROYED
    ledger.verify_list(opened_list)
