"""Timelines: a server's history, as PostgreSQL writes it into ``*.history`` files and answers ``TIMELINE_HISTORY`` with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from obhut.foundation.lsn import lsn_number


@dataclass(frozen=True, slots=True)
class TimelineSwitch:
    """One line of a timeline's history: the ancestor holds up to the switch."""

    timeline: int
    switch: int


class HistoryFormError(ValueError):
    """A line is not what PostgreSQL writes."""


def parse_history(content: str) -> list[TimelineSwitch]:
    """Return the ancestors of a timeline, oldest first.

    Raises:
        HistoryFormError: a line is not what PostgreSQL writes.
    """
    switches: list[TimelineSwitch] = []
    for line in content.splitlines():
        fields = line.split("#", 1)[0].split()
        if not fields:
            continue
        try:
            switches.append(TimelineSwitch(int(fields[0]), lsn_number(fields[1])))
        except (ValueError, IndexError):
            raise HistoryFormError("not a line of a timeline's history") from None
    return switches


def timeline_at(position: int, current: int, history: Sequence[TimelineSwitch]) -> int:
    """Return the timeline on which a record at ``position`` was written, on a server whose timeline is ``current``."""
    return next((before.timeline for before in history if position < before.switch), current)
