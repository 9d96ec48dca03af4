"""The restore of a whole database, step by step, each step journalled: killed anywhere, a resume goes on where it stopped.

Nothing is opened here. A restore ends as *partial*: proved, certified and closed. :mod:`obhut.restores.opening` makes it done.

Steps before the target exists are taken from the journal when they are done. Steps that work on the target always run again: the target
itself records what is complete in it, so they find little to do, and a target that had to be made anew is filled anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote

from obhut.backups.repository import Backup, Repository
from obhut.controllers import gate
from obhut.controllers.vocabulary import Action
from obhut.datamap.graph import Graph, map_version
from obhut.datamap.load import load as load_map
from obhut.erasure import canary as canaries
from obhut.erasure import ledger, reading
from obhut.erasure.closure import resolve
from obhut.erasure.entries import Tombstone
from obhut.erasure.refusals import explained
from obhut.erasure.subjects import Found, find
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.runs import Run, StepHandle
from obhut.journal.states import RunKind, RunState, StepState
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.clusters import Binaries, Cluster, binaries, make_directory, server_user
from obhut.postgres.connections import Session
from obhut.restores import (
    certificate,
    finish,
    late,
    leaks,
    load,
    naming,
    people,
    plan,
    preflight,
    prove,
    quarantine,
    schema,
    store,
    streams,
)
from obhut.restores import target as targets
from obhut.restores.errors import NotProvedError, RestoreRefusedError, RestoreStateError
from obhut.restores.filter import Filter
from obhut.restores.plan import Form, RecoveryTarget
from obhut.restores.progress import Progress, Silent
from obhut.restores.quarantine import Quarantine, Recovery
from obhut.restores.schema import Section
from obhut.restores.target import Target

RESTORES = "restores"
_PLACE = (
    "SELECT system_identifier::text || ':' || (SELECT oid::text FROM pg_database WHERE datname = current_database())"
    " FROM pg_control_system()"
)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        database: name of the protected database in the settings.
        to: the point in time.
        target: connection string of an empty database, or nothing for a new cluster.
        quarantine: connection string of a restore made elsewhere, or nothing.
        backup: base backup to start from; the newest fitting one by default.
        workers: streams side by side.
        left_out: schema entries that are not to be made, by name (``INDEX public.people_email``) or opaque name (``INDEX #…``).
    """

    database: str
    to: RecoveryTarget
    target: str = ""
    quarantine: str = ""
    backup: str = ""
    workers: int = 2
    left_out: tuple[str, ...] = ()

    def parameters(self) -> dict[str, object]:
        """Return the request as the journal keeps it."""
        return {
            "to": str(self.to),
            "target": self.target,
            "quarantine": self.quarantine,
            "backup": self.backup,
            "workers": self.workers,
            "left_out": [naming.digest(name, ledger.fingerprint_key()) for name in self.left_out] if self.left_out else [],
        }

    @classmethod
    def of(cls, run: Run) -> Request:
        """Return the request of a journalled run."""
        known = run.parameters
        left_out = known.get("left_out")
        return cls(
            run.database,
            plan.parse_target(str(known["to"])),
            str(known["target"]),
            str(known["quarantine"]),
            str(known["backup"]),
            int(str(known["workers"])),
            tuple(f"#{name}" for name in left_out) if isinstance(left_out, list) else (),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a restore stands after a command.

    Attributes:
        certificate: the signed certificate's file.
        page: the same to be read.
        url: connection string of the target, closed or open.
    """

    run: str
    state: RunState
    certificate: Path
    page: Path
    url: str
    holds: bool
    notes: tuple[str, ...] = ()


@dataclass
class Restore:
    """A restore being carried out by this process."""

    settings: Settings
    run: Run
    request: Request
    actor: Actor
    clock: Clock
    progress: Progress = field(default_factory=Silent)

    # -- surroundings ---------------------------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Everything of this run."""
        return self.settings.state.directory / RESTORES / self.run.id

    @cached_property
    def repository(self) -> Repository:
        """The backups."""
        return Repository(self.settings, self.request.database)

    @property
    def application(self) -> str:
        """The name of this run's sessions."""
        return streams.application_name(self.run.id)

    def programs(self, major: int) -> Binaries:
        """Return the programs of a major version."""
        return binaries(self.settings, major)

    @property
    def target_cluster(self) -> Cluster:
        """The new cluster, made or not."""
        major = self.source_major
        return Cluster(self.directory / "target", self.programs(major), server_user(self.settings))

    source_major: int = 18
    chain: tuple[Backup, ...] = ()
    head: int = 0  # size of the erasure list that is applied
    found: Found = field(default_factory=Found)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    _counted: tuple[int, list[finish.Counter]] | None = None

    # -- the steps ------------------------------------------------------------------------------------------------------------

    def carry_out(self) -> Outcome:
        """Carry out or go on with all steps up to the certificate.

        Raises:
            RestoreRefusedError: something speaks against it.
            NotProvedError: the proof failed; the target stays closed.
        """
        self._make_directory()
        self._preflight(Action.RESTORE, None)
        self._condemn()
        held = self._quarantine()
        with held.session(self.application) as source:
            streams.end_sessions(source, self.application)
            quarantine.require_still(source, held)
            graph = self._inspect(source, held)
            target = self._target(held)
            loading = self._loading(source, held, graph, target)
            self._fill(source, held, graph, loading)
            return self._settle(source, held, graph, target, loading)

    def _make_directory(self) -> None:
        make_directory(self.directory)
        self.directory.chmod(0o711)  # the account of the servers passes; what is below is private

    def _preflight(self, action: Action, controller_keys: Sequence[str] | None) -> None:
        with runs.step(self.run, "preflight", self.clock) as step:
            if step.already is None:
                if self.request.quarantine:
                    ledger.verify_list(self.settings, settle_at=self.clock)
                    with Session.connect(self.request.quarantine) as session:
                        step.record(backup="", major=session.server_version // 10_000)
                else:
                    facts, sources = preflight.survey(
                        self.settings, self.request.database, self.request.to, self.actor, self.clock,
                        backup_id=self.request.backup or None, action=action, controller_keys=controller_keys,
                    )  # fmt: skip
                    preflight.refuse(plan.judge_repository(facts), f"restore of {self.request.database} refused")
                    if sources is None:
                        raise RestoreRefusedError(f"restore of {self.request.database} refused: nothing to start from")
                    step.record(backup=sources.chain[-1].id, major=facts.major)
                if self.request.target and action is Action.RESTORE:
                    given = targets.on_server(self.request.target)
                    targets.require_empty(given)
            else:
                ledger.verify_list(self.settings, settle_at=self.clock)  # days may have passed
            self.source_major = int(str(step.facts["major"]))
            backup = str(step.facts["backup"])
        self.chain = tuple(self.repository.chain(backup)) if backup else ()

    def _condemn(self) -> None:
        """Tombstone the living canaries, and fix the size of the list that the load applies."""
        with runs.step(self.run, "condemn", self.clock) as step:
            if step.already is None:
                rules = load_map(self.settings.database(self.request.database).map).database(self.request.database)
                condemned = canaries.condemn(self.request.database, map_version(rules), self.actor, self.clock)
                step.record(list_size=reading.head().size, canaries=len(condemned))
            self.head = int(str(step.facts["list_size"]))

    def _quarantine(self) -> Quarantine:
        if self.request.quarantine:
            with runs.step(self.run, "adopt", self.clock) as step:
                held = quarantine.adopt(self.request.quarantine)
                step.record(lsn=held.lsn)
            return held
        recovery = Recovery(self.settings, self.repository, self.chain, self.request.to, self.directory, self.programs(self.source_major))
        with runs.step(self.run, "unseal", self.clock) as step:
            if step.already is None or not quarantine.is_unsealed(recovery):
                step.record(bytes=quarantine.unseal(recovery, self.progress))
        with runs.step(self.run, "wal", self.clock) as step:
            if step.already is None or not recovery.wal.is_dir():
                explicit = quarantine.stage_wal(recovery)
                if step.already is None:  # staged again, "latest" stays what it was
                    step.record(form=explicit.form, at=str(explicit) if explicit.form is not Form.NAME else quote(str(explicit)))
            explicit = plan.parse_target(unquote(str(step.facts["at"])))
        with runs.step(self.run, "recover", self.clock) as step:
            held = quarantine.recover(recovery, explicit, self.progress)
            if step.already is not None and step.already["lsn"] != held.lsn:
                raise RestoreStateError("the quarantine stands elsewhere than before", "Abandon this run and start another.")
            if step.already is None:
                step.record(lsn=held.lsn, moment=held.moment)
        return held

    def _inspect(self, source: Session, held: Quarantine) -> Graph:
        """Judge the recovered database, and ask for the instruction of every controller that is in it."""
        graph, findings, unknown = preflight.fitting_map(self.settings, self.request.database, read_catalogue(source))
        with runs.step(self.run, "inspect", self.clock) as step:
            catalogue = read_catalogue(source)
            cluster = held.cluster
            prepared = int(source.value("SELECT count(*) FROM pg_prepared_xacts"))  # none on a standby: there the WAL tells
            if cluster is not None:
                wal = cluster.directory / "wal"
                prepared = preflight.prepared_transactions(source, cluster.binaries, cluster.data, wal, held.lsn)
            given = Session.connect(self.request.target) if self.request.target else None
            try:
                facts = preflight.inspect(source, catalogue, prepared, target=given)
            finally:
                if given is not None:
                    given.close()
            facts = replace(facts, map_findings=tuple(findings), unknown_tables=tuple(unknown))
            decision = plan.judge_database(facts)
            preflight.refuse(decision, f"restore of {self.request.database} refused")
            if graph is None:
                raise RestoreRefusedError(f"restore of {self.request.database} refused: no version of the data map fits")
            self._permit(source, graph)
            self.notes = decision.notes
            step.record(map=graph.version, tables=len(catalogue.tables), large_objects=facts.large_objects)
        return graph

    def _permit(self, source: Session, graph: Graph) -> None:
        """Ask for the instruction of every controller that is in the recovered database."""
        keys = preflight.controllers_in(source, graph)
        granted = gate.permit_all(
            Action.RESTORE, database=self.request.database, controller_keys=keys, actor=self.actor, clock=self.clock, run_id=self.run.id
        )
        if granted:
            runs.permitted(self.run, granted[0].instruction_id)

    def _target(self, held: Quarantine) -> Target:
        with runs.step(self.run, "target", self.clock) as step:
            step.record(superuser=quote(held.superuser))
            if self.request.target:
                target = targets.on_server(self.request.target)
                targets.close_to_others(target)
            else:
                segment = self.chain[-1].wal_segment_size >> 20 if self.chain else 16
                cluster = targets.new_cluster(self.settings, self.directory / "target", self.source_major, held.superuser, segment)
                name = quarantine.database_name(self.settings.database(self.request.database).url)
                target = targets.on_cluster(cluster, name, held.superuser)
        return target

    def _loading(self, source: Session, held: Quarantine, graph: Graph, target: Target) -> load.Loading:
        """Compute the filter, dump the schema, refuse it where it names an erased person, and prepare the load."""
        scratch = self._scratch()
        rows = self._filter(source, graph, self.head)
        programs = self.programs(self.source_major)
        with runs.step(self.run, "schema", self.clock) as step:
            entries = schema.dump(programs, held.url, scratch)
            statements = schema.roles(programs, held.url)
            names = naming.Names((entry for section in Section for entry in entries[section]), ledger.fingerprint_key())
            wanted = {naming.digest(name, ledger.fingerprint_key()) for name in self.request.left_out}
            left_out = names.among(wanted) | leaks.to_leave_out(source, graph, rows, entries, statements, names, wanted)
            if not target.owned:
                left_out |= set(schema.of_the_database(entries))  # they name the source's database, not the given one
            self.left_out = tuple(names.said(name) for name in left_out)
            targets.make_database(target, entries[Section.PRE_DATA], statements, thaw=held.cluster is None)
            with target.session(self.application) as session:
                streams.end_sessions(session, self.application)
                streams.prepare_records(session)
            pipe = streams.Pipe(held.url, target.url, rows.settings, scratch, programs, self.application)
            loading = load.Loading(
                pipe, held.url, target.url, graph.catalogue, rows, entries, self.request.workers, left_out=frozenset(left_out)
            )
            with load.loading_session(loading) as session:
                load.make_schema(session, loading)
            step.record(entries=sum(len(part) for part in entries.values()), left_out=len(self.left_out))
        return loading

    def _filter(self, source: Session, graph: Graph, size: int) -> Filter:
        """Return what the erasure list, up to a size, does to the quarantine's rows; the same at every call."""
        with self.progress.phase("looking up erased people", None, "people") as advance:

            def counted() -> Iterator[Sequence[Tombstone]]:
                for chunk in people.relevant(source, graph, size):
                    yield chunk
                    advance(len(chunk))

            decisions = reading.resolutions(self.request.database)
            self.found = find(source, graph, counted(), ledger.fingerprint_key(), self.run.started_at, decisions)
            with explained():
                effects = resolve(source, graph, self.found.seeds)
        return Filter.of_effects(effects)

    def _fill(self, source: Session, held: Quarantine, graph: Graph, loading: load.Loading) -> None:
        with runs.step(self.run, "load", self.clock) as step:
            rows = load.load(loading, self.progress)
            if step.already is None:
                step.record(rows=rows, deleted=loading.rows.deleted, changed=loading.rows.changed)
        quarantine.require_still(source, held)
        with runs.step(self.run, "connect", self.clock), explained():
            load.connect_tables(loading, self.progress)
        with runs.step(self.run, "finish", self.clock) as step, load.loading_session(loading) as session:
            oids, orphans = finish.doomed_large_objects(source, loading, preflight.large_object_columns(loading.catalogue))
            finish.copy_large_objects(source, session, oids)
            counted = self._counters(source, graph)
            finish.set_sequences(session, counted)
            views = finish.refresh_views(loading, source, self.progress)
            load.make_last(loading)
            finish.analyse(loading, self.progress)
            step.record(large_objects=len(oids), large_objects_unnamed=orphans, sequences=len(counted), views=views)
            if orphans:
                self.notes = (*self.notes, f"{orphans} large objects that no remaining row names were left out")

    # -- proof ----------------------------------------------------------------------------------------------------------------

    def _settle(self, source: Session, held: Quarantine, graph: Graph, target: Target, loading: load.Loading) -> Outcome:
        """Carry in what was erased meanwhile, prove, certify."""
        if target.cluster is not None:
            target.cluster.start(timeout=600)
        with target.session(self.application) as session:
            size = late.carry_out(session, self.settings, self.request.database, after=self._first_head, now=self.run.started_at)
        rows = self._filter(source, graph, size) if size != self.head else loading.rows
        self.head = size
        with target.session(self.application) as session:
            place = str(session.value(_PLACE))  # a target that was made anew since the proof is another one, and not proved
            if size != self._first_head:
                finish.set_sequences(session, self._counters(source, graph))  # above the keys of those erased meanwhile, too
        with runs.step(self.run, self._named("prove"), self.clock) as step:
            done = store.find(self.run.id)
            # A proof that failed is made anew: the cause may have been settled since.
            again = done is None or not done.holds or done.document["certificate"]["erasure_list"]["size"] != size
            if step.already is None or again or step.already.get("place") != place:
                self._prove(source, held, graph, target, rows, step)
                step.record(place=place)
        done = store.find(self.run.id)
        if done is None:
            raise RestoreStateError("the certificate of the run is missing", 'Run "obhut restore resume" again.')
        if not done.holds:
            failed = [s for s in done.document["certificate"]["statements"] if s["result"] == "failed"]
            places = ", ".join(failed[0]["places"][:3]) if failed and failed[0]["places"] else ""
            raise NotProvedError(
                f"the proof failed: {', '.join(s['name'] for s in failed) or 'statements are missing'}"
                + (f" ({places})" if places else ""),
                f'The database stays closed. "obhut restore show {self.run.id}" lists every statement.',
            )
        if target.cluster is not None:
            targets.settle(target.cluster)
        runs.finish(self.run, RunState.PARTIAL, clock=self.clock)
        paths = store.paths(self.settings, self.run.id)
        return Outcome(self.run.id, RunState.PARTIAL, *paths, target.url, holds=True, notes=self.notes)

    def _named(self, step: str) -> str:
        """Return the name of a step that may have to be made again when the list has grown."""
        return step if self.head == self._first_head else f"{step}-{self.head}"

    @cached_property
    def _first_head(self) -> int:
        steps = {step.name: step for step in runs.list_steps(self.run.id)}
        return int(str(steps["condemn"].facts["list_size"]))

    def _prove(self, source: Session, held: Quarantine, graph: Graph, target: Target, rows: Filter, step: StepHandle) -> None:
        scratch = self._scratch()
        programs = self.programs(self.source_major)
        dumped = schema.dump(programs, target.url, scratch)
        entries = [entry for section in Section for entry in dumped[section] if entry.schema != streams.RECORDS]
        with target.session(self.application) as session:
            mine = preflight.require_graph(self.settings, self.request.database, session)
            system = str(session.value("SELECT system_identifier FROM pg_control_system()"))
        condemned = [canary for canary in canaries.all_of(self.request.database) if canary.tombstone is not None]
        evidence = prove.Evidence(
            held, target, graph, mine, rows, entries, schema.roles(programs, target.url) if target.owned else [], condemned,
            self._counters(source, graph), self.head, self.run.started_at, self.application, scratch,
        )  # fmt: skip
        proof = prove.prove(evidence, self.progress)
        identifiers = prove.unshared_identifiers(evidence) if target.owned else prove.Identifiers()
        if target.cluster is not None:
            self._reset_wal_if_deleted(target.cluster)
            target.cluster.stop(timeout=600)
        with ThreadPoolExecutor(1) as thread:
            flushed = thread.submit(targets.flush, target.cluster) if target.cluster is not None else None
            proof = prove.prove_files(evidence, proof, identifiers, self.progress)
            if flushed is not None:
                flushed.result()
        if target.cluster is not None:
            targets.keep_durable(target.cluster)
        about = self._circumstances(held, graph, system, source.server_version, owned=target.owned)
        content = certificate.build(about, proof)
        store.keep(self.settings, self.run, content, self.clock)
        step.record(holds=proof.holds, statements=len(proof.statements), list_size=self.head)

    def _counters(self, source: Session, graph: Graph) -> list[finish.Counter]:
        if self._counted is None or self._counted[0] != self.head:
            self._counted = self.head, finish.counters(source, graph, self.request.database)
        return self._counted[1]

    def _reset_wal_if_deleted(self, cluster: Cluster) -> None:
        """Begin new WAL where rows were deleted in the target itself: the old one holds them."""
        if self.head == self._first_head:
            return
        cluster.stop(timeout=600)
        cluster.binaries.run(["pg_resetwal", "--pgdata", cluster.data], as_server_user=True)

    def _circumstances(
        self, held: Quarantine, graph: Graph, system: str, version: int, *, owned: bool, scope: str = "database", schema: str | None = None
    ) -> certificate.Circumstances:
        head = reading.head()
        return certificate.Circumstances(
            run=self.run.id,
            scope=scope,
            database=self.request.database,
            asked=str(self.request.to),
            lsn=held.lsn,
            moment=held.moment,
            backups=tuple(link.id for link in self.chain),
            source_system=str(self.chain[-1].system_identifier) if self.chain else "",
            target_system=system,
            target_owned=owned,
            server_version=version,
            list_size=self.head,
            list_hash=head.hash.hex() if head.size == self.head else "",
            tombstones=reading.count(self.request.database),
            people_found=self.found.people,
            people_other=self.found.later,
            map_version=graph.version,
            schema=schema,
            left_out=tuple(sorted(self.left_out)),
            notes=self.notes,
            gone_by=self.clock.now() + self.settings.database(self.request.database).backup.gone_after,
            issued_at=self.clock.now(),
        )

    def _scratch(self) -> Path:
        scratch = self.directory / "scratch"
        scratch.mkdir(mode=0o700, exist_ok=True)
        return scratch


def begin(settings: Settings, request: Request, actor: Actor, clock: Clock, progress: Progress | None = None) -> Outcome:
    """Restore a database up to its certificate.

    Raises:
        RestoreRefusedError, NotInstructedError: something speaks against it.
        NotProvedError: the proof failed; the target stays closed.
    """
    ledger.open_ledger(settings)
    run = runs.begin(RunKind.RESTORE, request.database, actor, clock, {**request.parameters(), "scope": "database"})
    with runs.guarded(run, clock):
        return Restore(settings, run, request, actor, clock, progress or Silent()).carry_out()


def resume(settings: Settings, run_id: str, actor: Actor, clock: Clock, progress: Progress | None = None) -> Outcome:
    """Go on with a restore that was interrupted.

    Raises:
        RunBusyError: its process lives.
        RunStateError: it is done or abandoned.
    """
    ledger.open_ledger(settings)
    _require_closed(run_id)
    run = runs.resume(run_id, clock)
    with runs.guarded(run, clock):
        return Restore(settings, run, Request.of(run), actor, clock, progress or Silent()).carry_out()


def was_opened(run_id: str) -> bool:
    """Whether the database of a restore was opened, though the run may have been killed before its end."""
    return any(step.name == "open" and step.state is StepState.DONE for step in runs.list_steps(run_id))


def _require_closed(run_id: str) -> None:
    if was_opened(run_id):
        raise RestoreStateError("the restored database is open already", f'Run "obhut restore open {run_id}" to end the run.')


def abandon(settings: Settings, run_id: str, clock: Clock) -> None:
    """Give a restore up: quarantine and target of Obhut's own are removed, a given target stays closed.

    Raises:
        RunStateError: it is done (opened) or abandoned already.
        RestoreStateError: it is open, only its run was killed before the end; people may work in it.
    """
    _require_closed(run_id)
    run = runs.resume(run_id, clock)
    with runs.guarded(run, clock):
        remove(settings, run, target=True)
        runs.finish(run, RunState.CANCELLED, clock=clock)


def remove(settings: Settings, run: Run, *, target: bool) -> None:
    """Remove what a run left: its quarantine always, its target when it was given up."""
    directory = settings.state.directory / RESTORES / run.id
    steps = {step.name: step for step in runs.list_steps(run.id)}
    major = int(str(steps["preflight"].facts.get("major", 18))) if "preflight" in steps else 18
    for name in ("quarantine", "target") if target else ("quarantine",):
        Cluster(directory / name, binaries(settings, major), server_user(settings)).remove()
    shutil.rmtree(directory / "scratch", ignore_errors=True)
    if target:
        shutil.rmtree(directory, ignore_errors=True)
