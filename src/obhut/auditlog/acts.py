"""What Obhut itself did becomes entries of the logs of those it concerns.

The outbox is filled by triggers in the transactions that do things (migration ``0002``), so that no path can forget it; it is emptied in
the transaction that makes the entries durable, so that a crash neither loses an act nor says it twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from obhut.auditlog import entries
from obhut.auditlog.entries import Entry
from obhut.auditlog.log import STATEMENTS, Log
from obhut.foundation.clock import Clock
from obhut.postgres.connections import Session

_BATCH: Final = 500  # acts; one that concerns everybody is an entry for each controller of its database


def note(session: Session, *, controller: str | None, database: str, name: str, detail: Mapping[str, str | int], clock: Clock) -> None:
    """Note an act that no other table stands for, such as an export.

    Args:
        session: on the control database.
        controller: whose log says it; None for every controller of the database.
        database: the protected database.
        name: ``<noun>.<event>``.
        detail: ids, counts and codes; never a personal value.
        clock: the time of the act.
    """
    session.execute(STATEMENTS["note"], (controller, database, clock.now(), name, json.dumps(dict(detail))))


def drain(session: Session, log: Log, database: str) -> int:
    """Append everything that was done to the logs; returns how many acts were settled.

    Args:
        session: on the control database.
        log: the open logs of the database's controllers.
        database: the protected database.
    """
    settled = 0
    while rows := session.rows(STATEMENTS["acts"], (database, _BATCH)):
        everybody = [row[0] for row in session.rows(STATEMENTS["controllers_of"], (database,))]
        batch: dict[str, list[Entry]] = {}
        for identifier, controller, of, at, name, detail in rows:
            entry = _entry(identifier, of, at, name, detail)
            for owner in [controller] if controller else everybody:
                batch.setdefault(owner, []).append(entry)
        log.append_all(batch, settled=[row[0] for row in rows])
        settled += len(rows)
    return settled


def pending(session: Session) -> tuple[int, datetime | None]:
    """Return how many acts no log says yet, and when the oldest was done."""
    count, oldest = session.row(STATEMENTS["pending"]) or (0, None)
    return count, oldest


def _entry(identifier: int, database: str, at: datetime, name: str, detail: Mapping[str, object]) -> Entry:
    said = {key: value if isinstance(value, int) else str(value) for key, value in detail.items() if value not in {None, ""}}
    return entries.action(at=at, name=name, database=database, detail={"outbox": identifier, **said})
