"""Time as an argument, so that retention and expiry can be tested with a moved clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time; always aware, always UTC."""

    def now(self) -> datetime:
        """Return the current moment in UTC."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the current moment in UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, moment: datetime) -> None:
        self._moment = aware(moment)

    def now(self) -> datetime:
        """Return the moment that was set."""
        return self._moment

    def move(self, by: timedelta) -> None:
        """Move the clock by a span, forward or back."""
        self._moment += by


class OffsetClock:
    """The machine's clock, shifted by a constant: lets a whole process live in another month."""

    def __init__(self, offset: timedelta) -> None:
        self._offset = offset

    def now(self) -> datetime:
        """Return the shifted moment in UTC."""
        return datetime.now(UTC) + self._offset


def aware(moment: datetime) -> datetime:
    """Return the moment in UTC.

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return moment.astimezone(UTC)


def stamp(moment: datetime) -> str:
    """Return the moment as RFC 3339 text in UTC with microseconds, the one spelling used in hashes and signatures."""
    return aware(moment).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
