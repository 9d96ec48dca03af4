"""Anonymise people only as long as a condition holds, judged while their rows are locked.

Nobody may lose an account because of a look that was a minute old. So the order is: lock the people's rows, ask the guard who is to be
left alone, record the tombstones of the others, change their rows, commit. The guard looks through a session of its own: its snapshot is
younger than the locks, so it sees whatever was committed before them, and nothing that a lock holds back can come after. The tombstones
are durable before the commit, so a crash can only hide too much; who was recorded and is active again is found by the next guarded run,
which lifts the tombstone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from obhut.controllers.vocabulary import Action as Permitted
from obhut.erasure import known, ledger, reading
from obhut.erasure.entries import Action, NewTombstone, State, Tombstone
from obhut.erasure.erase import Eraser, Outcome
from obhut.erasure.execute import Executed, execute
from obhut.erasure.refusals import explained
from obhut.erasure.short import UsualWayError, executed_directly, forbidden
from obhut.erasure.subjects import Found, Person, find, lookup
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.ids import RunId, new_id
from obhut.postgres.connections import retrying
from obhut.postgres.errors import DatabaseError

Key = tuple[str, ...]


class Guard(Protocol):
    """Names those who are to be left alone."""

    def __call__(self, kind: str, keys: Sequence[Key]) -> Collection[Key]:
        """Return the keys of people who must not be touched now; their rows are locked meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class Guarded:
    """What a guarded anonymisation came to.

    Attributes:
        outcome: as of any erasure.
        spared: people whom the guard kept out, or whose row is gone.
        lifted: tombstones of theirs that an earlier, interrupted attempt had recorded.
    """

    outcome: Outcome
    spared: tuple[Key, ...]
    lifted: int


def anonymise_guarded(eraser: Eraser, kind: str, keys: Sequence[Key], actor: Actor, clock: Clock, guard: Guard) -> Guarded:
    """Anonymise people on their controller's instruction, except those whom the guard names under the lock.

    Raises:
        NotInstructedError: a controller has not instructed it; nothing was done.
        ErasureIncompleteError: values remain; the tombstones stay recorded.
    """
    run = RunId(new_id("run"))
    eraser.checked()
    wanted = list(dict.fromkeys(keys))

    def choose() -> tuple[list[Person], list[NewTombstone]]:
        people = lookup(eraser.session, eraser.graph, kind, wanted, eraser.mac_key, lock=True)
        reach("guard.locked")
        left = set(guard(kind, [person.key for person in people]))
        stay = [person for person in people if person.key not in left]
        permissions = eraser.permit(kind, stay, Permitted.ANONYMISE, actor, clock, run)
        return stay, eraser.tombstones_of(kind, Action.ANONYMISE, stay, permissions)

    def choose_and_record() -> list[Tombstone]:
        _, new = choose()
        eraser.archive_map()
        return ledger.record(new, clock)

    eraser.will_settle(clock)
    together = _together(eraser, kind, len(wanted), choose, clock)
    if together is not None:
        return _concluded(eraser, run, kind, wanted, together, clock)
    return _carried(eraser, run, kind, wanted, choose_and_record, clock)


@dataclass(slots=True)
class _Done:
    """What was committed; ``ever`` holds whom this or an attempt that was rolled back has recorded, too."""

    chosen: list[Tombstone]
    ever: dict[str, Tombstone]
    executed: Executed


def _together(
    eraser: Eraser, kind: str, number: int, choose: Callable[[], tuple[list[Person], list[NewTombstone]]], clock: Clock
) -> _Done | None:
    """Change the rows while the tombstones are recorded; committed only when those are durable. None for the usual way."""
    short = eraser.short_way(kind, Action.ANONYMISE, clock, number)
    if short is None:
        return None
    ever: dict[str, Tombstone] = {}

    def attempt() -> _Done:
        with eraser.session.transaction("repeatable read"):
            people, new = choose()
            chosen, planned = eraser.record_meanwhile(short, people, new, clock)
            ever.update((tombstone.id, tombstone) for tombstone in chosen)
            reach("guard.recorded")
        return _Done(chosen, ever, executed_directly(planned, len(people)))

    try:
        return retrying(attempt)
    except UsualWayError:
        return None  # and what was recorded is found by its key
    except DatabaseError as error:
        if forbidden(error):
            return None
        raise


def carry_out_guarded(eraser: Eraser, kind: str, tombstones: Sequence[Tombstone], clock: Clock, guard: Guard) -> Guarded:
    """Carry recorded anonymisations to their end, as after a crash, except of those whom the guard names under the lock.

    Raises:
        ErasureIncompleteError: values remain; the tombstones stay recorded.
    """
    run = RunId(new_id("run"))
    graph = eraser.checked()
    wanted = [tombstone.key for tombstone in tombstones if tombstone.key is not None]

    def choose() -> list[Tombstone]:
        lookup(eraser.session, graph, kind, wanted, eraser.mac_key, lock=True)
        left = set(guard(kind, wanted))
        return [tombstone for tombstone in tombstones if tombstone.key not in left]

    return _carried(eraser, run, kind, wanted, choose, clock)


def _carried(eraser: Eraser, run: RunId, kind: str, wanted: Sequence[Key], choose: Callable[[], list[Tombstone]], clock: Clock) -> Guarded:
    chosen: list[Tombstone] = []
    ever: dict[str, Tombstone] = {}
    decisions = reading.Resolutions(eraser.database)
    eraser.will_settle(clock)

    def prepare() -> None:
        chosen[:] = choose()
        ever.update((tombstone.id, tombstone) for tombstone in chosen)
        reach("guard.recorded")

    def people() -> Found:
        return find(eraser.session, eraser.graph, [chosen], eraser.mac_key, clock.now(), decisions)

    with explained():
        executed = execute(eraser.session, eraser.graph, people, prepare)
    return _concluded(eraser, run, kind, wanted, _Done(chosen, ever, executed), clock)


def _concluded(eraser: Eraser, run: RunId, kind: str, wanted: Sequence[Key], done: _Done, clock: Clock) -> Guarded:
    reach("erase.committed")
    chosen, executed = done.chosen, done.executed
    settled = {tombstone.key for tombstone in chosen}
    spared = tuple(key for key in wanted if key not in settled)
    lifted = _lift(eraser, kind, spared, [one for one in done.ever.values() if one.key not in settled], clock)
    open_ones = [tombstone for tombstone in chosen if tombstone.state is State.RECORDED]
    if not open_ones:
        outcome = Outcome(run, (), executed.people, len(chosen), executed.deleted, executed.changed, executed.lsn, None, None)
        return Guarded(outcome, spared, lifted)
    executed, verification = eraser.look_again(open_ones, executed, clock)
    already = len(chosen) - len(open_ones)
    outcome = eraser.conclude(run, kind, Action.ANONYMISE, open_ones, executed, verification, clock, already=already)
    return Guarded(outcome, spared, lifted)


def _lift(eraser: Eraser, kind: str, spared: Sequence[Key], tried: Sequence[Tombstone], clock: Clock) -> int:
    """Lift what was recorded for people who are left alone: a restore must not anonymise somebody who is active."""
    listed = known.by_keys(eraser.database, kind, spared) if spared else []
    recorded = {one.id: one for one in [*tried, *listed] if one.state is State.RECORDED and one.action is Action.ANONYMISE}
    for instruction in {one.instruction for one in recorded.values()}:
        ledger.lift([one.id for one in recorded.values() if one.instruction == instruction], instruction, clock)
    return len(recorded)
