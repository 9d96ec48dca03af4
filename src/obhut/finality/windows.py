"""The window in which tables may be rewritten. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from obhut.finality.errors import FinalityError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(?P<day>daily|mon|tue|wed|thu|fri|sat|sun) (?P<from>\d\d:\d\d)-(?P<to>\d\d:\d\d)")


def upcoming(window: str, zone: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Return beginning and end (UTC) of the window that is open now, else of the next one; None where there is none.

    Args:
        window: ``daily 02:00-04:00`` or ``sun 23:00-02:00`` (over midnight); "" for none.
        zone: IANA name.
        now: the moment.

    Raises:
        FinalityError: the window or the zone makes no sense.
    """
    if not window:
        return None
    named, first, last, place = _read(window, zone)
    today = now.astimezone(place).date() - timedelta(days=1)
    for ahead in range(9):
        day = today + timedelta(days=ahead)
        if named not in {"daily", _DAYS[day.weekday()]}:
            continue
        begin = datetime.combine(day, first, place).astimezone(UTC)
        end = datetime.combine(day if last > first else day + timedelta(days=1), last, place).astimezone(UTC)
        if now < end and begin < end:
            return begin, end
    raise AssertionError("every day of the week is within eight days")


def _read(window: str, zone: str) -> tuple[str, time, time, ZoneInfo]:
    found = _FORM.fullmatch(window)
    try:
        place = ZoneInfo(zone)
        if found and found["from"] != found["to"]:
            return found["day"], time.fromisoformat(found["from"]), time.fromisoformat(found["to"]), place
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise FinalityError("the window for rewriting tables makes no sense", 'Write window = "sun 02:00-04:00" and an IANA time zone.')


def is_open(window: str, zone: str, now: datetime) -> bool:
    """Whether tables may be rewritten now."""
    found = upcoming(window, zone, now)
    return found is not None and found[0] <= now
