"""Examiners of the promise *inactivity*: who is in production now, by the rules and by the published period."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from obhut.datamap.graph import require
from obhut.datamap.load import load
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.promises.model import Evidence, State
from obhut.retention import holds, records, rules
from obhut.retention.candidates import Inactivity
from obhut.retention.dates import cutoff, last_day, last_seen_day, today, zone_of
from obhut.retention.plan import REMEDIES, WORDS, RulePlan
from obhut.retention.survey import Survey, Uncovered

ACTOR = Actor(Role.SYSTEM, "promises")
LATE = timedelta(days=7)  # so long after the period and the grace the daily sweep has had its chances
SILENT = timedelta(days=3)  # a daily sweep that did not run for so long does not run


def inactivity(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """Everybody in production is looked at now: nobody may be inactive for longer than the rule says, and no controller be without one."""
    for name, database in settings.databases.items():
        now = clock.now()
        with Session.connect(database.url, application_name="obhut promises") as session:
            graph = require(name, load(database.map).database(name), read_catalogue(session))
            silent = [kind for kind, subject in graph.subjects.items() if not subject.activity]
            survey = Survey(settings, name, session, graph, ACTOR, clock)
            plans, uncovered = survey.plans(), survey.uncovered()
            if silent:
                fact = f"the data map does not say what counts as activity of: {', '.join(sorted(silent))}"
                yield Evidence(
                    fact, State.UNPROVEN, now, name, "Write activity at the subject; without it nobody of the kind is looked at."
                )
            if not plans and not uncovered:
                yield Evidence("there is nobody whom a rule could be about", State.UNPROVEN, now, name)
            yield from _without_rule(uncovered, name, now)
            for plan in plans:
                yield from _rule(plan, Inactivity(session, graph, plan.rule.subject_kind, plan.rule.zone), now)


def _without_rule(uncovered: Sequence[Uncovered], name: str, now: datetime) -> Iterator[Evidence]:
    overdue = sum(one.due for one in uncovered)
    if overdue:
        fact = f"{overdue} people are inactive for more than two years, and their controllers have no rule"
        yield Evidence(fact, State.BROKEN, now, name, 'Ask the controllers and record what they say: "obhut retention rules set".')
    elif uncovered:
        people, owners = sum(one.people for one in uncovered), len({one.controller_key for one in uncovered})
        fact = f"{people} people of {owners} controllers without a rule were looked at: nobody is inactive for more than two years yet"
        yield Evidence(fact, State.UNPROVEN, now, name, 'Record the rules: "obhut retention rules set".')


def _rule(plan: RulePlan, inactivity: Inactivity, now: datetime) -> Iterator[Evidence]:
    rule, name = plan.rule, plan.rule.database
    if plan.obstacle:
        yield Evidence(f"rule {rule.id} does not act: {WORDS[plan.obstacle]}", State.BROKEN, now, name, REMEDIES[plan.obstacle])
        return
    day = today(now, zone_of(rule.zone))
    longer = last_day(day, rule.period) > last_day(day, rules.PERIOD)
    if longer:
        fact = f"rule {rule.id} waits for {rule.period}, longer than the published two years"
        yield Evidence(fact, State.UNPROVEN, now, name, "Is the published sentence true for this controller?")
    overdue = _overdue(plan, inactivity, now)
    if overdue:
        fact = f"{overdue} people are inactive for longer than rule {rule.id} says and are not anonymised"
        yield Evidence(fact, State.BROKEN, now, name, f'Look at "obhut retention plan {name}".')
        return
    last = records.latest(name, rule.id)
    if last is None or now - last.started_at > SILENT:
        since = "never ran" if last is None else f"ran {(now - last.started_at).days} days ago for the last time"
        yield Evidence(f"rule {rule.id} {since}", State.UNPROVEN, last.started_at if last else None, name, 'Does "obhut serve" run?')
    elif last.error_code:
        fact = f"the last run of rule {rule.id} ended with {last.error_code}"
        yield Evidence(fact, State.UNPROVEN, last.started_at, name, f'Run "obhut retention run {name}".')
    else:
        seen, kept = plan.situation, f", {plan.situation.held} are on hold" if plan.situation.held else ""
        fact = f"all {seen.people} people under rule {rule.id} were looked at: nobody is inactive for longer than {rule.period}{kept}"
        yield Evidence(fact, State.KEPT, now, name)


def _overdue(plan: RulePlan, inactivity: Inactivity, now: datetime) -> int:
    """Count who should have been anonymised long ago, people on hold left out; everybody is looked at."""
    rule = plan.rule
    zone = zone_of(rule.zone)
    held = holds.held(rule.database, rule.subject_kind, now)
    if rule.controller in held.controllers:
        return 0
    day = today(now - LATE, zone)
    # Whoever was told only when the period was over already has the time of grace, too.
    before = cutoff(last_seen_day(day, rule.grace) if rule.notice else day, rule.period, zone)
    figures = inactivity.figures(before, before).get(rule.controller_key)
    return (figures.due if figures else 0) - len(inactivity.still(before, held.of(rule.controller)))
