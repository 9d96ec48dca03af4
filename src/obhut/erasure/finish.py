"""What is left to do after erasures: those that a crash interrupted, and rows that were kept for a period that is over."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

from obhut.erasure import known, views
from obhut.erasure.entries import Action, State, Tombstone
from obhut.erasure.erase import Eraser, Outcome
from obhut.erasure.guarded import Guard, carry_out_guarded
from obhut.erasure.plan import cohort_of, keep_periods
from obhut.foundation.clock import Clock
from obhut.foundation.ids import RunId, new_id
from obhut.foundation.settings import Settings


def finish(
    settings: Settings,
    database: str,
    clock: Clock,
    *,
    older_than: timedelta = timedelta(),
    chunk: int = 10_000,
    guard: Guard | None = None,
) -> list[Outcome]:
    """Carry every recorded erasure of a database to its end, as after a crash.

    Args:
        settings: the installation.
        database: name of the protected database.
        clock: tells when.
        older_than: leave younger ones to the process that recorded them.
        chunk: people a transaction at the most.
        guard: names those who are to be left alone after all; their tombstones are lifted.

    Raises:
        ErasureIncompleteError, DatabaseError: as :meth:`Eraser.erase`; what was finished before stays finished.
    """
    outcomes = []
    with Eraser(settings, database) as eraser:
        eraser.will_settle(clock)
        for tombstones in known.in_state(database, State.RECORDED, size=chunk):
            by_kind: dict[tuple[str, Action], list[Tombstone]] = defaultdict(list)
            for tombstone in (item for item in tombstones if clock.now() - item.erased_at >= older_than):
                by_kind[tombstone.subject_kind, tombstone.action].append(tombstone)
            eraser.checked()
            for (kind, action), members in by_kind.items():
                if guard is not None and action is Action.ANONYMISE:
                    outcomes.append(carry_out_guarded(eraser, kind, members, clock, guard).outcome)
                    continue
                executed, verification = eraser.carry_out(members, clock)
                run = RunId(new_id("run"))
                outcomes.append(eraser.conclude(run, kind, action, members, executed, verification, clock, already=0))
    return outcomes


def sweep_kept(settings: Settings, database: str, clock: Clock, *, chunk: int = 10_000) -> int:
    """Delete or anonymise rows that were kept on a legal ground whose period is over; return the number of rows.

    Idempotent: a person whose kept rows are gone costs one look.
    """
    rows = 0
    with Eraser(settings, database) as eraser:
        periods = keep_periods(eraser.graph)
        if not periods:
            return 0
        # Here no recorded tombstone tells the next run that one was killed before the refresh.
        stale = views.Pending(settings.state.directory, database)
        interrupted = bool(stale)
        for tombstones in known.in_state(database, State.EFFECTIVE, size=chunk):
            due = [tombstone for tombstone in tombstones if cohort_of(periods, tombstone.action, tombstone.erased_at, clock.now()).expired]
            if due:
                stale.note()
                executed, _ = eraser.carry_out(due, clock, refresh=False)
                rows += executed.deleted + executed.changed
        if rows or interrupted:
            views.refresh(eraser.session, eraser.graph)
        stale.clear()
    return rows
