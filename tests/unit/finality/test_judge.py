"""What can be said about traces, and when tables may be rewritten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.finality.errors import FinalityError
from obhut.finality.judge import Known, Seen, Surroundings, judge
from obhut.finality.objects import CATALOGUE, File
from obhut.finality.vocabulary import Place, TraceState
from obhut.finality.windows import is_open, upcoming

T = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FILES = [
    File(Place.HEAP, "public.a", "public.a", 1), File(Place.INDEX, "public.a_email", "public.a", 2),
    File(Place.STATISTICS, CATALOGUE, CATALOGUE, 3), File(Place.STATISTICS, "public.a", "public.a"),
]  # fmt: skip
AROUND = Surroundings("s1", None, 1_000, T + 40 * timedelta(days=1), True, timedelta(days=35), None)
SEEN = Seen("obs_1", "s1", T - HOUR, T)


def _known(since: timedelta, cleaned: timedelta | None = None) -> dict[tuple[Place, str], Known]:
    at = None if cleaned is None else T + cleaned
    return {(file.place, file.name): Known(T + since, 100, at, 200 if at else 0) for file in FILES}


def _states(seen: Seen, known: dict[tuple[Place, str], Known], around: Surroundings = AROUND) -> dict[Place, TraceState]:
    return {trace.place: trace.state for trace in judge(seen, FILES, known, around)}


def test_everything_built_anew_after_the_observation_was_settled_is_clean():
    """Files since then, statistics renewed, WAL overwritten, every copy younger: nothing is left."""
    assert set(_states(SEEN, _known(HOUR, HOUR)).values()) == {TraceState.GONE}


def test_a_file_from_before_is_never_clean():
    """A plain VACUUM moves the WAL's bound and nothing else."""
    states = _states(SEEN, _known(-HOUR, HOUR))
    assert (states[Place.HEAP], states[Place.INDEX], states[Place.BACKUPS]) == (TraceState.REMAINS,) * 3
    assert states[Place.WAL] is TraceState.REMAINS, "an index that was not rebuilt keeps its separators"


def test_before_it_is_settled_nothing_is_said():
    """As long as a snapshot sees the old rows, every place remains, whatever was rebuilt."""
    unsettled = Seen("obs_1", "s1", T - HOUR, None)
    assert set(_states(unsettled, _known(HOUR, HOUR)).values()) == {TraceState.REMAINS}


@given(st.integers(-100, 100), st.none() | st.integers(-100, 100), st.booleans(), st.none() | st.integers(0, 300))
def test_gone_needs_a_reason_after_the_settling(since, cleaned, known_backups, wal):
    """Heap and index are gone only with a file from later, statistics only when renewed later, the WAL only behind the cleaning."""
    known = _known(timedelta(minutes=since), None if cleaned is None else timedelta(minutes=cleaned))
    around = Surroundings("s1", None, wal, None, known_backups, timedelta(days=35), None)
    states = _states(SEEN, known, around)
    if since <= 0:
        assert TraceState.GONE not in {states[Place.HEAP], states[Place.INDEX], states[Place.WAL], states[Place.BACKUPS]}
    if cleaned is None or cleaned <= 0:
        assert states[Place.STATISTICS] is not TraceState.GONE
    if wal is None or wal <= 100:
        assert states[Place.WAL] is not TraceState.GONE
    if not known_backups:
        assert states[Place.BACKUPS] is not TraceState.GONE


def test_another_server_has_only_backups_left():
    """After a restore the old files are lost with their server; copies in backups have their date."""
    replaced = Surroundings("s2", T + HOUR, None, T - HOUR, True, timedelta(days=35), None)
    traces = {trace.place: trace for trace in judge(SEEN, FILES, {}, replaced)}
    assert {trace.state for place, trace in traces.items() if place is not Place.BACKUPS} == {TraceState.GONE}
    assert (traces[Place.BACKUPS].state, traces[Place.BACKUPS].when) == (TraceState.UNTIL, T + HOUR + timedelta(days=35))


def test_a_window_gives_tables_a_date():
    """What waits for a rewrite is gone by the end of the next window."""
    end = T + timedelta(days=3)
    around = Surroundings("s1", None, 1_000, None, False, timedelta(days=35), end)
    heap = next(trace for trace in judge(SEEN, FILES, _known(-HOUR), around) if trace.place is Place.HEAP)
    assert (heap.state, heap.when) == (TraceState.UNTIL, end)


@pytest.mark.parametrize(
    ("window", "zone", "now", "begin", "end"),
    [
        ("daily 02:00-04:00", "UTC", "2026-11-23T03:00Z", "2026-11-23T02:00Z", "2026-11-23T04:00Z"),
        ("daily 02:00-04:00", "UTC", "2026-11-23T04:00Z", "2026-11-24T02:00Z", "2026-11-24T04:00Z"),
        ("sun 02:00-04:00", "Europe/Berlin", "2026-11-23T12:00Z", "2026-11-29T01:00Z", "2026-11-29T03:00Z"),
        ("sun 23:00-02:00", "Europe/Berlin", "2026-11-23T00:30Z", "2026-11-22T22:00Z", "2026-11-23T01:00Z"),
    ],
)
def test_the_next_window(window, zone, now, begin, end):
    """The window that is open, else the next one, in the zone of the settings, also over midnight."""
    moment = datetime.fromisoformat(now)
    assert upcoming(window, zone, moment) == (datetime.fromisoformat(begin), datetime.fromisoformat(end))
    assert is_open(window, zone, moment) == (datetime.fromisoformat(begin) <= moment)


@pytest.mark.parametrize(("window", "zone"), [("sun 02:00-02:00", "UTC"), ("sun 25:00-26:00", "UTC"), ("sun 02:00-04:00", "Moon/Sea")])
def test_a_window_that_makes_no_sense_is_refused(window, zone):
    """No length, no such hour, no such zone."""
    with pytest.raises(FinalityError):
        upcoming(window, zone, T)
    assert upcoming("", "UTC", T) is None
