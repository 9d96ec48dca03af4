"""Killed at every step, and whichever program is killed: the next run converges and nothing plain, orphaned or half done is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from obhut.backups import processes, run, survey
from obhut.backups.catalogue import BackupState
from obhut.backups.errors import EngineError
from obhut.backups.plan import Copy
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.postgres.connections import Session

pytestmark = pytest.mark.fault

CANARY = "kill.canary@example.org"
CHILD = """
import sys
from pathlib import Path
from obhut.backups import run
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.settings import load
from obhut.postgres.control import open_control

settings = load(Path(sys.argv[1]))
open_control(settings)
run.run(settings, "courses", run.Wanted(sys.argv[2]), Actor(Role.SYSTEM, "test"), SystemClock())
"""


def child(installation, wanted: str = "full", **environment: str) -> subprocess.Popen:
    """Start a backup run in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(installation.settings.path), wanted], env=variables, stdin=subprocess.DEVNULL)


def archive_of(installation):
    """Return the archive of the present server and its engine."""
    _, archive, engine = installation.workshop.present()
    return archive, engine


def converged(installation) -> None:
    """Assert that one more run leaves whole backups, no plain data and no process but the receiver."""
    backup = installation.full()
    installation.archive()
    archive, engine = archive_of(installation)
    assert backup.state is BackupState.USABLE
    assert all(one.state is BackupState.USABLE for one in archive.backups())
    assert {state for _, state in survey.copies(engine, archive.layout.sealed, busy=False)} == {Copy.EMPTIED}
    assert [path.name for path in archive.layout.sealed.iterdir() if path.name.startswith(".")] == []
    holding = [path for path in archive.layout.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert [path.name for path in holding if not path.name.endswith(".partial")] == []
    assert {path.name for path in archive.layout.run.iterdir()} == {"receiver"}
    assert runs.list_runs(kind=RunKind.BACKUP, database="courses", state=RunState.RUNNING) == []
    for one in archive.backups():
        archive.verify(one)


def slot_is_idle(installation) -> bool:
    """Tell whether the check finds nobody at the slot."""
    return any(finding.code == "slot-inactive" for finding in run.check(installation.settings, "courses", _clock()))


def member(installation, record: str, program: str) -> int:
    """Wait for a program of a recorded group and return its process id."""
    archive, _ = archive_of(installation)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            token = json.loads((archive.layout.run / record).read_text())["token"]
        except (OSError, ValueError):
            continue
        for pid in processes.members(token):
            try:
                if program in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode():
                    return pid
            except OSError:
                continue
        time.sleep(0.002)
    pytest.fail(f"{program} did not start")


@pytest.fixture
def started(installation):
    """Give an installation with a canary, a receiver and a first backup."""
    installation.add_person(CANARY)
    installation.start()
    return installation


def test_a_run_killed_at_any_step_is_made_good_by_the_next(started) -> None:
    """The process dies before and after every step of the journal and around the renaming; every time the next run converges."""
    trace = started.settings.path.parent / "trace"
    done = child(started, OBHUT_TRACE_FAULTPOINTS=str(trace))
    assert done.wait(120) == 0
    points = [name for name in dict.fromkeys(trace.read_text().split()) if name.startswith("backup.")]
    assert {"backup.copy.before", "backup.sealed", "backup.sealed.renamed", "backup.seal.after", "backup.wal.waiting"} <= set(points)
    for point in points:
        killed = child(started, OBHUT_DIE_AT=point)
        assert killed.wait(120) == -signal.SIGKILL, point
    converged(started)
    assert runs.list_runs(kind=RunKind.BACKUP, database="courses", limit=2)[1].error_code == "killed"


def test_a_finished_copy_of_a_killed_run_is_sealed_and_an_unfinished_one_swept(started) -> None:
    """Between copying and sealing a kill loses nothing: the next run seals that copy, too."""
    before = {backup.id for backup in started.repository.backups()}
    assert child(started, OBHUT_DIE_AT="backup.copy.after").wait(120) == -signal.SIGKILL
    _, engine = archive_of(started)
    (left,) = {copy.id for copy in engine.copies()} - before
    assert left not in {backup.id for backup in started.repository.backups()}
    converged(started)
    assert left in {backup.id for backup in started.repository.backups()}


def test_orphans_of_a_killed_run_are_ended_and_swept(started) -> None:
    """Our process is killed while pg_basebackup writes: the orphan goes on, until the next run ends it and sweeps the plain copy."""
    process = child(started)
    orphan = member(started, "backup", "pg_basebackup")
    os.kill(orphan, signal.SIGSTOP)
    process.kill()
    process.wait()
    assert Path(f"/proc/{orphan}").exists()
    converged(started)
    assert not Path(f"/proc/{orphan}").exists() or Path(f"/proc/{orphan}/cmdline").read_bytes() == b""


@pytest.mark.parametrize("program", ["pg_basebackup", "python"])
def test_a_killed_engine_fails_the_run_and_the_next_one_sweeps(started, program) -> None:
    """Kill -9 of Barman or of its pg_basebackup: the run fails with a code, its group is ended, the next run leaves no trace of it."""
    process = child(started)
    orphan = member(started, "backup", "pg_basebackup")
    os.kill(orphan, signal.SIGSTOP)
    os.kill(orphan if program == "pg_basebackup" else os.getpgid(orphan), signal.SIGKILL)
    assert process.wait(60) != 0
    failed = runs.list_runs(kind=RunKind.BACKUP, database="courses", limit=1)[0]
    assert (failed.state, failed.error_code) == (RunState.FAILED, "backup-engine-failed")
    converged(started)


def test_a_killed_receiver_is_started_again_without_a_gap(started) -> None:
    """The slot keeps the WAL while nobody receives: the next run starts the receiver, and the chain has no hole."""
    first = started.repository.backups()[0]
    receiver = member(started, "receiver", "pg_receivewal")
    os.kill(os.getpgid(receiver), signal.SIGKILL)
    os.kill(receiver, signal.SIGKILL)
    with Session.connect(started.url) as session:
        for _ in range(3):
            session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            session.execute("SELECT pg_switch_wal()")
    assert slot_is_idle(started)
    converged(started)
    assert started.repository.wal_hole(1, first.begin_lsn) is None
    deadline = time.monotonic() + 20
    while slot_is_idle(started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not slot_is_idle(started)


def test_wal_that_the_server_gave_up_is_a_gap_that_a_full_backup_heals(started) -> None:
    """The slot is dropped and the WAL recycled while nobody receives: the receiver begins anew, the gap is reported, a full backup follows."""
    first = started.repository.backups()[0]
    started.stop()
    with Session.connect(started.url) as session:
        for _ in range(4):
            session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            session.execute("SELECT pg_switch_wal()")
            session.execute("CHECKPOINT")
    archive, engine = archive_of(started)
    run.ensure_receiver(started.workshop, engine, archive)
    started.archive()
    missing = started.repository.wal_hole(1, first.begin_lsn)
    assert missing is not None
    assert "wal-gap" in {finding.code for finding in run.check(started.settings, "courses", _clock())}
    taken = run.run(started.settings, "courses", run.Wanted.AUTO, _actor(), _clock())
    assert taken.backup.kind == "full"
    assert missing.first in taken.reason
    assert started.repository.choose().id == taken.backup.id
    converged(started)


def test_a_kill_while_expiring_leaves_whole_backups(started) -> None:
    """Killed between any two removals, expiry leaves only backups that can be opened, and the next expiry finishes."""
    from datetime import timedelta

    from obhut.foundation.clock import OffsetClock

    for _ in range(2):
        started.incremental()
    script = CHILD.replace(
        'run.run(settings, "courses", run.Wanted(sys.argv[2]), Actor(Role.SYSTEM, "test"), SystemClock())',
        "from datetime import timedelta\nfrom obhut.foundation.clock import OffsetClock\n"
        'run.expire(settings, "courses", Actor(Role.SYSTEM, "test"), OffsetClock(timedelta(days=36)))',
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for point in (
        "expire.remove.before",
        "expire.backup.renamed",
        "expire.remove.after",
        "expire.remove.after",
        "keystore.destroy.renamed",
    ):
        command = [sys.executable, "-c", script, str(started.settings.path), "full"]
        assert subprocess.run(command, env={**variables, "OBHUT_DIE_AT": point}, check=False).returncode == -signal.SIGKILL, point
        for backup in started.repository.backups():
            if backup.state is not BackupState.BROKEN:
                started.repository.archive(backup.system_identifier).verify(backup)
    run.expire(started.settings, "courses", _actor(), OffsetClock(timedelta(days=36)))
    assert started.repository.backups() == []


def test_a_copy_that_was_changed_before_sealing_is_no_backup(started, monkeypatch) -> None:
    """A byte flipped between copying and sealing fails the manifest: the run fails, and the plain copy goes at once."""
    from obhut.backups import seal
    from obhut.backups.errors import TamperedBackupError

    original = seal.seal

    def flip(copy, *arguments):
        victim = copy.data / "global" / "pg_filenode.map"
        content = bytearray(victim.read_bytes())
        content[10] ^= 1
        victim.write_bytes(content)
        return original(copy, *arguments)

    monkeypatch.setattr(seal, "seal", flip)
    with pytest.raises(TamperedBackupError, match="not what the server sent"):
        started.full()
    monkeypatch.undo()
    archive, _ = archive_of(started)
    assert list(archive.layout.base.rglob("pg_filenode.map")) == []
    converged(started)


def test_two_runs_at_once_do_not_meet(started) -> None:
    """A second run is refused while one is at work."""
    from obhut.backups import locks
    from obhut.backups.errors import BackupBusyError

    with locks.exclusive(started.repository.root, locks.RUN), pytest.raises(BackupBusyError):
        started.full()


def test_an_engine_that_cannot_write_fails_cleanly(started) -> None:
    """With a file size limit (as a full disk would) the copy fails; nothing half written counts, and the next run succeeds."""
    import resource

    before = len(started.repository.backups())
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        with pytest.raises(EngineError):
            started.full()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    assert len(started.repository.backups()) == before
    converged(started)


def _clock():
    from obhut.foundation.clock import SystemClock

    return SystemClock()


def _actor():
    from obhut.foundation.actors import Actor, Role

    return Actor(Role.SYSTEM, "test")
