"""Runs and their steps: begun, journalled, finished, and resumed after a crash.

The shape of every run::

    run = runs.begin(RunKind.ERASE, "courses", actor, clock)
    with runs.guarded(run, clock):
        with runs.step(run, "tombstone", clock) as step:
            if step.already is None:
                step.record(entries=record_tombstones())
        runs.finish(run, RunState.DONE, clock=clock)

A step that is killed between its effect and its commit is repeated by the resume: its effect has to be idempotent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import connection

from obhut.foundation import faultpoints
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock, SystemClock
from obhut.foundation.errors import ObhutError
from obhut.foundation.ids import new_id
from obhut.journal import locks
from obhut.journal.errors import RunBusyError, RunStateError, RunUnknownError
from obhut.journal.facts import Plain, checked
from obhut.journal.processes import Owner, myself
from obhut.journal.states import RESUMABLE, RunKind, RunState, StepState, before
from obhut.postgres.control import Deferred, control_safe
from obhut.postgres.errors import DatabaseError

if TYPE_CHECKING:
    from obhut.journal import models
else:
    models = Deferred("obhut.journal.models")

_PATIENCE = 5.0  # seconds for the server to notice that a killed process has let go of its lock

# One statement a step at its beginning; a finished step stays as it is and returns no row.
_ENTER = """
INSERT INTO journal_step (run_id, ordinal, name, state, attempts, facts, error_code, started_at)
SELECT %(run)s, coalesce(max(ordinal), 0) + 1, %(name)s, 'running', 1, '{}', '', %(now)s FROM journal_step WHERE run_id = %(run)s
ON CONFLICT (run_id, name) DO UPDATE
SET state = 'running', attempts = journal_step.attempts + 1, error_code = '', started_at = %(now)s, finished_at = NULL
WHERE journal_step.state <> 'done'
RETURNING attempts
"""
# Every run begins and ends once, a small erasure takes a few milliseconds: SQL as it is, not assembled anew each time.
_BEGIN = """
INSERT INTO journal_run (id, kind, database, state, actor, instruction_id, parameters, plan_hash, error_code,
                         started_at, heartbeat_at, boot_id, pid, pid_started)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, '', %s, %s, %s, %s, %s)
"""
_FINISH = """
UPDATE journal_run SET state = %(state)s, error_code = %(code)s, finished_at = %(now)s, heartbeat_at = %(now)s
WHERE id = %(run)s AND state = ANY (%(origins)s)
  AND (%(state)s <> 'done' OR NOT EXISTS (SELECT FROM journal_step WHERE run_id = %(run)s AND state <> 'done'))
"""
_LEAVE = """
WITH beat AS (UPDATE journal_run SET heartbeat_at = %(now)s WHERE id = %(run)s)
UPDATE journal_step SET state = %(state)s, facts = %(facts)s, error_code = %(code)s, finished_at = %(now)s
WHERE run_id = %(run)s AND name = %(name)s
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was when it was read."""

    id: str
    kind: RunKind
    database: str
    state: RunState
    actor: str
    instruction_id: str
    parameters: dict[str, Plain]
    plan_hash: str
    error_code: str
    started_at: datetime
    finished_at: datetime | None
    heartbeat_at: datetime
    owner: Owner


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it was when it was read."""

    ordinal: int
    name: str
    state: StepState
    attempts: int
    facts: dict[str, Plain]
    error_code: str
    started_at: datetime
    finished_at: datetime | None


class StepHandle:
    """A step while it is carried out.

    Attributes:
        already: the facts of an earlier pass that finished; None if the step has to be done.
        attempts: how often it has been begun, this time included.
    """

    def __init__(self, already: dict[str, Plain] | None, attempts: int) -> None:
        self.already = already
        self.attempts = attempts
        self.facts: dict[str, Plain] = dict(already or {})

    def record(self, **facts: object) -> None:
        """Add facts, stored when the step ends.

        Raises:
            ValueError: a value that does not belong into the journal (see :mod:`obhut.journal.facts`).
        """
        self.facts.update(checked(facts))


def begin(
    kind: RunKind | str,
    database: str,
    actor: Actor,
    clock: Clock,
    parameters: Mapping[str, object] | None = None,
    instruction_id: str = "",
    *,
    plan_hash: str = "",
    planned: bool = False,
) -> Run:
    """Record a run and become its runner.

    Args:
        kind: what it does.
        database: name of the protected database.
        actor: who started it.
        clock: the time of the start.
        parameters: what a resume needs: ids, numbers, hashes, times.
        instruction_id: the instruction that permits it.
        plan_hash: hash of the plan that was shown.
        planned: only record it, for :func:`resume` (by a worker, say) to carry out.

    Raises:
        ValueError: a parameter that does not belong into the journal.
    """
    now = clock.now()
    run_id = new_id("run")
    owner = myself()
    wanted = checked(parameters or {})
    _outside_transactions()
    if not planned and not locks.take(run_id):
        raise AssertionError("nobody else can know a new run")
    run = Run(
        id=run_id,
        kind=RunKind(kind),
        database=database,
        state=RunState.PLANNED if planned else RunState.RUNNING,
        actor=str(actor),
        instruction_id=instruction_id,
        parameters=wanted,
        plan_hash=plan_hash,
        error_code="",
        started_at=now,
        finished_at=None,
        heartbeat_at=now,
        owner=owner,
    )
    values = [run.id, run.kind.value, database, run.state.value, run.actor, instruction_id, json.dumps(wanted), plan_hash, now, now]
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_BEGIN, [*values, owner.boot_id, owner.pid, owner.pid_started])
    return run


def permitted(run: Run, instruction_id: str) -> None:
    """Note the instruction that permits a run, where it is only known after the run has looked (a restore: whose rows are in the backup).

    Args:
        run: as :func:`begin` or :func:`resume` returned it.
        instruction_id: the first one, where several controllers are concerned; the gate has asked them all.
    """
    with control_safe():
        models.Run.objects.filter(id=run.id).update(instruction_id=instruction_id)


def resume(run_id: str, clock: Clock) -> Run:
    """Become the runner of a run that was planned, that failed, or whose process was killed.

    Raises:
        RunUnknownError: there is no such run.
        RunStateError: it is done or cancelled.
        RunBusyError: its process lives.
    """
    _outside_transactions()
    found = get(run_id)
    if found.state not in RESUMABLE:
        raise RunStateError(f"run {run_id} is {found.state}, there is nothing to resume", 'Look at "obhut runs show".')
    # The number first: after a restart of the control database the locks are gone while the process still works.
    if alive(found) or not locks.take(run_id, wait=_PATIENCE):
        raise RunBusyError(
            f"another process carries out run {run_id}", 'Wait for it, or end it first; "obhut runs show" names the process.'
        )
    owner = myself()
    with control_safe():
        moved = models.Run.objects.filter(id=run_id, state__in=[state.value for state in RESUMABLE]).update(
            state=RunState.RUNNING.value,
            finished_at=None,
            error_code="",
            heartbeat_at=clock.now(),
            boot_id=owner.boot_id,
            pid=owner.pid,
            pid_started=owner.pid_started,
        )
    if not moved:  # its runner finished it between the look and the lock
        locks.release(run_id)
        raise RunStateError(f"run {run_id} has been finished in the meantime", 'Look at "obhut runs show".')
    return get(run_id)


@contextmanager
def step(run: Run, name: str, clock: Clock) -> Iterator[StepHandle]:
    """Carry out one step: committed as running before the block, as done or failed after it.

    Raises:
        RunStateError: this process is not the runner.
    """
    if not locks.mine(run.id):
        raise RunStateError(f"this process does not carry out run {run.id}", "A programming error: begin or resume it first.")
    _outside_transactions()
    faultpoints.reach(f"{run.kind}.{name}.before")
    handle = _enter(run.id, name, clock.now())
    try:
        yield handle
    except BaseException as error:
        if handle.already is None:
            code = error.code if isinstance(error, ObhutError) else "internal"
            with suppress(DatabaseError):  # the first error is the one to hear about
                _leave(run.id, name, StepState.FAILED, handle.facts, code, clock.now())
        raise
    if handle.already is None:
        _leave(run.id, name, StepState.DONE, handle.facts, "", clock.now())
    faultpoints.reach(f"{run.kind}.{name}.after")


@contextmanager
def guarded(run: Run, clock: Clock) -> Iterator[None]:
    """Mark the run as failed if the block raises before it has finished the run, and stop being its runner in any case."""
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, ObhutError) else "internal"
        with suppress(DatabaseError, RunStateError):
            finish(run, RunState.FAILED, code, clock=clock)
        raise
    finally:
        with suppress(DatabaseError):
            locks.release(run.id)


def finish(run: Run, state: RunState | str, error_code: str | None = None, *, clock: Clock | None = None) -> Run:
    """End a run and stop being its runner.

    Args:
        run: the run.
        state: done, failed, partial or cancelled.
        error_code: code of the error that ended it.
        clock: the time of the end; the machine's by default.

    Raises:
        RunStateError: the run cannot move there from where it stands, or would be done with steps that are not.
    """
    target = RunState(state)
    _outside_transactions()
    faultpoints.reach(f"{run.kind}.finish.before")
    now = (clock or SystemClock()).now()
    parameters = {"run": run.id, "state": target.value, "code": error_code or "", "now": now, "origins": before(target)}
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_FINISH, parameters)
        moved = cursor.rowcount
        incomplete = not moved and target is RunState.DONE and models.Step.objects.filter(run_id=run.id).exclude(state="done").exists()
    if incomplete:
        raise RunStateError(f"run {run.id} has steps that are not done", 'Partial is never shown as done; look at "obhut runs show".')
    if not moved:
        raise RunStateError(f"run {run.id} is {get(run.id).state} and cannot become {target}", 'Look at "obhut runs show".')
    locks.release(run.id)
    faultpoints.reach(f"{run.kind}.finish.after")
    return replace(run, state=target, error_code=error_code or "", finished_at=now, heartbeat_at=now)


def cancel(run_id: str, clock: Clock) -> Run:
    """Give up a run that was only planned, or that failed before anything took effect.

    Raises:
        RunBusyError: its process lives.
        RunStateError: it cannot be cancelled from where it stands.
    """
    found = get(run_id)
    if alive(found):
        raise RunBusyError(f"another process carries out run {run_id}", "End it first.")
    return finish(found, RunState.CANCELLED, clock=clock)


def beat(run: Run, clock: Clock) -> None:
    """Record that a long step is still at work."""
    with control_safe():
        models.Run.objects.filter(id=run.id).update(heartbeat_at=clock.now())


def alive(run: Run) -> bool:
    """Whether a process carries out the run now: by process where its number means something here, by lock elsewhere."""
    if run.state is not RunState.RUNNING:
        return False
    if run.owner == myself():
        return locks.mine(run.id)
    return run.owner.alive if run.owner.here else locks.held(run.id)


def standing(run: Run) -> str:
    """Return the state of a run for a reader: "interrupted" where the process of a running one is gone."""
    return "interrupted" if run.state is RunState.RUNNING and not alive(run) else run.state.value


def get(run_id: str) -> Run:
    """Return a run.

    Raises:
        RunUnknownError: there is none with that id.
    """
    with control_safe():
        row = models.Run.objects.filter(id=run_id).first()
    if row is None:
        raise RunUnknownError("there is no run with that id", 'Look at "obhut runs list".')
    return _run(row)


def list_runs(
    *, kind: RunKind | str | None = None, database: str | None = None, state: RunState | str | None = None, limit: int = 50
) -> list[Run]:
    """Return runs, the youngest first."""
    wanted = {"kind": kind and RunKind(kind).value, "database": database, "state": state and RunState(state).value}
    with control_safe():
        rows = models.Run.objects.filter(**{name: value for name, value in wanted.items() if value}).order_by("-started_at", "-id")
        return [_run(row) for row in rows[:limit]]


def list_steps(run_id: str) -> list[Step]:
    """Return the steps of a run in the order in which they were first begun."""
    with control_safe():
        rows = models.Step.objects.filter(run_id=run_id).order_by("ordinal")
        return [
            Step(row.ordinal, row.name, StepState(row.state), row.attempts, row.facts, row.error_code, row.started_at, row.finished_at)
            for row in rows
        ]


def _enter(run_id: str, name: str, now: datetime) -> StepHandle:
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_ENTER, {"run": run_id, "name": name, "now": now})
        if row := cursor.fetchone():
            return StepHandle(None, row[0])
        done = models.Step.objects.get(run_id=run_id, name=name)
        return StepHandle(done.facts, done.attempts)


def _leave(run_id: str, name: str, state: StepState, facts: Mapping[str, Plain], code: str, now: datetime) -> None:
    parameters = {"run": run_id, "name": name, "state": state.value, "facts": json.dumps(facts), "code": code, "now": now}
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_LEAVE, parameters)


def _outside_transactions() -> None:
    """Refuse inside a transaction: a journal that is rolled back with its subject journals nothing."""
    if connection.in_atomic_block:
        raise AssertionError("the journal writes in transactions of its own")


def _run(row: models.Run) -> Run:
    return Run(
        row.id,
        RunKind(row.kind),
        row.database,
        RunState(row.state),
        row.actor,
        row.instruction_id,
        row.parameters,
        row.plan_hash,
        row.error_code,
        row.started_at,
        row.finished_at,
        row.heartbeat_at,
        Owner(row.boot_id, row.pid, row.pid_started),
    )
