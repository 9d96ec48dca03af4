"""What happens on schedule: acts become entries, months whose retention has ended go."""

from __future__ import annotations

from obhut.auditlog import acts, reading, retain
from obhut.auditlog.log import Log
from obhut.auditlog.store import open_store
from obhut.controllers import register
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.keystore import open_keystore
from obhut.keystore.subjects import unassigned
from obhut.postgres.control import control_session


def say_acts(settings: Settings, database: str, clock: Clock) -> int:
    """Append what Obhut did in a database to the controllers' logs; returns how many acts were settled."""
    with control_session("obhut audit acts") as session:
        if not acts.pending(session)[0]:
            return 0
        return acts.drain(session, Log(session, open_store(settings), open_keystore(settings), database, clock), database)


def end_periods(settings: Settings, database: str, clock: Clock) -> int:
    """Remove the months of a database's controllers that are past their retention; returns how many."""
    owners = [record.id for record in register.list_controllers(database)]
    with control_session("obhut audit retention") as session:
        heads = reading.logs(session, [*owners, unassigned(database)])
        due = retain.plan(heads, retain.retentions(session), settings.audit_log.retention, clock.now())
        return retain.remove(session, open_store(settings), open_keystore(settings), due, clock)
