"""Use cases of rules: what each controller has instructed about its inactive people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from obhut.controllers import register
from obhut.controllers.records import InstructionRecord
from obhut.controllers.vocabulary import Action, InstructionKind, fits
from obhut.datamap.graph import Graph, Subject
from obhut.datamap.models import DURATION, Verb
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.ids import new_id
from obhut.postgres.control import Deferred, control_safe
from obhut.postgres.errors import DatabaseError
from obhut.retention.dates import last_day, zone_of
from obhut.retention.errors import RuleInvalidError, RuleUnknownError

if TYPE_CHECKING:
    from obhut.retention import models
else:
    models = Deferred("obhut.retention.models")

PERIOD = "P2Y"  # the published promise
NOTICE = "P30D"
GRACE = "P14D"
DAILY_CAP = 1_000
ALARM_SHARE = 0.2
_UNIQUE_VIOLATION = "23505"
_LONGEST = 100  # years
_SOME_DAY = datetime(2024, 3, 1, tzinfo=UTC).date()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as recorded.

    Attributes:
        period: ISO 8601, calendar years, months, weeks, days since the last activity.
        notice: so long before the end of the period the person is told; "" tells nobody.
        grace: so long after the notice the person is left alone at the least.
        zone: IANA name of the controller's time zone.
        daily_cap: people a day at the most.
        alarm_share: nothing happens when more than this share of the controller's people would be told or anonymised.
        accepted_share: a higher share that a person has accepted, while ``accepted_until`` lies ahead.
    """

    id: str
    database: str
    controller: str
    controller_key: str
    subject_kind: str
    instruction: str
    period: str
    notice: str
    grace: str
    zone: str
    daily_cap: int
    alarm_share: float
    accepted_share: float | None
    accepted_until: datetime | None
    revoked_at: datetime | None

    def share(self, now: datetime) -> float:
        """Return the share above which nothing happens."""
        accepted = self.accepted_share if self.accepted_until is not None and now < self.accepted_until else None
        return max(self.alarm_share, accepted or 0.0)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule says, with the defaults of the published promise."""

    period: str = PERIOD
    notice: str = NOTICE
    grace: str = GRACE
    zone: str = "Europe/Berlin"
    daily_cap: int = DAILY_CAP
    alarm_share: float = ALARM_SHARE


def set_rule(controller_id: str, graph: Graph, kind: str, terms: Terms, instruction_id: str, *, actor: Actor, clock: Clock) -> Rule:
    """Record a rule; one in force for the same controller and kind ends with it.

    Args:
        controller_id: whose people it is about.
        graph: the data map resolved against the database, which must be able to anonymise them.
        kind: subject kind of the map.
        terms: periods, zone and limits.
        instruction_id: the standing instruction of the controller that says so.
        actor: who records it.
        clock: the time of recording.

    Raises:
        RuleInvalidError: the terms, the instruction or the map do not allow it.
    """
    owner = register.get_controller(controller_id)
    subject = graph.subject(kind)
    _demand_terms(terms)
    _demand_anonymisable(graph, subject)
    given = register.get_instruction(instruction_id)
    if lack := lacks(given, owner.id, owner.database, kind, clock.now()):
        raise RuleInvalidError(f"the instruction {lack}", 'A rule needs a standing instruction to anonymise: "obhut instructions give".')
    now = clock.now()
    with control_safe():
        models.Rule.objects.filter(controller=owner.id, subject_kind=kind, revoked_at=None).update(revoked_at=now, revoked_by=str(actor))
    try:
        with control_safe():
            row = models.Rule.objects.create(
                id=new_id("ret"),
                database=owner.database,
                controller=owner.id,
                controller_key=owner.key,
                subject_kind=kind,
                instruction=given.id,
                period=terms.period,
                notice=terms.notice,
                grace=terms.grace,
                zone=terms.zone,
                daily_cap=terms.daily_cap,
                alarm_share=terms.alarm_share,
                recorded_by=str(actor),
                recorded_at=now,
            )
    except DatabaseError as error:
        if error.sqlstate != _UNIQUE_VIOLATION:
            raise
        raise RuleInvalidError("another process recorded a rule at the same time", 'Look at "obhut retention rules list".') from None
    return _rule(row)


def list_rules(database: str | None = None, *, revoked: bool = False) -> list[Rule]:
    """Return the rules in force, or all of them, the oldest first."""
    wanted = {"database": database} if database else {}
    with control_safe():
        rows = models.Rule.objects.filter(**wanted).order_by("recorded_at", "id")
        return [_rule(row) for row in (rows if revoked else rows.filter(revoked_at=None))]


def get_rule(rule_id: str) -> Rule:
    """Return a rule, in force or not.

    Raises:
        RuleUnknownError: there is none with that id.
    """
    with control_safe():
        row = models.Rule.objects.filter(id=rule_id).first()
    if row is None:
        raise RuleUnknownError("there is no retention rule with that id", 'Look at "obhut retention rules list".')
    return _rule(row)


def revoke_rule(rule_id: str, *, actor: Actor, clock: Clock) -> Rule:
    """End a rule now: nobody is told or anonymised by it any more.

    Raises:
        RuleUnknownError: there is none with that id.
    """
    found = get_rule(rule_id)
    with control_safe():
        models.Rule.objects.filter(id=found.id, revoked_at=None).update(revoked_at=clock.now(), revoked_by=str(actor))
    return get_rule(rule_id)


def accept_share(rule_id: str, share: float, until: datetime, *, actor: Actor, clock: Clock) -> Rule:
    """Record that a person has looked at an implausible share and found it right, up to a share and a moment.

    Raises:
        RuleUnknownError: there is none with that id.
        RuleInvalidError: the share is none, or the moment has passed.
    """
    found = get_rule(rule_id)
    if not 0 < share <= 1 or until <= clock.now():
        raise RuleInvalidError("the share or the moment cannot be accepted", "Give a share between 0 and 1 and a moment to come.")
    with control_safe():
        models.Rule.objects.filter(id=found.id).update(accepted_share=share, accepted_until=until, accepted_by=str(actor))
    return get_rule(rule_id)


def lacks(given: InstructionRecord, controller: str, database: str, kind: str, now: datetime) -> str:
    """Return what keeps an instruction from carrying a rule, or ""."""
    if given.controller_id != controller or given.database != database:
        return "is of another controller or for another database"
    if given.kind != InstructionKind.STANDING or given.subject_keys is not None:
        return "is not a standing one about everybody of the kind"
    if Action.ANONYMISE not in given.actions or given.subject_kind not in {"", kind}:
        return "does not permit to anonymise this kind of people"
    state = given.state(now)
    return "" if state == "valid" else f"is {state}"


def anonymisable(graph: Graph, subject: Subject) -> bool:
    """Whether the map makes an end to what is personal in the person's own row."""
    verb = subject.when_anonymised.verb if subject.when_anonymised else None
    return verb is Verb.DELETE or (verb is Verb.ANONYMISE and bool(graph.tables[subject.table].anonymise))


def _demand_anonymisable(graph: Graph, subject: Subject) -> None:
    if not anonymisable(graph, subject):
        raise RuleInvalidError(
            f"the data map anonymises nothing in the row of a {subject.kind}",
            "Give its table when_anonymised: anonymise and its personal columns a rule under anonymise.",
        )
    if subject.created is None and not subject.activity:
        raise RuleInvalidError(
            f"the data map says neither when a {subject.kind} was created nor what counts as activity",
            "Write created and activity at the subject.",
        )


def _demand_terms(terms: Terms) -> None:
    zone_of(terms.zone)
    for text in filter(None, (terms.period, terms.notice, terms.grace)):
        _demand_period(text)
    if terms.daily_cap < 1 or not 0 < terms.alarm_share <= 1:
        raise RuleInvalidError("the daily cap or the alarm share makes no sense", "A cap is at least 1, a share between 0 and 1.")
    if terms.notice and last_day(_SOME_DAY, terms.notice) >= last_day(_SOME_DAY, terms.period):
        raise RuleInvalidError("the notice would come before the last activity", "Give a notice shorter than the period.")


def _demand_period(text: str) -> None:
    try:
        years = last_day(_SOME_DAY, text).year - _SOME_DAY.year if fits(DURATION, text) else -1
        sound = 0 <= years <= _LONGEST and last_day(_SOME_DAY, text) > _SOME_DAY
    except (ValueError, OverflowError):
        sound = False
    if not sound:
        raise RuleInvalidError("a period is not one of years, months, weeks and days", "Write ISO 8601, such as P2Y, P18M or P30D.")


def _rule(row: models.Rule) -> Rule:
    return Rule(
        row.id,
        row.database,
        row.controller,
        row.controller_key,
        row.subject_kind,
        row.instruction,
        row.period,
        row.notice,
        row.grace,
        row.zone,
        row.daily_cap,
        row.alarm_share,
        row.accepted_share,
        row.accepted_until,
        row.revoked_at,
    )


def by_kind(rules: Sequence[Rule]) -> dict[str, list[Rule]]:
    """Return rules by the kind of people they are about."""
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        found.setdefault(rule.subject_kind, []).append(rule)
    return found
