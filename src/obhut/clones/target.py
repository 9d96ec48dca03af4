"""The database that a copy goes into, and how it is thrown away: nothing of a copy that failed is left."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from obhut.clones import objects
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.runs import Run
from obhut.journal.states import RunKind, RunState
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


def drop(settings: Settings, run: Run, *, quarantine: bool = True) -> None:
    """Throw a copy away: its own cluster with all files, or everything that was put into a given database.

    Args:
        settings: the installation.
        run: that made the copy.
        quarantine: with the quarantine it was made from, if it is still there.
    """
    target = target_of(settings, run)
    if target.cluster is not None:
        target.cluster.remove()
    else:
        _empty(target, streams.application_name(run.id))
    directory = directory_of(settings, run.id)
    if quarantine:
        targets.cluster_at(settings, directory / QUARANTINE, int(str(run.parameters["major"]))).remove()
    clear(directory)


def _empty(target: Target, application: str) -> None:
    with target.session(application) as session:
        streams.end_sessions(session, application)
        if session.value("SELECT to_regclass(%s) IS NULL AND to_regclass('obhut.copy') IS NULL", (f"{streams.RECORDS}.done",)):
            return  # never ours, or emptied already
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
        _drop_roles(session)
    release(target, application)


def _drop_roles(session: Session) -> None:
    """Drop the roles that a failed copy brought; one that somebody uses elsewhere by now stays, and those of a finished copy do."""
    if session.value("SELECT to_regclass(%s) IS NULL", (f"{streams.RECORDS}.done",)):
        return
    brought = [name.removeprefix(_ROLE) for name in streams.finished(session) if name.startswith(_ROLE)]
    for name in brought:
        with suppress(DatabaseError):
            session.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
    for name in brought:
        with suppress(DatabaseError):
            session.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(name)))


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
