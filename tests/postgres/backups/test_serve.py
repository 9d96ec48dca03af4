"""The service: heartbeats, alarms, jobs, and parts that come back when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from obhut.backups import check, heartbeat, processes, run
from obhut.backups.findings import Severity, critical
from obhut.foundation.clock import SystemClock
from obhut.foundation.lsn import lsn_number
from obhut.jobs.supervise import PARTS
from obhut.postgres.connections import Session
from obhut.postgres.control import control_session

MAIN = "import sys; from obhut.cli.main import main; sys.exit(main())"
CLOCK = SystemClock()


def serve(installation, *parts: str) -> subprocess.Popen:
    """Start the service, or one part of it."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MAIN, "--config", str(installation.settings.path), "serve", *parts]
    return subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL)


def until(condition: Callable[[], object], patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def end(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def children(process: subprocess.Popen) -> dict[str, int]:
    """Return the parts of a supervisor by name."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            continue
        if parent == process.pid and b"serve" in words:
            found[words[-2].decode()] = int(entry.name)
    return found


def beats(installation) -> int:
    with control_session() as session:
        return session.value("SELECT count(*) FROM backups_heartbeat")


@pytest.fixture
def every_second(installation):
    """Give an installation that beats every second."""
    path = installation.settings.path
    path.write_text(path.read_text(encoding="utf-8") + "heartbeat = 1\n", encoding="utf-8")
    return installation


def test_a_heartbeat_is_a_commit_that_is_found_by_time_and_position(installation) -> None:
    """Each beat moves the WAL on, is indexed, and marks the sequences; no table, no schema is made in the protected database."""
    with Session.connect(installation.url) as session:
        tables = session.value("SELECT count(*) FROM pg_class")
        session.execute("INSERT INTO person (email) SELECT 'x' FROM generate_series(1, 7)")
        highest = session.value("SELECT last_value FROM person_id_seq")
        before = session.value("SELECT clock_timestamp()")
        first = heartbeat.beat("courses", installation.url)
        second = heartbeat.beat("courses", installation.url)
        assert session.value("SELECT count(*) FROM pg_class") == tables
    assert lsn_number(first.lsn) < lsn_number(second.lsn)
    assert heartbeat.latest("courses") == second
    assert heartbeat.latest("courses", before=second.at - timedelta(microseconds=1)) == first
    assert heartbeat.first_after("courses", before) == first
    assert heartbeat.first_after("courses", second.at) is None
    assert heartbeat.at_position("courses", first.system_identifier, lsn_number(second.lsn) - 1) == first
    (mark,) = heartbeat.sequence_marks("courses")
    assert (mark.schema, mark.name, mark.value) == ("public", "person_id_seq", highest)


def test_a_sequence_mark_never_goes_back(installation) -> None:
    """A mark keeps the furthest value, in the direction of the increment, also after a setval or a restore."""
    from obhut.backups.source import Beat, Sequence

    def seen(value: int, increment: int) -> int:
        beat = Beat(1, 1, CLOCK.now(), 1, 16 << 20)
        heartbeat.record("courses", beat, [Sequence("public", f"s{increment}", increment, value)])
        return next(mark.value for mark in heartbeat.sequence_marks("courses") if mark.increment == increment)

    assert [seen(value, 1) for value in (5, 9, 3)] == [5, 9, 9]
    assert [seen(value, -1) for value in (-5, -9, -3)] == [-5, -9, -9]


def test_an_idle_servers_segment_is_finished_after_an_hour(installation) -> None:
    """An open segment would keep its oldest bytes from expiring."""
    first = heartbeat.beat("courses", installation.url)
    with control_session() as session:
        session.execute("UPDATE backups_heartbeat SET at = at - interval '61 minutes'")
    heartbeat.beat("courses", installation.url)
    after = heartbeat.beat("courses", installation.url)
    assert lsn_number(after.lsn) // (16 << 20) > lsn_number(first.lsn) // (16 << 20)


def test_the_service_keeps_backups_continuous_and_leaves_nothing(every_second) -> None:
    """Everything runs, parts and receivers that are killed come back, WAL is sealed within seconds, and SIGTERM leaves no process."""
    every_second.start()
    every_second.stop()
    archive = every_second.repository.archives()[0]
    supervisor = serve(every_second)
    try:
        until(lambda: set(children(supervisor)) == set(PARTS))
        until(lambda: beats(every_second) >= 3)
        until(lambda: processes.alive(archive.layout.run / "receiver"))
        record = (archive.layout.run / "receiver").read_text()
        for name in ("heartbeat", "receiver"):
            victim = children(supervisor)[name]
            os.kill(victim, signal.SIGKILL)
            until(lambda name=name, victim=victim: children(supervisor).get(name, victim) != victim)
        until(lambda: (archive.layout.run / "receiver").exists() and (archive.layout.run / "receiver").read_text() != record)
        count = beats(every_second)
        until(lambda: beats(every_second) > count + 1)
        with Session.connect(every_second.url) as session:
            until(lambda: session.value("SELECT coalesce(bool_or(active), false) FROM pg_replication_slots"))
        every_second.flush()
        plain = [path for path in archive.layout.streaming.iterdir() if not path.name.endswith(".partial")]
        until(lambda: not [path for path in archive.layout.streaming.iterdir() if not path.name.endswith(".partial")])
        assert plain is not None
    finally:
        parts = children(supervisor)
        status = end(supervisor)
    assert status == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in parts.values()))
    assert not processes.alive(archive.layout.run / "receiver")


def test_parts_end_with_a_killed_supervisor(every_second) -> None:
    """Kill -9 of the supervisor: its parts notice and end."""
    supervisor = serve(every_second)
    until(lambda: len(children(supervisor)) == len(PARTS))
    until(lambda: beats(every_second) >= 1)
    parts = children(supervisor)
    supervisor.kill()
    supervisor.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in parts.values()))


def test_the_worker_takes_what_is_due_and_its_jobs_hold_no_more_than_a_name(installation) -> None:
    """Jobs carry the name of a database; a failing use case leaves its code, not its words."""
    from obhut.jobs import tasks

    tasks.configure(installation.settings)
    tasks.schedule_backup(0)
    tasks.schedule_backup(0)  # queued once: the lock holds
    tasks.schedule_check(0)
    with control_session() as session:
        assert sorted(session.rows("SELECT task_name, args::text FROM procrastinate_jobs")) == [
            ("backups.backup", '{"database": "courses"}'),
            ("backups.check", '{"database": "courses"}'),
        ]
    worker = serve(installation, "worker", "--until-empty")
    assert worker.wait(120) == 0
    assert [one.state for one in installation.repository.backups()] == ["usable"]
    with control_session() as session:
        # A minute may have passed, and with it a schedule's job been queued.
        asked = session.rows("SELECT status::text FROM procrastinate_jobs WHERE task_name NOT LIKE '%schedule%' ORDER BY id LIMIT 2")
        assert {state for (state,) in asked} == {"succeeded"}


def test_alarms_open_once_and_close_when_it_is_over(installation) -> None:
    """A finding opens one alarm, keeps it while it is found, and closes it when it is not."""
    now = CLOCK.now()
    found = [critical("wal-gap", "fact", "Hint."), critical("wal-gap", "another", "Hint.")]
    assert check.raise_alarms("courses", found, now) == ["wal-gap"]
    assert check.raise_alarms("courses", found, now) == []
    assert [(code, severity) for code, severity, _ in check.open_alarms("courses")] == [("wal-gap", Severity.CRITICAL)]
    assert check.raise_alarms("courses", [], now) == []
    assert check.open_alarms("courses") == []
    assert check.raise_alarms("courses", found, now) == ["wal-gap"]


def test_the_check_names_what_is_wrong(installation) -> None:
    """No backup, no slot, no heartbeat; later a receiver that is gone, and a base backup that is stale."""

    def codes(clock=CLOCK) -> set[str]:
        return {one.code for one in run.check(installation.settings, "courses", clock)}

    assert {"backup-none", "slot-missing", "heartbeat-stale"} <= codes()
    installation.start()
    heartbeat.beat("courses", installation.url)
    until(lambda: codes() <= {"window-short"})  # how far behind the receiver is the server knows with its first report
    from obhut.foundation.clock import OffsetClock

    assert {"base-stale", "heartbeat-stale"} <= codes(OffsetClock(timedelta(days=2)))
    assert "backup-too-old" in codes(OffsetClock(timedelta(days=36)))
    run.stop(installation.settings, "courses")
    until(lambda: "slot-inactive" in codes())


def test_a_reader_that_is_not_ours_is_refused(installation, place) -> None:
    """Somebody else's program on the slot would tear the WAL between two places."""
    installation.start()
    installation.stop()
    with Session.connect(installation.url) as session:
        session.execute("SELECT pg_create_physical_replication_slot('obhut_courses', true)")
        receivewal = installation.workshop.present()[2].binaries.path("pg_receivewal")
        stranger = subprocess.Popen([receivewal, "-d", installation.url, "-D", place, "-S", "obhut_courses"], stderr=subprocess.DEVNULL)
        try:
            until(lambda: session.value("SELECT active FROM pg_replication_slots"))
            with pytest.raises(run.SlotTakenError):
                installation.full()
        finally:
            stranger.kill()
            stranger.wait()


def mounts() -> bool:
    """Whether this account may mount; an ordinary user's full disk is the file size limit of test_kill."""
    if os.geteuid() != 0:
        return False
    probe = tempfile.mkdtemp(prefix="obhut-mount-")
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", probe], check=False, capture_output=True).returncode == 0
        if done:
            subprocess.run(["umount", probe], check=True)
        return done
    finally:
        Path(probe).rmdir()


def test_a_full_disk_fails_cleanly_and_heals(installation, place) -> None:
    """On a repository of 64 MB that is full the run fails with a code, nothing half written counts, and with room the next one succeeds."""
    root = installation.repository.root.parent
    root.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", root], check=True)
    try:
        installation.start()
        filler = root / "filler"
        filler.write_bytes(bytes(1 << 20) * int((os.statvfs(root).f_bavail * os.statvfs(root).f_frsize >> 20) - 4))
        assert "disk-full" in {one.code for one in run.check(installation.settings, "courses", CLOCK)}
        with pytest.raises(Exception) as caught:
            installation.full()
        assert getattr(caught.value, "code", "") in {"backup-engine-failed", "backup-disk-full"}, caught.value
        assert len(installation.repository.backups()) == 1
        filler.unlink()
        assert installation.full().state == "usable"
        archive = installation.repository.archives()[0]
        assert [path.name for path in archive.layout.base.rglob("*") if path.is_file() and path.name != "backup_manifest"] == []
        installation.archive()
        assert installation.repository.wal_hole(1, installation.repository.backups()[0].begin_lsn) is None
    finally:
        installation.stop()
        subprocess.run(["umount", "-l", root], check=True)


if not mounts():
    del test_a_full_disk_fails_cleanly_and_heals
