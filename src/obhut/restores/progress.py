"""How a restore tells how far it is, to whichever face listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float], None]


class Progress(Protocol):
    """A listener."""

    def phase(self, title: str, total: float | None, unit: str) -> AbstractContextManager[Advance]:
        """Begin a phase; the function given advances it by a number of units and may be called from several threads.

        Args:
            title: what is being done; a fixed sentence.
            total: number of units, if known.
            unit: what is counted.
        """
        ...


class Silent:
    """Tells nobody."""

    @contextmanager
    def phase(self, title: str, total: float | None, unit: str) -> Iterator[Advance]:
        """Ignore the phase."""
        del title, total, unit
        yield lambda _by: None
