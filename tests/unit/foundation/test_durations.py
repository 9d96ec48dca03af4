"""ISO 8601 durations."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.foundation.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("P7D", timedelta(days=7)),
        ("P2Y", timedelta(days=730)),
        ("P1M", timedelta(days=30)),
        ("P1W", timedelta(days=7)),
        ("PT12H", timedelta(hours=12)),
        ("P1DT1H1M1.5S", timedelta(days=1, hours=1, minutes=1, seconds=1.5)),
        ("-P36D", timedelta(days=-36)),
        ("PT0S", timedelta()),
    ],
)
def test_a_duration_is_read(text, span):
    """Each component counts its own length; a sign in front turns the whole span."""
    assert parse_duration(text) == span


@pytest.mark.parametrize("text", ["", "P", "PT", "P1DT", "7 days", "P1H", "1D", "P-1D", "P99999999999D"])
def test_what_is_no_duration_is_refused(text):
    """Anything else is refused, and the refusal does not repeat the text."""
    with pytest.raises(ValueError, match="duration") as caught:
        parse_duration(text)
    assert not text or text not in str(caught.value).replace("P7D", "").replace("PT12H", "") or text == "P"


@given(st.timedeltas(min_value=timedelta(days=-4000), max_value=timedelta(days=4000)))
def test_what_is_written_is_read_back(span):
    """Formatting and reading are inverse for every span."""
    assert parse_duration(format_duration(span)) == span
