"""Backups on a real server, from the first full one to a server recovered from what was sealed."""

from __future__ import annotations

from pathlib import Path

import pytest

from obhut.backups import run
from obhut.backups.catalogue import BackupKind, BackupState
from obhut.backups.errors import EngineError
from obhut.controllers.errors import NotInstructedError
from obhut.controllers.register import list_controllers, list_instructions, revoke_instruction
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.postgres.connections import Session


def test_a_row_is_there_after_recovery_from_a_chain(installation, recovery) -> None:
    """A row that was written after the last incremental backup is read back from the sealed chain and the WAL."""
    installation.add_person("first@example.org")
    taken = installation.start()
    assert taken.backup is not None
    assert taken.backup.kind is BackupKind.FULL
    assert taken.backup.state is BackupState.USABLE
    installation.add_person("second@example.org")
    first = installation.incremental()
    assert first.parent == taken.backup.id
    installation.add_person("third@example.org")
    second = installation.incremental()
    assert second.parent == first.id
    assert second.size < taken.backup.size / 2
    lsn = installation.add_person("fourth@example.org")
    installation.archive()
    with recovery.to(second, lsn) as session:
        found = {email for (email,) in session.rows("SELECT email FROM person")}
    assert {"first@example.org", "second@example.org", "third@example.org", "fourth@example.org"} <= found
    assert [link.id for link in installation.repository.chain(second.id)] == [taken.backup.id, first.id, second.id]


def test_debians_fifteen_takes_full_backups_only(installation15, recovery_of) -> None:
    """PostgreSQL 15 has an older manifest and no incrementals: full backups are sealed, verified and recovered."""
    installation15.start()
    with pytest.raises(EngineError, match="incremental"):
        installation15.incremental()
    lsn = installation15.add_person("fifteen@example.org")
    installation15.archive()
    (backup,) = installation15.repository.backups()
    assert backup.major == 15
    with recovery_of(installation15).to(backup, lsn) as session:
        assert session.value("SELECT count(*) FROM person") == 1


def test_the_segment_being_streamed_counts(installation, recovery) -> None:
    """A commit that lies only in the partial segment can be recovered: not even the newest minute is lost."""
    taken = installation.start()
    lsn = installation.add_person("newest@example.org")
    with Session.connect(installation.url) as session:
        session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
        for _ in range(100):
            if session.value("SELECT bool_and(sent_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication"):
                break
            session.execute("SELECT pg_sleep(0.05)")
        session.execute("SELECT pg_sleep(0.3)")
    segments = installation.repository.wal_segments(1, taken.backup.begin_lsn, lsn)
    assert segments[-1].source == "partial"
    with recovery.to(taken.backup, lsn) as session:
        assert session.value("SELECT count(*) FROM person WHERE email = 'newest@example.org'") == 1


def test_nothing_is_left_in_plain(installation) -> None:
    """After a backup and an archiving no file of the repository but the one being streamed holds the person."""
    canary = "plain.canary@example.org"
    installation.add_person(canary)
    installation.start()
    installation.archive()
    root = installation.repository.root
    holding = [path for path in root.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    assert [path.name for path in holding if not path.name.endswith(".partial")] == []


def test_the_journal_tells_what_was_done(installation) -> None:
    """A run is journalled with the instruction that permits it, and repeating the start takes nothing more."""
    taken = installation.start()
    done = runs.get(taken.run_id)
    assert (done.kind, done.state) == (RunKind.BACKUP, RunState.DONE)
    assert done.instruction_id == list_instructions(database="courses")[0].id
    assert [step.name for step in runs.list_steps(taken.run_id)] == ["sweep", "copy", "seal", "wal", "record"]
    again = installation.start()
    assert again.backup is None
    assert "ago" in again.reason


def test_without_an_instruction_nothing_is_backed_up(installation) -> None:
    """A revoked instruction stops backups, and an unregistered database has none."""
    revoke_instruction(list_instructions(database="courses")[0].id, actor=runs_actor(), clock=_clock())
    with pytest.raises(NotInstructedError):
        installation.full()
    assert not installation.repository.root.exists() or not installation.repository.backups()
    assert list_controllers("courses")


def test_no_personal_data_in_logs_or_rows(installation, workplace: Path) -> None:
    """The person of a row that is backed up appears in no log of the engine and no row of the control database."""
    canary = "log.canary@example.org"
    installation.add_person(canary)
    installation.start()
    installation.incremental()
    installation.archive()
    run.check(installation.settings, "courses", _clock(), deep=True)
    for path in installation.repository.root.rglob("log/*"):
        assert canary.encode() not in path.read_bytes()
    from obhut.postgres.control import control_session

    with control_session() as session:
        for (table,) in session.rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"):
            assert session.value(f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE %s', (f"%{canary}%",)) == 0


def runs_actor():
    """Return an operator."""
    from obhut.foundation.actors import Actor, Role

    return Actor(Role.OPERATOR, "acc-7")


def _clock():
    from obhut.foundation.clock import SystemClock

    return SystemClock()
