"""The calendar of retention: whole days of the controller's time zone. Pure.

A period begins with the day of the last activity, which is not counted, and is over when its last day is (§ 187 (1), § 188 BGB; Regulation
1182/71, Art. 3). Whoever was last seen on 29 February 2024 is inactive for more than two years from 1 March 2026 on: P2Y ends on
28 February, the last day of that month. Since only whole days count, neither a change of clocks nor a leap second can make it a day less.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from obhut.erasure.plan import add_period, earlier_by
from obhut.retention.errors import RuleInvalidError

_DAY = timedelta(days=1)


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name such as ``Europe/Berlin``.

    Raises:
        RuleInvalidError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise RuleInvalidError("the time zone is unknown", "Use a name of the IANA time zone database, such as Europe/Berlin.") from None


def today(now: datetime, zone: ZoneInfo) -> date:
    """Return the day of a moment in a time zone."""
    return now.astimezone(zone).date()


def last_day(seen: date, period: str) -> date:
    """Return the last day of a period that began on the day somebody was last seen, by the calendar."""
    return add_period(datetime.combine(seen, time(), UTC), period).date()


def is_over(seen: date, period: str, day: date) -> bool:
    """Whether on a day the period is over: the day lies behind its last one."""
    return last_day(seen, period) < day


def last_seen_day(day: date, period: str) -> date:
    """Return the youngest day of last activity whose period is over on a day."""
    seen = earlier_by(datetime.combine(day, time(), UTC), period).date()
    # The calendar is not symmetric: 28 February less two years misses the 29th, whose period ends on the same day.
    while not is_over(seen, period, day):
        seen -= _DAY
    while is_over(seen + _DAY, period, day):
        seen += _DAY
    return seen


def cutoff(day: date, period: str, zone: ZoneInfo) -> datetime:
    """Return the moment before which a last activity must lie for its period to be over on a day."""
    return day_begin(last_seen_day(day, period) + _DAY, zone)


def day_begin(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment (UTC) of a day in a time zone, also where its midnight is skipped."""
    # fold=0 takes the offset in force before a gap, which gives the moment of the change itself: the day's first.
    return datetime.combine(day, time(), zone).astimezone(UTC)
