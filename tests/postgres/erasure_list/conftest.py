"""An erasure list on a real control database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from obhut.erasure import ledger
from obhut.erasure.entries import Action, NewTombstone
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import Settings


@pytest.fixture
def clock() -> FixedClock:
    """Give a clock that stands in November 2026."""
    return FixedClock(datetime(2026, 11, 23, 9, 30, tzinfo=UTC))


@pytest.fixture
def opened_list(control: Settings) -> Iterator[Settings]:
    """Open a fresh, empty list."""
    ledger.open_ledger(control)
    yield control
    ledger.close_ledger()


@pytest.fixture
def new() -> Callable[..., NewTombstone]:
    """Give a function that makes a tombstone to be recorded."""

    def make(
        key: int | str, *, fingerprint: str = "", database: str = "courses", action: Action = Action.ERASE, kind: str = "user"
    ) -> NewTombstone:
        return NewTombstone(database, "ctl_1", kind, (str(key),), action, "map-1", "ins_1", fingerprint)

    return make
