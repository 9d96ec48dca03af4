"""The control database: Obhut's own PostgreSQL, the home of contracts, instructions, the erasure list and runs.

Always another cluster than a protected one: a restore of a protected database must never be able to turn back the list of who was
erased. Embedded by default (a cluster below the state directory), any PostgreSQL by URL otherwise. The one place that configures Django.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import django
import psycopg
from django import db
from django.apps import apps
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db.migrations.executor import MigrationExecutor
from psycopg import conninfo

from obhut.foundation.errors import ObhutError, SettingsError
from obhut.foundation.settings import Settings
from obhut.postgres import access
from obhut.postgres.clusters import Cluster, binaries, make_directory, server_user
from obhut.postgres.connections import Row, Session, with_parameters
from obhut.postgres.errors import DatabaseError, UnreachableError, translate
from obhut.postgres.sql import SQL, Identifier, trusted

__all__ = [
    "Deferred",
    "close_control",
    "control_cluster",
    "control_safe",
    "control_session",
    "control_url",
    "migrate",
    "open_control",
    "opened_url",
    "pending_migrations",
]

_DATABASE = "obhut"
_APPLICATIONS = (
    "controllers",
    "journal",
    "keystore",
    "erasure",
    "backups",
    "auditlog",
    "auditlog.capture",
    "restores",
    "retention",
    "finality",
)
_MIGRATION_LOCK = 0x0B_48_55_54
_MIGRATION_WAIT = "60s"
_SEPARATE_FOR = 600  # seconds that a "this is another cluster" is believed without asking again
_SILENT_FOR = 60
_IDENTIFIER = "SELECT system_identifier FROM pg_control_system()"

# Every acknowledged tombstone must survive a power cut, whatever the defaults of a foreign server are.
_SESSION_OPTIONS = "-c synchronous_commit=on -c timezone=UTC -c client_min_messages=warning"


class ControlIsProtectedError(ObhutError):
    """The control database is on the same cluster as a protected database."""

    code = "control-not-separate"


class ControlSchemaError(ObhutError):
    """The schema of the control database is older than this version of Obhut, or newer."""

    code = "control-schema-behind"


def open_control(settings: Settings) -> None:
    """Make the control database usable in this process; harmless when it already is.

    Starts the embedded cluster when it does not run and brings its schema up to date. The schema of a control database by URL is
    only changed by :func:`migrate`, when its operator says so.

    Raises:
        ControlIsProtectedError: a protected database answers from the same cluster.
        ControlSchemaError: the schema of a control database by URL is not the one this version needs.
        UnreachableError: the control database does not answer.
        ClusterError: the embedded cluster cannot be started.
    """
    if settings.control.embedded:
        cluster = control_cluster(settings)
        _start(cluster)
        identifier = cluster.system_identifier()
    else:
        with Session.connect(settings.control.url) as session:
            identifier = int(session.value(_IDENTIFIER))
    _refuse_protected(settings, identifier)
    _configure(control_url(settings))
    pending = pending_migrations()
    if pending and settings.control.embedded:
        migrate()
    elif pending:
        raise ControlSchemaError(
            f"the schema of the control database lacks {len(pending)} migrations",
            'Run "obhut control migrate" when no other Obhut process runs.',
        )


def close_control(settings: Settings, *, stop: bool = False) -> None:
    """Close this thread's connection to the control database.

    Args:
        settings: the settings it was opened with.
        stop: also stop the embedded cluster; a control database by URL is never stopped.
    """
    if django_settings.configured:
        db.connections.close_all()
    if stop and settings.control.embedded:
        control_cluster(settings).stop()


def control_cluster(settings: Settings) -> Cluster:
    """Return the embedded control cluster, running or not."""
    return Cluster(settings.state.directory / "control", binaries(settings), server_user(settings))


def control_url(settings: Settings) -> str:
    """Return the connection string of the control database."""
    return control_cluster(settings).url(_DATABASE) if settings.control.embedded else settings.control.url


def control_session(application_name: str = "obhut") -> Session:
    """Return a new session of its own on the control database, next to Django's: for locks that must outlive a transaction."""
    return Session.connect(opened_url(), application_name=application_name, settings={"synchronous_commit": "on"})


def prepared(query: str, parameters: Mapping[str, object]) -> list[Row]:
    """Return the rows of a query that is asked often, on Django's connection; parsed and planned once a connection.

    To be called inside :func:`control_safe`; named parameters as in :mod:`psycopg`.
    """
    db.connection.ensure_connection()
    with psycopg.Cursor(db.connection.connection) as cursor:
        return cursor.execute(trusted(query), parameters, prepare=True).fetchall()


def opened_url() -> str:
    """Return the connection string of the control database that this process has open.

    Raises:
        DatabaseError: none is open.
    """
    if not django_settings.configured:
        raise DatabaseError("the control database is not open", "A programming error: open_control comes first.")
    return cast("str", db.connections.databases["default"]["OBHUT_URL"])


def migrate() -> None:
    """Bring the schema of the open control database up to date.

    Two processes that migrate at once wait for each other; a table that is locked for longer than the lock timeout ends the attempt
    with nothing half done (each migration is one transaction).

    Raises:
        LockTimeoutError: another process migrates, or holds a lock, for too long.
    """
    with control_safe(), db.connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [_MIGRATION_WAIT])
        cursor.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
        try:
            cursor.execute("SET lock_timeout = '10s'")
            call_command("migrate", verbosity=0, interactive=False)
        finally:
            # The lock and the setting belong to the session: closing it gives back both, also after an error.
            db.connection.close()


def pending_migrations() -> list[str]:
    """Return the names of the migrations that the open control database lacks."""
    with control_safe():
        executor = MigrationExecutor(db.connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


@contextmanager
def control_safe() -> Iterator[None]:
    """Translate errors of Django's database layer and of the driver inside the block, without their values.

    As in :func:`obhut.postgres.errors.safe`, the cause is cut off.
    """
    try:
        yield
    except psycopg.Error as error:
        translated = translate(error)
    except db.Error as error:
        cause = error.__cause__
        translated = (
            translate(cause)
            if isinstance(cause, psycopg.Error)
            else DatabaseError(f"the control database refused the call ({type(error).__name__})")
        )
    else:
        return
    if isinstance(translated, UnreachableError) and django_settings.configured:
        db.connection.close()  # a broken connection would fail every later call, too
    try:
        raise translated
    finally:
        # Leaving a with block, Python links the driver's error as context even outside "except": the link is cut after the raise.
        translated.__context__ = None


def _start(cluster: Cluster) -> None:
    """Start the embedded cluster unless it runs, and make its database unless it is there."""
    if not cluster.ready:
        if not cluster.initialised:
            cluster.init()
            cluster.configure({"synchronous_commit": True, "max_connections": 200})
        cluster.start()
    # Asked every time and not only after initdb: a kill between the two must not lock Obhut out.
    with Session.connect(cluster.url()) as session:
        if session.value("SELECT true FROM pg_database WHERE datname = %s", (_DATABASE,)):
            return
        try:
            session.execute(SQL("CREATE DATABASE {}").format(Identifier(_DATABASE)))
        except DatabaseError as error:
            if error.sqlstate not in {"42P04", "23505"}:  # a process that started at the same time made it
                raise


def _configure(url: str) -> None:
    database = _django_database(url)
    if not django_settings.configured:
        django_settings.configure(
            DATABASES={"default": database},
            INSTALLED_APPS=[
                "django.contrib.contenttypes",
                "procrastinate.contrib.django",
                *(f"obhut.{name}" for name in _APPLICATIONS if _exists(f"obhut.{name}.models")),
            ],
            USE_TZ=True,
            TIME_ZONE="UTC",
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            LOGGING_CONFIG=None,  # Django's own handlers would print statements
            DEBUG=False,  # with DEBUG every statement and its values are kept in memory
            PROCRASTINATE_AUTODISCOVER_MODULE_NAME=None,  # jobs are named in obhut.jobs, not found
        )
    elif opened_url() != url:
        # Another control database in the same process: tests, and a command that reads two installations.
        db.connections.close_all()
        db.connections.databases["default"].update(database)
        with contextlib.suppress(AttributeError):
            del db.connections["default"]
    if not apps.ready:
        django.setup()


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _django_database(url: str) -> dict[str, Any]:
    with contextlib.suppress(psycopg.Error):
        parts = conninfo.conninfo_to_dict(url)
        own = {"dbname", "user", "password", "host", "port"}
        options = {"application_name": "obhut", **{name: value for name, value in parts.items() if name not in own}}
        options["options"] = " ".join(filter(None, [str(parts.get("options") or ""), _SESSION_OPTIONS]))
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.get("dbname") or ("" if "service" in parts else _DATABASE),
            "USER": parts.get("user") or "",
            "PASSWORD": parts.get("password") or "",
            "HOST": parts.get("host") or "",
            "PORT": str(parts.get("port") or ""),
            "OPTIONS": options,
            "CONN_MAX_AGE": None,
            "OBHUT_URL": url,
        }
    raise SettingsError("control.url is not a connection string", "See docs/reference/settings.md.")


def _refuse_protected(settings: Settings, identifier: int) -> None:
    """Refuse if a protected database that answers lives on the cluster with this identifier.

    Asking costs a connection to each protected database, so an answer is believed for ten minutes, and silence for one.
    """
    record = settings.state.directory / "separate.json"
    believed = _believed(record)
    now = time.time()
    urls = {name: database.url for name, database in settings.databases.items()}
    keys = {name: hashlib.sha256(f"{identifier} {url}".encode()).hexdigest() for name, url in urls.items()}
    unknown = [name for name in urls if not 0 <= now - believed.get(keys[name], 0) < _SEPARATE_FOR]
    if not unknown:
        return
    with ThreadPoolExecutor(max_workers=min(8, len(unknown))) as pool:
        found = dict(zip(unknown, pool.map(_identifier_of, (urls[name] for name in unknown)), strict=True))
    same = sorted(name for name, other in found.items() if other == identifier)
    if same:
        raise ControlIsProtectedError(
            f"the control database is on the cluster of the protected database {', '.join(same)}",
            "Give it a cluster of its own in the setting control.url: a restore must not turn back the erasure list.",
        )
    fresh = {keys[name]: now if other is not None else now - _SEPARATE_FOR + _SILENT_FOR for name, other in found.items()}
    kept = {key: at for key, at in believed.items() if 0 <= now - at < _SEPARATE_FOR}
    make_directory(record.parent)
    access.write(record, json.dumps({**kept, **fresh}), None)


def _identifier_of(url: str) -> int | None:
    try:
        with Session.connect(with_parameters(url, connect_timeout="2"), connect_timeout=2) as session:
            return int(session.value(_IDENTIFIER))
    except DatabaseError:
        return None


def _believed(record: Path) -> dict[str, float]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(key): float(at) for key, at in content.items()} if isinstance(content, dict) else {}


class Deferred:
    """A module of tables that is imported at its first use: Django's models cannot be imported before :func:`open_control`."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module."""
        return getattr(import_module(self._module), name)
