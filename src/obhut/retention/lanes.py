"""Anonymise crowds in two lanes: while one waits for the erasure list, the other changes rows.

Each part of a crowd is its own transaction with its own people, whichever lane takes it, so nothing that must go together is torn apart.
Two lanes are opened only where the map is a plain tree of rows of one person each (the short way of :mod:`obhut.erasure.direct`): of a
parent that two people share, each lane would see the other's half still standing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import Self

from obhut.erasure import ledger
from obhut.erasure.entries import Action
from obhut.erasure.erase import Eraser
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.postgres.control import close_control
from obhut.retention.guard import ActivityGuard, guarding

Key = tuple[str, ...]
LANES = 2  # more would wait for the one writer of the erasure list
Work = Callable[[Eraser, ActivityGuard, Sequence[Key]], None]


class Lanes:
    """The lanes of one run; the second is opened when a crowd first needs it, and closed with the block.

    Args:
        settings: the installation.
        eraser: of the first lane.
        guard: of the first lane.
        clock: tells when.
    """

    def __init__(self, settings: Settings, eraser: Eraser, guard: ActivityGuard, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._open = [(eraser, guard)]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Return the lanes."""
        return self

    def __exit__(self, *details: object) -> None:
        """Close what was opened beside the first lane."""
        self._stack.close()

    def each(self, kind: str, parts: Sequence[Sequence[Key]], work: Work, meanwhile: Callable[[], None]) -> None:
        """Do the work for each part, and ``meanwhile``, in the caller's thread, something that touches neither lane.

        Raises:
            ObhutError: the first failure; parts that were begun are carried to their end, the others are not begun.
        """
        eraser, guard = self._open[0]
        if len(parts) < LANES or eraser.short_way(kind, Action.ANONYMISE, self._clock, len(parts[0])) is None:
            meanwhile()
            for part in parts:
                work(eraser, guard, part)
            return
        self._widen()
        waiting: SimpleQueue[Sequence[Key]] = SimpleQueue()
        for part in parts:
            waiting.put(part)
        with ThreadPoolExecutor(LANES, "lane") as pool:
            lanes = [pool.submit(self._run, *lane, waiting, work) for lane in self._open]
            meanwhile()
        for ended in lanes:
            ended.result()

    def _run(self, eraser: Eraser, guard: ActivityGuard, waiting: SimpleQueue[Sequence[Key]], work: Work) -> None:
        try:
            while (part := _next(waiting)) is not None:
                work(eraser, guard, part)
        finally:
            while _next(waiting) is not None:
                pass  # after a failure the other lane must not begin anything
            eraser.change_thread()
            ledger.places().close()  # this thread's connections
            close_control(self._settings)

    def _widen(self) -> None:
        while len(self._open) < LANES:
            database = self._open[0][0].database
            eraser = self._stack.enter_context(Eraser(self._settings, database))
            guard = self._stack.enter_context(guarding(self._settings, database, self._clock))
            self._open.append((eraser, guard))
        for eraser, _ in self._open:
            eraser.checked()
            eraser.archive_map()  # not by two threads at once
            eraser.change_thread()


def _next(waiting: SimpleQueue[Sequence[Key]]) -> Sequence[Key] | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None
