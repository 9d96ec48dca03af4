"""The quarantine: the database as it was, private, paused in recovery, never promoted, thrown away afterwards.

A copy of production is dangerous company: its archive command would write into the production archive, its subscription workers would
attach to the production publisher and move its slot, its scheduled jobs would run. So nothing of the restored configuration is used.

Recovery always has an explicit target: without one a missing or damaged segment in the middle ends it early and quietly. With one the
server stops with an error, and afterwards the position reached is compared with the target.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from obhut.backups.repository import Backup, Repository
from obhut.foundation import faultpoints
from obhut.foundation.ids import Lsn
from obhut.foundation.lsn import lsn_number, lsn_text
from obhut.foundation.settings import Settings
from obhut.postgres.clusters import Binaries, Cluster, ClusterStartError, make_directory, server_user
from obhut.postgres.connections import Session, parameter
from obhut.postgres.errors import DatabaseError
from obhut.restores import tablespaces
from obhut.restores.errors import QuarantineError, RecoveryError, RestoreTargetError
from obhut.restores.plan import Form, RecoveryTarget
from obhut.restores.progress import Progress
from obhut.restores.target import boot_id, buffers_mb

# "not archived" is the only thing that may end recovery quietly; the server takes 1 to 125 for it and gives up at anything above.
_FETCH = """#!/bin/sh
[ -f "{wal}/$1" ] || exit 1
cp "{wal}/$1" "$2" || exit 200
"""
_COMMIT = re.compile(r"lsn: ([0-9A-F]+/[0-9A-F]+).*desc: COMMIT(?:_PREPARED)? (\S+ \S+)")
_CONTROL = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
_AT_LEAST = {
    "max_connections": 100,
    "max_worker_processes": 8,
    "max_wal_senders": 10,
    "max_prepared_transactions": 0,
    "max_locks_per_transaction": 512,
}
_STANDING = "SELECT pg_is_in_recovery(), pg_get_wal_replay_pause_state(), pg_last_wal_replay_lsn()::text"
_STALLED = 120.0  # seconds without progress of replay after which recovery counts as stuck


@dataclass(frozen=True)
class Quarantine:
    """A recovered, paused database.

    Attributes:
        cluster: its server, or None when it was made elsewhere.
        url: the database to read, as a superuser or a role that row security does not bind.
        superuser: the role that initdb made there.
        lsn: last position replayed.
        moment: commit time of the last transaction replayed.
    """

    cluster: Cluster | None
    url: str
    superuser: str
    lsn: Lsn
    moment: datetime | None

    def session(self, application: str) -> Session:
        """Open a reading session."""
        return Session.connect(self.url, application_name=application)


# A standby holds the locks of transactions that were open at its point, and paused there it never lets go of them.
_LOCKED = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted AND pid <> pg_backend_pid()
               AND database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
"""


@dataclass(frozen=True)
class Recovery:
    """What is recovered, from what, to where."""

    settings: Settings
    repository: Repository
    chain: Sequence[Backup]
    target: RecoveryTarget
    directory: Path  # of the run
    programs: Binaries

    @property
    def backup(self) -> Backup:
        """The base backup that recovery starts from: the last link."""
        return self.chain[-1]

    @property
    def cluster(self) -> Cluster:
        """The quarantine's cluster."""
        return Cluster(self.directory / "quarantine", self.programs, server_user(self.settings))

    @property
    def wal(self) -> Path:
        """WAL in plain for the server to fetch."""
        return self.directory / "quarantine" / "wal"

    @property
    def owner(self) -> tuple[int, int] | None:
        """Account of the server."""
        user = server_user(self.settings)
        return (user.uid, user.gid) if user else None


def unseal(recovery: Recovery, progress: Progress) -> int:
    """Open every link of the chain, each file verified, and combine them into one data directory; return its bytes."""
    cluster = recovery.cluster
    if is_unsealed(recovery):
        return sum(link.size for link in recovery.chain)
    # What a killed run left is of no use: a half-written file looks like a whole one.
    cluster.remove()
    make_directory(cluster.directory)
    links = [cluster.directory / f"link{number}" for number in range(len(recovery.chain))]
    with progress.phase("unsealing base backups", sum(link.size for link in recovery.chain), "bytes") as advance:
        for backup, directory in zip(recovery.chain, links, strict=True):
            seen = 0

            def count(done: int, _total: int) -> None:
                nonlocal seen
                advance(done - seen)
                seen = done

            recovery.repository.unseal(backup, directory, count, owner=recovery.owner)
            faultpoints.reach("restore.link.unsealed")
    if len(links) == 1:
        links[0].rename(cluster.data)
    else:
        recovery.programs.run(["pg_combinebackup", "--no-sync", "--output", cluster.data, *links], timeout=86_400)
        for directory in links:
            shutil.rmtree(directory)
    faultpoints.reach("restore.chain.combined")
    (cluster.directory / "unsealed").write_text(boot_id(), encoding="ascii")
    return sum(link.size for link in recovery.chain)


def is_unsealed(recovery: Recovery) -> bool:
    """Whether the data directory is complete. Nothing is flushed, so after a crash of the machine nobody knows what reached the disk."""
    marker = recovery.cluster.directory / "unsealed"
    return marker.exists() and marker.read_text(encoding="ascii") == boot_id()


def stage_wal(recovery: Recovery) -> RecoveryTarget:
    """Lay out the WAL that recovery needs, decrypted and checked, and return the target made explicit.

    Raises:
        RecoveryError: the WAL has a hole before the target, or cannot be looked through for tablespaces.
        RestoreTargetError: no WAL reaches the target.
    """
    backup, repository = recovery.backup, recovery.repository
    identifier = backup.system_identifier
    timeline = repository.latest_timeline(backup)
    reachable = repository.wal_end(timeline, backup.begin_lsn, system_identifier=identifier)
    end = reachable
    if recovery.target.form is Form.LSN and recovery.target.lsn is not None:
        wanted = lsn_number(recovery.target.lsn)
        if wanted >= lsn_number(reachable):
            raise RestoreTargetError(f"WAL reaches {reachable}, not {recovery.target.lsn}", 'Choose an earlier point, or "latest".')
        # The record after the target may lie in the next segment.
        end = lsn_text(min(lsn_number(reachable), wanted + backup.wal_segment_size))
    shutil.rmtree(recovery.wal, ignore_errors=True)
    recovery.wal.mkdir(mode=0o700)
    if recovery.owner:
        os.chown(recovery.wal, *recovery.owner)
    segments = repository.wal_segments(timeline, backup.begin_lsn, end, system_identifier=identifier)
    repository.stage_wal(segments, recovery.wal, owner=recovery.owner)
    faultpoints.reach("restore.wal.staged")
    names = [segment.name for segment in segments]
    tablespaces.keep_inside(recovery.programs, recovery.wal, names, backup.wal_segment_size)
    last = last_commit(recovery.programs, recovery.wal, names)
    target = recovery.target
    if target.form is Form.LATEST:
        if last is None or lsn_number(last[0]) <= lsn_number(backup.end_lsn):
            # Nothing was committed since the backup: its end is the latest point there is.
            return RecoveryTarget(Form.LSN, lsn=backup.end_lsn)
        return RecoveryTarget(Form.LSN, lsn=last[0])
    if target.form is Form.TIME and target.time is not None and (last is None or last[1] <= target.time):
        said = last[1].isoformat() if last else "none"
        raise RestoreTargetError(f"no commit after {target} is archived (the last is of {said})", 'Choose an earlier time, or "latest".')
    return target


def last_commit(programs: Binaries, wal: Path, names: Sequence[str]) -> tuple[Lsn, datetime] | None:
    """Return position and time of the last commit in staged WAL, looking from the end."""
    for name in reversed(names):
        said = programs.run(["pg_waldump", "--rmgr=Transaction", "--path", wal, name, name], check=False, env={"TZ": "UTC"}).stdout
        if found := _COMMIT.findall(said):
            lsn, moment = found[-1]
            return Lsn(lsn), datetime.fromisoformat(f"{moment}+00:00")
    return None


def recover(recovery: Recovery, target: RecoveryTarget, progress: Progress, *, timeout: float = 86_400) -> Quarantine:
    """Start recovery, wait until it pauses at the target, and return the quarantine.

    Raises:
        RecoveryError: it ended, got stuck, or stands elsewhere than at the target.
    """
    cluster = recovery.cluster
    if not cluster.running:
        _configure(recovery, target)
        cluster.start(wait=False)
    candidates = _candidates(recovery)
    deadline = time.monotonic() + timeout
    with progress.phase("replaying WAL", None, "bytes") as advance:
        session = _wait_until_paused(cluster, candidates, deadline, advance)
    with session:
        _require_target(session, recovery.target, target)
        superuser = str(session.value("SELECT rolname FROM pg_roles WHERE oid = 10"))
        lsn, moment = session.row("SELECT pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp()") or ("0/0", None)
    cluster.allow_role(superuser)
    name = database_name(recovery.settings.database(recovery.repository.database).url)
    return Quarantine(cluster, cluster.url(name, superuser), superuser, Lsn(lsn), moment)


def adopt(url: str) -> Quarantine:
    """Use a restore that was made elsewhere (a managed service's point-in-time restore) as the quarantine.

    Raises:
        QuarantineError: it could change while it is read: other sessions, running jobs, replication.
    """
    with Session.connect(url, application_name="obhut restore") as session:
        others = int(
            session.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name NOT LIKE 'obhut%' AND backend_type = 'client backend'"
            )
        )
        writes = session.value("SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'")
        workers = int(session.value("SELECT count(*) FROM pg_subscription WHERE subenabled"))
        # A standby that replays on changes under the reader, whatever its sessions may do.
        replays = session.value("SELECT pg_is_in_recovery()") and session.value("SELECT pg_get_wal_replay_pause_state()") != "paused"
        if others or writes or workers or replays:
            raise QuarantineError(
                "the database given as quarantine can change while it is read",
                "End other sessions, disable subscriptions, and set default_transaction_read_only = on for the database.",
            )
        superuser = str(session.value("SELECT rolname FROM pg_roles WHERE oid = 10"))
        lsn = session.value("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text")
    return Quarantine(None, url, superuser, Lsn(str(lsn)), None)


def require_still(session: Session, quarantine: Quarantine) -> None:
    """Refuse when the quarantine is no longer what the filter was computed on, or cannot be read where it stands.

    Raises:
        QuarantineError: it left recovery, replays on, or moved; or it stands inside a change of the schema, whose lock nobody releases.
    """
    if quarantine.cluster is None:
        return
    row = session.row("SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text") or (False, "")
    paused = row[0] and session.value("SELECT pg_get_wal_replay_pause_state()") == "paused"
    if not paused or row[1] != quarantine.lsn:
        raise QuarantineError("the quarantine is no longer paused at its target", "Abandon this run and start another.")
    if session.value(_LOCKED):
        raise QuarantineError(
            "the point lies inside a transaction that changes or locks a table, so the table cannot be read",
            "Choose a point before it began or after it ended; abandon this run and start another.",
        )


def database_name(url: str) -> str:
    """Return the name of the database that a connection string leads to."""
    return parameter(url, "dbname") or parameter(url, "user") or "postgres"


def _configure(recovery: Recovery, target: RecoveryTarget) -> None:
    cluster = recovery.cluster
    fetch = cluster.directory / "fetch"
    fetch.write_text(_FETCH.format(wal=recovery.wal), encoding="utf-8")
    fetch.chmod(0o755)
    cluster.adopt(superuser="obhut")
    for role in _candidates(recovery):
        cluster.allow_role(role)
    for name in ("standby.signal", "recovery.conf", "tablespace_map"):
        (cluster.data / name).unlink(missing_ok=True)
    signal = cluster.data / "recovery.signal"
    signal.write_text("", encoding="ascii")
    if recovery.owner:
        os.chown(signal, *recovery.owner)
    major = recovery.backup.major
    wanted: dict[str, str | int | bool | None] = {
        **_limits(recovery),
        "archive_mode": False,
        "max_logical_replication_workers": 0,
        "primary_conninfo": "",
        "primary_slot_name": "",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "hot_standby": True,
        "recovery_target_action": "pause",
        "recovery_target_inclusive": True,
        "recovery_target_timeline": str(recovery.repository.latest_timeline(recovery.backup)),
        "restore_command": f'/bin/sh "{fetch}" "%f" "%p"',
        "fsync": False,  # thrown away after a crash of the machine
        "full_page_writes": False,
        "autovacuum": False,
        "allow_in_place_tablespaces": True,
        "max_standby_archive_delay": -1,
        "shared_buffers": f"{buffers_mb()}MB",
        "log_min_messages": "fatal",
        "log_min_error_statement": "panic",
        "log_parameter_max_length": 0,
        "log_parameter_max_length_on_error": 0,
        "restart_after_crash": False,
    }
    if major >= 17:
        wanted["event_triggers"] = False
    for name in ("time", "lsn", "name", "xid"):
        wanted[f"recovery_target_{name}"] = None
    cluster.configure({**wanted, **target.settings()})


def _limits(recovery: Recovery) -> dict[str, int]:
    """Return limits no smaller than those of the server that wrote the WAL; smaller ones would stop the recovery."""
    said = recovery.programs.run(["pg_controldata", "--pgdata", recovery.cluster.data]).stdout
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in said.splitlines())}
    return {name: max(_AT_LEAST[name], int(fields.get(label, "0"))) for name, label in _CONTROL.items()}


def _candidates(recovery: Recovery) -> list[str]:
    """Return roles that may exist in the recovered cluster, whose superuser nobody has told yet."""
    url = recovery.settings.database(recovery.repository.database).url
    return list(dict.fromkeys(name for name in (parameter(url, "user"), "postgres", "obhut") if name))


def _wait_until_paused(  # noqa: C901 - one loop that looks at everything that can happen meanwhile
    cluster: Cluster, roles: Sequence[str], deadline: float, advance: object
) -> Session:
    session: Session | None = None
    last, moved = 0, time.monotonic()
    while True:
        if session is None and cluster.ready:
            session = _connect(cluster, roles)
        if session is not None:
            with suppress(DatabaseError):
                recovering, state, lsn = session.row(_STANDING) or (
                    False, "", "0/0",
                )  # fmt: skip
                if not recovering:
                    raise RecoveryError("the quarantine left recovery", "It is of no use any more: abandon this run.")
                if state == "paused":
                    return session
                here = lsn_number(lsn or "0/0")
                if here > last:
                    if last and callable(advance):
                        advance(here - last)
                    last, moved = here, time.monotonic()
            if session.closed:
                session = None
        if not cluster.running and not _settling(moved):
            raise RecoveryError(
                "recovery ended before the target: WAL on the way is missing or damaged",
                f"The last lines of {cluster.log} name the segment.",
            )
        if time.monotonic() > deadline or time.monotonic() - moved > _STALLED:
            raise RecoveryError("recovery does not move any more", f"The last lines of {cluster.log} may say why.")
        time.sleep(0.05)


def _settling(since: float) -> bool:
    return time.monotonic() - since < 2


def _connect(cluster: Cluster, roles: Sequence[str]) -> Session | None:
    for role in roles:
        try:
            session = Session.connect(cluster.url("template1", role), application_name="obhut restore")
        except DatabaseError:
            continue
        try:
            superuser = session.value("SELECT rolname FROM pg_roles WHERE oid = 10")
        except DatabaseError:  # the server is ending, which the caller finds
            session.close()
            return None
        if superuser == role:
            return session
        session.close()
        cluster.allow_role(str(superuser))
        with suppress(DatabaseError, ClusterStartError):
            return Session.connect(cluster.url("template1", str(superuser)), application_name="obhut restore")
    return None


def _require_target(session: Session, asked: RecoveryTarget, target: RecoveryTarget) -> None:
    lsn, moment = session.row("SELECT pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp()") or ("0/0", None)
    missed = (target.form is Form.LSN and target.lsn is not None and lsn_number(lsn) < lsn_number(target.lsn)) or (
        target.form is Form.TIME and target.time is not None and moment is not None and moment > target.time
    )
    if missed:
        raise RecoveryError(f"recovery paused at {lsn}, not at {asked}", "Abandon this run; is the WAL of another server in the archive?")
