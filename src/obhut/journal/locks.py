"""One runner a run: advisory locks on a session of their own, which ends with the process whatever becomes of it.

A second session, because Django's may be closed and reopened in between; one for all runs of the process, because opening one costs
more than a small erasure.
"""

from __future__ import annotations

import os
import threading
import time

from obhut.postgres.connections import Session
from obhut.postgres.control import control_session, opened_url

_HELD = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0))
"""


class _Keeper:
    """The locks of this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._of: tuple[int, str] | None = None
        self.runs: set[str] = set()

    def session(self) -> Session:
        """Return the open session; after a fork, a lost connection or a change of control database a new one, without locks."""
        wanted = (os.getpid(), opened_url())
        if self._session is None or self._session.closed or self._of != wanted:
            if self._session is not None and self._of is not None and self._of[0] == wanted[0]:
                self._session.close()
            self.runs.clear()
            self._session, self._of = control_session("obhut journal"), wanted
        return self._session

    def take(self, run_id: str, wait: float) -> bool:
        deadline = time.monotonic() + wait
        while True:
            with self._guard:
                session = self.session()
                # A session may take its own lock twice, which would let two threads run one run.
                if run_id in self.runs:
                    return False
                if session.value("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (run_id,)):
                    self.runs.add(run_id)
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)

    def release(self, run_id: str) -> None:
        with self._guard:
            session = self.session()
            if run_id in self.runs:
                self.runs.discard(run_id)
                session.value("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (run_id,))

    def held(self, run_id: str) -> bool:
        with self._guard:
            return bool(self.session().value(_HELD, (run_id,)))

    def close(self) -> None:
        with self._guard:
            if self._session is not None and self._of is not None and self._of[0] == os.getpid():
                self._session.close()
            self._session = None
            self.runs.clear()


_keeper = _Keeper()


def take(run_id: str, wait: float = 0) -> bool:
    """Return whether this process now is the runner of a run that it was not before; waits up to ``wait`` seconds."""
    return _keeper.take(run_id, wait)


def release(run_id: str) -> None:
    """Stop being the runner."""
    _keeper.release(run_id)


def held(run_id: str) -> bool:
    """Whether any process is the runner."""
    return _keeper.held(run_id)


def mine(run_id: str) -> bool:
    """Whether this process is the runner."""
    return run_id in _keeper.runs


def close() -> None:
    """Let go of every run and close the session."""
    _keeper.close()
