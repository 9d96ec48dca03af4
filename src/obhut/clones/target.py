"""The database that a copy goes into, and how it is thrown away: nothing of a copy that failed is left."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.runs import Run
from obhut.journal.states import RunKind, RunState
from obhut.postgres.clusters import Cluster
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier
from obhut.restores import streams
from obhut.restores import target as targets
from obhut.restores.target import Target

CLONES = "clones"
_OURS = ("information_schema", streams.RECORDS)


def directory_of(settings: Settings, run_id: str) -> Path:
    """Return where everything of a copy lies."""
    return settings.state.directory / CLONES / run_id


def own_cluster(settings: Settings, run: Run) -> Cluster:
    """Return the copy's own cluster, made or not."""
    return targets.cluster_at(settings, directory_of(settings, run.id) / "target", int(str(run.parameters["major"])))


def target_of(settings: Settings, run: Run) -> Target:
    """Return where a journalled run put, or puts, its copy."""
    if given := str(run.parameters["target"]):
        return targets.on_server(given)
    return targets.on_cluster(own_cluster(settings, run), str(run.parameters["dbname"]), str(run.parameters["superuser"]))


def reached(settings: Settings, run: Run) -> Target:
    """Return the target of a run, its own server started."""
    target = target_of(settings, run)
    if target.cluster is not None and target.cluster.initialised:
        target.cluster.start(timeout=300)
    return target


def drop(settings: Settings, run: Run) -> None:
    """Throw a copy away: its own cluster with all files, or everything that was put into a given database."""
    target = target_of(settings, run)
    if target.cluster is not None:
        target.cluster.remove()
    else:
        _empty(target, streams.application_name(run.id))
    shutil.rmtree(directory_of(settings, run.id), ignore_errors=True)


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
    release(target, application)


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
