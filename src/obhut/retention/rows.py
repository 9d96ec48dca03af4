"""Rules beyond people: rows of a table go so long after an event, whoever they are about, with all that belongs to them.

The planner of erasures decides what goes with them, so nothing of a row is forgotten and nothing of another is touched. No tombstone is
needed: the rule is a function of the row itself, and the first run after a restore takes the same rows again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from obhut.controllers import gate
from obhut.controllers.errors import NotInstructedError
from obhut.controllers.vocabulary import Action as Permitted
from obhut.controllers.vocabulary import canonical_key
from obhut.datamap.graph import Graph, Subject
from obhut.datamap.models import RetainRule, Treatment, Verb
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.effects import Seed
from obhut.erasure.entries import Action
from obhut.erasure.erase import Eraser
from obhut.erasure.execute import execute
from obhut.erasure.plan import Cohort
from obhut.erasure.subjects import Found
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.postgres.catalogue import Column, Table
from obhut.postgres.sql import SQL, Composable, Identifier, Literal
from obhut.retention.candidates import still_personal
from obhut.retention.dates import cutoff, today, zone_of
from obhut.retention.vocabulary import Obstacle

CHUNK = 10_000  # rows a transaction
ZONE = "UTC"  # rows of a table belong to several controllers


@dataclass(frozen=True, slots=True)
class RowPlan:
    """What the rule of one table does now.

    Attributes:
        table: ``schema.name``.
        rows: how many are due.
        obstacle: why nothing happens.
    """

    table: str
    period: str
    after: str
    then: Verb
    rows: int
    obstacle: Obstacle = Obstacle.NONE


def plans(eraser: Eraser, actor: Actor, clock: Clock) -> Iterator[RowPlan]:
    """Yield what each rule for rows would do now."""
    graph = eraser.graph
    for node in graph.tables.values():
        if (rule := node.rule.retain) is not None:
            due = SQL("SELECT count(*) FROM {} o WHERE {}").format(node.table.relation, _due(graph, node.table, rule, clock.now()))
            number = int(eraser.session.value(due, []))
            obstacle = Obstacle.NONE if not number or _permitted(eraser, rule, actor, clock) else Obstacle.NOT_INSTRUCTED
            yield RowPlan(node.table.full_name, rule.period, rule.after, rule.then, number, obstacle)


def carry_out(eraser: Eraser, plan: RowPlan, actor: Actor, clock: Clock, run: str) -> int:
    """Delete or anonymise the rows that are due, chunk by chunk; return how many rows were touched, those of other tables included.

    Raises:
        NotInstructedError: a controller has not instructed it.
        PlanConflictError, DatabaseError: the map or the database forbids it; the chunks before are done.
    """
    if plan.obstacle or not plan.rows:
        return 0
    graph = eraser.graph
    table = graph.catalogue.find(plan.table)
    rule = graph.tables[table.oid].rule.retain if table else None
    if table is None or rule is None:
        raise AssertionError("a plan names a table of the map")
    _permit(eraser, rule, actor, clock, run)
    chunk = _Chunk(eraser, table, rule, clock.now())
    touched = 0
    while True:
        done = execute(eraser.session, graph, chunk.find, chunk.choose)
        if not done.people:
            return touched
        touched += done.deleted + done.changed


class _Chunk:
    """Some rows that are due: chosen once in a transaction, and looked for again in the same one, to see whether any is left."""

    def __init__(self, eraser: Eraser, table: Table, rule: RetainRule, now: datetime) -> None:
        self._session, self._graph = eraser.session, eraser.graph
        self._table, self._rule = table, rule
        self._due = _due(eraser.graph, table, rule, now)
        self._chosen: dict[int, RowAddresses] = {}

    def choose(self) -> None:
        """Choose the next rows."""
        query = SQL("SELECT o.tableoid::int8, o.ctid FROM {} o WHERE {} LIMIT {}").format(self._table.relation, self._due, Literal(CHUNK))
        rows: dict[int, list[bytes]] = {}
        for oid, address in self._session.addresses(query, []):
            rows.setdefault(oid, []).append(address)
        self._chosen = {oid: RowAddresses.from_tids(found) for oid, found in rows.items()}

    def find(self) -> Found:
        """Return those of the chosen rows that still are due, as the start of the closure: what belongs to them goes with them."""
        rows: dict[int, RowAddresses] = {}
        for oid, chosen in self._chosen.items():
            leaf = self._graph.catalogue.tables[oid]
            query = SQL("SELECT o.ctid FROM {} o WHERE o.ctid = ANY(%s) AND {}").format(leaf.relation, self._due)
            found = RowAddresses.from_tids(address for (address,) in self._session.addresses(query, [chosen.parameter()]))
            if found:
                rows[oid] = found
        if not rows:
            return Found()
        then = Treatment(verb=self._rule.then)
        subject = Subject("row", self._table.oid, self._table.primary_key, (), (), (), None, (), (), None, then, then)
        cohort = Cohort(Action.ERASE if self._rule.then is Verb.DELETE else Action.ANONYMISE)
        return Found([Seed(cohort, subject, rows)], sum(found.count for found in rows.values()))


def _due(graph: Graph, table: Table, rule: RetainRule, now: datetime) -> Composable:
    """Rows whose event lies so far back, and in which something is left to do."""
    zone = zone_of(ZONE)
    column: Column = table.by_name[rule.after]
    moment: Composable = SQL("{}::timestamptz").format(Literal(cutoff(today(now, zone), rule.period, zone)))
    if column.base_type != "timestamp with time zone":
        moment = SQL("({} AT TIME ZONE {})").format(moment, Literal(ZONE))
        moment = SQL("{}::date").format(moment) if column.base_type == "date" else moment
    due = SQL("o.{} < {}").format(Identifier(rule.after), moment)
    return due if rule.then is Verb.DELETE else SQL("{} AND {}").format(due, still_personal(graph, table, "o"))


def _permitted(eraser: Eraser, rule: RetainRule, actor: Actor, clock: Clock) -> bool:
    try:
        _permit(eraser, rule, actor, clock, None)
    except NotInstructedError:
        return False
    return True


def _permit(eraser: Eraser, rule: RetainRule, actor: Actor, clock: Clock, run: str | None) -> None:
    """Ask the gate for every controller that has data in the database: a table's rows belong to all of them.

    Raises:
        NotInstructedError: one has not instructed it.
    """
    graph = eraser.graph
    owners = graph.catalogue.tables[graph.controller]
    texts = SQL(", ").join(SQL("{}::text").format(Identifier(name)) for name in graph.controller_key)
    gate.permit_all(
        Permitted.ERASE if rule.then is Verb.DELETE else Permitted.ANONYMISE,
        database=eraser.database,
        controller_keys=[canonical_key(key) for key in eraser.session.rows(SQL("SELECT {} FROM {}").format(texts, owners.relation))],
        actor=actor,
        clock=clock,
        run_id=run,
    )
