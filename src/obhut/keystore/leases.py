"""Which processes may hold keys in memory, and until when (docs/spec/audit-log-keys.md, section 6).

A process renews its lease in the control database before it keeps a key, and forgets all keys when the lease ends. The server's clock
measures the lease there, the process's own monotonic clock here, started before the renewal is asked for. So whoever destroys a key knows
when no process can have it any more, whether the process answers, hangs or was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from obhut.foundation.ids import new_id
from obhut.journal.processes import Owner, myself
from obhut.keystore.errors import EvictionTimeoutError
from obhut.postgres.connections import Session
from obhut.postgres.sql import load

SQL: Final = load("obhut.keystore", "keys")
NOBODY: Final = ""
_ASK_EVERY: Final = 0.25  # seconds between two looks at the counter
_PAUSE: Final = 0.02
_EARLY: Final = 0.9  # of a lease; then the keys go, so that a late thread is not a broken promise
_PATIENCE: Final = 3  # leases; a process that renews without taking note is broken


class Lease:
    """This process's permission to hold keys.

    Attributes:
        id: opaque name of the holder.
        seconds: length of a lease.
        until: on the monotonic clock; keys must be gone by then.
        seen: the counter up to which destroyed keys are forgotten here.
    """

    def __init__(self, seconds: float) -> None:
        self.id = new_id("hold")
        self.seconds = seconds
        self.until = 0.0
        self.seen = -1
        self._asked = float("-inf")
        self._ask_every = min(_ASK_EVERY, seconds / 4)

    @property
    def fresh(self) -> bool:
        """Whether the counter was looked at a moment ago."""
        now = time.monotonic()
        return now - self._asked < self._ask_every and now < self.until

    def doubt(self) -> None:
        """Look at the counter again before the next key."""
        self._asked = float("-inf")

    def renew(self, session: Session, forget: Callable[[int, int], None]) -> int:
        """Renew, forget what was destroyed meanwhile, then say so; return the counter.

        Args:
            session: on the control database.
            forget: called with the counter seen before and the one of now.
        """
        started, me = time.monotonic(), myself()
        values = {"id": self.id, "boot": me.boot_id, "pid": me.pid, "started": me.pid_started, "seconds": self.seconds}
        counter, seen = session.row(SQL["hold"], values) or (0, 0)
        if self.seen not in {-1, counter}:
            forget(self.seen, counter)
        if counter > seen:
            session.execute(SQL["seen"], {"number": counter, "id": self.id})
        self.seen, self.until, self._asked = counter, started + self.seconds * _EARLY, started
        return int(counter)

    def release(self, session: Session) -> None:
        """Hold nothing any more; the caller has forgotten its keys."""
        if self.until:
            session.execute(SQL["release"], {"id": self.id})
        self.until, self.seen = 0.0, -1


def await_forgotten(session: Session, number: int, lease_seconds: float, *, me: str = NOBODY) -> float:
    """Wait until no other process can hold a key that was destroyed under this number; return the seconds waited.

    Raises:
        EvictionTimeoutError: a process goes on renewing its lease and does not take note.
    """
    started = time.monotonic()
    while _holding(session, number, me):
        if time.monotonic() - started > _PATIENCE * max(lease_seconds, 1.0):
            raise EvictionTimeoutError(
                "a process holds keys and takes no note of their destruction",
                'Which process hangs? Stop it; the tombstones stay recorded, and "obhut erase --finish" confirms them.',
            )
        time.sleep(_PAUSE)
    session.execute(SQL["expire"])
    return time.monotonic() - started


def _holding(session: Session, number: int, me: str) -> bool:
    holding = False
    for holder, boot, pid, pid_started, _ in session.rows(SQL["holders"], {"number": number, "id": me}):
        owner = Owner(boot, pid, pid_started)
        if owner.here and not owner.alive:
            session.execute(SQL["release"], {"id": holder})
        else:
            holding = True
    return holding
