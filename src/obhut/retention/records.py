"""What each sweep did, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from obhut.foundation.actors import Actor
from obhut.postgres.control import Deferred, control_safe
from obhut.retention.plan import RulePlan
from obhut.retention.rows import RowPlan
from obhut.retention.vocabulary import Obstacle, SweepState

if TYPE_CHECKING:
    from obhut.retention import models
else:
    models = Deferred("obhut.retention.models")


@dataclass(slots=True)
class Numbers:
    """Counted while a rule is carried out.

    Attributes:
        told: notices handed over.
        returned: people whose case was closed because they came back or are gone.
        anonymised: people.
        spared: people who were active again when their row was locked.
        left: people who are due and wait for another day.
        rows_changed: rows changed or deleted.
    """

    told: int = 0
    returned: int = 0
    anonymised: int = 0
    spared: int = 0
    left: int = 0
    rows_changed: int = 0


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """One rule of one run; ``rule`` is a rule's id or a table's name."""

    id: int
    run: str
    database: str
    rule: str
    state: SweepState
    obstacle: Obstacle
    error_code: str
    started_at: datetime
    finished_at: datetime | None
    people: int
    due: int
    held: int
    told: int
    returned: int
    anonymised: int
    spared: int
    left: int
    rows_changed: int


def begin(run: str, rule: str, plan: RulePlan, actor: Actor, now: datetime) -> int:
    """Record that a rule is being carried out, with what was seen before; return the number of the record."""
    seen = plan.situation
    with control_safe():
        return int(
            models.Sweep.objects.create(
                run=run,
                database=plan.rule.database,
                rule=rule,
                state=SweepState.RUNNING.value,
                obstacle=plan.obstacle.value,
                actor=str(actor),
                started_at=now,
                people=seen.people,
                due=seen.due,
                held=seen.held,
            ).pk
        )


def begin_rows(run: str, database: str, plan: RowPlan, actor: Actor, now: datetime) -> int:
    """Record that the rows of a table are being carried out."""
    with control_safe():
        return int(
            models.Sweep.objects.create(
                run=run,
                database=database,
                rule=plan.table,
                state=SweepState.RUNNING.value,
                obstacle=plan.obstacle.value,
                actor=str(actor),
                started_at=now,
                due=plan.rows,
            ).pk
        )


def end(record: int, numbers: Numbers, now: datetime, error_code: str = "") -> SweepRecord:
    """Record how it ended."""
    state = SweepState.FAILED if error_code else SweepState.DONE
    with control_safe():
        models.Sweep.objects.filter(pk=record).update(state=state.value, finished_at=now, error_code=error_code, **asdict(numbers))
        return _record(models.Sweep.objects.get(pk=record))


def interrupt(database: str, now: datetime) -> int:
    """Mark records that a killed process left; the caller holds the lock of the database, so nobody works on them."""
    with control_safe():
        return int(
            models.Sweep.objects.filter(database=database, state=SweepState.RUNNING.value).update(
                state=SweepState.FAILED.value, finished_at=now, error_code="interrupted"
            )
        )


def latest(database: str, rule: str) -> SweepRecord | None:
    """Return the youngest record of a rule or table."""
    with control_safe():
        row = models.Sweep.objects.filter(database=database, rule=rule).order_by("-started_at", "-id").first()
    return None if row is None else _record(row)


def _record(row: models.Sweep) -> SweepRecord:
    return SweepRecord(
        row.pk,
        row.run,
        row.database,
        row.rule,
        SweepState(row.state),
        Obstacle(row.obstacle),
        row.error_code,
        row.started_at,
        row.finished_at,
        row.people,
        row.due,
        row.held,
        row.told,
        row.returned,
        row.anonymised,
        row.spared,
        row.left,
        row.rows_changed,
    )
