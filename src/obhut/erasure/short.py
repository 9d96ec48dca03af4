"""The short way taken: rows go, or change, by the statements of :mod:`obhut.erasure.direct`, as far as the map and the data allow it.

Where they do not, nothing was done and the long way is gone: :mod:`obhut.erasure.execute` looks at every row, and tells what forbids it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from obhut.datamap.graph import Graph
from obhut.datamap.models import Verb
from obhut.erasure import direct
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.effects import Effects, Seed
from obhut.erasure.execute import NOT_SUPPORTED, TRIGGERED_CHANGE, Executed, fence
from obhut.erasure.plan import Cohort, PlannedEffect
from obhut.erasure.refusals import is_lasting
from obhut.erasure.subjects import Found, Person
from obhut.foundation.ids import Lsn
from obhut.postgres.connections import Session, retrying
from obhut.postgres.errors import DatabaseError

UNKNOWN: Final = Lsn("")  # the position after the commit, until the second look tells it
T = TypeVar("T")


class UsualWayError(Exception):
    """Rolls the transaction back, so that the long way is gone; never leaves this package."""


@dataclass(frozen=True, slots=True)
class ShortWay:
    """How a kind of people is erased without going from row to row."""

    plan: direct.DirectPlan
    seed: Seed

    @property
    def locks(self) -> bool:
        """Whether the people's rows are to be locked first: who is anonymised must not get new rows meanwhile, who is deleted cannot."""
        return self.plan.verb is Verb.ANONYMISE


class ShortWays:
    """The short ways of one session, compiled once for each kind of people and cohort."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._plans: dict[tuple[str, Cohort], direct.DirectPlan | None] = {}
        self._alike = False
        self._doer = ThreadPoolExecutor(1, "rows")

    def close(self) -> None:
        """End the thread that changes rows."""
        self._doer.shutdown()

    def forget(self) -> None:
        """Compile anew: the schema has changed."""
        self._plans.clear()

    def keep_plans(self, *, alike: bool) -> None:
        """Plan the statements for one person once, since all of them are alike; for a crowd, for its number."""
        if alike != self._alike:
            self._session.set("plan_cache_mode", "force_generic_plan" if alike else "auto")
            self._alike = alike

    def way(self, graph: Graph, seed: Seed, people: int) -> ShortWay | None:
        """Return the short way for so many people, if the map allows it."""
        plan = self._plan(graph, seed)
        if plan is None:
            return None
        self.keep_plans(alike=people == 1)
        return ShortWay(plan, seed)

    def meanwhile(self, short: ShortWay, people: Sequence[Person], record: Callable[[], T]) -> tuple[T, tuple[PlannedEffect, ...]]:
        """Do to people's rows what is to be done, inside the open transaction, while ``record`` runs; return what both came to.

        Raises:
            UsualWayError: a trigger or rule watches; nothing was done to a row.
        """
        rows = RowAddresses([person.address for person in people])
        found = Found([replace(short.seed, rows={people[0].oid: rows})], len(people))
        doing = self._doer.submit(direct.run, self._session, short.plan, found, [person.key[0] for person in people])
        try:
            recorded = record()
        finally:
            wait([doing])  # the session is this thread's again
        planned = doing.result()
        if planned is None:
            raise UsualWayError
        return recorded, planned

    def executed(self, graph: Graph, people: Callable[[], Found]) -> Executed | None:
        """Erase recorded people in a transaction of its own; None when the long way has to be gone."""
        try:
            return retrying(lambda: self._execute(graph, people))
        except DatabaseError as error:
            if forbidden(error):
                return None  # such as rows outside the plan: the long way tells which
            raise

    def _execute(self, graph: Graph, people: Callable[[], Found]) -> Executed | None:
        with self._session.transaction("repeatable read"):
            found = people()
            plans = [self._plan(graph, seed) for seed in found.seeds]
            if len(plans) != 1 or plans[0] is None or found.seeds[0].missing:
                return None
            if plans[0].verb is Verb.ANONYMISE:
                fence(self._session, graph, found)
            planned = direct.run(self._session, plans[0], found)
            if planned is None:
                return None
        return executed_directly(planned, found.people)

    def _plan(self, graph: Graph, seed: Seed) -> direct.DirectPlan | None:
        wanted = (seed.subject.kind, seed.cohort)
        if wanted not in self._plans:
            self._plans[wanted] = direct.compile_plan(graph, seed.subject, seed.cohort)
        return self._plans[wanted]


def forbidden(error: DatabaseError) -> bool:
    """Whether the short way cannot be taken with these rows or tables, whatever the long way will come to."""
    return is_lasting(error) or error.sqlstate in {TRIGGERED_CHANGE, NOT_SUPPORTED}


def executed_directly(planned: tuple[PlannedEffect, ...], people: int) -> Executed:
    """Return what the short way came to; the second look tells the position behind its commit."""
    deleted = sum(effect.rows for effect in planned if effect.verb is Verb.DELETE)
    return Executed(Effects({}, {}, planned), people, deleted, sum(effect.rows for effect in planned) - deleted, UNKNOWN)
