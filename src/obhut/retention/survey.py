"""Look at production and at the control database, and return what every rule would do now. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby

from obhut.controllers import gate, register
from obhut.controllers.errors import NotInstructedError
from obhut.controllers.vocabulary import Action, SubjectRef
from obhut.datamap.graph import Graph
from obhut.erasure import known
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.postgres.connections import Session
from obhut.retention import cases, holds, rules
from obhut.retention.candidates import Figures, Inactivity
from obhut.retention.dates import cutoff, day_begin, last_day, today, zone_of
from obhut.retention.plan import RulePlan, Situation, decide
from obhut.retention.rules import Rule, Terms


@dataclass(frozen=True, slots=True)
class Moments:
    """The moments that matter for a rule now.

    Attributes:
        day: today in the controller's zone.
        due: whoever was last seen before it is inactive for the whole period.
        soon: whoever was last seen before it will be, once a notice of today has run.
        ripe: whoever was told before it has had the time of grace.
        began: when today began.
    """

    day: date
    due: datetime
    soon: datetime
    ripe: datetime
    began: datetime


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A controller whose people of a kind no rule covers; ``due`` is counted by the published period."""

    controller_key: str
    subject_kind: str
    people: int
    due: int


def moments(rule: Rule, now: datetime) -> Moments:
    """Return the moments of a rule."""
    zone = zone_of(rule.zone)
    day = today(now, zone)
    told_for = last_day(day, rule.notice) if rule.notice else day
    return Moments(
        day, cutoff(day, rule.period, zone), cutoff(told_for, rule.period, zone), cutoff(day, rule.grace, zone), day_begin(day, zone)
    )


class Survey:
    """One look at one database.

    Args:
        settings: the installation; control database and erasure list are open.
        database: name of the protected database.
        session: on it.
        graph: the data map resolved against it.
        actor: who asks.
        clock: tells the time.
        beside: a second session on it, to count in both at the same time.
    """

    def __init__(
        self,
        settings: Settings,
        database: str,
        session: Session,
        graph: Graph,
        actor: Actor,
        clock: Clock,
        *,
        beside: Session | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._session = session
        self._beside = beside
        self._graph = graph
        self._actor = actor
        self._clock = clock

    def plans(self) -> list[RulePlan]:
        """Return what each rule in force would do now."""
        now = self._clock.now()
        listed = rules.list_rules(self._database)
        found: dict[str, RulePlan] = {}
        # Controllers with the same terms are counted by one statement, however many they are.
        for (kind, zone, *_), members in groupby(sorted(listed, key=_alike), key=_alike):
            alike = list(members)
            inactivity = Inactivity(self._session, self._graph, kind, zone, beside=self._beside)
            at = moments(alike[0], now)
            figures = inactivity.figures(at.due, at.soon)
            held = holds.held(self._database, kind, now)
            for rule in alike:
                seen = self._situation(rule, at, inactivity, figures.get(rule.controller_key, Figures()), held)
                found[rule.id] = decide(rule, seen, now)
        return [found[rule.id] for rule in listed]

    def uncovered(self) -> list[Uncovered]:
        """Return the controllers with people whom no rule covers, one entry a kind."""
        covered = {(rule.subject_kind, rule.controller_key) for rule in rules.list_rules(self._database)}
        terms = Terms()
        zone = zone_of(terms.zone)
        due = cutoff(today(self._clock.now(), zone), terms.period, zone)
        found = []
        for kind, subject in self._graph.subjects.items():
            if not subject.activity or not rules.anonymisable(self._graph, subject):
                continue  # the map declares no activity: nobody of this kind logs in
            for key, figures in Inactivity(self._session, self._graph, kind, terms.zone).figures(due, due).items():
                if (kind, key) not in covered:
                    found.append(Uncovered(key, kind, figures.people, figures.due))
        return found

    def _situation(self, rule: Rule, at: Moments, inactivity: Inactivity, figures: Figures, held: holds.Held) -> Situation:
        everybody = rule.controller in held.controllers
        own = held.of(rule.controller)
        holding = figures.soon if everybody else len(inactivity.still(at.soon, own))
        counted = cases.counts(rule)
        waiting = [] if everybody else [case.key for case in cases.ripe(rule, at.ripe) if case.key not in held.people]
        return Situation(
            people=figures.people,
            unknown=figures.unknown,
            due=figures.due,
            soon=figures.soon,
            held=holding,
            cases=sum(counted.values()),
            ripe=len(inactivity.still(at.due, waiting)),
            today=known.anonymised_since(self._database, rule.subject_kind, rule.controller, at.began),
            instructed=self._instructed(rule),
            channel=self._settings.database(self._database).notices.configured,
        )

    def _instructed(self, rule: Rule) -> bool:
        given = register.get_instruction(rule.instruction)
        if rules.lacks(given, rule.controller, rule.database, rule.subject_kind, self._clock.now()):
            return False
        try:
            # Anybody of the kind: a key that nobody bears is covered by what covers everybody.
            gate.permit(
                Action.ANONYMISE,
                controller_id=rule.controller,
                database=rule.database,
                subject=SubjectRef(rule.subject_kind, ("",)),
                actor=self._actor,
                clock=self._clock,
            )
        except NotInstructedError:
            return False
        return True


def _alike(rule: Rule) -> tuple[str, str, str, str, str]:
    return rule.subject_kind, rule.zone, rule.period, rule.notice, rule.grace


def names(plans: list[RulePlan]) -> Iterator[tuple[RulePlan, str]]:
    """Yield plans with the names of their controllers."""
    known_names = {owner.id: owner.name for owner in register.list_controllers()}
    for plan in plans:
        yield plan, known_names.get(plan.rule.controller, "")


def values(controller_key: str) -> tuple[str, ...]:
    """Return the values of a controller's canonical key."""
    return tuple(json.loads(controller_key))
