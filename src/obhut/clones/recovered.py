"""The moment of a backup that a copy shows: recovered into a quarantine, which is thrown away however the copy ends.

Recovery, its refusals and the quarantine are the restore's. Nothing is resumed: what a killed run left is removed by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obhut.backups.repository import Repository
from obhut.clones import target as places
from obhut.controllers.vocabulary import Action
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.runs import Run
from obhut.postgres.clusters import binaries
from obhut.restores import plan, preflight, quarantine
from obhut.restores.errors import RestoreRefusedError
from obhut.restores.plan import RecoveryTarget
from obhut.restores.preflight import Sources
from obhut.restores.progress import Progress
from obhut.restores.quarantine import Quarantine, Recovery


def survey(
    settings: Settings, database: str, to: RecoveryTarget, backup: str, controller: str, actor: Actor, clock: Clock
) -> tuple[Sources, int]:
    """Return the backups that the moment is recovered from, and the major version of their server; nothing is changed.

    Raises:
        RestoreRefusedError: WAL, programs, disk, erasure list or an instruction is missing.
        NoBackupError: there is nothing to start from.
    """
    facts, found = preflight.survey(
        settings, database, to, actor, clock, backup_id=backup or None, action=Action.CLONE,
        controller_keys=[controller] if controller else None,
    )  # fmt: skip
    decision = plan.judge_repository(facts)
    preflight.refuse(decision, f"copy of {database} refused")
    if found is None:  # refused above, unless the judgement forgets a reason
        raise RestoreRefusedError(f"copy of {database} refused: nothing to start from")
    return found, facts.major


@contextmanager
def recovered(settings: Settings, run: Run, found: Sources, to: RecoveryTarget, clock: Clock, progress: Progress) -> Iterator[Quarantine]:
    """Recover a database to a moment, and hold it paused while the block runs.

    Raises:
        RecoveryError, RestoreTargetError: the moment is not reached.
        QuarantineError: a table is locked at the moment.
    """
    major = int(str(run.parameters["major"]))
    directory = places.make_directory_of(settings, run.id)
    recovery = Recovery(settings, Repository(settings, run.database), found.chain, to, directory, binaries(settings, major))
    try:
        with runs.step(run, "unseal", clock) as step:
            step.record(bytes=quarantine.unseal(recovery, progress))
        with runs.step(run, "recover", clock) as step:
            held = quarantine.recover(recovery, quarantine.stage_wal(recovery), progress)
            step.record(lsn=held.lsn, moment=held.moment, superuser=places.written(held.superuser))
        with held.session("obhut clone") as session:
            quarantine.require_still(session, held)
        yield held
    finally:
        recovery.cluster.remove()
        if not places.own_cluster(settings, run).directory.exists():
            places.clear(directory)
