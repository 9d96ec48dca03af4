"""What a rule does today and why, as a value. Pure: figures in, decision out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from obhut.retention.rules import Rule
from obhut.retention.vocabulary import Obstacle

FLOOR = 50  # people; below it a share says nothing

WORDS: dict[Obstacle, str] = {
    Obstacle.NONE: "",
    Obstacle.NOT_INSTRUCTED: "the controller's instruction or contract is no longer in force",
    Obstacle.IMPLAUSIBLE: "an implausible share of the controller's people would be told or anonymised",
    Obstacle.NO_CHANNEL: "people are to be told first and there is no channel to tell them",
}
REMEDIES: dict[Obstacle, str] = {
    Obstacle.NOT_INSTRUCTED: 'Look at "obhut instructions list" and "obhut controllers show".',
    Obstacle.IMPLAUSIBLE: 'Has a column of activity been emptied? If the share is right: "obhut retention rules accept".',
    Obstacle.NO_CHANNEL: "Set webhook or smtp under [databases.<name>.notices], or a rule without notice.",
}


@dataclass(frozen=True, slots=True)
class Situation:
    """What was seen about one rule.

    Attributes:
        people: with personal data, of the rule's controller and kind.
        unknown: of whom no moment of activity or registration is known.
        due: whose period is over.
        soon: whose period is over or will be when a notice of today has run.
        held: of these, on hold.
        cases: who have a case: told, or to be told.
        ripe: told, and the grace is over; or being taken when a process died.
        today: anonymised since the day began.
        instructed: whether the instruction and the contract are in force.
        channel: whether people can be told.
    """

    people: int
    unknown: int
    due: int
    soon: int
    held: int
    cases: int
    ripe: int
    today: int
    instructed: bool
    channel: bool


@dataclass(frozen=True, slots=True)
class RulePlan:
    """What one rule does today.

    Attributes:
        obstacle: why nothing happens at all.
        tell: people to be told at the most.
        take: people to be anonymised at the most.
        capped: people who are ripe and have to wait for another day.
    """

    rule: Rule
    situation: Situation
    obstacle: Obstacle
    tell: int
    take: int
    capped: int

    @property
    def share(self) -> float:
        """Share of the people who are or soon will be due."""
        return self.situation.soon / self.situation.people if self.situation.people else 0.0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not everybody who is due is anonymised today, in words without values."""
        seen = self.situation
        found = [WORDS[self.obstacle]] if self.obstacle else []
        if seen.held:
            found.append(f"{seen.held} are on hold")
        if self.rule.notice and not self.obstacle and self.tell:
            found.append(f"{self.tell} are to be told first")
        if self.rule.notice and seen.cases > seen.ripe:
            found.append(f"{seen.cases - seen.ripe} were told and have time to come back")
        if self.capped:
            found.append(f"{self.capped} wait for the next day because of the daily cap")
        if seen.unknown:
            found.append(f"{seen.unknown} have neither registration nor activity on record")
        return tuple(found)


def decide(rule: Rule, seen: Situation, now: datetime) -> RulePlan:
    """Return what the rule does now."""
    obstacle = _obstacle(rule, seen, now)
    room = max(0, rule.daily_cap - seen.today)
    if obstacle:
        return RulePlan(rule, seen, obstacle, 0, 0, 0)
    if not rule.notice:
        ready = max(0, seen.due - seen.held)
        return RulePlan(rule, seen, obstacle, 0, min(ready, room), max(0, ready - room))
    # Nobody is told earlier than the cap lets them be taken: a notice that nothing follows is worth nothing.
    tell = min(max(0, seen.soon - seen.held - seen.cases), rule.daily_cap)
    return RulePlan(rule, seen, obstacle, tell, min(seen.ripe, room), max(0, seen.ripe - room))


def _obstacle(rule: Rule, seen: Situation, now: datetime) -> Obstacle:
    if not seen.instructed:
        return Obstacle.NOT_INSTRUCTED
    # The people who soon will be due count, too: a column that was emptied must not send a notice to everybody.
    concerned = seen.soon if rule.notice else seen.due
    if concerned >= FLOOR and seen.people and concerned / seen.people > rule.share(now):
        return Obstacle.IMPLAUSIBLE
    if rule.notice and seen.soon and not seen.channel:
        return Obstacle.NO_CHANNEL
    return Obstacle.NONE


def total(plans: Iterable[RulePlan]) -> dict[str, int]:
    """Return the sums over several rules."""
    listed = list(plans)
    return {
        "people": sum(plan.situation.people for plan in listed),
        "due": sum(plan.situation.due for plan in listed),
        "tell": sum(plan.tell for plan in listed),
        "take": sum(plan.take for plan in listed),
        "held": sum(plan.situation.held for plan in listed),
        "capped": sum(plan.capped for plan in listed),
    }
