"""Making a masked copy: journalled, closed until the leak check has passed, dropped when anything goes wrong.

A copy is never resumed: its key lives in memory only, so what a killed run left is thrown away by the next one, which begins anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from obhut.auditlog.capture import traces
from obhut.clones import check, mark, maskers, objects, passing, prepare, recovered
from obhut.clones import source as sources
from obhut.clones import target as places
from obhut.clones.carry import Carrier
from obhut.clones.check import Checked
from obhut.clones.errors import CloneLeakError, CloneOvertakenError
from obhut.clones.findings import Statement, failed, leaks
from obhut.clones.mark import Mark
from obhut.clones.originals import Originals
from obhut.clones.passing import Told, Watch
from obhut.clones.prepare import Prepared, Size
from obhut.clones.source import Source
from obhut.clones.subset import Wanted
from obhut.clones.texts import Database
from obhut.controllers.vocabulary import canonical_key
from obhut.datamap.archive import archive
from obhut.datamap.load import load as load_map
from obhut.erasure import ledger, reading
from obhut.erasure.erase import MAPS
from obhut.erasure.refusals import explained
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.runs import Run
from obhut.journal.states import RunKind, RunState
from obhut.keystore import open_keystore
from obhut.masking import facts as masking_facts
from obhut.masking.errors import MaskingRefusedError
from obhut.masking.facts import Facts
from obhut.masking.keys import RunKey
from obhut.masking.trial import trial
from obhut.masking.verdict import Evidence, Label, judge
from obhut.postgres.clusters import Binaries, binaries
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier
from obhut.restores import finish, load, schema, streams
from obhut.restores import target as targets
from obhut.restores.plan import RecoveryTarget
from obhut.restores.preflight import Sources
from obhut.restores.progress import Progress, Silent
from obhut.restores.quarantine import Quarantine, database_name
from obhut.restores.schema import Entry, Section
from obhut.restores.target import Target

# Ways to other servers, and what would send changes there; a copy for tests reaches nobody.
_WAYS_OUT = frozenset(
    {"USER MAPPING", "SUBSCRIPTION", "SUBSCRIPTION TABLE", "PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA"}
)
PLAN_ONLY = "plan_only"  # parameter of a run that recovers a backup to plan, and makes no copy
_NAMED = 8  # places that an error spells out
_SERVERS = (
    "SELECT srvname, array(SELECT option_name FROM pg_options_to_table(srvoptions)) FROM pg_foreign_server WHERE srvoptions IS NOT NULL"
)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        database: name of the protected database in the settings.
        target: connection string of an empty database, or nothing for a new cluster.
        wanted: the part of the people.
        workers: streams side by side.
        left_out: definitions that are not made, by name.
        locale: language of the invented words.
        at: the moment of a backup, or nothing for the live database.
        backup: base backup to start from; the newest fitting one by default.
    """

    database: str
    target: str = ""
    wanted: Wanted = field(default_factory=Wanted)
    workers: int = 2
    left_out: tuple[str, ...] = ()
    locale: str = "de"
    at: RecoveryTarget | None = None
    backup: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do."""

    sizes: tuple[Size, ...]
    columns: tuple[tuple[str, str, str, str], ...]  # place, transformer, where it runs, why
    notes: tuple[str, ...]
    map_version: str
    moment: datetime  # of the rows that were counted


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished copy."""

    run: str
    url: str
    label: Label
    rows: int
    statements: tuple[Statement, ...]
    notes: tuple[str, ...]


def plan(settings: Settings, request: Request, actor: Actor, clock: Clock, progress: Progress | None = None) -> Planned:
    """Decide everything that a run would, and write nothing.

    Raises:
        DataMapError, MaskingRefusedError, NotInstructedError, CloneError: why a run would be refused.
    """
    ledger.open_ledger(settings)
    progress = progress or Silent()
    if request.at is not None:
        return _plan_of_backup(settings, request, request.at, actor, clock, progress)
    with sources.held(settings.database(request.database).url, "obhut clone plan") as source:
        return _planned(settings, request, source, actor, clock, progress)


def _planned(settings: Settings, request: Request, source: Source, actor: Actor, clock: Clock, progress: Progress) -> Planned:
    graph, masks = prepare.masks_for(settings, request.database, source, request.locale, of_backup=request.at is not None)
    prepare.instructed(source, graph, request.wanted, actor, clock, None)
    prepared = prepare.prepare(settings, source, graph, masks, request.wanted, clock, progress)
    columns = [
        (f"{table.name}.{column.name}", column.transformer, column.place.value, column.reason)
        for table in masks.tables.values()
        for column in table.columns
        if column.transformer != "keep" or column.category
    ]
    return Planned(tuple(prepare.sizes(source, prepared)), tuple(sorted(columns)), prepared.notes, masks.version, source.moment)


def _plan_of_backup(settings: Settings, request: Request, at: RecoveryTarget, actor: Actor, clock: Clock, progress: Progress) -> Planned:
    """Recover the moment, look at it, and throw the quarantine away; journalled, so that one that was killed is thrown away by the next."""
    places.tidy(settings, request.database, clock)
    found, major = recovered.survey(settings, request.database, at, request.backup, _controller(request), actor, clock)
    journalled = _begin(settings, request, actor, clock, major, "", plan_only=True)
    with runs.guarded(journalled, clock):
        with (
            recovered.recovered(settings, journalled, found, at, clock, progress) as quarantine,
            sources.held(quarantine.url, streams.application_name(journalled.id), moment=_moment(quarantine, found)) as source,
        ):
            planned = _planned(settings, request, source, actor, clock, progress)
        runs.finish(journalled, RunState.CANCELLED, clock=clock)
    return planned


def run(settings: Settings, request: Request, actor: Actor, clock: Clock, progress: Progress | None = None) -> Outcome:
    """Make a copy, check it, mark it, open it.

    Raises:
        DataMapError, MaskingRefusedError, NotInstructedError, CloneRefusedError: something speaks against it; nothing was made.
        CloneLeakError: the check failed; the copy was dropped.
        CloneOvertakenError: somebody was erased meanwhile; the copy was dropped.
    """
    ledger.open_ledger(settings)
    places.tidy(settings, request.database, clock)
    progress = progress or Silent()
    if request.at is not None:
        return _of_backup(settings, request, request.at, actor, clock, progress)
    url = settings.database(request.database).url
    with Session.connect(url, application_name="obhut clone") as session:
        major = session.server_version // 10_000
        superuser = str(session.value("SELECT rolname FROM pg_roles WHERE oid = 10"))
    journalled = _begin(settings, request, actor, clock, major, superuser)
    with runs.guarded(journalled, clock):
        copying = Copying(settings, journalled, request, actor, clock, progress)
        with sources.held(url, copying.application) as source:
            return copying.carry_out(source)


def _of_backup(settings: Settings, request: Request, at: RecoveryTarget, actor: Actor, clock: Clock, progress: Progress) -> Outcome:
    """Make a copy of the moment of a backup; the living database is not asked."""
    found, major = recovered.survey(settings, request.database, at, request.backup, _controller(request), actor, clock)
    journalled = _begin(settings, request, actor, clock, major, "")
    with runs.guarded(journalled, clock):
        copying = Copying(settings, journalled, request, actor, clock, progress)
        with (
            recovered.recovered(settings, journalled, found, at, clock, progress) as quarantine,
            sources.held(quarantine.url, copying.application, moment=_moment(quarantine, found)) as source,
        ):
            return copying.carry_out(source)


def _controller(request: Request) -> str:
    return canonical_key(request.wanted.controller) if request.wanted.controller else ""


def _moment(quarantine: Quarantine, found: Sources) -> datetime:
    return quarantine.moment or found.chain[-1].end_time


def _begin(settings: Settings, request: Request, actor: Actor, clock: Clock, major: int, superuser: str, *, plan_only: bool = False) -> Run:
    parameters = {
        "target": request.target, "major": major, "superuser": superuser, "dbname": database_name(settings.database(request.database).url),
        "workers": request.workers, "subset": request.wanted.describe(), "at": str(request.at) if request.at else "",
        PLAN_ONLY: plan_only,
    }  # fmt: skip
    return runs.begin(RunKind.CLONE, request.database, actor, clock, parameters)


@dataclass
class Copying:
    """A copy being made by this process."""

    settings: Settings
    run: Run
    request: Request
    actor: Actor
    clock: Clock
    progress: Progress

    @property
    def application(self) -> str:
        """The name of this run's sessions."""
        return streams.application_name(self.run.id)

    @property
    def directory(self) -> Path:
        """Everything of this run."""
        return places.directory_of(self.settings, self.run.id)

    @property
    def _about(self) -> Checked:
        return Checked(self.settings, self.request.database, self.request.locale, self.request.workers)

    def programs(self) -> Binaries:
        """Return the programs of the source's major version."""
        return binaries(self.settings, int(str(self.run.parameters["major"])))

    def carry_out(self, source: Source) -> Outcome:
        """Carry out all steps; whatever is raised once something was made, the copy is dropped first."""
        prepared = self._prepare(source)
        originals, entries, roles, definitions = self._definitions(source, prepared)
        with runs.step(self.run, "target", self.clock):
            given = places.target_of(self.settings, self.run)
            if not given.owned:
                targets.require_empty(given)
        try:
            target = self._target()
            carrier, told, rows = self._load(source, prepared, target, entries, roles, originals)
            statements = [definitions, *self._check(source, target, originals, carrier, told)]
            return self._open(source, prepared, target, rows, statements)
        except BaseException:
            places.drop(self.settings, self.run, quarantine=False)
            raise

    def _prepare(self, source: Source) -> Prepared:
        with runs.step(self.run, "prepare", self.clock) as step:
            of_backup = self.request.at is not None
            graph, masks = prepare.masks_for(self.settings, self.request.database, source, self.request.locale, of_backup=of_backup)
            granted = prepare.instructed(source, graph, self.request.wanted, self.actor, self.clock, self.run.id)
            if granted:
                runs.permitted(self.run, granted[0].instruction_id)
            prepared = prepare.prepare(self.settings, source, graph, masks, self.request.wanted, self.clock, self.progress)
            archive(load_map(self.settings.database(self.request.database).map).database(self.request.database), self._maps)
            step.record(map=graph.version, list_size=prepared.head, lsn=source.lsn, moment=source.moment)
        return prepared

    @property
    def _maps(self) -> Path:
        return self.settings.state.directory / MAPS

    def _definitions(self, source: Source, prepared: Prepared) -> tuple[Originals, dict[Section, list[Entry]], list[str], Statement]:
        """Read the source's identifiers, and refuse a schema that names one before any of it is made."""
        with runs.step(self.run, "schema", self.clock) as step:
            with self.progress.phase("reading identifiers", None, "columns"):
                later = passing.compared(source.catalogue, prepared.masks, prepared.rows)
                originals = check.against(self._about, source.session, Database(source.url, self.application, source.snapshot), later)
            places.make_directory_of(self.settings, self.run.id)
            scratch = self._scratch()
            try:
                dumped = schema.dump(self.programs(), source.url, scratch, snapshot=source.snapshot)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            roles = schema.roles(self.programs(), source.url, passwords=False)
            unwanted = {*self.request.left_out}
            entries = {
                section: [entry for entry in dumped[section] if not _unwanted(entry) and entry.name not in unwanted] for section in Section
            }
            statement = check.definitions([entry for section in Section for entry in entries[section]], roles, originals)
            if statement.leaks:
                places.clear(self.directory)
                _refuse_leaks([statement], self.request.database)
            step.record(entries=sum(len(part) for part in entries.values()), identifiers=originals.identifiers.count)
        return originals, entries, roles, statement

    def _target(self) -> Target:
        target = places.target_of(self.settings, self.run)
        if not target.owned:
            targets.close_to_others(target)
            return target
        major = int(str(self.run.parameters["major"]))
        targets.new_cluster(self.settings, self.directory / "target", major, places.superuser_of(self.run), 16)
        return target

    def _load(
        self, source: Source, prepared: Prepared, target: Target, entries: dict[Section, list[Entry]], roles: Sequence[str],
        originals: Originals,
    ) -> tuple[Carrier, Told, int]:  # fmt: skip
        left_out = frozenset() if target.owned else frozenset(schema.of_the_database(entries))
        places.note_roles(target, roles)
        targets.make_database(target, entries[Section.PRE_DATA], roles)
        with target.session(self.application) as session:
            streams.prepare_records(session)
        facts = masking_facts.read(source.session, prepared.masks, source.catalogue)
        key = RunKey()
        try:
            pipe = streams.Pipe(
                source.url, target.url, prepared.rows.settings, self._scratch(), self.programs(), self.application, source.snapshot,
                source.path,
            )  # fmt: skip
            chosen = passing.tables(source.catalogue, prepared.masks, prepared.rows, originals)
            watch = Watch(originals, chosen)
            with maskers.forked(prepared.masks, key, facts, watch, self.request.workers) as masking:
                carrier = Carrier(prepared.masks, key, facts, prepared.rows, source.catalogue, pipe, masking, watch, chosen)
                loading = load.Loading(
                    pipe, source.url, target.url, source.catalogue, prepared.rows, entries, self.request.workers, left_out=left_out,
                    snapshot=source.snapshot, carrier=carrier, path=source.path,
                )  # fmt: skip
                rows = self._rows(source, prepared, loading, facts)
                told = watch.told
                for seen in masking.told():
                    told.add(seen)
        finally:
            key.destroy()
        return carrier, told, rows

    def _rows(self, source: Source, prepared: Prepared, loading: load.Loading, facts: Facts) -> int:
        with runs.step(self.run, "load", self.clock) as step:
            with load.loading_session(loading) as session:
                load.make_schema(session, loading)
                _close_ways_out(session)
                if refusals := trial(source.session, session, prepared.masks, source.catalogue, facts):
                    raise MaskingRefusedError(refusals)
            rows = load.load(loading, self.progress)
            step.record(rows=rows, deleted=prepared.rows.deleted)
        with runs.step(self.run, "connect", self.clock), explained():
            load.connect_tables(loading, self.progress)
        with runs.step(self.run, "finish", self.clock) as step, load.loading_session(loading) as session:
            made = objects.replace(source.session, session, source.catalogue)
            counted = finish.counters(source.session, prepared.graph, self.request.database)
            finish.set_sequences(session, counted, fresh=_above(counted, prepared, facts))
            views = finish.refresh_views(loading, source.session, self.progress)
            load.make_last(loading)
            traces.give_back(source.session, session)
            finish.analyse(loading, self.progress)
            step.record(sequences=len(counted), views=views, large_objects=made)
        return rows

    def _check(self, source: Source, target: Target, originals: Originals, carrier: Carrier, told: Told) -> list[Statement]:
        with runs.step(self.run, "check", self.clock) as step, target.session(self.application) as session:
            with self.progress.phase("searching the copy", None, "texts"):
                copied = Database(target.url, self.application)
                chosen, workers = carrier.chosen, self.request.workers
                passed = passing.settle(source.session, copied, source.catalogue, chosen, told, carrier.parts, originals, workers)
                later = passing.compared(source.catalogue, carrier.plan, carrier.rows) & originals.invented.keys() - passed.cells.keys()
                check.again(self._about, source.session, Database(source.url, self.application, source.snapshot), later, originals)
                found = check.copy(self._about, source.session, session, copied, originals, carrier.counts, passed)
            step.record(statements=len(found), leaks=len(leaks(found)), searched_while_passing=sum(map(len, passed.cleared.values())))
            if failed(found):
                _refuse_leaks(found, self.request.database)
        return found

    def _open(self, source: Source, prepared: Prepared, target: Target, rows: int, statements: list[Statement]) -> Outcome:
        label = judge(prepared.masks, Evidence(key_destroyed=True, leaks=len(leaks(statements))), self.clock.now().date()).label
        with runs.step(self.run, "open", self.clock) as step:
            with target.session(self.application) as session, session.transaction():
                content = Mark(
                    self.run.id, self.request.database, source.moment, source.lsn, prepared.graph.version, label.value,
                    self.request.wanted.describe(), tuple(statement.document() for statement in statements), self.clock.now(),
                    mark.place_of(session), roles=tuple(places.brought_roles(session)),
                )  # fmt: skip
                mark.write(session, content, open_keystore(self.settings))
            if target.cluster is not None:
                targets.make_durable(target.cluster)
                target.cluster.start(timeout=300)
            with ledger.places().writing():  # nobody is recorded between this look and the opening
                if any(chunk for chunk in reading.open_list(self.request.database, after=prepared.head, size=1)):
                    raise CloneOvertakenError(
                        "somebody was erased while the copy was being made", "It was dropped. Run it again, at a quieter time."
                    )
                places.release(target, self.application)
            shutil.rmtree(self.directory / "scratch", ignore_errors=True)
            step.record(label=label.value, place=content.place, rows=rows)
        runs.finish(self.run, RunState.DONE, clock=self.clock)
        return Outcome(self.run.id, target.url, label, rows, tuple(statements), prepared.notes)

    def _scratch(self) -> Path:
        scratch = self.directory / "scratch"
        scratch.mkdir(mode=0o700, exist_ok=True)
        return scratch


def _unwanted(entry: Entry) -> bool:
    """Whether a definition has no place in a copy: a way out, or what the audit log has added at the source."""
    return entry.kind in _WAYS_OUT or traces.is_trace(entry.kind, entry.schema, entry.tag)


def _refuse_leaks(statements: Sequence[Statement], database: str) -> NoReturn:
    found = leaks(failed(statements))
    if not found:
        first = failed(statements)[0]
        raise CloneLeakError(f"the leak check of the copy of {database} could not be trusted: {first.why}", None, statements)
    worst: dict[str, int] = {}
    for leak in found:
        worst[leak.place] = max(leak.cells, worst.get(leak.place, 0))
    named = ", ".join(f"{place} ({cells})" for place, cells in list(worst.items())[:_NAMED])
    more = f" and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
    raise CloneLeakError(
        f"the copy of {database} would leak values of the source in {len(worst)} places: {named}{more}",
        "It was dropped. Give the column a rule in the data map, or leave the definition out with --leave-out.",
        statements,
    )


def _close_ways_out(session: Session) -> None:
    """Take away where foreign servers lead; their tables stay, so that views over them can be made."""
    query = (
        "SELECT srvname, array(SELECT option_name FROM pg_options_to_table(srvoptions)) FROM pg_foreign_server WHERE srvoptions IS NOT NULL"
    )
    for server, options in session.rows(query):
        dropped = SQL(", ").join(SQL("DROP {}").format(Identifier(str(name))) for name in options)
        session.execute(SQL("ALTER SERVER {} OPTIONS ({})").format(Identifier(str(server)), dropped))


def _above(counted: Sequence[finish.Counter], prepared: Prepared, facts: Facts) -> dict[tuple[str, str], int]:
    """Return where sequences of re-issued keys go on: above every number that was handed out anew."""
    found: dict[tuple[str, str], int] = {}
    for counter in counted:
        sequence = counter.sequence
        if sequence.table is None or sequence.column is None:
            continue
        bounds = facts.bounds.get(f"{prepared.graph.catalogue.tables[sequence.table].full_name}.{sequence.column}")
        if bounds is not None:
            found[sequence.schema, sequence.name] = min(max(bounds.high, sequence.minimum), sequence.maximum)
    return found
