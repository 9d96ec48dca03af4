"""What an erasure will do and why, as a value that can be shown before anything runs. Pure.

Tombstones of one list may call for different treatments: an erasure and an anonymisation differ, and ``keep`` ends when its period is
over, which depends on when each person was erased. People who are to be treated alike form a :class:`Cohort`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime

from dateutil.relativedelta import relativedelta

from obhut.datamap.graph import Graph
from obhut.datamap.models import Treatment, Verb
from obhut.erasure.entries import Action

_PART = re.compile(r"(\d+)([YMWD])")
_UNITS = {"Y": "years", "M": "months", "W": "weeks", "D": "days"}


@dataclass(frozen=True, slots=True)
class Cohort:
    """People who are treated alike: the same action, and the same periods of keeping already over."""

    action: Action
    expired: frozenset[str] = frozenset()

    def verb(self, treatment: Treatment | None) -> Verb | None:
        """Return what happens to a row under this treatment; None leaves it alone."""
        if treatment is None:
            return None
        if treatment.verb is Verb.KEEP and treatment.period in self.expired:
            return treatment.then
        return treatment.verb

    @property
    def anonymising(self) -> bool:
        """Whether the people are anonymised rather than erased."""
        return self.action is Action.ANONYMISE


@dataclass(frozen=True, slots=True)
class PlannedEffect:
    """So many rows of one table meet one fate, for one reason.

    Attributes:
        table: ``schema.name`` of the (partitioned) table.
        verb: delete, anonymise, unlink or keep.
        reason: why, in words without values.
        rows: number of rows.
    """

    table: str
    verb: Verb
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """The plan of one erasure: what happens to how many rows, and why.

    Attributes:
        effects: in the order in which they are carried out.
        subjects: number of people asked for.
        found: number of people whose row is in the database.
        map_version: SHA-256 (hex) of the data map followed.
    """

    database: str
    subject_kind: str
    action: Action
    subjects: int
    found: int
    effects: tuple[PlannedEffect, ...]
    map_version: str

    @property
    def rows(self) -> int:
        """Rows deleted or changed."""
        return sum(effect.rows for effect in self.effects if effect.verb is not Verb.KEEP)

    def hash(self) -> str:
        """Return the SHA-256 (hex) of the plan, recorded with the run."""
        content = [
            self.database,
            self.subject_kind,
            self.action,
            self.subjects,
            self.found,
            self.map_version,
            [[e.table, e.verb, e.reason, e.rows] for e in self.effects],
        ]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def add_period(moment: datetime, period: str) -> datetime:
    """Return the moment plus an ISO 8601 period of years, months, weeks and days, by the calendar.

    31 January plus P1M is the last of February.
    """
    for number, unit in _PART.findall(period):
        moment += relativedelta(**{_UNITS[unit]: int(number)})
    return moment


def earlier_by(moment: datetime, period: str) -> datetime:
    """Return the moment less an ISO 8601 period, by the calendar."""
    for number, unit in _PART.findall(period):
        moment -= relativedelta(**{_UNITS[unit]: int(number)})
    return moment


def keep_periods(graph: Graph) -> frozenset[str]:
    """Return the periods of all ``keep`` treatments of the map."""
    return frozenset(treatment.period for treatment in _treatments(graph) if treatment.verb is Verb.KEEP and treatment.period)


class Calendar:
    """Tells the cohorts of many people fast, as of one moment: a day on which nothing ends is looked up once."""

    def __init__(self, periods: Iterable[str], now: datetime) -> None:
        self._periods = frozenset(periods)
        self._now = now
        self._plain = {action: Cohort(action) for action in Action}
        self._days: dict[tuple[Action, date], Cohort | None] = {}

    def cohort(self, action: Action, erased_at: datetime) -> Cohort:
        """Return the cohort of a person erased at a moment."""
        if not self._periods:
            return self._plain[action]
        day = (action, erased_at.date())
        if day not in self._days:
            first = erased_at.replace(hour=0, minute=0, second=0, microsecond=0)
            last = erased_at.replace(hour=23, minute=59, second=59, microsecond=999_999)
            early, late = (cohort_of(self._periods, action, moment, self._now) for moment in (first, last))
            self._days[day] = early if early == late else None
        return self._days[day] or cohort_of(self._periods, action, erased_at, self._now)


def cohort_of(periods: Iterable[str], action: Action, erased_at: datetime, now: datetime) -> Cohort:
    """Return the cohort of a person erased at a moment, as of ``now``."""
    return Cohort(action, frozenset(period for period in periods if add_period(erased_at, period) <= now))


def _treatments(graph: Graph) -> Iterator[Treatment]:
    for node in graph.tables.values():
        for treatment in (node.rule.erase, node.rule.when_anonymised):
            if treatment:
                yield treatment
        for link in node.links:
            for treatment in (link.erase, link.when_anonymised):
                if treatment:
                    yield treatment
