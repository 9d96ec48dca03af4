"""Facts for the decisions of :mod:`obhut.restores.plan`, gathered before the recovery and in the quarantine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from obhut.backups.errors import BackupError
from obhut.backups.repository import Backup, Repository
from obhut.backups.wal import free_bytes
from obhut.controllers import gate, register
from obhut.controllers.errors import NotInstructedError
from obhut.controllers.vocabulary import Action, canonical_key
from obhut.datamap.archive import archived, versions
from obhut.datamap.check import errors, examine
from obhut.datamap.graph import Graph
from obhut.datamap.load import load as load_map
from obhut.datamap.models import DatabaseMap
from obhut.erasure import ledger, objects, reading
from obhut.erasure.erase import MAPS
from obhut.erasure.errors import ErasureListError
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.errors import MissingComponentError
from obhut.foundation.ids import Lsn
from obhut.foundation.lsn import lsn_number
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import Catalogue, read_catalogue
from obhut.postgres.clusters import Binaries, binaries
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier
from obhut.restores.errors import RestoreRefusedError, RestoreTargetError
from obhut.restores.plan import DatabaseFacts, Decision, Form, RecoveryTarget, RepositoryFacts

_PREPARED = re.compile(r"tx:\s*(\d+).*?lsn: ([0-9A-F]+/[0-9A-F]+).*?desc: (PREPARE|COMMIT_PREPARED|ABORT_PREPARED)(?: (\d+):)?")


@dataclass(frozen=True)
class Sources:
    """What a restore starts from."""

    chain: tuple[Backup, ...]
    list_size: int
    list_hash: str
    tombstones: int


def survey(
    settings: Settings, database: str, target: RecoveryTarget, actor: Actor, clock: Clock, *, backup_id: str | None, action: Action,
    controller_keys: Sequence[str] | None = None, target_empty: bool = True,
) -> tuple[RepositoryFacts, Sources | None]:  # fmt: skip
    """Look at backups, WAL, programs, disk, erasure list and instructions; changes nothing.

    Raises:
        NoBackupError: there is nothing to start from.
    """
    repository = Repository(settings, database)
    backup = repository.backup(backup_id) if backup_id else repository.choose(_choice(target))
    chain: tuple[Backup, ...] = ()
    missing = False
    try:
        chain = tuple(repository.chain(backup.id))
    except BackupError:
        missing = True
    hole, reaches = _wal(repository, backup, target)
    list_error, size, digest, tombstones = _list(settings, database, clock)
    size_needed = sum(link.size for link in chain) * (2 if len(chain) > 1 else 1) + int(backup.size * 1.2)
    facts = RepositoryFacts(
        target=target,
        chain=len(chain),
        chain_missing=missing,
        wal_hole=hole,
        wal_reaches=reaches,
        major=backup.major,
        programs=_programs(settings, backup.major) is not None,
        needed_bytes=size_needed,
        free_bytes=free_bytes(settings.state.directory)[0],
        list_error=list_error,
        instruction_error=instructed(database, actor, clock, action=action, controller_keys=controller_keys),
        target_empty=target_empty,
    )
    return facts, (Sources(chain, size, digest, tombstones) if chain and not list_error else None)


def refuse(decision: Decision, what: str) -> None:
    """Refuse when something speaks against the restore.

    Raises:
        RestoreRefusedError: names every reason.
    """
    if decision.allowed:
        return
    reasons = tuple(f"{reason.fact}. {reason.todo}" for reason in decision.refusals)
    first = decision.refusals[0]
    more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
    raise RestoreRefusedError(f"{what}: {first.fact}{more}", first.todo, reasons)


def instructed(
    database: str, actor: Actor, clock: Clock, *, action: Action, controller_keys: Sequence[str] | None = None, run_id: str | None = None
) -> str | None:
    """Return what is missing for the instruction of every controller, or None."""
    keys = controller_keys
    if keys is None:
        keys = [record.key for record in register.list_controllers(database)]
    try:
        gate.permit_all(action, database=database, controller_keys=keys, actor=actor, clock=clock, run_id=run_id)
    except NotInstructedError as error:
        return error.fact
    return None


def controllers_in(source: Session, graph: Graph) -> list[str]:
    """Return the canonical keys of all controllers in the recovered database."""
    table = graph.catalogue.tables[graph.controller]
    columns = SQL(", ").join(SQL("{}::text").format(Identifier(name)) for name in graph.controller_key)
    return [canonical_key(row) for row in source.rows(SQL("SELECT {} FROM {}").format(columns, table.relation))]


def inspect(source: Session, catalogue: Catalogue, prepared: int, *, target: Session | None = None) -> DatabaseFacts:
    """Look at the recovered database itself.

    Args:
        source: a session on the quarantine.
        catalogue: of the quarantine.
        prepared: number of prepared transactions open at the target (see :func:`prepared_transactions`).
        target: the server that is restored into, if it is given and not made.
    """
    available = {str(name) for (name,) in (target or source).rows("SELECT name FROM pg_available_extensions")}
    objects = int(source.value("SELECT count(*) FROM pg_largeobject_metadata"))
    # What CREATE EXTENSION will make there, unless it is there already.
    asked = "SELECT name, coalesce(installed_version, default_version) FROM pg_available_extensions"
    versions = {str(name): str(version) for name, version in target.rows(asked)} if target else {}
    return DatabaseFacts(
        prepared_transactions=prepared,
        missing_extensions=tuple(sorted(set(catalogue.extensions) - available)),
        other_extensions=tuple(
            (name, version, versions[name])
            for name, version in sorted(catalogue.extensions.items())
            if name in versions and versions[name] != version
        ),
        missing_collations=tuple(_missing_collations(source)),
        large_objects=objects,
        large_objects_mapped=bool(large_object_columns(catalogue)),
        reads_everything=bool(source.value("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")),
        foreign_tables=tuple(table.full_name for table in catalogue.tables.values() if table.kind == "f"),
        unlogged_tables=tuple(table.full_name for table in catalogue.tables.values() if table.persistence == "u"),
        tablespaces=tuple(str(name) for (name,) in source.rows("SELECT spcname FROM pg_tablespace WHERE oid >= 16384")),
        subscriptions=int(
            source.value(
                "SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()"
            )
        ),
        publications=int(source.value("SELECT count(*) FROM pg_publication")),
        extension_tables=tuple(
            str(name)
            for (name,) in source.rows(
                "SELECT c.oid::regclass::text FROM pg_extension e, unnest(e.extconfig) AS u(oid) JOIN pg_class c ON c.oid = u.oid"
                " WHERE c.relkind = 'r' ORDER BY 1"
            )
        ),
        event_triggers=int(source.value("SELECT count(*) FROM pg_event_trigger")),
        collation_changes=tuple(
            str(name)
            for (name,) in source.rows(
                "SELECT collname FROM pg_collation WHERE collversion IS NOT NULL AND oid >= 16384"
                " AND collversion IS DISTINCT FROM pg_collation_actual_version(oid)"
            )
        ),
    )


def fitting_map(settings: Settings, database: str, catalogue: Catalogue) -> tuple[Graph | None, list[str], list[str]]:
    """Return the data map that fits the schema at the target, else what is wrong with the current one.

    The current map first; then the archived ones, the youngest first: the schema may be older than today's map.

    Returns:
        The graph or None; findings; tables and columns unknown to the current map.
    """
    directory = settings.state.directory / MAPS
    current = load_map(settings.database(database).map).database(database)
    graph, findings, unknown = _fits(database, current, catalogue)
    if graph is not None:
        return graph, [], []
    for version in versions(directory):
        older, _, _ = _fits(database, archived(version, directory), catalogue)
        if older is not None:
            return older, [], []
    return None, findings, unknown


def require_graph(settings: Settings, database: str, session: Session, *, without: str = "obhut_restore") -> Graph:
    """Return the fitting map resolved against a database, Obhut's own schema left out of sight.

    Raises:
        RestoreRefusedError: no known version of the map fits.
    """
    graph, findings, unknown = fitting_map(settings, database, hidden(read_catalogue(session), without))
    if graph is None:
        raise RestoreRefusedError(
            f"no known version of the data map fits the database: {(findings or unknown or ['it names other tables'])[0]}",
            "Bring back the map of that time; obhut datamap check names every difference.",
        )
    return graph


def hidden(catalogue: Catalogue, schema: str) -> Catalogue:
    """Return the catalogue without one schema."""
    tables = {oid: table for oid, table in catalogue.tables.items() if table.schema != schema}
    names = {table.full_name: oid for oid, table in tables.items()}
    return Catalogue(
        catalogue.server_version,
        tables,
        catalogue.foreign_keys,
        catalogue.sequences,
        catalogue.extensions,
        catalogue.materialised_views,
        names,
    )


def large_object_columns(catalogue: Catalogue) -> list[tuple[int, str]]:
    """Return the columns of leaf tables that can hold oids of large objects."""
    return [(oid, name) for oid, names in objects.naming(catalogue).items() for name in names]


def prepared_transactions(source: Session, programs: Binaries, data: Path, wal: Path, until: Lsn) -> int:
    """Return how many prepared transactions were open at the target; a standby does not list them.

    When nothing at all was running then, there were none. Otherwise the WAL tells: prepared, and neither committed nor rolled back.
    """
    idle = source.value("SELECT pg_snapshot_xmin(s) = pg_snapshot_xmax(s) FROM pg_current_snapshot() s")
    pending = {int(path.name, 16) for path in (data / "pg_twophase").iterdir()} if (data / "pg_twophase").is_dir() else set[int]()
    if idle and not pending:
        return 0
    for segment in sorted(path.name for path in wal.iterdir() if len(path.name) == 24):
        said = programs.run(["pg_waldump", "--rmgr=Transaction", "--path", wal, segment, segment], check=False).stdout
        for own, lsn, kind, other in _PREPARED.findall(said):
            if lsn_number(lsn) > lsn_number(until):
                return len(pending)
            if kind == "PREPARE":
                pending.add(int(own))
            elif other:
                pending.discard(int(other))
    return len(pending)


def _choice(target: RecoveryTarget) -> datetime | Lsn | None:
    return target.time if target.form is Form.TIME else Lsn(target.lsn) if target.lsn else None


def _wal(repository: Repository, backup: Backup, target: RecoveryTarget) -> tuple[str | None, bool]:
    timeline = repository.latest_timeline(backup)
    identifier = backup.system_identifier
    end = target.lsn if target.form is Form.LSN else None
    wanted = Lsn(end) if end else backup.end_lsn
    if end and lsn_number(end) < lsn_number(backup.end_lsn):
        raise RestoreTargetError(
            f"the target {end} lies before the end of base backup {backup.id}", "Choose a later point or an older backup."
        )
    if target.form is Form.LATEST and (gap := repository.wal_hole(timeline, backup.begin_lsn, system_identifier=identifier)):
        return f"segments {gap.first} to {gap.last}", True  # what was committed behind the hole would be lost without a word
    reachable = repository.wal_end(timeline, backup.begin_lsn, system_identifier=identifier)
    if lsn_number(wanted) <= lsn_number(reachable):
        return None, True
    hole = repository.wal_hole(timeline, backup.begin_lsn, wanted, system_identifier=identifier)
    return (f"segments {hole.first} to {hole.last}" if hole else None), hole is not None


def _list(settings: Settings, database: str, clock: Clock) -> tuple[str | None, int, str, int]:
    try:
        ledger.verify_list(settings, settle_at=clock)
        head = reading.head()
        return None, head.size, head.hash.hex(), reading.count(database)
    except ErasureListError as error:
        return error.fact, 0, "", 0


def _programs(settings: Settings, major: int) -> Binaries | None:
    try:
        found = binaries(settings, major)
        for name in ("initdb", "pg_ctl", "pg_dump", "pg_dumpall", "pg_restore", "psql", "pg_waldump", "pg_controldata", "pg_checksums"):
            found.path(name)
    except MissingComponentError:
        return None
    return found


def _missing_collations(source: Session) -> list[str]:
    missing = []
    for schema, name in source.rows(
        "SELECT n.nspname, c.collname FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid >= 16384"
    ):
        try:
            source.value(SQL("SELECT 'a' < 'b' COLLATE {}").format(Identifier(schema, name)))
        except DatabaseError:
            missing.append(f"{schema}.{name}")
    return missing


def _fits(database: str, rules: DatabaseMap, catalogue: Catalogue) -> tuple[Graph | None, list[str], list[str]]:
    """Any error refuses, as it does before an erasure: what the two do must not differ."""
    graph, findings = examine(rules, database, catalogue)
    found = errors(findings)
    unknown = [finding.fact for finding in found if finding.code in {"table-unknown", "column-unclassified"}]
    others = [finding.fact for finding in found if finding.fact not in unknown]
    return (None if found else graph), others, unknown
