"""The calendar of retention: whole days, leap years, time zones and the changes of their clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from obhut.retention.dates import cutoff, day_begin, is_over, last_day, last_seen_day, today, zone_of
from obhut.retention.errors import RuleInvalidError

DAYS = st.dates(date(1972, 1, 1), date(2090, 12, 31))
PERIODS = st.one_of(
    st.sampled_from(["P2Y", "P1Y", "P18M", "P1M", "P6W", "P30D", "P1D", "P2Y1D", "P1Y6M", "P1M30D", "P10Y"]),
    st.builds(lambda y, m, d: f"P{y}Y{m}M{d}D", st.integers(0, 12), st.integers(0, 30), st.integers(1, 400)),
)
# Midnights that are skipped (São Paulo, Beirut, Havana), a day that is skipped (Apia), half hours, both ends of the day.
ZONES = st.sampled_from(
    ["Europe/Berlin", "America/Sao_Paulo", "Asia/Beirut", "America/Havana", "Pacific/Apia", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
)


@pytest.mark.parametrize(
    ("seen", "period", "last"),
    [
        ("2024-02-29", "P2Y", "2026-02-28"),
        ("2022-02-28", "P2Y", "2024-02-28"),
        ("2024-02-29", "P4Y", "2028-02-29"),
        ("2024-03-31", "P1M", "2024-04-30"),
        ("2024-12-31", "P2M", "2025-02-28"),
        ("2024-01-30", "P1M1D", "2024-03-01"),
        ("2023-11-05", "P2W", "2023-11-19"),
    ],
)
def test_periods_end_by_the_calendar(seen, period, last):
    """The last day of a period bears the number of its first, or is the last of a month that has no such day."""
    assert last_day(date.fromisoformat(seen), period) == date.fromisoformat(last)
    assert not is_over(date.fromisoformat(seen), period, date.fromisoformat(last))
    assert is_over(date.fromisoformat(seen), period, date.fromisoformat(last) + timedelta(days=1))


@given(seen=DAYS, more=st.integers(0, 400), period=PERIODS)
def test_who_was_seen_later_is_due_no_earlier(seen, more, period):
    """Periods keep the order of the days they begin with, so that one day separates those who are due from those who are not."""
    assert last_day(seen, period) <= last_day(seen + timedelta(days=more), period)


@given(seen=DAYS, period=PERIODS, day=DAYS)
def test_one_day_separates_those_who_are_due(seen, period, day):
    """Somebody is due on a day exactly when last seen on the youngest such day or before."""
    assert is_over(seen, period, day) == (seen <= last_seen_day(day, period))


@given(
    seen=st.datetimes(datetime(1972, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC)),
    now=st.datetimes(datetime(1975, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC)),
    period=PERIODS,
    name=ZONES,
)
def test_a_moment_before_the_cutoff_is_a_day_whose_period_is_over(seen, now, period, name):
    """What the database is asked, a moment, and what the rule says, days of the controller's zone, are the same for everybody."""
    zone = zone_of(name)
    day = today(now, zone)
    assert (seen < cutoff(day, period, zone)) == is_over(today(seen, zone), period, day)


@given(seen=st.datetimes(datetime(1990, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC)), name=ZONES)
@example(seen=datetime(2010, 1, 1, tzinfo=UTC), name="Pacific/Apia")
def test_nobody_is_due_before_two_years_of_hours_are_over(seen, name):
    """At the first moment at which somebody is due by P2Y 730 days have passed, less what the zone's clocks skipped: Samoa once a day."""
    zone = zone_of(name)
    first = day_begin(last_day(today(seen, zone), "P2Y") + timedelta(days=1), zone)
    assert first - seen > timedelta(days=730) - (timedelta(hours=26) if name == "Pacific/Apia" else timedelta(hours=2))
    assert seen < cutoff(today(first, zone), "P2Y", zone)
    assert not seen < cutoff(today(first - timedelta(microseconds=1), zone), "P2Y", zone)


@pytest.mark.parametrize("name", ["Europe/Berlim", "", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_refused(name):
    """A zone that the database of zones does not have is an error, never UTC."""
    with pytest.raises(RuleInvalidError):
        zone_of(name)
