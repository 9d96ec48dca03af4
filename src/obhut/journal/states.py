"""Kinds and states of runs and steps, and the legal moves between them."""

from __future__ import annotations

from enum import StrEnum


class RunKind(StrEnum):
    """What a run does."""

    ERASE = "erase"
    BACKUP = "backup"
    RESTORE = "restore"
    EXPIRE = "expire"
    CANARY = "canary"
    CLONE = "clone"


class RunState(StrEnum):
    """Where a run stands; see :data:`MOVES`."""

    PLANNED = "planned"
    RUNNING = "running"  # also what a killed process leaves behind
    FAILED = "failed"
    PARTIAL = "partial"  # some of it is in effect; never shown as done
    DONE = "done"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """Where a step stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.PLANNED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.RUNNING: frozenset({RunState.DONE, RunState.FAILED, RunState.PARTIAL, RunState.CANCELLED}),
    RunState.FAILED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.PARTIAL: frozenset({RunState.RUNNING}),  # what is in effect cannot be called cancelled
    RunState.DONE: frozenset(),
    RunState.CANCELLED: frozenset(),
}

# A resumed run takes over the state a killed process left.
RESUMABLE = frozenset({RunState.PLANNED, RunState.RUNNING, RunState.FAILED, RunState.PARTIAL})


def before(state: RunState) -> list[str]:
    """Return the states from which a run can move to ``state``."""
    return [origin.value for origin, targets in MOVES.items() if state in targets]
