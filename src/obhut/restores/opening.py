"""Opening a restored database: only after its proof, under the lock of the erasure list, and then everybody may come in.

The order survives a kill: nothing that was erased since the proof may be missing (looked up under the lock, so nobody is recorded in
between), no sequence can hand out a number again that was handed out since, the new epoch stands in the list before the first person
can get one, then the door is opened. What the target records about its load goes last: as long as the step is not done, a repeated run
has to find it. Repeating it does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from obhut.auditlog.capture import state as capture
from obhut.erasure import ledger, reading
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.states import RunState
from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier
from obhut.restores import finish, preflight, store, streams
from obhut.restores import run as restoring
from obhut.restores import target as targets
from obhut.restores.errors import NotProvedError, RestoreStateError
from obhut.restores.progress import Progress
from obhut.restores.quarantine import database_name
from obhut.restores.target import Target

_SLOT_LIMIT = 4  # times the size at which capture raises the alarm: what its slot may hold back on a server of Obhut's own


@dataclass(frozen=True, slots=True)
class Opened:
    """A database that is in use again.

    Attributes:
        url: where it is reached.
        epoch: the restore epoch that began.
        system_identifier: of the server it lives on now: a base backup of it is due.
    """

    run: str
    url: str
    epoch: int
    system_identifier: str


def open_database(settings: Settings, run_id: str, actor: Actor, clock: Clock, progress: Progress | None = None) -> Opened:
    """Open the database of a restore that was proved.

    People who were erased since the proof are carried out at the target and the proof is made anew first.

    Raises:
        NotProvedError: there is no certificate that holds.
        RestoreStateError: the run restored into a side schema, or is over.
    """
    ledger.open_ledger(settings)
    journalled = runs.get(run_id)
    if journalled.parameters.get("scope") != "database":
        raise RestoreStateError("a side schema needs no opening", "It is in its database already; see obhut restore show.")
    kept = store.find(run_id)
    if kept is None or not kept.holds:
        raise NotProvedError(
            f"restore {run_id} is not proved", f'Run "obhut restore resume {run_id}"; the database stays closed until then.'
        )
    if not restoring.was_opened(run_id) and _late(journalled.database, _size(kept)):
        restoring.resume(settings, run_id, actor, clock, progress)
    run = runs.resume(run_id, clock)
    with runs.guarded(run, clock):
        target = _target(settings, run_id)
        with runs.step(run, "open", clock) as step, ledger.places().writing():
            proved = store.find(run_id)
            if proved is None or not proved.holds or (step.already is None and _late(run.database, _size(proved))):
                raise NotProvedError("somebody was erased since the proof", f'Run "obhut restore open {run_id}" again.')
            if target.cluster is not None:
                targets.settle(target.cluster)
                _let_capture(target.cluster, settings, run.database)
                target.cluster.start(timeout=600)
            with target.session(streams.application_name(run_id)) as session:
                if step.already is None:
                    _raise_sequences(settings, run.database, session)
                system, timeline = session.row(
                    "SELECT (SELECT system_identifier::text FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint())"
                ) or ("0", 1)
            epoch = ledger.new_epoch(run.database, run_id, system, int(timeline), clock)
            targets.open_to_others(target)
            step.record(epoch=epoch.number, system_identifier=system)
        _forget_load(target, run_id)
        store.opened(run_id, clock)
        restoring.remove(settings, run, target=False)
        runs.finish(run, RunState.DONE, clock=clock)
    return Opened(run_id, target.url, epoch.number, str(system))


def _let_capture(cluster: Cluster, settings: Settings, database: str) -> None:
    """Make a server of Obhut's own one whose changes can be captured, where they were: the audit log goes on at the restored database."""
    if capture.find(database) is None:
        return
    limit = settings.database(database).capture.lag_megabytes * _SLOT_LIMIT
    cluster.configure({"wal_level": "logical", "max_slot_wal_keep_size": f"{limit}MB"})
    if cluster.running:
        cluster.stop(timeout=600)  # a run that was killed here has started it without


def _raise_sequences(settings: Settings, database: str, session: Session) -> None:
    """Carry sequences above what production handed out since the proof, as far as heartbeats and the list tell; never down."""
    graph = preflight.require_graph(settings, database, session)
    counted = finish.counters(session, graph, database)
    finish.set_sequences(session, [counter for counter in counted if counter.wanted != counter.last])


def _forget_load(target: Target, run_id: str) -> None:
    with target.session(streams.application_name(run_id)) as session:
        session.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(streams.RECORDS)))


def url_of(settings: Settings, run_id: str) -> str:
    """Return where a journalled restore put its rows; a cluster of Obhut's own is started."""
    run = runs.get(run_id)
    if run.parameters.get("scope") != "database":
        return str(run.parameters["target"]) or settings.database(run.database).url
    target = _target(settings, run_id)
    if target.cluster is not None and target.cluster.initialised:
        target.cluster.start(timeout=600)
    return target.url


def start(settings: Settings, run_id: str) -> str:
    """Start the server of an opened restore, after the machine was booted for instance; return where it is reached.

    Raises:
        RestoreStateError: the restore is not open, or has no server of its own.
    """
    target, cluster = _own_server(settings, run_id)
    cluster.start(timeout=600)
    return target.url


def stop(settings: Settings, run_id: str) -> None:
    """Stop the server of an opened restore; its data stay.

    Raises:
        RestoreStateError: the restore is not open, or has no server of its own.
    """
    _own_server(settings, run_id)[1].stop(timeout=600)


def _own_server(settings: Settings, run_id: str) -> tuple[Target, Cluster]:
    if not restoring.was_opened(run_id):
        raise RestoreStateError(f"restore {run_id} is not open", f'"obhut restore open {run_id}" opens it after its proof.')
    target = _target(settings, run_id)
    if target.cluster is None or not target.cluster.initialised:
        raise RestoreStateError(f"restore {run_id} has no server of its own here", "It went into a given database, or was removed.")
    return target, target.cluster


def _late(database: str, size: int) -> bool:
    """Whether anybody was recorded behind a size of the list."""
    return any(chunk for chunk in reading.open_list(database, after=size, size=1))


def _size(kept: store.Kept) -> int:
    return int(kept.document["certificate"]["erasure_list"]["size"])


def _target(settings: Settings, run_id: str) -> Target:
    """Return the target of a journalled restore."""
    run = runs.get(run_id)
    request = restoring.Request.of(run)
    steps = {step.name: step for step in runs.list_steps(run_id)}
    major = int(str(steps["preflight"].facts["major"]))
    if request.target:
        return targets.on_server(request.target)
    cluster = targets.cluster_at(settings, settings.state.directory / restoring.RESTORES / run_id / "target", major)
    superuser = unquote(str(steps["target"].facts["superuser"]))
    return targets.on_cluster(cluster, database_name(settings.database(run.database).url), superuser)
