"""An installation as a vendor has it: a running server with one database, a settings file, a data map, and the command line."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from obhut.foundation.settings import load
from obhut.postgres.clusters import Binaries, Cluster, binaries, server_user
from obhut.postgres.connections import Session
from support.commands import Commands, Result

DEBIAN_15 = Path(os.environ.get("OBHUT_POSTGRES_15", "/usr/lib/postgresql/15/bin"))
DOCUMENT = hashlib.sha256(b"a document").hexdigest()
ALL_ACTIONS = ("erase", "anonymise", "restore", "restore_controller", "restore_subject", "export", "backup", "canary", "clone")
SERVER: dict[str, Any] = {
    "wal_level": "replica",
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "shared_buffers": "32MB",
    "max_prepared_transactions": 5,
    "fsync": False,  # what is tested survives a killed process, not a power cut
}
_number = itertools.count(1)


class Installation:
    """Everything of one installation below one short directory.

    Attributes:
        folder: settings file, data map, Obhut's state and the vendor's server.
        cluster: the vendor's server.
        name: of the protected database, there and in the settings.
        obhut: the command line.
    """

    def __init__(self, folder: Path, cluster: Cluster, name: str, *, major: int) -> None:
        self.folder = folder
        self.cluster = cluster
        self.name = name
        self.major = major
        self.obhut = Commands(folder / "obhut.toml")
        self.controllers: dict[str, str] = {}
        self.elsewhere = ""  # the database that the vendor uses since a restore
        self.system = 0  # identifier of the vendor's first server, also after that is lost

    # -- places ---------------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The protected database as the superuser."""
        return self.elsewhere or self.cluster.url(self.name)

    @property
    def state(self) -> Path:
        """Obhut's state directory."""
        return self.folder / "var"

    @property
    def map(self) -> Path:
        """The data map."""
        return self.folder / "datamap.yaml"

    @property
    def repository(self) -> Path:
        """The backups of the database."""
        return self.state / "backups" / self.name

    @property
    def archive(self) -> Path:
        """The engine's directory of the server that is being backed up; each server has its own."""
        return self.repository / str(self.system) / "home" / self.name

    def session(self) -> Session:
        """Return a new session of the vendor's own."""
        return Session.connect(self.url)

    def move(self, url: str) -> None:
        """Let the vendor, and Obhut, use another database from now on: the one that was restored."""
        settings = self.folder / "obhut.toml"
        settings.write_text(settings.read_text().replace(self.url, url))
        self.elsewhere = url

    def control_cluster(self) -> Cluster:
        """Return the control database's cluster."""
        return Cluster(self.state / "control", programs(18), self.cluster.user)

    def control_session(self) -> Session:
        """Return a session on the control database, for looking at what is stored there."""
        cluster = self.control_cluster()
        with Session.connect(cluster.url()) as session:
            names = [name for (name,) in session.rows("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")]
        return Session.connect(cluster.url(names[0] if names else "postgres"))

    # -- the vendor's side ----------------------------------------------------------------------------------------------------

    def sql(self, statement: str) -> None:
        """Run a statement on the protected database."""
        with self.session() as session:
            session.execute(statement)

    def value(self, query: str) -> Any:
        """Return the one value of a query on the protected database."""
        with self.session() as session:
            return session.value(query)

    def psql(self, file: Path) -> None:
        """Run a script as a vendor loads a dump."""
        done = subprocess.run(
            [programs(self.major).path("psql"), "-q", "-X", "-d", self.url, "-f", file],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        # A newer dump names a setting and has a view with JSON_TABLE that servers before 17 do not know; nothing else may go wrong.
        unknown = () if self.major >= 17 else ("transaction_timeout", 'near "AS"', "films_per_customer_rental")
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line and not any(words in line for words in unknown)]
        assert done.returncode == 0 and not errors, done.stderr[-2000:]

    def moment(self) -> datetime:
        """Return a moment that lies after everything committed so far and before everything that follows."""
        time.sleep(0.02)
        with self.session() as session:
            now = session.value("SELECT clock_timestamp()")
        time.sleep(0.02)
        return now.astimezone(UTC)

    def position(self) -> str:
        """Return a WAL position behind everything committed so far."""
        with self.session() as session:
            return str(session.value("SELECT pg_current_wal_insert_lsn()"))

    def point(self, name: str) -> None:
        """Make a named restore point."""
        with self.session() as session:
            session.value(f"SELECT pg_create_restore_point('{name}')")

    def commit_something(self) -> None:
        """Commit, so that recovery finds an end to stop at: what the heartbeat of ``obhut serve`` does each minute."""
        with self.session() as session:
            session.value("SELECT pg_logical_emit_message(true, 'obhut-test', 'x')")

    def flush(self) -> None:
        """Finish the WAL segment and wait until the receiver has it."""
        with self.session() as session:
            session.execute("SELECT pg_logical_emit_message(true, 'obhut-test', 'x')")
            session.execute("SELECT pg_switch_wal()")
            session.execute("SELECT pg_logical_emit_message(true, 'obhut-test', 'x')")
            target = session.value("SELECT pg_current_wal_flush_lsn()")
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if session.value(
                    "SELECT coalesce(bool_and(flush_lsn >= %s::pg_lsn OR sent_lsn >= %s::pg_lsn), false) FROM pg_stat_replication",
                    (target, target),
                ):
                    time.sleep(0.3)
                    return
                time.sleep(0.05)
        raise AssertionError("the receiver did not get the WAL within twenty seconds")

    def lose(self) -> None:
        """Lose the production database: the server dies and its files are gone."""
        self.cluster.kill(hard=True)
        shutil.rmtree(self.cluster.data)

    # -- the processor's side -------------------------------------------------------------------------------------------------

    def register(self, controllers: Mapping[str, str], actions: Iterable[str] = ALL_ACTIONS) -> None:
        """Register controllers (key to name), each with a contract in force and one standing instruction for the actions."""
        yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
        for key, name in controllers.items():
            self.controllers[key] = self.obhut("controllers", "add", "--database", self.name, "--key", key, "--name", name)["id"]
            self.contract(key, yesterday)
            self.instruct(key, actions)

    def contract(self, key: str, valid_from: str) -> str:
        """Record a contract of a controller."""
        made = self.obhut(
            "controllers", "contract", "add", self.controllers[key], "--version", f"v{next(_number)}", "--subject-matter", "hosting", "--purpose", "the service", "--data", "user.contact",
            "--people", "customer", "--document", DOCUMENT, "--valid-from", valid_from,
        )  # fmt: skip
        return str(made["id"])

    def instruct(self, key: str, actions: Iterable[str], *more: object) -> str:
        """Record a standing instruction of a controller."""
        named = [word for action in actions for word in ("--action", action)]
        made = self.obhut(
            "instructions",
            "give",
            self.controllers[key],
            *named,
            "--given-by",
            "acc-1",
            "--document",
            DOCUMENT,
            "--kind",
            "standing",
            *more,
        )
        return str(made["id"])

    def erase(self, kind: str, *keys: object, anonymise: bool = False) -> Any:
        """Erase or anonymise people."""
        return self.obhut("erase", self.name, kind, *keys, *(["--anonymise"] if anonymise else []))

    def backup(self) -> None:
        """Begin continuous backups."""
        self.obhut("backup", "start", self.name)

    # -- the end --------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop everything that this installation has started, and remove it."""
        self.obhut.run("backup", "stop", self.name, "--drop-slot")
        remove_clusters(self.folder, self.cluster.binaries, self.cluster)
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def programs(major: int) -> Binaries:
    """Return the programs of a major version; the copy that an unprivileged account may need is made once for all installations."""
    place = Path(tempfile.gettempdir()) / f"obhut-tests-{os.geteuid()}"
    place.mkdir(mode=0o711, exist_ok=True)
    file = place / "obhut.toml"
    file.write_text(f'[state]\ndirectory = "."\n[postgres.binaries]\n15 = "{DEBIAN_15}"\n', encoding="utf-8")
    return binaries(load(file), major)


def remove_clusters(folder: Path, binaries_: Binaries, first: Cluster | None = None) -> None:
    """End every server below a directory: vendor, control, quarantines, targets."""
    if first is not None:
        first.remove()
    for version in sorted(folder.rglob("PG_VERSION")):
        data = version.parent
        if data.name == "data" and (data / "global").is_dir():
            Cluster(data.parent, binaries_, first.user if first else None).remove()


@contextmanager
def installed(
    name: str, *, map_text: str, major: int = 18, server: Mapping[str, Any] | None = None, prefix: str = "obhut-j"
) -> Iterator[Installation]:
    """Give an installation with an empty database and a data map; everything is gone at the end.

    Args:
        name: of the database.
        map_text: the data map.
        major: version of the vendor's server.
        server: further settings of that server.
        prefix: of the directory below /tmp: socket paths must stay short.
    """
    if major == 15 and not (DEBIAN_15 / "postgres").exists():
        raise AssertionError(f"no PostgreSQL 15 in {DEBIAN_15}; install postgresql-15 or set OBHUT_POSTGRES_15")
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o711)
    settings_file = folder / "obhut.toml"
    settings_file.write_text('[state]\ndirectory = "var"\n', encoding="utf-8")
    cluster = Cluster(folder / "v", programs(major), server_user(load(settings_file)))
    installation = Installation(folder, cluster, name, major=major)
    try:
        cluster.init(durable=False)
        cluster.configure({**SERVER, **({"summarize_wal": True} if major >= 17 else {}), **(server or {})})
        cluster.start()
        installation.system = cluster.system_identifier()
        with Session.connect(cluster.url()) as session:
            session.execute(f"CREATE DATABASE {name}")
        settings_file.write_text(_settings(name, cluster.url(name)), encoding="utf-8")
        installation.map.write_text(map_text, encoding="utf-8")
        yield installation
    except BaseException:
        for result in installation.obhut.log[-3:]:
            print(result)
        raise
    finally:
        if os.environ.get("OBHUT_TESTS_KEEP"):
            print(f"kept: {folder}")
        else:
            installation.close()


def _settings(name: str, url: str) -> str:
    return f"""[state]
directory = "var"
[erasure_list]
mirror = "mirror"
[keystore]
directory = "keys"
[postgres.binaries]
15 = "{DEBIAN_15}"
18 = "{programs(18).directory}"
[databases.{name}]
url = "{url}"
map = "datamap.yaml"
[databases.{name}.backup]
full_every = "P1D"
incremental_every = "PT6H"
"""


def rows_of(result: Result) -> Any:
    """Return the document of a result that succeeded."""
    assert result.status == 0, str(result)
    return result.document
