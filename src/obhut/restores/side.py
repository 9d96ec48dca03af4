"""Restoring one controller's rows, or one person's, into a side schema; the vendor takes them from there.

The same quarantine, the same erasure list, the same certificate; only the choice of rows is the other way round: those that belong to the
controller or person by the links of the data map, less those that the list leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from obhut.controllers import gate, register
from obhut.controllers.vocabulary import Action, SubjectRef, canonical_key
from obhut.datamap.graph import Graph
from obhut.erasure import ledger, reading
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.closure import select_rows
from obhut.erasure.subjects import lookup
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.runs import Run
from obhut.journal.states import RunKind, RunState
from obhut.keystore import open_keystore
from obhut.postgres.catalogue import Catalogue, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, column_list, trusted
from obhut.restores import absence, certificate, figures, quarantine, store, streams
from obhut.restores.errors import NotProvedError, RestoreRefusedError, RestoreStateError
from obhut.restores.figures import SourceSums, TableFigures
from obhut.restores.filter import Filter
from obhut.restores.plan import RecoveryTarget
from obhut.restores.progress import Progress, Silent
from obhut.restores.prove import Proof, Result, Statement
from obhut.restores.quarantine import Quarantine
from obhut.restores.run import Outcome, Request, Restore, remove

_CHUNK = 100_000
_PURPOSE = "restore-subject"


@dataclass(frozen=True)
class SideRequest:
    """What is asked for.

    Attributes:
        database: name of the protected database in the settings.
        to: the point in time.
        schema: the side schema; must not exist.
        target: connection string of the database that takes the schema; by default the protected database.
        controller: key of the controller whose rows are wanted, or nothing.
        subject_kind: kind of the person whose rows are wanted, or nothing.
        subject: the person's key.
    """

    database: str
    to: RecoveryTarget
    schema: str = "obhut_restored"
    target: str = ""
    quarantine: str = ""
    backup: str = ""
    workers: int = 2
    controller: tuple[str, ...] = ()
    subject_kind: str = ""
    subject: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """``controller`` or ``subject``."""
        return "controller" if self.controller else "subject"

    @property
    def action(self) -> Action:
        """What the controller must have instructed."""
        return Action.RESTORE_CONTROLLER if self.controller else Action.RESTORE_SUBJECT


def begin(settings: Settings, request: SideRequest, actor: Actor, clock: Clock, progress: Progress | None = None) -> Outcome:
    """Restore the rows into the side schema, and certify them.

    Raises:
        NotInstructedError: the controller has not instructed it.
        RestoreRefusedError: something speaks against it, or the person is on the erasure list.
        NotProvedError: the counts do not hold; the side schema is left for inspection.
    """
    ledger.open_ledger(settings)
    # A person's key is personal data: the journal gets it sealed.
    sealed = open_keystore(settings).wrap(_PURPOSE, json.dumps([request.controller, request.subject]).encode()).hex()
    common = Request(request.database, request.to, request.target, request.quarantine, request.backup, request.workers)
    parameters = {
        **common.parameters(), "scope": request.scope, "schema": quote(request.schema), "kind": request.subject_kind, "who": sealed,
    }  # fmt: skip
    run = runs.begin(RunKind.RESTORE, request.database, actor, clock, parameters)
    with runs.guarded(run, clock):
        return SideRestore(settings, run, common, actor, clock, progress or Silent(), side=request).carry_out()


def resume(settings: Settings, run_id: str, actor: Actor, clock: Clock, progress: Progress | None = None) -> Outcome:
    """Go on with a restore into a side schema that was interrupted."""
    ledger.open_ledger(settings)
    run = runs.resume(run_id, clock)
    with runs.guarded(run, clock):
        request = _request(settings, run)
        return SideRestore(settings, run, Request.of(run), actor, clock, progress or Silent(), side=request).carry_out()


def _request(settings: Settings, run: Run) -> SideRequest:
    known, common = run.parameters, Request.of(run)
    controller, subject = json.loads(open_keystore(settings).unwrap(_PURPOSE, bytes.fromhex(str(known["who"]))))
    return SideRequest(
        run.database, common.to, unquote(str(known["schema"])), common.target, common.quarantine, common.backup, common.workers,
        tuple(controller), str(known["kind"]), tuple(subject),
    )  # fmt: skip


@dataclass
class SideRestore(Restore):
    """A restore into a side schema being carried out by this process."""

    side: SideRequest = None  # type: ignore[assignment]  # always given; a dataclass wants a default after defaults

    def carry_out(self) -> Outcome:
        """Carry out or go on with all steps up to the certificate."""
        self._make_directory()
        self._preflight(self.side.action, [canonical_key(self.side.controller)] if self.side.controller else [])
        self._condemn()
        held = self._quarantine()
        with held.session(self.application) as source:
            streams.end_sessions(source, self.application)
            quarantine.require_still(source, held)
            graph = self._inspect(source, held)
            rows = self._filter(source, graph, self.head)
            with runs.step(self.run, "select", self.clock) as step:
                selected = self._select(source, graph, rows)
                step.record(rows=sum(found.count for found in selected.values()), tables=len(selected))
            url = self.side.target or self.settings.database(self.side.database).url
            with Session.connect(url, application_name=self.application) as target:
                streams.end_sessions(target, self.application)
                with runs.step(self.run, "load", self.clock):
                    names = self._load(source, target, graph.catalogue, selected, rows)
                with runs.step(self.run, "prove", self.clock) as step:
                    done = store.find(self.run.id)
                    if step.already is None or done is None or not done.holds:
                        self._certify(source, target, held, graph, selected, rows, names)
                self._require_current(target)
        kept = store.find(self.run.id)
        if kept is None or not kept.holds:
            raise NotProvedError(
                "the rows in the side schema are not those of the backup", f"Drop schema {self.side.schema}, and restore again."
            )
        remove(self.settings, self.run, target=False)
        state = runs.finish(self.run, RunState.DONE, clock=self.clock).state
        return Outcome(self.run.id, state, *store.paths(self.settings, self.run.id), url, holds=True, notes=self.notes)

    def _require_current(self, target: Session) -> None:
        """Refuse when somebody was erased since the list was read: no later erasure would look into the side schema."""
        with ledger.places().writing():
            late = any(reading.open_list(self.side.database, after=self.head, size=1))
        if late:
            target.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(self.side.schema)))
            raise RestoreRefusedError(
                "somebody was erased while the rows were restored", "The side schema is gone again. Begin another restore."
            )

    def _permit(self, source: Session, graph: Graph) -> None:
        """Ask for the instruction of the one controller concerned."""
        key, subject = self.side.controller, None
        if self.side.subject_kind:
            people = lookup(source, graph, self.side.subject_kind, [self.side.subject], ledger.fingerprint_key())
            if not people:
                raise RestoreRefusedError("the person is not in the database at that point", "Is the key right? Choose another point.")
            key, subject = people[0].controller_key, SubjectRef(self.side.subject_kind, self.side.subject)
        found = register.find_controller(self.side.database, key)
        granted = gate.permit(
            self.side.action, controller_id=found.id if found else "", database=self.side.database, subject=subject,
            actor=self.actor, clock=self.clock, run_id=self.run.id,
        )  # fmt: skip
        runs.permitted(self.run, granted.instruction_id)

    def _select(self, source: Session, graph: Graph, rows: Filter) -> dict[int, RowAddresses]:
        """Return all rows that belong to the controller or person.

        Raises:
            RestoreRefusedError: neither is there at that point, or the person is on the erasure list.
        """
        if self.side.subject_kind:
            people = lookup(source, graph, self.side.subject_kind, [self.side.subject], ledger.fingerprint_key())
            start = {person.oid: RowAddresses([person.address]) for person in people}
            if start and not any(addresses - rows.of(oid).deleted for oid, addresses in start.items()):
                raise RestoreRefusedError("the person is on the erasure list and is not brought back", 'See "obhut erasures list".')
        else:
            table = graph.catalogue.tables[graph.controller]
            where = SQL(" AND ").join(SQL("{}::text = %s").format(Identifier(name)) for name in graph.controller_key)
            found = source.addresses(
                SQL("SELECT tableoid, ctid FROM {} WHERE {}").format(table.relation, where), list(self.side.controller)
            )
            start = {oid: RowAddresses.from_tids([address]) for oid, address in found}
        if not start:
            raise RestoreRefusedError(
                f"the {self.side.scope} is not in the database at that point", "Is the key right? Choose another point."
            )
        return select_rows(source, graph, start)

    def _load(
        self, source: Session, target: Session, catalogue: Catalogue, selected: Mapping[int, RowAddresses], rows: Filter
    ) -> dict[int, str]:
        """Make the side schema and load the chosen rows; return the name of each table there, by oid of its root."""
        names = _names(catalogue, selected)
        streams_mark = f"obhut restore {self.run.id}"
        comment = target.value("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (self.side.schema,))
        exists = target.value("SELECT true FROM pg_namespace WHERE nspname = %s", (self.side.schema,))
        if exists and comment != streams_mark:
            raise RestoreStateError(f"there is a schema {self.side.schema} already", "Name another with --schema, or drop it.")
        # One transaction: a killed load leaves nothing, and a finished one is recognised by its mark.
        if exists:
            return names
        with target.transaction():
            place = Identifier(self.side.schema)
            target.execute(SQL("CREATE SCHEMA {}").format(place))
            for oid, name in names.items():
                target.execute(_definition(catalogue.tables[oid], self.side.schema, name))
            for leaf, addresses in selected.items():
                table = catalogue.tables[leaf]
                into = Identifier(self.side.schema, names[catalogue.root(leaf).oid])
                for query in _queries(table, addresses, rows):
                    statement = streams.copy_in(into, table, SQL(""))
                    for name, value in rows.settings.items():
                        source.set(name, value)
                    target.copy_in(statement, streams.rows_out(source, target, table, query))
            target.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(place, trusted("'" + streams_mark + "'")))
        return names

    def _certify(
        self, source: Session, target: Session, held: Quarantine, graph: Graph, selected: Mapping[int, RowAddresses], rows: Filter,
        names: Mapping[int, str],
    ) -> None:  # fmt: skip
        seed = figures.new_seed()
        for name, value in rows.settings.items():
            source.set(name, value)
        tables = [self._figures(source, target, graph.catalogue, root, name, selected, rows, seed) for root, name in names.items()]
        wrong = tuple(f"{table.schema}.{table.name}" for table in tables if not table.holds)
        numbers = {"tables": len(tables), "source": sum(t.source.rows for t in tables), "deleted": sum(t.deleted.rows for t in tables),
                   "changed": sum(t.changed_before.rows for t in tables), "target": sum(t.target.rows for t in tables)}  # fmt: skip
        people, found = self._erased_in(target, graph, names)
        statements = (
            Statement("figures", Result.FAILED if wrong else Result.PASSED, numbers, wrong),
            Statement("absence", Result.FAILED if found else Result.PASSED, {"people": people, "rows": found}),
            Statement("bytes", Result.UNCHECKED),
        )
        proof = Proof(seed, statements, tuple(tables), (), ())
        system = str(target.value("SELECT system_identifier FROM pg_control_system()"))
        about = self._circumstances(held, graph, system, source.server_version, owned=False, scope=self.side.scope, schema=self.side.schema)
        store.keep(self.settings, self.run, certificate.build(about, proof), self.clock)

    def _figures(
        self, source: Session, target: Session, catalogue: Catalogue, root: int, name: str, selected: Mapping[int, RowAddresses],
        rows: Filter, seed: int,
    ) -> TableFigures:  # fmt: skip
        sums = SourceSums()
        columns = catalogue.tables[root]
        for leaf, addresses in selected.items():
            if catalogue.root(leaf).oid != root:
                continue
            # A partition may have its columns in another order than its root: the hash takes them in the root's.
            table = _ordered(catalogue.tables[leaf], columns)
            sums = sums + figures.sums_of_rows(source, table, addresses, rows.of(leaf), seed)
        there = replace(columns, schema=self.side.schema, name=name, kind="r")
        found = figures.sum_all(target, there, seed)
        kinds = tuple((column.name, figures.how(column)) for column in columns.columns if not column.is_generated)
        return TableFigures(self.side.schema, name, kinds, sums.all, sums.deleted, sums.before, sums.after, found)

    def _erased_in(self, target: Session, graph: Graph, names: Mapping[int, str]) -> tuple[int, int]:
        """Ask the side schema itself for people on the erasure list."""
        tables = dict(graph.catalogue.tables)
        for root, name in names.items():
            tables[root] = replace(tables[root], schema=self.side.schema, name=name, kind="r")
        there = replace(graph, catalogue=replace(graph.catalogue, tables=tables))
        people = found = 0
        for kind, subject in graph.subjects.items():
            if subject.table in names:
                listed, present = absence.rows_of(target, there, kind, self.head, ledger.fingerprint_key(), self.run.started_at)
                people, found = people + listed, found + present
        return people, found


def _names(catalogue: Catalogue, selected: Mapping[int, RowAddresses]) -> dict[int, str]:
    roots = {catalogue.root(leaf).oid: catalogue.root(leaf) for leaf, addresses in selected.items() if addresses}
    plain = [table.name for table in roots.values()]
    return {oid: table.name if plain.count(table.name) == 1 else f"{table.schema}_{table.name}"[:63] for oid, table in roots.items()}


def _definition(table: Table, schema: str, name: str) -> Composable:
    """Return a plain table with the same stored columns and primary key, without defaults, sequences and foreign keys."""
    columns = [
        SQL("{} {}{}").format(Identifier(column.name), trusted(column.type), SQL(" NOT NULL" if column.not_null else ""))
        for column in table.columns
        if not column.is_generated
    ]
    if table.primary_key:
        columns.append(SQL("PRIMARY KEY ({})").format(column_list(table.primary_key)))
    return SQL("CREATE TABLE {} ({})").format(Identifier(schema, name), SQL(", ").join(columns))


def _queries(table: Table, addresses: RowAddresses, rows: Filter) -> list[Composable]:
    mine = rows.of(table.oid)
    found: list[Composable] = []
    for chunk in (addresses - mine.excluded).chunks(_CHUNK):
        values: Composable = column_list(table.stored_columns)
        found.append(SQL("SELECT {} FROM {} WHERE ctid = ANY({})").format(values, table.relation, chunk.literal()))
    for change in mine.changes:
        for chunk in (addresses & change.rows).chunks(_CHUNK):
            values = SQL(", ").join(change.assignments.get(name, Identifier(name)) for name in table.stored_columns)
            found.append(SQL("SELECT {} FROM {} WHERE ctid = ANY({})").format(values, table.relation, chunk.literal()))
    return found


def _ordered(leaf: Table, root: Table) -> Table:
    return replace(leaf, columns=tuple(leaf.by_name[column.name] for column in root.columns))
