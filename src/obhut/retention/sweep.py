"""Carry out what the rules say: tell people, wait, anonymise those who did not come back.

While the people of one rule are anonymised, those of the next are chosen, so that the server is not idle in between. A choice is only that:
the look under the lock decides.

Order, and why it survives a crash: a case is noted as taken before anybody of it is touched, the rows are locked, looked at once more and
changed in the transaction in which their tombstones are recorded, and the case goes when the second look found nothing left. A process
that dies leaves cases that are taken; the next sweep finishes those whose tombstone is recorded and looks at the others anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from threading import Lock

from obhut.datamap.graph import Graph
from obhut.erasure import known
from obhut.erasure.entries import Action, State
from obhut.erasure.erase import Eraser
from obhut.erasure.guarded import anonymise_guarded, carry_out_guarded
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.collecting import collecting_rarely
from obhut.foundation.errors import ObhutError
from obhut.foundation.faultpoints import reach
from obhut.foundation.ids import new_id
from obhut.foundation.settings import Settings
from obhut.journal import locks
from obhut.postgres.connections import Session
from obhut.retention import cases, holds, notices, records, rows
from obhut.retention.candidates import Inactivity
from obhut.retention.cases import chunks
from obhut.retention.dates import last_day
from obhut.retention.errors import NoticeFailedError, SweepBusyError
from obhut.retention.guard import ActivityGuard, guarding
from obhut.retention.lanes import Lanes
from obhut.retention.plan import RulePlan
from obhut.retention.records import Numbers, SweepRecord
from obhut.retention.rules import Rule
from obhut.retention.survey import Moments, Survey, Uncovered, moments, values
from obhut.retention.vocabulary import CaseState

CHUNK = 5_000  # people a transaction at the most: their rows are locked while it runs
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do now."""

    database: str
    plans: tuple[RulePlan, ...]
    uncovered: tuple[Uncovered, ...]
    rows: tuple[rows.RowPlan, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did, one record a rule."""

    run: str
    database: str
    resumed: int
    records: tuple[SweepRecord, ...]

    @property
    def failed(self) -> bool:
        """Whether a rule could not be carried out to its end."""
        return any(record.error_code for record in self.records)

    @property
    def hindered(self) -> bool:
        """Whether an alarm or a missing instruction kept a rule from acting."""
        return any(record.obstacle for record in self.records)


def plan(settings: Settings, database: str, actor: Actor, clock: Clock) -> Planned:
    """Return what a run would do now, with counts and reasons; changes nothing.

    Raises:
        DataMapError: the map does not fit the database.
    """
    with Eraser(settings, database) as eraser:
        survey = Survey(settings, database, eraser.session, eraser.checked(), actor, clock)
        return Planned(database, tuple(survey.plans()), tuple(survey.uncovered()), tuple(rows.plans(eraser, actor, clock)))


def run(settings: Settings, database: str, actor: Actor, clock: Clock) -> Report:
    """Carry out every rule of a database; one that fails does not keep the others.

    Raises:
        SweepBusyError: another process does.
        DataMapError: the map does not fit the database.
    """
    name = f"retention {database}"
    if not locks.take(name):
        raise SweepBusyError(f"another process sweeps database {database}", "Wait for it; the next run continues where it ends.")
    try:
        with ExitStack() as stack:
            stack.enter_context(collecting_rarely())
            eraser = stack.enter_context(Eraser(settings, database))
            guard = stack.enter_context(guarding(settings, database, clock))
            url = settings.database(database).url
            choosing = stack.enter_context(Session.connect(url, application_name="obhut retention", settings={"jit": "off"}))
            lanes = stack.enter_context(Lanes(settings, eraser, guard, clock))
            return _Sweeper(settings, eraser, choosing, guard, lanes, actor, clock).run()
    finally:
        locks.release(name)


@dataclass(slots=True)
class _Chosen:
    """Whom a rule takes now, with the number of its record; ``failure``: what kept the rule from going on."""

    rule: Rule
    record: int
    numbers: Numbers
    keys: list[Key]
    failure: ObhutError | None = None


class _Sweeper:
    def __init__(
        self, settings: Settings, eraser: Eraser, choosing: Session, guard: ActivityGuard, lanes: Lanes, actor: Actor, clock: Clock
    ) -> None:
        self._settings = settings
        self._eraser = eraser
        self._choosing = choosing  # the eraser's own session belongs to a lane
        self._guard = guard
        self._lanes = lanes
        self._counting = Lock()  # of numbers that several lanes add to
        self._actor = actor
        self._clock = clock
        self._database = eraser.database
        self._run = new_id("run")

    def run(self) -> Report:
        self._eraser.will_settle(self._clock)
        records.interrupt(self._database, self._clock.now())
        graph = self._eraser.checked()
        resumed = self._resume(graph)
        survey = Survey(self._settings, self._database, self._choosing, graph, self._actor, self._clock, beside=self._eraser.session)
        done = self._rules(survey.plans(), graph)
        done += [self._rows(each) for each in rows.plans(self._eraser, self._actor, self._clock)]
        return Report(self._run, self._database, resumed, tuple(done))

    # -- after a crash --------------------------------------------------------------------------------------------------------

    def _resume(self, graph: Graph) -> int:
        """Finish the anonymisations that an earlier run recorded and did not confirm; whoever is active again is spared."""
        number = 0
        cases.unfold(self._database)
        for kind in graph.subjects:
            for keys in chunks(cases.in_state(self._database, kind, CaseState.TAKEN), CHUNK):
                listed = known.by_keys(self._database, kind, keys)
                recorded = [one for one in listed if one.state is State.RECORDED and one.action is Action.ANONYMISE and one.key]
                if recorded:
                    done = carry_out_guarded(self._eraser, kind, recorded, self._clock, self._guard)
                    cases.close(self._database, kind, [one.key for one in recorded if one.key])
                    number += len(done.outcome.tombstones)
        return number

    # -- one rule -------------------------------------------------------------------------------------------------------------

    def _rules(self, plans: Sequence[RulePlan], graph: Graph) -> list[SweepRecord]:
        following = iter(plans)
        ahead = [self._choose(next(following), graph)] if plans else []
        done: list[SweepRecord] = []

        def choose_next() -> None:
            ahead.extend(self._choose(plan_, graph) for plan_ in islice(following, 1))

        while ahead:
            done.append(self._finish(ahead.pop(), choose_next))
            if not ahead:
                choose_next()  # what failed before it came to that
        return done

    def _choose(self, plan_: RulePlan, graph: Graph) -> _Chosen:
        """Tell whom the rule tells, and return whom it takes."""
        chosen = _Chosen(plan_.rule, records.begin(self._run, plan_.rule.id, plan_, self._actor, self._clock.now()), Numbers(), [])
        try:
            if not plan_.obstacle:
                self._survey(plan_, moments(plan_.rule, self._clock.now()), graph, chosen)
        except ObhutError as error:
            chosen.failure = error
        return chosen

    def _survey(self, plan_: RulePlan, at: Moments, graph: Graph, chosen: _Chosen) -> None:
        rule = plan_.rule
        inactivity = Inactivity(self._choosing, graph, rule.subject_kind, rule.zone)
        chosen.numbers.returned += self._close_returned(rule, inactivity, at)
        held = holds.held(self._database, rule.subject_kind, self._clock.now())
        if rule.controller in held.controllers:
            chosen.numbers.left += plan_.situation.due
            return
        if rule.notice:
            try:
                self._tell(plan_, inactivity, graph, at, held, chosen.numbers)
            except ObhutError as error:
                chosen.failure = error  # who was told before is anonymised nevertheless
        ready = self._ready(plan_, inactivity, at, held)
        # In the order of the list's index: what is asked for a part's keys reads no other part's entries.
        chosen.keys = sorted(ready[: plan_.take])
        chosen.numbers.left += max(0, len(ready) - plan_.take)

    def _finish(self, chosen: _Chosen, meanwhile: Callable[[], None]) -> SweepRecord:
        """Anonymise whom a rule takes, while the next rule chooses."""
        failure = chosen.failure
        try:
            self._anonymise(chosen.rule, list(chunks(chosen.keys, CHUNK)), chosen.numbers, meanwhile)
        except ObhutError as error:
            failure = error
        return records.end(chosen.record, chosen.numbers, self._clock.now(), failure.code if failure else "")

    def _close_returned(self, rule: Rule, inactivity: Inactivity, at: Moments) -> int:
        """Forget the cases of people who came back, were erased, or were anonymised by other means."""
        number = 0
        for keys in chunks([case.key for state in CaseState for case in cases.of_rule(rule, state)], CHUNK):
            still = inactivity.still(at.soon, keys)
            number += cases.close(self._database, rule.subject_kind, [key for key in keys if key not in still])
        return number

    def _tell(self, plan_: RulePlan, inactivity: Inactivity, graph: Graph, at: Moments, held: holds.Held, numbers: Numbers) -> None:
        rule = plan_.rule
        if plan_.tell:
            without = {*cases.keys_with_cases(self._database, rule.subject_kind), *held.of(rule.controller)}
            found = inactivity.select(at.soon, values(rule.controller_key), plan_.tell, without)
            cases.open_cases(rule, found, self._clock.now())
            reach("retention.opened")
        waiting = [case for case in cases.of_rule(rule, CaseState.WAITING) if case.key not in held.people]
        if not waiting:
            return
        with notices.opened(self._settings.database(self._database).notices, self._choosing, graph) as channel:
            if channel is not None:
                told, again = notices.tell(channel, rule, waiting, _first_day(rule, at.day), self._clock)
                numbers.told += told
                if again:
                    raise NoticeFailedError(
                        f"{again} notices of rule {rule.id} could not be handed over",
                        "Does the webhook or mail server answer? The next run tries again.",
                    )

    def _ready(self, plan_: RulePlan, inactivity: Inactivity, at: Moments, held: holds.Held) -> list[Key]:
        """Return who may be anonymised now, those who have waited longest first."""
        rule = plan_.rule
        ripe = [case.key for case in cases.ripe(rule, at.ripe) if case.key not in held.people]
        still = inactivity.still(at.due, ripe)
        found = [key for key in ripe if key in still]
        room = plan_.take - len(found)
        if rule.notice or room <= 0:
            return found
        more = inactivity.select(at.due, values(rule.controller_key), room, {*found, *held.of(rule.controller)})
        return [*found, *more]

    def _anonymise(self, rule: Rule, parts: Sequence[Sequence[Key]], numbers: Numbers, meanwhile: Callable[[], None]) -> None:
        def work(eraser: Eraser, guard: ActivityGuard, keys: Sequence[Key]) -> None:
            cases.take(rule, keys, self._clock.now())
            reach("retention.taken")
            done = anonymise_guarded(eraser, rule.subject_kind, keys, self._actor, self._clock, guard)
            reach("retention.anonymised")
            cases.close(self._database, rule.subject_kind, keys)
            with self._counting:
                numbers.anonymised += len(keys) - len(done.spared)
                numbers.spared += len(done.spared)
                numbers.rows_changed += done.outcome.changed + done.outcome.deleted
            reach("retention.closed")

        self._lanes.each(rule.subject_kind, parts, work, meanwhile)

    # -- rows -----------------------------------------------------------------------------------------------------------------

    def _rows(self, plan_: rows.RowPlan) -> SweepRecord:
        record = records.begin_rows(self._run, self._database, plan_, self._actor, self._clock.now())
        numbers = Numbers()
        try:
            numbers.rows_changed = rows.carry_out(self._eraser, plan_, self._actor, self._clock, self._run)
        except ObhutError as error:
            return records.end(record, numbers, self._clock.now(), error.code)
        return records.end(record, numbers, self._clock.now())


def _first_day(rule: Rule, day: date) -> date:
    """Return the first day on which somebody told today can be anonymised."""
    return last_day(day, rule.grace) + timedelta(days=1)
