"""A key table on a real control database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import Settings
from obhut.keystore.subjects import Keyring


@pytest.fixture
def clock() -> FixedClock:
    """Give a clock that stands in November 2026."""
    return FixedClock(datetime(2026, 11, 23, 9, 30, tzinfo=UTC))


@pytest.fixture
def keyring(control: Settings, clock: FixedClock) -> Iterator[Keyring]:
    """Give the key table of a fresh installation with the local key store."""
    with Keyring(control, clock=clock) as opened:
        yield opened
