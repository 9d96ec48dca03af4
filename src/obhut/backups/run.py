"""The use cases: start, run, list, check, expire, stop. Journalled, permitted, one at a time for each database.

A backup run sweeps what a killed one left, takes a base backup, verifies it against its manifest while sealing it, removes the plain copy
and records it. It can be killed anywhere: the next run seals a finished copy and sweeps an unfinished one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from obhut.backups import check as checks
from obhut.backups import expire as expiry
from obhut.backups import heartbeat, locks, mirror, processes, seal, source, survey
from obhut.backups import plan as planning
from obhut.backups.archive import Archive
from obhut.backups.catalogue import Backup, BackupKind, BackupState
from obhut.backups.engine import Engine
from obhut.backups.errors import BackupBusyError, EngineError, NoBackupError
from obhut.backups.findings import Finding, critical
from obhut.backups.plan import Copy, ItemKind
from obhut.backups.processes import Child
from obhut.backups.source import ServerFacts
from obhut.backups.workshop import Workshop, open_workshop
from obhut.controllers import gate
from obhut.controllers.errors import NotInstructedError
from obhut.controllers.plan import Refusal
from obhut.controllers.register import list_controllers
from obhut.controllers.vocabulary import Action
from obhut.foundation import faultpoints
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock, SystemClock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.errors import RunStateError
from obhut.journal.states import RunKind, RunState

RECEIVER: Final = "receiver"
_WAL_PATIENCE: Final = 60.0  # seconds for the WAL of a base backup to arrive
_RECEIVER_PATIENCE: Final = 20.0
_STREAMING: Final = 0.3  # seconds that a receiver must have been connected to count as streaming
_CLOCK_SKEW: Final = 3_600.0  # seconds between this machine and the server, above which nothing is expired


class ClocksDisagreeError(ObhutError):
    """This machine and the protected server tell different times, so the age of a backup is not known."""

    code = "backup-clocks-disagree"


class SlotTakenError(ObhutError):
    """The replication slot is read by a program that is not this installation's receiver."""

    code = "backup-slot-taken"


class Wanted(StrEnum):
    """What kind of base backup a run takes."""

    AUTO = "auto"  # what is due, maybe nothing
    FULL = "full"
    INCREMENTAL = "incremental"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a backup run did."""

    run_id: str  # "" when nothing was due
    backup: Backup | None
    reason: str


def start(settings: Settings, database: str, actor: Actor, clock: Clock, progress: seal.Progress = seal.silent) -> Taken:
    """Begin to back up: slot, WAL receiver in the background, first full base backup. Repeating it is harmless.

    Raises:
        NotInstructedError: a controller in the database has not instructed backups.
        SettingsError: the limits cannot be kept.
        EngineError: the engine failed.
    """
    workshop = open_workshop(settings, database)
    _permit(workshop, actor, clock)
    _, archive, engine = workshop.present()
    engine.prepare()
    ensure_receiver(workshop, engine, archive)
    return run(settings, database, Wanted.AUTO, actor, clock, progress)


def run(settings: Settings, database: str, wanted: Wanted, actor: Actor, clock: Clock, progress: seal.Progress = seal.silent) -> Taken:
    """Take a base backup, or find that none is due.

    Args:
        settings: of this installation.
        database: name of the protected database.
        wanted: full, incremental, or what is due.
        actor: who asks.
        clock: the time.
        progress: called with bytes sealed and in all.

    Raises:
        BackupBusyError: another run is at work.
        NotInstructedError: a controller in the database has not instructed backups.
        EngineError: the engine failed.
        TamperedBackupError: what the engine wrote is not what the server sent.
    """
    workshop = open_workshop(settings, database)
    permissions = _permit(workshop, actor, clock)
    with locks.exclusive(workshop.repository.root, locks.RUN):
        _close_killed(database, RunKind.BACKUP, clock)
        facts, archive, engine = workshop.present()
        if wanted is Wanted.AUTO and not _unfinished(archive, engine):
            due = _due(workshop, archive, engine, facts, clock)
            if due.kind is None:
                return Taken("", None, due.reason)  # asked every few minutes: what does nothing is not journalled
        journal = runs.begin(
            RunKind.BACKUP,
            database,
            actor,
            clock,
            {"wanted": wanted.value, "system_identifier": str(facts.system_identifier)},
            permissions[0],
        )
        with runs.guarded(journal, clock):
            with runs.step(journal, "sweep", clock) as step:
                engine.prepare()
                step.record(ended=_end_orphans(archive), removed=expiry.sweep(archive, engine))
                step.record(sealed=_seal_finished(workshop, archive, engine, clock))
            due = _due(workshop, archive, engine, facts, clock)
            kind = due.kind if wanted is Wanted.AUTO else wanted.value
            if kind is None:
                runs.finish(journal, RunState.DONE, clock=clock)
                return Taken(journal.id, None, due.reason)
            parent = _parent(archive, kind, incrementals=facts.incrementals)
            with runs.step(journal, "copy", clock) as step:
                ensure_receiver(workshop, engine, archive)
                _first_wal(workshop, archive, engine, clock)
                copy_id = engine.base_backup(parent, clock.now())
                step.record(backup=copy_id, kind=BackupKind.INCREMENTAL if parent else BackupKind.FULL)
            with runs.step(journal, "seal", clock) as step:
                copy = next(copy for copy in engine.copies() if copy.id == copy_id)
                try:
                    backup = seal.seal(copy, archive.layout, workshop.repository.keys, progress)
                except ObhutError:
                    # What does not match its manifest is no backup; plain personal data must not wait for the next run.
                    engine.forget(copy_id)
                    raise
                step.record(bytes=backup.size, files=backup.files)
            with runs.step(journal, "wal", clock) as step:
                state = _await_wal(workshop, archive, engine, backup.id, clock)
                step.record(state=state)
            with runs.step(journal, "record", clock):
                mirror.refresh(workshop.repository, clock)
            runs.finish(journal, RunState.DONE, clock=clock)
    found = next(item for item in archive.backups() if item.id == backup.id)
    return Taken(journal.id, found, due.reason if wanted is Wanted.AUTO else "it was asked for")


def listed(settings: Settings, database: str) -> list[Backup]:
    """Return the base backups, oldest first."""
    return open_workshop(settings, database).repository.backups()


def check(settings: Settings, database: str, clock: Clock, *, deep: bool = False, progress: seal.Progress = seal.silent) -> list[Finding]:
    """Return what is wrong, the worst first, and keep the alarms; ``deep`` reads every sealed byte."""
    workshop = open_workshop(settings, database)
    now = clock.now()
    found = checks.check(
        workshop.repository,
        workshop.database.url,
        workshop.slot,
        workshop.rules,
        now,
        workshop.database.backup.heartbeat,
        deep=deep,
        progress=progress,
    )
    checks.raise_alarms(database, found, now)
    return found


def preview(settings: Settings, database: str, clock: Clock) -> planning.Plan:
    """Return what :func:`expire` would do now, with reasons."""
    workshop = open_workshop(settings, database)
    return expiry.plan(
        workshop.repository, workshop.everything(), workshop.rules, clock, busy=locks.held(workshop.repository.root, locks.RUN)
    )


def expire(settings: Settings, database: str, actor: Actor, clock: Clock) -> expiry.Expired:
    """Remove what is no longer needed or too old, whatever its status, and destroy the keys of what is gone.

    Needs no instruction: keeping personal data longer would need one. Works without the protected server.

    Raises:
        ClocksDisagreeError: the server answers and tells another time.
    """
    workshop = open_workshop(settings, database)
    _compare_clocks(workshop, clock)
    root = workshop.repository.root
    engines = workshop.everything()
    try:
        with locks.exclusive(root, locks.RUN):
            return _expire(workshop, engines, actor, clock, busy=False)
    except BackupBusyError:
        # A base backup may take hours: what is too old goes all the same, only the unfinished things are its own.
        return _expire(workshop, engines, actor, clock, busy=True)


def archive_wal(settings: Settings, database: str, clock: Clock) -> bool:
    """Move finished WAL segments into the archive, sealed; returns whether there were any.

    Raises:
        EngineError: the engine failed; the segments stay where they are.
    """
    workshop = open_workshop(settings, database)
    busy = False
    for archive, engine in workshop.everything():
        busy = archive_of(workshop, archive, engine, clock) or busy
    return busy


def archive_of(workshop: Workshop, archive: Archive, engine: Engine, clock: Clock) -> bool:
    """Archive the finished segments of one server; see :func:`archive_wal`."""
    streaming = archive.layout.streaming
    waiting = streaming.is_dir() and any(not path.name.endswith((".partial", ".tmp")) for path in streaming.iterdir())
    refused = archive.layout.errors.is_dir() and any(archive.layout.errors.iterdir())
    if not waiting and not refused:
        return False
    with locks.exclusive(workshop.repository.root, locks.ARCHIVE, wait=600):
        if waiting:
            engine.prepare()
            engine.archive(clock.now())
        expiry.seal_refused(archive.layout, workshop.repository.keys, clock)
    return waiting


def stop(settings: Settings, database: str, *, drop_slot: bool = False) -> bool:
    """End the background receiver; returns whether one ran.

    Args:
        settings: of this installation.
        database: name of the protected database.
        drop_slot: also drop the replication slot. WAL from now on is lost; with the slot the server keeps it, and its disk may fill.
    """
    workshop = open_workshop(settings, database)
    ended = sum(processes.sweep(archive.layout.run, only=RECEIVER) for archive in workshop.repository.archives())
    if drop_slot:
        deadline = time.monotonic() + _RECEIVER_PATIENCE
        with source.opened(workshop.database.url) as server:
            while (state := server.slot(workshop.slot)) is not None and state.active and time.monotonic() < deadline:
                time.sleep(0.1)
            server.drop_slot(workshop.slot)
    return ended > 0


def ensure_receiver(workshop: Workshop, engine: Engine, archive: Archive) -> None:
    """Start the WAL receiver in the background unless ours is connected, and wait until it streams.

    Raises:
        SlotTakenError: somebody else reads the slot.
        EngineError: it does not get through.
    """
    with source.opened(workshop.database.url) as server:
        deadline = time.monotonic() + _RECEIVER_PATIENCE

        def active() -> bool:
            state = server.slot(workshop.slot)
            return state is not None and state.active

        while processes.alive(archive.layout.run / RECEIVER) and time.monotonic() < deadline:
            if active():
                return
            time.sleep(0.1)
        # The server notices only after a moment that a killed receiver is gone.
        if not _until(lambda: not active(), _RECEIVER_PATIENCE):
            raise SlotTakenError(
                f"another program reads replication slot {workshop.slot}",
                "Does another installation of Obhut back up this server? Stop it there, or the WAL is torn between two repositories.",
            )
        for _ in range(2):  # the second time after a gap, from where the server is now
            child = begin_receiver(workshop, engine)
            deadline = time.monotonic() + _RECEIVER_PATIENCE
            while child.running and time.monotonic() < deadline:
                # Connected is not enough: a receiver that asks for WAL that is gone is sent away at once.
                if active() and _stays(child):
                    child.detach()
                    return
                time.sleep(0.05)
            child.end()
            if not engine.lost_wal() or not _until(lambda: not active(), _RECEIVER_PATIENCE):
                break
    raise EngineError(
        "the WAL receiver did not start to stream",
        f"Its words are in {archive.layout.log / 'receiver.log'}. May the role replicate, and does pg_hba.conf allow it?",
    )


def _stays(child: Child) -> bool:
    time.sleep(_STREAMING)
    return child.running


def begin_receiver(workshop: Workshop, engine: Engine) -> Child:
    """Start the WAL receiver with a slot that it can use.

    A slot whose WAL the server has given up (``max_slot_wal_keep_size``) is made anew, and a receiver that was sent away begins where
    the server is now, with a new slot, too. Both leave a gap: the check reports it, and the next run takes a full base backup.
    """
    with source.opened(workshop.database.url) as server:
        state = server.slot(workshop.slot)
        # A receiver that is sent away has first told the slot where it wants to begin. The server may call a slot reserved that stands
        # on removed WAL, and the engine aligns the next receiver with the slot: it would be sent away for ever.
        if state is not None and not state.active and (state.wal_status == "lost" or engine.lost_wal()):
            server.drop_slot(workshop.slot)
    engine.prepare()
    engine.ensure_slot()
    if engine.lost_wal():
        engine.reset_receiver()
    return engine.receiver()


def _first_wal(workshop: Workshop, archive: Archive, engine: Engine, clock: Clock) -> None:
    """Bring one segment into a new archive: the engine refuses to take a base backup before it has seen WAL arrive."""
    layout = archive.layout
    if _finished(layout.wals):
        return
    with source.opened(workshop.database.url) as server:
        server.beat()
        server.switch_wal()
        server.beat()  # the receiver closes a segment when the next one begins
    arrived = _until(lambda: _finished(layout.streaming) or _finished(layout.wals), _WAL_PATIENCE)
    if not arrived:
        raise EngineError(
            "no WAL segment arrived within a minute",
            "May the role call pg_switch_wal()? Without, the first base backup waits until the server has filled a segment.",
        )
    archive_of(workshop, archive, engine, clock)


def _permit(workshop: Workshop, actor: Actor, clock: Clock) -> list[str]:
    """Return the ids of the instructions that permit backups, one for each controller that is known to be in the database."""
    name = workshop.database.name
    keys = [controller.key for controller in list_controllers(name)]
    if not keys:
        raise NotInstructedError(
            f"no controller of {name} is known, so nobody has instructed backups",
            'Add the controller with its contract and a standing instruction: "obhut controllers add".',
            (("", Refusal.NO_CONTROLLER),),
        )
    permissions = gate.permit_all(Action.BACKUP, database=name, controller_keys=keys, actor=actor, clock=clock)
    return [permission.instruction_id for permission in permissions]


def _parent(archive: Archive, kind: str, *, incrementals: bool) -> str | None:
    """Return the base backup to build on: the newest usable one, for an incremental."""
    if kind != BackupKind.INCREMENTAL:
        return None
    if not incrementals:
        raise EngineError("the server cannot send incremental base backups", "It needs PostgreSQL 17 or later with summarize_wal = on.")
    usable = [backup for backup in archive.backups() if backup.state is not BackupState.BROKEN]
    with_manifest = [backup for backup in usable if (archive.layout.base / backup.id / "data" / "backup_manifest").exists()]
    if not with_manifest:
        raise NoBackupError("there is no base backup to build on", 'Run "obhut backup run --full".')
    return with_manifest[-1].id


def _due(workshop: Workshop, archive: Archive, engine: Engine, facts: ServerFacts, clock: Clock) -> planning.Due:
    found = survey.items(workshop.repository, [(archive, engine)], busy=False)
    ready = [item for item in found if item.kind is ItemKind.BACKUP and item.usable]
    due = planning.due(ready, workshop.rules, clock.now(), archive=facts.system_identifier, incrementals=facts.incrementals)
    newest = next((backup for backup in reversed(archive.backups()) if backup.state is BackupState.USABLE), None)
    if due.kind != BackupKind.FULL and newest is not None:
        missing = archive.hole(archive.latest_timeline(newest), newest.begin_lsn, None)
        if missing is not None:
            return planning.Due("full", f"WAL from segment {missing.first} on is missing since the newest base backup")
    return due


def _unfinished(archive: Archive, engine: Engine) -> bool:
    return any(state is not Copy.EMPTIED for _, state in survey.copies(engine, archive.layout.sealed, busy=False))


def _end_orphans(archive: Archive) -> int:
    # The receiver goes on; everything else of an earlier run has lost its starter, because this process holds the lock.
    return sum(processes.sweep(archive.layout.run, only=name) for name in ("backup", "slot"))


def _close_killed(database: str, kind: RunKind, clock: Clock) -> None:
    """Journal as failed what a killed process left as running: a backup is not resumed, the next one takes its place."""
    for left in runs.list_runs(kind=kind, database=database, state=RunState.RUNNING):
        if not runs.alive(left):
            with suppress(RunStateError):
                runs.finish(left, RunState.FAILED, "killed", clock=clock)


def _seal_finished(workshop: Workshop, archive: Archive, engine: Engine, clock: Clock) -> int:
    """Seal copies that a killed run had finished; what fails its manifest goes."""
    sealed = 0
    for copy, state in list(survey.copies(engine, archive.layout.sealed, busy=False)):
        if state is not Copy.COPIED:
            continue
        try:
            seal.seal(copy, archive.layout, workshop.repository.keys)
            sealed += 1
        except ObhutError:
            engine.forget(copy.id)
    if sealed:
        mirror.refresh(workshop.repository, clock)
    return sealed


def _await_wal(workshop: Workshop, archive: Archive, engine: Engine, backup_id: str, clock: Clock) -> BackupState:
    """Wait until the WAL that makes a base backup consistent is here, archive it, and return the state."""
    faultpoints.reach("backup.wal.waiting")

    def state() -> BackupState:
        return next(backup.state for backup in archive.backups() if backup.id == backup_id)

    _until(lambda: state() is not BackupState.WAITING, _WAL_PATIENCE)
    with suppress(BackupBusyError):
        archive_of(workshop, archive, engine, clock)
    return state()


def _finished(directory: Path) -> bool:
    """Whether a directory holds finished segments (or directories of them)."""
    skipped = (".partial", ".tmp", ".db", ".history")
    return directory.is_dir() and any(not path.name.endswith(skipped) for path in directory.iterdir())


def _until(condition: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _expire(workshop: Workshop, engines: list[tuple[Archive, Engine]], actor: Actor, clock: Clock, *, busy: bool) -> expiry.Expired:
    repository, name = workshop.repository, workshop.database.name
    decided = expiry.plan(repository, engines, workshop.rules, clock, busy=busy)
    _close_killed(name, RunKind.EXPIRE, clock)
    journal = runs.begin(RunKind.EXPIRE, name, actor, clock, {"removals": len(decided.removals), "busy": busy})
    with runs.guarded(journal, clock):
        with runs.step(journal, "remove", clock) as step:
            done = expiry.apply(repository, engines, decided)
            step.record(**{f"removed_{kind.value}": count for kind, count in done.removed.items()})
        with runs.step(journal, "record", clock) as step:
            mirror.refresh(repository, clock)
            step.record(heartbeats=heartbeat.prune(name, clock.now() - workshop.rules.gone_after))
            found = [_loud(code, name) for code in decided.warnings]
            checks.raise_more(name, found, clock.now())
        runs.finish(journal, RunState.DONE, clock=clock)
    return done


def _loud(code: str, database: str) -> Finding:
    facts = {
        "nothing-restorable": "after expiry no usable base backup is left",
        "window-short": "base backups that the restorable time needed went because they reached the age limit",
        "clock-behind": "files in the repository are younger than now",
    }
    return critical(code, facts[code], f'Run "obhut backup check {database}", then "obhut backup run {database} --full".')


def _compare_clocks(workshop: Workshop, clock: Clock) -> None:
    """Refuse to expire by a clock that jumped: with it everything could look too old at once."""
    if not isinstance(clock, SystemClock):
        return  # a moved clock is a deliberate one
    try:
        with source.opened(workshop.database.url) as server:
            theirs: datetime = server.now()
    except ObhutError:
        return  # data is not kept longer because the server is gone
    if abs((theirs - clock.now()).total_seconds()) > _CLOCK_SKEW:
        raise ClocksDisagreeError(
            "this machine's clock and the server's are more than an hour apart", "Set both by NTP; retention counts on them."
        )
