"""The parts of ``obhut serve`` that are loops, not jobs: WAL receiver, archiver, heartbeat, audit.

Each looks after all protected databases. An error of one database is logged by code and tried again with growing pauses, the other
databases are served meanwhile. A loop ends at SIGTERM or SIGINT, and takes its children with it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import structlog

from obhut.auditlog.capture import state as capture_state
from obhut.auditlog.capture.follow import follow
from obhut.backups import heartbeat, run
from obhut.backups.processes import Child
from obhut.backups.workshop import open_workshop
from obhut.foundation.clock import Clock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.postgres import control

_log = structlog.get_logger("obhut.serve")
_TICK: Final = 1.0  # seconds
_LOOK: Final = 5.0  # until a database whose audit log is off is asked again
ARCHIVE_EVERY: Final = 5.0
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


class Stop:
    """Tells a loop to end; set by a signal."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self, *_: object) -> None:
        """Ask the loop to end."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait; true as soon as the loop is to end."""
        return self._event.wait(max(seconds, 0))

    def __bool__(self) -> bool:
        return self._event.is_set()


@contextmanager
def stopping() -> Iterator[Stop]:
    """Give a Stop that SIGTERM and SIGINT set, for the block."""
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        _log.info("serve.stopping", signal=signal.Signals(number).name)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Turn:
    """When a database is due again, and how long to pause after the next failure."""

    due: float = 0.0
    pause: float = _PAUSE

    def failed(self) -> None:
        self.due = time.monotonic() + self.pause
        self.pause = min(self.pause * 2, _LONGEST_PAUSE)

    def done(self, every: float) -> None:
        self.due = max(self.due + every, time.monotonic())
        self.pause = _PAUSE


def beat(settings: Settings, stop: Stop) -> None:
    """Commit a heartbeat on each database at its interval."""

    def one(name: str) -> float:
        database = settings.database(name)
        point = heartbeat.beat(name, database.url)
        _log.debug("heartbeat", database=name, lsn=point.lsn, timeline=point.timeline)
        return float(database.backup.heartbeat)

    _each(settings, stop, "heartbeat", one)


def archive(settings: Settings, stop: Stop, clock: Clock) -> None:
    """Seal finished WAL segments into the archive, every few seconds if there are any."""

    def one(name: str) -> float:
        run.archive_wal(settings, name, clock)
        return ARCHIVE_EVERY

    _each(settings, stop, "archiver", one)


@dataclass(slots=True)
class _Receiver:
    turn: _Turn = field(default_factory=_Turn)
    child: Child | None = None
    begun: float = 0.0


def receive(settings: Settings, stop: Stop) -> None:
    """Keep a WAL receiver running for each database; one that was left by an earlier process is taken over."""
    receivers = {name: _Receiver() for name in settings.databases}
    try:
        while not stop:
            for name, one in receivers.items():
                if one.child is not None and not one.child.running:
                    _log.warning("receiver.ended", database=name)
                    one.child.end()
                    one.child = None
                    if time.monotonic() - one.begun > _LONGEST_PAUSE:
                        one.turn = _Turn()
                    one.turn.failed()
                if one.child is None and time.monotonic() >= one.turn.due and not stop:
                    _begin(settings, name, one)
            stop.wait(_TICK)
    finally:
        for one in receivers.values():
            if one.child is not None:
                one.child.end()


def audit(settings: Settings, stop: Stop, clock: Clock) -> None:
    """Follow the stream of each database whose audit log is on, one thread a database; one that fails is tried again."""

    def one(name: str) -> None:
        turn = _Turn()
        while not stop:
            try:
                if capture_state.find(name) is not None:
                    follow(settings, name, clock, lambda: bool(stop))
                turn = _Turn()
            except ObhutError as error:
                _log.error("serve.failed", part="audit", database=name, code=error.code)
                turn.failed()
            finally:
                control.close_control(settings)  # this thread's connection: nobody else will
            stop.wait(max(turn.due - time.monotonic(), _LOOK))

    threads = [threading.Thread(target=one, args=(name,), name=f"audit-{name}") for name in settings.databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _begin(settings: Settings, name: str, one: _Receiver) -> None:
    try:
        workshop = open_workshop(settings, name)
        _, archive_, engine = workshop.present()
        one.child = run.begin_receiver(workshop, engine)
        one.begun = time.monotonic()
        _log.info("receiver.started", database=name, system_identifier=str(archive_.system_identifier))
    except ObhutError as error:
        _log.error("receiver.failed", database=name, code=error.code)
        one.turn.failed()


def _each(settings: Settings, stop: Stop, part: str, one: Callable[[str], float]) -> None:
    """Call ``one`` for each database when it is due; it returns the seconds until the next time."""
    turns = {name: _Turn(due=time.monotonic()) for name in settings.databases}
    while not stop:
        for name, turn in turns.items():
            if stop or time.monotonic() < turn.due:
                continue
            try:
                turn.done(one(name))
            except ObhutError as error:
                _log.error("serve.failed", part=part, database=name, code=error.code)
                turn.failed()
        stop.wait(min((turn.due for turn in turns.values()), default=time.monotonic() + _TICK) - time.monotonic())
