"""Switches capture off: what was committed is logged first, then a gap entry says that from here on nobody looks."""

from __future__ import annotations

from obhut.auditlog.capture import enable, gaps, state
from obhut.auditlog.capture.follow import follow
from obhut.auditlog.log import open_log
from obhut.controllers import register
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import Settings
from obhut.keystore.subjects import unassigned


def stop(settings: Settings, database: str, clock: Clock) -> None:
    """Read the stream to its end, write the gap entry, and take away what ``enable`` has made.

    Raises:
        NotEnabledError: capture is not on.
        CaptureBusyError: a process still reads the stream; it must end first.
    """
    state.get(database)
    follow(settings, database, clock, lambda: False, until_caught_up=True)
    entry = gaps.stopped(database, clock.now())
    with open_log(settings, database, clock) as log:
        controllers = [record.id for record in register.list_controllers(database)]
        # Written before the slot goes: a kill leaves an entry too many, never a silence.
        log.append_all({controller: [entry] for controller in (*controllers, unassigned(database))})
    reach("audit-stop.said")
    enable.disable(settings, database)
