"""The proof: statements about the finished target, each made by other means than the restore, each passed, failed or not checked.

What could not be checked is never shown as passed. A single failed statement keeps the database closed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from obhut.datamap.graph import Graph
from obhut.erasure import ledger, reading
from obhut.erasure.canary import Canary
from obhut.erasure.subjects import Person, lookup
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, qualified
from obhut.restores import absence, bystanders, figures, naming, scan
from obhut.restores.absence import Absence
from obhut.restores.bystanders import Innocent
from obhut.restores.figures import TableFigures
from obhut.restores.filter import Filter
from obhut.restores.finish import Counter
from obhut.restores.load import tables_to_load
from obhut.restores.occurring import Listed, Place
from obhut.restores.progress import Progress
from obhut.restores.quarantine import Quarantine
from obhut.restores.schema import Entry
from obhut.restores.target import Target


class Result(StrEnum):
    """What came of a statement."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the proof.

    Attributes:
        name: stable word, explained in docs/spec/certificate.md.
        result: passed, failed, or unchecked.
        numbers: what was counted.
        places: names of tables, objects or files concerned; never a value.
    """

    name: str
    result: Result
    numbers: Mapping[str, int] = field(default_factory=dict)
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CanaryFinding:
    """Where one canary was found. ``None``: it was not there to be found, or not looked for."""

    id: str
    planted_at: datetime
    rows_before: bool
    rows_after: bool
    bytes_before: bool | None
    bytes_after: bool | None


@dataclass(frozen=True)
class Proof:
    """Everything that was found out."""

    seed: int
    statements: tuple[Statement, ...]
    tables: tuple[TableFigures, ...]
    absences: tuple[Absence, ...]
    canaries: tuple[CanaryFinding, ...]

    @property
    def holds(self) -> bool:
        """Whether no statement failed and the two that carry the claim were made."""
        made = {statement.name for statement in self.statements if statement.result is Result.PASSED}
        return not self.failed and {"absence", "figures"} <= made

    @property
    def failed(self) -> tuple[Statement, ...]:
        """Statements that failed."""
        return tuple(statement for statement in self.statements if statement.result is Result.FAILED)


@dataclass(frozen=True)
class Evidence:
    """What the proof is made from."""

    quarantine: Quarantine
    target: Target
    source_graph: Graph
    target_graph: Graph
    rows: Filter
    entries: Sequence[Entry]  # schema and roles as dumped from the target
    roles: Sequence[str]
    canaries: Sequence[Canary]
    counters: Sequence[Counter]
    list_size: int
    now: datetime
    application: str
    scratch: Path


def prove(evidence: Evidence, progress: Progress) -> Proof:
    """Make every statement that can be made while the target's server runs; bytes follow in :func:`prove_files`."""
    seed = figures.new_seed()
    graph = evidence.target_graph
    with (
        Session.connect(evidence.quarantine.url, application_name=evidence.application) as source,
        evidence.target.session(evidence.application) as target,
    ):
        tables = figures.compare(
            evidence.quarantine.url,
            evidence.target.url,
            evidence.source_graph.catalogue,
            tables_to_load(evidence.source_graph.catalogue),
            evidence.rows,
            seed,
            progress,
            application=evidence.application,
        )
        with progress.phase("asking for erased people", None, "people"):
            keys = Listed(
                evidence.list_size, target=Place(target, graph, links=True), source=Place(source, evidence.source_graph, links=False)
            )
            absences = absence.ask(target, graph, keys, evidence.list_size, ledger.fingerprint_key(), evidence.now)
            listed = any(reading.open_list(graph.database, as_of=evidence.list_size, size=1))
        with progress.phase("looking for people who are not listed", None, "people"):
            innocents = bystanders.count(
                source, evidence.source_graph, evidence.rows, keys, evidence.list_size, ledger.fingerprint_key(), evidence.now
            )
        canaries = [_canary(source, target, evidence, canary) for canary in evidence.canaries]
        statements = [
            _figures(tables, evidence),
            _absence(absences, listed=listed),
            _bystanders(innocents),
            _keys(target),
            _schema(source, target, evidence),
            _statistics(source, target, evidence),
            _sequences(target, evidence.counters),
            _structure(target),
        ]
    return Proof(seed, tuple(statements), tuple(tables), tuple(absences), tuple(canaries))


@dataclass(frozen=True)
class Identifiers:
    """Identifiers of erased people, as they were stored, that nobody who stays shares, and how many stand in rows left out or changed."""

    chosen: tuple[str, ...] = ()
    total: int = 0


def prove_files(evidence: Evidence, proof: Proof, identifiers: Identifiers, progress: Progress) -> Proof:
    """Add what the bytes say: of the stopped target's directory, and of the quarantine's as the positive control.

    Args:
        evidence: whose target is stopped.
        proof: of :func:`prove`.
        identifiers: of :func:`unshared_identifiers`; at most :data:`scan.BYTE_SEARCHED` are looked for.
        progress: told what is going on.
    """
    cluster = evidence.target.cluster
    if cluster is None:
        unchecked = [Statement(name, Result.UNCHECKED) for name in ("bytes", "page-checksums")]
        return Proof(proof.seed, (*proof.statements, *unchecked, _control(proof.canaries)), proof.tables, proof.absences, proof.canaries)
    tokens = [canary.token for canary in evidence.canaries]
    before = evidence.quarantine.cluster.directory if evidence.quarantine.cluster else None
    with progress.phase("searching files", None, "files"), ThreadPoolExecutor(max_workers=2) as threads:
        checksums = threads.submit(
            cluster.binaries.run, ["pg_checksums", "--check", "--pgdata", cluster.data], as_server_user=True, check=False, timeout=86_400
        )
        searched = identifiers.chosen[: scan.BYTE_SEARCHED]
        wanted = [form for value in [*tokens, *searched] for form in scan.variants(value)]
        found = scan.files_with(cluster.directory, wanted, evidence.scratch)
        hits = scan.which_occur(cluster.directory, tokens, evidence.scratch) if found else set()
        controls = scan.which_occur(before, tokens, evidence.scratch) if before is not None else set()
        ended = checksums.result()
    canaries = tuple(
        CanaryFinding(
            finding.id,
            finding.planted_at,
            finding.rows_before,
            finding.rows_after,
            canary.token in controls if finding.rows_before and before is not None else None,
            canary.token in hits,
        )
        for finding, canary in zip(proof.canaries, evidence.canaries, strict=True)
    )
    numbers = {"patterns": len(wanted), "searched": len(searched), "identifiers": identifiers.total, "files": len(found)}
    # A search that did not find a canary where it was proves nothing by not finding it elsewhere.
    clean = Result.PASSED if controls else Result.UNCHECKED
    looked = Statement("bytes", Result.FAILED if found else clean, numbers, tuple(sorted(found))[:20])
    pages = Statement("page-checksums", _pages(ended.returncode, ended.stdout))
    return Proof(proof.seed, (*proof.statements, looked, pages, _control(canaries)), proof.tables, proof.absences, canaries)


def unshared_identifiers(evidence: Evidence, limit: int = scan.BYTE_SEARCHED) -> Identifiers:
    """Return identifiers of erased people, as they were stored, that nobody who stays shares, and how many were candidates.

    Only those that do not occur by chance: at least eight characters and not letters alone, since names and words stand in free text, too.
    """
    with (
        Session.connect(evidence.quarantine.url, application_name=evidence.application) as source,
        evidence.target.session(evidence.application) as target,
    ):
        values: list[str] = []
        total = 0
        for chunk in scan.identifiers(source, evidence.source_graph, evidence.rows, as_stored=True):
            total += len(chunk)
            if len(values) < limit:
                values.extend(value for value in chunk if len(value) >= 8 and not value.isalpha())
        values = values[:limit]
        shared = scan.still_there(target, evidence.target_graph, [value.lower() for value in values]) if values else set()
    return Identifiers(tuple(value for value in values if value.lower() not in shared), total)


def _figures(tables: Sequence[TableFigures], evidence: Evidence) -> Statement:
    wrong = tuple(f"{table.schema}.{table.name}" for table in tables if not table.holds)
    mine = {table.full_name for table in tables_to_load(evidence.source_graph.catalogue)}
    theirs = {table.full_name for table in tables_to_load(evidence.target_graph.catalogue) if table.schema != "obhut_restore"}
    numbers = {
        "tables": len(tables),
        "source": sum(table.source.rows for table in tables),
        "deleted": sum(table.deleted.rows for table in tables),
        "changed": sum(table.changed_before.rows for table in tables),
        "target": sum(table.target.rows for table in tables),
    }
    extra = tuple(sorted(mine ^ theirs))
    return Statement("figures", Result.FAILED if wrong or extra else Result.PASSED, numbers, (*wrong, *extra)[:50])


def _absence(absences: Sequence[Absence], *, listed: bool) -> Statement:
    """Judge the answers. Where somebody is listed and nobody was asked about, silence is no answer."""
    wrong = tuple(f"{asked.table}" for asked in absences if not asked.holds)
    numbers = {
        "people": max((asked.people for asked in absences), default=0),
        "questions": sum(asked.people > 0 for asked in absences),
        "rows": sum(asked.rows for asked in absences),
        "others": sum(asked.others for asked in absences),
    }
    silent = Result.UNCHECKED if listed and not numbers["questions"] else Result.PASSED
    return Statement("absence", Result.FAILED if wrong else silent, numbers, wrong)


def _bystanders(innocents: Sequence[Innocent]) -> Statement:
    wrong = tuple(counted.table for counted in innocents if counted.unexplained)
    sure = any(counted.unexplained and counted.certain for counted in innocents)
    numbers = {
        "listed": sum(counted.listed for counted in innocents),
        "left_out": sum(counted.left_out for counted in innocents),
        "anonymised": sum(counted.anonymised for counted in innocents),
        "unexplained": sum(counted.unexplained for counted in innocents),
    }
    result = Result.FAILED if sure else Result.UNCHECKED if wrong else Result.PASSED
    return Statement("bystanders", result, numbers, wrong)


def _keys(target: Session) -> Statement:
    count, open_ones = absence.foreign_keys(target)
    # A key that was not validated at the source stays so; it fails nothing, but it proves nothing either.
    return Statement("foreign-keys", Result.PASSED, {"keys": count, "not_validated": open_ones})


def _schema(source: Session, target: Session, evidence: Evidence) -> Statement:
    index = scan.TextIndex(scan.schema_places(evidence.entries, evidence.roles))
    names = naming.Names(evidence.entries, ledger.fingerprint_key())
    asked, found = 0, set[str]()
    for values in scan.identifiers(source, evidence.source_graph, evidence.rows):
        asked += len(values)
        places = _unshared(index, values, target, evidence)
        names.hide(places, values if places else ())
        found |= places
    tokens = [canary.token for canary in evidence.canaries]
    found |= index.find(tokens)
    names.hide(found, tokens)
    said = tuple(sorted(names.said(name) for name in found))[:50]
    return Statement("schema-text", Result.FAILED if found else Result.PASSED, {"values": asked}, said)


def _statistics(source: Session, target: Session, evidence: Evidence) -> Statement:
    """Look for values that the planner remembers and that are in no row: those were carried over, not gathered here."""
    places, columns = scan.statistics_places(target)
    index = scan.TextIndex(places)
    suspects: dict[str, set[str]] = defaultdict(set)
    for values in scan.identifiers(source, evidence.source_graph, evidence.rows):
        if index.find(values):
            for value in values:
                for place in index.find([value]):
                    suspects[place].add(value)
    found = index.find(canary.token for canary in evidence.canaries)
    for place, remembered in suspects.items():
        left = sorted(remembered - scan.still_there(target, evidence.target_graph, sorted(remembered)))
        # Another table may say the same word with good reason: an actor has the first name of somebody who was erased.
        if left and (place not in columns or scan.foreign_to(target, columns[place], left)):
            found.add(place)
    return Statement("planner-statistics", Result.FAILED if found else Result.PASSED, {}, tuple(sorted(found))[:50])


def _unshared(index: scan.TextIndex, values: Sequence[str], target: Session, evidence: Evidence) -> set[str]:
    hits = index.find(values)
    if not hits:
        return set()
    # A finding counts only for values that nobody who stays has: people share names.
    suspects = [value for value in values if index.find([value])]
    shared = scan.still_there(target, evidence.target_graph, suspects)
    return index.find(value for value in suspects if value not in shared)


def _sequences(target: Session, counters: Sequence[Counter]) -> Statement:
    behind = []
    for counter in counters:
        sequence = counter.sequence
        if counter.wanted is None:
            continue
        row = target.row(SQL("SELECT last_value, is_called FROM {}").format(qualified(sequence.schema, sequence.name)))
        last = int(row[0]) if row and row[1] else None
        if last is None or (last < counter.wanted if sequence.increment > 0 else last > counter.wanted):
            behind.append(f"{sequence.schema}.{sequence.name}")
    return Statement("sequences", Result.FAILED if behind else Result.PASSED, {"sequences": len(counters)}, tuple(behind))


def _structure(target: Session) -> Statement:
    """Check indexes against their tables with amcheck where the server has it."""
    available = target.value("SELECT true FROM pg_available_extensions WHERE name = 'amcheck'")
    installed = target.value("SELECT true FROM pg_extension WHERE extname = 'amcheck'")
    if not (available and installed):
        return Statement("index-structure", Result.UNCHECKED)
    count = 0
    for (oid,) in target.rows(
        "SELECT c.oid::int8 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
        " WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND c.oid >= 16384"
    ):
        target.execute("SELECT bt_index_check(%s::oid::regclass)", (oid,))
        count += 1
    return Statement("index-structure", Result.PASSED, {"indexes": count})


def _canary(source: Session, target: Session, evidence: Evidence, canary: Canary) -> CanaryFinding:
    key = ledger.fingerprint_key()
    before = any(person.fingerprint == canary.fingerprint for person in _people(source, evidence.source_graph, canary, key))
    after = any(person.fingerprint == canary.fingerprint for person in _people(target, evidence.target_graph, canary, key))
    return CanaryFinding(canary.id, canary.planted_at, before, after, None, None)


def _people(session: Session, graph: Graph, canary: Canary, mac_key: bytes) -> list[Person]:
    return lookup(session, graph, canary.subject_kind, [canary.key], mac_key)


def _control(canaries: Sequence[CanaryFinding]) -> Statement:
    """Judge the positive control: at least one canary was there before, and none is there after."""
    before = [finding for finding in canaries if finding.rows_before]
    after = [finding for finding in canaries if finding.rows_after or finding.bytes_after]
    numbers = {"canaries": len(canaries), "before": len(before), "after": len(after)}
    if after:
        return Statement("canaries", Result.FAILED, numbers, tuple(finding.id for finding in after))
    return Statement("canaries", Result.PASSED if before else Result.UNCHECKED, numbers)


def _pages(status: int, said: str) -> Result:
    if status == 0:
        return Result.PASSED
    return Result.FAILED if "Bad checksums:" in said else Result.UNCHECKED  # pg_checksums also ends so where they are switched off
