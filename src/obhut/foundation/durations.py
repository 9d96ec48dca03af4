"""Spans of time as ISO 8601 text (``P7D``, ``PT90S``), the one spelling in settings, data map and command line.

Years and months have no fixed length; they are counted as 365 and 30 days, so that the same text is the same span on every day.
"""

from __future__ import annotations

import re
from datetime import timedelta

_PATTERN = re.compile(
    r"(?P<sign>[+-])?P"
    r"(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)
_LENGTHS = {
    "years": timedelta(days=365),
    "months": timedelta(days=30),
    "weeks": timedelta(weeks=1),
    "days": timedelta(days=1),
    "hours": timedelta(hours=1),
    "minutes": timedelta(minutes=1),
    "seconds": timedelta(seconds=1),
}


def parse_duration(text: str) -> timedelta:
    """Return the span that an ISO 8601 duration names, such as ``P35D`` or ``-PT90M``.

    Raises:
        ValueError: the text is no duration, names no component, or is out of range.
    """
    found = _PATTERN.fullmatch(text.strip())
    parts = {name: number for name, number in found.groupdict().items() if name != "sign" and number} if found else {}
    if not found or not parts or text.strip().endswith("T"):
        raise ValueError("not an ISO 8601 duration such as P7D or PT12H")
    try:
        span = sum((_LENGTHS[name] * float(number) for name, number in parts.items()), timedelta())
    except OverflowError:
        raise ValueError("a duration longer than can be counted") from None
    return -span if found["sign"] == "-" else span


def format_duration(span: timedelta) -> str:
    """Return the shortest ISO 8601 text in days, hours, minutes and seconds for a span."""
    sign = "-" if span < timedelta() else ""
    span = abs(span)
    hours, rest = divmod(span.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    second_text = f"{seconds}.{span.microseconds:06d}".rstrip("0").rstrip(".")
    days_text = f"{span.days}D" if span.days else ""
    time_text = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "") + (f"{second_text}S" if second_text != "0" else "")
    if not days_text and not time_text:
        return "PT0S"
    return f"{sign}P{days_text}" + (f"T{time_text}" if time_text else "")
