"""The database that is restored into: a new cluster, or an empty database on a server that is given.

Until it is opened nobody but Obhut gets in: a new cluster listens on a socket in a private directory; at a given server the right to
connect is taken from everybody and the limit of connections is set.

While a new cluster is loaded nothing is flushed: it can be thrown away. A killed process leaves it consistent all the same; a crash of
the machine does not, so the boot of the machine is recorded and a target of another boot is made again from the start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from obhut.foundation.settings import Settings
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session, parameter, with_parameters
from obhut.postgres.sql import SQL, Identifier, trusted
from obhut.restores import schema, streams
from obhut.restores.errors import RestoreStateError, TargetNotEmptyError
from obhut.restores.schema import Entry

# What database or role settings may say must not get in the way of the load.
UNBOUND = {
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_LIMIT, _PUBLIC = "door: limit", "door: public"  # how a given database was found
_DOOR = """
SELECT datconnlimit, EXISTS (
  SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0 AND privilege_type = 'CONNECT')
FROM pg_database WHERE datname = %s
"""
_BOOT = "boot"  # exists while the cluster is not durable
_LOADING: dict[str, str | int | bool] = {
    "fsync": False,
    "full_page_writes": False,
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "synchronous_commit": False,
    "autovacuum": False,
    "archive_mode": False,
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "max_worker_processes": 8,
    "max_locks_per_transaction": 512,
    "event_triggers": True,
}
_DURABLE = ("fsync", "full_page_writes", "wal_level", "max_wal_senders", "synchronous_commit", "autovacuum", "archive_mode", "max_wal_size",
            "checkpoint_timeout", "max_worker_processes", "shared_buffers", "event_triggers", "max_locks_per_transaction")  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Where rows go.

    Attributes:
        cluster: a cluster of Obhut's own, or None for a given server.
        url: the database.
        admin_url: another database of the same server, from which this one can be made and opened.
    """

    cluster: Cluster | None
    url: str
    admin_url: str
    name: str

    def session(self, application: str, settings: Mapping[str, str] | None = None) -> Session:
        """Open a session that may write, whatever the database's own settings say."""
        return Session.connect(self.url, application_name=application, settings={**UNBOUND, **(settings or {})})

    @property
    def owned(self) -> bool:
        """Whether the data directory is ours to stop, check and scan."""
        return self.cluster is not None


def new_cluster(settings: Settings, directory: Path, major: int, superuser: str, wal_segment_mb: int, *, checksums: bool = True) -> Cluster:
    """Return a running, private, not yet durable cluster; repeating it after a kill is harmless."""
    cluster = cluster_at(settings, directory, major)
    marker = directory / _BOOT
    if cluster.initialised and marker.exists() and marker.read_text(encoding="ascii") != boot_id():
        cluster.remove()  # loaded without flushing, then the machine went down: nobody knows what reached the disk
    make_files(cluster, superuser, wal_segment_mb, checksums=checksums)
    marker.write_text(boot_id(), encoding="ascii")
    loading = {name: value for name, value in _LOADING.items() if name != "event_triggers" or major >= 17}
    cluster.configure({**loading, "shared_buffers": f"{buffers_mb()}MB"})
    cluster.start(timeout=300)
    return cluster


def make_files(cluster: Cluster, superuser: str, wal_segment_mb: int, *, checksums: bool = True) -> None:
    """Make the files of a cluster that is not durable yet; those that are there stay, and who makes them is waited for."""
    cluster.init(superuser=superuser, wal_segsize_mb=wal_segment_mb, checksums=checksums, durable=False)


def cluster_at(settings: Settings, directory: Path, major: int) -> Cluster:
    """Return the cluster of a directory, made or not."""
    return Cluster(directory, binaries(settings, major), server_user(settings))


def on_cluster(cluster: Cluster, name: str, superuser: str) -> Target:
    """Return the target for a database of a new cluster."""
    return Target(cluster, cluster.url(name, superuser), cluster.url("template1", superuser), name)


def on_server(url: str) -> Target:
    """Return the target for an empty database of a given server."""
    name = parameter(url, "dbname") or parameter(url, "user") or "postgres"
    return Target(None, url, with_parameters(url, dbname="postgres" if name != "postgres" else "template1"), name)


def make_database(target: Target, entries: Sequence[Entry], statements: Sequence[str], *, thaw: bool = False) -> None:
    """Make roles and the database itself with its encoding, locale, settings and owner; what is there already is left alone.

    Args:
        target: where.
        entries: of the schema before the data.
        statements: that make the roles.
        thaw: leave out the setting that kept a given quarantine from changing.
    """
    with Session.connect(target.admin_url, application_name="obhut restore") as session:
        existing = {str(name) for (name,) in session.rows("SELECT rolname FROM pg_roles")}
        with session.transaction():  # a role is never left without its attributes
            for statement in schema.missing_roles(statements, existing, alter=target.owned):
                session.execute(trusted(statement))
        if session.value("SELECT true FROM pg_database WHERE datname = %s", (target.name,)) is None:
            create = next(entry for entry in entries if entry.kind == "DATABASE")
            for statement in create.sql.split(";\n"):
                if statement.strip():
                    session.execute(trusted(statement))
        for entry in entries:
            if entry.kind == "DATABASE PROPERTIES" and target.owned:
                for statement in entry.sql.split(";\n"):
                    if statement.strip() and not (thaw and "default_transaction_read_only" in statement):
                        session.execute(trusted(statement))


def require_empty(target: Target) -> None:
    """Refuse a given database that holds anything.

    Raises:
        TargetNotEmptyError: it has tables, schemas or extensions beyond those of a new database.
    """
    with target.session("obhut restore") as session:
        found = session.value(
            "SELECT (SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relnamespace NOT IN"
            " (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_toast', 'obhut_restore')))"
            " + (SELECT count(*) FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_' AND nspname NOT IN ('public', 'obhut_restore'))"
        )
    if found:
        raise TargetNotEmptyError(f"the target database has {found} objects already", "Give an empty database, or leave --target out.")


def close_to_others(target: Target) -> None:
    """Keep everybody else out of a given database until it is opened; how it was found is recorded in it."""
    if target.owned:
        return
    name = Identifier(target.name)
    with target.session("obhut restore") as session:
        streams.prepare_records(session)
        with session.transaction():  # a killed run leaves the door as it was, or closed with its record
            if _LIMIT not in streams.finished(session):
                row = session.row(_DOOR, (target.name,)) or (-1, True)
                streams.record(session, _LIMIT, int(row[0]))
                streams.record(session, _PUBLIC, int(row[1]))
            session.execute(SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(name))
            session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(name))  # superusers are not bound by it
        session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            " AND application_name NOT LIKE 'obhut%%'",
            (target.name,),
        )


def open_to_others(target: Target) -> None:
    """Let those into a given database who could enter before it was closed; nothing, once that was done and the records are gone."""
    if target.owned:
        return
    name = Identifier(target.name)
    with target.session("obhut restore") as session:
        if session.value("SELECT to_regclass(%s) IS NULL", (f"{streams.RECORDS}.done",)):
            return
        found = streams.finished(session)
        with session.transaction():
            session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, trusted(str(found.get(_LIMIT, -1)))))
            if found.get(_PUBLIC):
                session.execute(SQL("GRANT CONNECT ON DATABASE {} TO PUBLIC").format(name))


def make_durable(cluster: Cluster) -> None:
    """Stop the new cluster, flush every file of it, and give it settings that keep what is written from now on."""
    cluster.stop(timeout=600)
    flush(cluster)
    keep_durable(cluster)


def flush(cluster: Cluster) -> None:
    """Write every file of a stopped cluster to the disk; files that are only read meanwhile stay as they are."""
    cluster.binaries.run(["initdb", "--sync-only", "--pgdata", cluster.data], as_server_user=True)


def keep_durable(cluster: Cluster) -> None:
    """Give a stopped and flushed cluster settings that keep what is written from now on."""
    cluster.configure(dict.fromkeys(_DURABLE))
    (cluster.directory / _BOOT).unlink(missing_ok=True)


def settle(cluster: Cluster) -> None:
    """Make a new cluster durable unless it is already: a resumed restore may have started it again for loading."""
    marker = cluster.directory / _BOOT
    if marker.exists():
        if marker.read_text(encoding="ascii") != boot_id():
            raise RestoreStateError("the machine went down before the target was flushed", 'Run "obhut restore resume": it is made anew.')
        make_durable(cluster)


def boot_id() -> str:
    """Return the identifier of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def buffers_mb() -> int:
    """Return the shared buffers for a server of a restore: an eighth of the memory, 64 MB to 1 GB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return max(64, min(1024, total // 8))
