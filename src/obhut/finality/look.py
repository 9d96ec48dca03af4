"""Look where traces of erasures may remain, and say until when. Reads the protected database, writes to the control database only.

Order, and why a trace is never called gone too early: first it is made sure that no snapshot is left that sees the old rows, then the file
numbers are read and kept, then the observation is settled. A file that has another number later was built after the first of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from obhut.datamap.graph import Graph, require
from obhut.datamap.load import load
from obhut.erasure import known as listed
from obhut.erasure import ledger
from obhut.erasure.entries import Action
from obhut.finality import objects, records, windows
from obhut.finality.errors import FinalityError
from obhut.finality.judge import Surroundings, Trace, judge
from obhut.finality.objects import File, Mark
from obhut.finality.records import Observation
from obhut.finality.vocabulary import TraceState
from obhut.foundation.clock import Clock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.restores.inventory import inventory_of


@dataclass(frozen=True, slots=True)
class Residue:
    """What can be said about the traces of all erasures of a database.

    Attributes:
        looked_at: by the clock of the server.
        finished: erasures of which nothing is left anywhere.
        finished_people: how many people those were about.
        open: the others, each with one trace a place.
    """

    database: str
    server: str
    looked_at: datetime
    finished: int
    finished_people: int
    open: tuple[tuple[Observation, tuple[Trace, ...]], ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A server that is being looked at: session, map and what was found."""

    session: Session
    graph: Graph
    mark: Mark
    files: dict[tuple[tuple[str, str], ...], list[File]]

    def of(self, observation: Observation) -> list[File]:
        """Return the objects that an observation concerns."""
        return self.files.get(observation.kinds, [])


def look(settings: Settings, database: str, clock: Clock) -> Residue:
    """Take in the erasures confirmed since the last look, and judge the traces of all that are not finished.

    Raises:
        FinalityError: the role does not see enough to judge.
        DataMapError: the map does not fit the database.
    """
    ledger.open_ledger(settings)
    with Session.connect(settings.database(database).url, application_name="obhut finality") as session:
        site = take_in(settings, database, session)
        return judged(settings, database, site, clock)


def only(found: Residue, run: str) -> Residue:
    """Return what can be said about the one erasure that a run confirmed.

    Raises:
        FinalityError: the erasure list confirms none of this run in this database.
    """
    entry = records.entry_of(found.database, run)
    if entry is None:
        raise FinalityError(
            "the erasure list confirms no erasure of that run in this database", 'Look at the run that "obhut erase" named.'
        )
    mine = tuple((one, traces) for one, traces in found.open if one.first_entry <= entry <= one.last_entry)
    return replace(found, open=mine, finished=0 if mine else 1, finished_people=0)


def take_in(settings: Settings, database: str, session: Session) -> Site:
    """Observe and settle; return the site with its objects as they are now.

    Raises:
        FinalityError: the role does not see the snapshots of others.
    """
    graph = require(database, load(settings.database(database).map).database(database), read_catalogue(session))
    mark = objects.mark(session)
    if not mark.sees_all:
        raise FinalityError(
            "the role does not see the snapshots of other sessions, so nothing can be said about traces",
            "GRANT pg_read_all_stats TO the role.",
        )
    news = records.confirmed(database, records.last_entry(database))
    if news:
        records.observe(database, mark, news)
    open_ones = records.observations(database)
    free = [
        one.seen.id
        for one in open_ones
        if one.seen.settled_at is None and one.seen.server == mark.server and not objects.held_back(session, one.xid)
    ]
    files = {one.kinds: _files(session, graph, one.kinds) for one in open_ones}
    records.keep(database, objects.mark(session), _unique(files.values()))
    records.settle(free, objects.mark(session).at)
    return Site(session, graph, objects.mark(session), files)


def judged(settings: Settings, database: str, site: Site, clock: Clock) -> Residue:
    """Judge what was found, and note what is finished."""
    known = records.known(database, site.mark.server)
    around = _surroundings(settings, database, site, clock)
    open_ones = [(one, judge(one.seen, site.of(one), known, around)) for one in records.observations(database)]
    done = [one.seen.id for one, traces in open_ones if all(trace.state is TraceState.GONE for trace in traces)]
    records.finish(done, site.mark.at)
    runs, people = records.finished(database)
    left = tuple((one, traces) for one, traces in open_ones if one.seen.id not in done)
    return Residue(database, site.mark.server, site.mark.at, runs, people, left)


def _files(session: Session, graph: Graph, kinds: Iterable[tuple[str, str]]) -> list[File]:
    roots: set[int] = set()
    for kind, action in kinds:
        if kind in graph.subjects:
            roots |= objects.touched(graph, kind, Action(action))
        else:  # the map has forgotten the kind; whatever is personal may have been its
            roots |= {oid for oid, node in graph.tables.items() if node.rule.personal}
    return objects.read(session, graph, roots)


def _unique(lists: Iterable[list[File]]) -> list[File]:
    return list({(file.place, file.name): file for files in lists for file in files}.values())


def _surroundings(settings: Settings, database: str, site: Site, clock: Clock) -> Surroundings:
    configured = settings.database(database)
    window = windows.upcoming(configured.finality.window, configured.finality.zone, clock.now())
    inventory = None
    with suppress(ObhutError):  # no repository, or one that does not answer: then nothing is claimed about it
        inventory = inventory_of(settings, database, clock)
    return Surroundings(
        server=site.mark.server,
        replaced_at=listed.opened_at(database, site.mark.server) or site.mark.at,
        oldest_wal=objects.oldest_wal(site.session),
        copies_since=inventory.copies_since if inventory else None,
        backups_known=inventory.complete if inventory else False,
        backups_gone=configured.backup.gone_after,
        window=window[1] if window else None,
    )
