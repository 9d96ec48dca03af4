"""Appending: exactly once, whatever dies when; never two histories."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.auditing import START, change, changes, position

from obhut.auditlog import entries, log
from obhut.auditlog.errors import EntryRefusedError, LogForkedError, LogRolledBackError
from obhut.auditlog.files import LogFiles
from obhut.auditlog.store import Directory, open_store
from obhut.auditlog.tlog import merkle, proofs
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.foundation import notes
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import Settings
from obhut.postgres.control import control_session

CTL, OTHER = "ctl_a", "ctl_b"


def head(controller: str) -> tuple:
    with control_session() as session:
        return session.row("SELECT size, root, origin FROM auditlog_log WHERE controller = %s ORDER BY period DESC LIMIT 1", (controller,))


def kept(settings: Settings, controller: str, period: str = "2026-11") -> list[bytes]:
    """All entries of a log as they lie in the store, each compared with the signed root on the way."""
    files = LogFiles.of(open_store(settings), controller, period)
    checkpoint = Checkpoint.of(notes.parse(files.checkpoint()))
    found = [entry for _, bundle in files.scan(checkpoint.size) for entry in bundle]
    assert merkle.root(b"".join(merkle.leaves(found))) == checkpoint.root
    read = files.reader(checkpoint.size)
    for index in {0, checkpoint.size // 2, checkpoint.size - 1}:
        path = proofs.inclusion(read, index, checkpoint.size)
        proofs.verify_inclusion(merkle.leaf(found[index]), index, checkpoint.size, path, checkpoint.root)
    return found


def test_entries_arrive_once_in_order_for_each_controller(control: Settings) -> None:
    """Batches of any size, two controllers, the same stretch of the source sent again: each entry is there once and in order."""
    mine, theirs = changes(900), changes(3)
    with log.open_log(control, "courses", FixedClock(START)) as writer:
        assert writer.position("slot") is None
        at = 0
        for size in (1, 254, 1, 300, 344):
            got = writer.append_all({CTL: mine[at : at + size]}, source="slot", upto=mine[at + size - 1].position)
            assert (got.appended, got.skipped) == (size, 0)
            at += size
        again = writer.append_all({CTL: mine[850:], OTHER: theirs}, source="slot", upto=mine[-1].position)
        assert (again.appended, again.skipped) == (0, 53), "what was read before is not logged again"
        assert writer.append_all({OTHER: theirs}).sizes == {OTHER: 4}
        assert writer.position("slot") == mine[-1].position
    found = kept(control, CTL)
    assert [entries.decode(one) for one in found[1:]] == mine
    opening = entries.decode(found[0])
    assert (opening.kind, opening.detail) == ("opening", {"controller": CTL, "period": "2026-11"})
    assert head(CTL)[0] == 901
    store = open_store(control)
    assert isinstance(store, Directory)
    parts = sorted(str(path.relative_to(store.root / CTL)) for path in (store.root / CTL).rglob("*.part"))
    assert parts == ["2026-11/tile/0/003.part", "2026-11/tile/1/000.part", "2026-11/tile/entries/003.part"], (
        "full tiles have their final names"
    )


def test_the_next_month_begins_a_log_that_names_the_end_of_the_last(control: Settings) -> None:
    """A period's opening holds origin, size and root of the one before; a clock that is set back opens nothing."""
    clock = FixedClock(START)
    with log.open_log(control, "courses", clock) as writer:
        writer.append(CTL, changes(5))
        size, root, origin = head(CTL)
        clock.move(timedelta(days=30))
        writer.append(CTL, changes(2, first=5))
        clock.move(timedelta(days=-30))
        assert writer.append(CTL, changes(1, first=7)).sizes == {CTL: 4}
    first = entries.decode(kept(control, CTL, "2026-12")[0])
    assert (first.detail["previous_origin"], first.detail["previous_size"]) == (origin, size)
    assert head(CTL)[2] != origin
    assert first.detail["previous_root"] == __import__("base64").b64encode(bytes(root)).decode()


def test_a_long_ciphertext_lies_beside_the_log_and_a_long_entry_is_refused(control: Settings) -> None:
    """Above 8,192 octets only the hash is in the entry; an entry that is too long leaves nothing behind, not even a mark."""
    large = change(0, octets=100_000)
    with log.open_log(control, "courses", FixedClock(START)) as writer:
        writer.append(CTL, [large])
        many = entries.change(
            at=START,
            position=position(9),
            database="courses",
            table="t",
            operation="update",
            sealed=[change(0, octets=8_000).sealed[0]] * 9,
        )
        with pytest.raises(EntryRefusedError):
            writer.append_all({CTL: [change(1), many]}, source="slot", upto=position(9))
        assert writer.position("slot") is None
        writer.append(CTL, [change(2)])
    found = [entries.decode(one) for one in kept(control, CTL)]
    assert [one.at for one in found[1:]] == [START, START + timedelta(seconds=2)]
    part = found[1].sealed[0]
    content = open_store(control).read(LogFiles.of(open_store(control), CTL, "2026-11").blob(part.blob))
    assert (part.data, part.size, content) == (b"", 100_000, large.sealed[0].data)


def test_nothing_is_signed_after_the_control_database_was_restored(control: Settings) -> None:
    """An older state of the control database, or another one, does not sign: the published checkpoint is the judge."""
    with log.open_log(control, "courses", FixedClock(START)) as writer:
        writer.append(CTL, changes(10))
    with control_session() as session:
        before = session.row("SELECT size, root, tail FROM auditlog_log WHERE controller = %s", (CTL,))
    with log.open_log(control, "courses", FixedClock(START)) as writer:
        writer.append(CTL, changes(3, first=10))
    published = LogFiles.of(open_store(control), CTL, "2026-11").checkpoint()
    with control_session() as session:
        session.execute("UPDATE auditlog_log SET size = %s, root = %s, tail = %s WHERE controller = %s", (*before, CTL))
    with log.open_log(control, "courses", FixedClock(START)) as writer, pytest.raises(LogRolledBackError):
        writer.append(CTL, [change(99)])
    with control_session() as session:
        session.execute("UPDATE auditlog_log SET size = 14, root = sha256('other') WHERE controller = %s", (CTL,))
    with log.open_log(control, "courses", FixedClock(START)) as writer, pytest.raises(LogForkedError):
        writer.append(CTL, [change(99)])
    with control_session() as session:
        session.execute("DELETE FROM auditlog_log")
    with log.open_log(control, "courses", FixedClock(START)) as writer, pytest.raises(LogRolledBackError):
        writer.append(CTL, [change(99)])
    assert LogFiles.of(open_store(control), CTL, "2026-11").checkpoint() == published


CHILD = """
import sys
from pathlib import Path
from support.auditing import START, changes
from obhut.auditlog import log
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import load
from obhut.postgres.control import open_control

settings = load(Path(sys.argv[1]))
open_control(settings)
found = changes(700)
with log.open_log(settings, "courses", FixedClock(START)) as writer:
    mark = writer.position("slot")
    for at in range(0, 700, 100):
        writer.append_all({"ctl_a": found[at : at + 100], "ctl_b": found[at : at + 1]}, source="slot", upto=found[at + 99].position)
"""


@pytest.mark.parametrize("instant", ["written", "committed", "published"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(control: Settings, instant: str, batch: int) -> None:
    """SIGKILL in the first batch and in one that fills tiles; the source sends everything again, and each entry is there once."""
    script = textwrap.dedent(CHILD)
    if batch > 1:  # die later: the first batches are in the logs
        with log.open_log(control, "courses", FixedClock(START)) as writer:
            found = changes(700)
            writer.append_all({"ctl_a": found[:200], "ctl_b": [found[0], found[100]]}, source="slot", upto=found[199].position)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*os.environ["PYTHONPATH"].split(os.pathsep), str(Path(__file__).parents[2])])
    }
    command = [sys.executable, "-c", script, str(control.path)]
    died = subprocess.run(command, env=environment | {"OBHUT_DIE_AT": f"auditlog.append.{instant}"}, check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    again = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert again.returncode == 0, again.stderr.decode()
    assert [entries.decode(one).position for one in kept(control, CTL)[1:]] == [position(number) for number in range(700)]
    assert [entries.decode(one).position for one in kept(control, OTHER)[1:]] == [position(number) for number in range(0, 700, 100)]
    with control_session() as session:
        assert (
            session.value("SELECT count(*) FROM auditlog_index i JOIN auditlog_log l ON l.id = i.log WHERE l.controller = 'ctl_a'") == 701
        )


def test_two_writers_take_turns(control: Settings) -> None:
    """A second writer of the same database sees what the first one appended, and the other way round."""
    clock = FixedClock(datetime(2026, 11, 30, tzinfo=UTC))
    with log.open_log(control, "courses", clock) as one, log.open_log(control, "courses", clock) as two:
        for number in range(6):
            (one if number % 2 else two).append(CTL, [change(number)])
    assert len(kept(control, CTL)) == 7
