"""The database that a copy goes into, and how it is thrown away: nothing of a copy that failed is left."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from obhut.clones import mark, objects
from obhut.clones.errors import CloneMarkError
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.runs import Run
from obhut.journal.states import RunKind, RunState
from obhut.keystore import open_keystore
from obhut.postgres.clusters import Cluster, make_directory
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier
from obhut.restores import schema, streams
from obhut.restores import target as targets
from obhut.restores.target import Target

CLONES = "clones"
QUARANTINE = "quarantine"  # where a backup is recovered, below the directory of a run
_ROLE = "role: "  # recorded in a given database: a role that the copy brought to the server
_UNUSED = """
SELECT r.rolname FROM pg_roles r WHERE r.rolname = ANY(%(brought)s)
  AND NOT EXISTS (SELECT FROM pg_shdepend d JOIN pg_database b ON b.datname = current_database()
    WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.classid <> 'pg_auth_members'::regclass
      AND d.dbid <> b.oid AND NOT (d.dbid = 0 AND d.classid = 'pg_database'::regclass AND d.objid = b.oid))
  AND NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.member
    WHERE m.roleid = r.oid AND o.rolname <> current_user AND o.rolname <> ALL(%(brought)s))
  AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid)
"""
_OURS = ("information_schema", streams.RECORDS)


def directory_of(settings: Settings, run_id: str) -> Path:
    """Return where everything of a copy lies."""
    return settings.state.directory / CLONES / run_id


def make_directory_of(settings: Settings, run_id: str) -> Path:
    """Make the directory of a copy; the account of the servers passes, what is below is private."""
    directory = directory_of(settings, run_id)
    make_directory(directory)
    directory.chmod(0o711)
    return directory


def clear(directory: Path) -> None:
    """Remove everything of a copy but a quarantine, which whoever started it ends."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name != QUARANTINE:
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # a quarantine is in it
        directory.rmdir()


def written(name: str) -> str:
    """Return the name of a role as the journal can hold it."""
    return quote(name)


def own_cluster(settings: Settings, run: Run) -> Cluster:
    """Return the copy's own cluster, made or not."""
    return targets.cluster_at(settings, directory_of(settings, run.id) / "target", int(str(run.parameters["major"])))


def target_of(settings: Settings, run: Run) -> Target:
    """Return where a journalled run put, or puts, its copy."""
    if given := str(run.parameters["target"]):
        return targets.on_server(given)
    return targets.on_cluster(own_cluster(settings, run), str(run.parameters["dbname"]), superuser_of(run))


def superuser_of(run: Run) -> str:
    """Return the role that initdb made at the source, and makes at the copy; known from the recovery where the source is a backup."""
    told = (unquote(str(step.facts["superuser"])) for step in runs.list_steps(run.id) if "superuser" in step.facts)
    return str(run.parameters["superuser"]) or next(told, "postgres")


def reached(settings: Settings, run: Run) -> Target:
    """Return the target of a run, its own server started."""
    target = target_of(settings, run)
    if target.cluster is not None and target.cluster.initialised:
        target.cluster.start(timeout=300)
    return target


def note_roles(target: Target, statements: Sequence[str]) -> None:
    """Record in a given database which roles the copy will bring to its server, before it does: they are dropped with a copy that fails."""
    if target.owned:
        return
    with target.session("obhut clone") as session:
        existing = {str(name) for (name,) in session.rows("SELECT rolname FROM pg_roles")}
        for name in schema.created_roles(schema.missing_roles(statements, existing, alter=False)):
            streams.record(session, f"{_ROLE}{name}")


def drop(settings: Settings, run: Run, *, quarantine: bool = True) -> list[str]:
    """Throw a copy away: its own cluster with all files, or everything that was put into a given database.

    Args:
        settings: the installation.
        run: that made the copy.
        quarantine: with the quarantine it was made from, if it is still there.

    Returns:
        The roles that the copy brought to a given server and that stay there, because somebody uses them elsewhere by now.
    """
    left: list[str] = []
    target = target_of(settings, run)
    if target.cluster is not None:
        target.cluster.remove()
    else:
        left = _empty(settings, target, streams.application_name(run.id))
    directory = directory_of(settings, run.id)
    if quarantine:
        targets.cluster_at(settings, directory / QUARANTINE, int(str(run.parameters["major"]))).remove()
    clear(directory)
    return left


def _empty(settings: Settings, target: Target, application: str) -> list[str]:
    with target.session(application) as session:
        streams.end_sessions(session, application)
        if session.value("SELECT to_regclass(%s) IS NULL AND to_regclass('obhut.copy') IS NULL", (f"{streams.RECORDS}.done",)):
            return []  # never ours, or emptied already
        brought = brought_roles(session) or _marked_roles(session, settings)
        for (name,) in session.rows("SELECT evtname FROM pg_event_trigger"):
            session.execute(SQL("DROP EVENT TRIGGER {}").format(Identifier(name)))
        for (name,) in session.rows("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> ALL(%s)", (list(_OURS),)):
            session.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(name)))
        for (name,) in session.rows("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'"):
            session.execute(SQL("DROP EXTENSION IF EXISTS {} CASCADE").format(Identifier(name)))
        session.execute("CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
        for name in ("pg_statistic", "pg_statistic_ext_data"):  # dead rows of statistics would outlive their tables
            with suppress(DatabaseError):  # a server that is not ours may not let us; its autovacuum will
                session.execute(SQL("VACUUM (FULL) pg_catalog.{}").format(Identifier(name)))
        objects.remove(session)
        left = _drop_roles(session, brought)
    release(target, application)
    return left


def brought_roles(session: Session) -> list[str]:
    """Return the roles that a copy in the making brings to a given server."""
    if session.value("SELECT to_regclass(%s) IS NULL", (f"{streams.RECORDS}.done",)):
        return []
    return sorted(name.removeprefix(_ROLE) for name in streams.finished(session) if name.startswith(_ROLE))


def _marked_roles(session: Session, settings: Settings) -> list[str]:
    """Return the roles that a finished copy brought, by its mark; a mark that does not hold up speaks for no role."""
    with suppress(CloneMarkError):
        return list(mark.read(session, open_keystore(settings)).roles)
    return []


def _drop_roles(session: Session, brought: Sequence[str]) -> list[str]:
    """Drop the roles that a copy brought, and return those that stay: somebody owns something, is a member or is there by that name."""
    unused = [str(name) for (name,) in session.rows(_UNUSED, {"brought": list(brought)})] if brought else []
    for name in unused:
        with suppress(DatabaseError):
            session.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
    for name in unused:
        with suppress(DatabaseError):
            session.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(name)))
    return [str(name) for (name,) in session.rows("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) ORDER BY 1", (list(brought),))]


def release(target: Target, application: str) -> None:
    """Let others into a given database again, and take away what the load recorded in it."""
    targets.open_to_others(target)
    with target.session(application) as session:
        session.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(streams.RECORDS)))


def tidy(settings: Settings, database: str, clock: Clock) -> list[str]:
    """Throw away what killed runs left, and return their ids."""
    gone = []
    for run in runs.list_runs(kind=RunKind.CLONE, database=database, limit=1000):
        if run.state is not RunState.RUNNING or runs.alive(run):
            continue
        mine = runs.resume(run.id, clock)
        with runs.guarded(mine, clock):
            drop(settings, mine)
            runs.finish(mine, RunState.CANCELLED, clock=clock)
        gone.append(run.id)
    return gone
