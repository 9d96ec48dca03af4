"""Whole periods go when their retention has ended; their last checkpoint stays, so that the chain of periods can still be followed.

Never cuts a period, never takes the last one, and never the one that is being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from obhut.auditlog.errors import LogDamagedError
from obhut.auditlog.log import partition_of
from obhut.auditlog.reading import STATEMENTS, LogHead, logs
from obhut.auditlog.signing import Signer, SigningKeys
from obhut.auditlog.store import Store
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.foundation import faultpoints
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier


@dataclass(frozen=True, slots=True)
class Due:
    """A period past its retention."""

    head: LogHead
    ended: datetime  # first moment after the period
    kept: timedelta


def plan(heads: Sequence[LogHead], retentions: dict[str, timedelta], default: timedelta, now: datetime) -> list[Due]:
    """Return the periods whose retention has ended, the oldest first; pure."""
    due = []
    for controller, found in groupby(sorted(heads, key=lambda head: (head.controller, head.period)), key=lambda head: head.controller):
        kept = retentions.get(controller, default)
        for head in list(found)[:-1]:
            ended = end_of(head.period)
            if head.removed_at is None and ended + kept <= now:
                due.append(Due(head, ended, kept))
    return sorted(due, key=lambda one: (one.head.period, one.head.controller))


def end_of(period: str) -> datetime:
    """Return the first moment after a period."""
    year, month = map(int, period.split("-"))
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def retentions(session: Session) -> dict[str, timedelta]:
    """Return the retention of each controller that wants another one than the default."""
    return {controller: timedelta(days=days) for controller, days in session.rows(STATEMENTS["retentions"])}


def set_retention(session: Session, controller: str, kept: timedelta, actor: Actor, clock: Clock) -> None:
    """Keep a controller's logs for another time than the default, whole days."""
    session.execute(STATEMENTS["set_retention"], (controller, max(1, kept.days), str(actor), clock.now()))


def remove(session: Session, store: Store, keys: SigningKeys, due: Sequence[Due], clock: Clock) -> int:
    """Remove periods; returns how many. What a killed run has left is removed by the next.

    Raises:
        LogDamagedError: a period's tiles do not give its root: nobody could tell whether it was complete, so it stays.
    """
    for one in due:
        _remove(session, store, keys, one.head, clock)
    for head in logs(session):
        if head.removed_at is not None:
            _remove_files(store, head)
    return len(due)


def _remove(session: Session, store: Store, keys: SigningKeys, head: LogHead, clock: Clock) -> None:
    files, now = head.files(store), clock.now()
    if files.root_at(head.size) != head.root:
        raise LogDamagedError(f"{files.base}: the tiles do not give the root of the control database", "Look into it before anything goes.")
    last = Signer.of(keys, head.controller).hand_out(Checkpoint(head.origin, head.size, head.root), now)
    # First nobody finds the entries any more, then they go: a crash between the two hides too much, never too little.
    with session.transaction():
        session.execute(STATEMENTS["removed"], (now, str(last), head.id))
        partition = session.value(STATEMENTS["drop_partition"], (partition_of(head.month),))
        if partition and session.value(STATEMENTS["alone"], (head.period,)):
            session.execute(SQL("DROP TABLE {}").format(Identifier(partition)))
        elif partition:
            session.execute(STATEMENTS["drop_rows"], (head.month, head.id))
    faultpoints.reach("auditlog.retain.hidden")
    store.put(f"{files.base}/checkpoint", str(last).encode())
    store.sync()
    _remove_files(store, head)


def _remove_files(store: Store, head: LogHead) -> None:
    for name in ("tile", "blob"):
        store.remove(f"{head.files(store).base}/{name}")
