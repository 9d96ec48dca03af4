"""Real servers for the tests: PostgreSQL 18 from the wheel, PostgreSQL 15 from Debian, a control database; a fresh database per test.

Everything lives in one short directory below /tmp: a socket path holds 107 bytes, and pytest's own directories are closed to the
account that runs servers when the tests run as root. Servers run without fsync: what is tested survives a killed process, not a power cut.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import obhut
from obhut.foundation.settings import Settings, load
from obhut.postgres import control as control_module
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier

DEBIAN_15 = Path(os.environ.get("OBHUT_POSTGRES_15", "/usr/lib/postgresql/15/bin"))
TEMPLATE = "template_obhut"
FAST = {"fsync": False, "synchronous_commit": False, "full_page_writes": False, "max_wal_size": "1GB", "max_prepared_transactions": 10}

_number = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Database:
    """A database of one test."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        """Connection string as the superuser."""
        return self.cluster.url(self.name)

    def session(self) -> Session:
        """Return a new session on the database."""
        return Session.connect(self.url)


@pytest.fixture(scope="session", autouse=True)
def _children_import_obhut() -> Iterator[None]:
    """Let child processes import the package under test, also where it is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(obhut.__file__).parent.parent))
        yield


@pytest.fixture(scope="session")
def workplace() -> Iterator[Path]:
    """Give a short directory that the account of servers can pass; gone after the session."""
    directory = Path(tempfile.mkdtemp(prefix="obhut-t", dir="/tmp"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def base_settings(workplace: Path) -> Settings:
    """Give settings that know both major versions; their state directory is the session's."""
    file = workplace / "obhut.toml"
    file.write_text(f'[state]\ndirectory = "."\n[postgres.binaries]\n15 = "{DEBIAN_15}"\n', encoding="utf-8")
    return load(file)


def _serve(settings: Settings, name: str, major: int) -> Iterator[Cluster]:
    cluster = Cluster(settings.state.directory / name, binaries(settings, major), server_user(settings))
    try:
        cluster.init(durable=False)
        cluster.configure(FAST)
        cluster.start()
        with Session.connect(cluster.url()) as session:
            session.execute(SQL("CREATE DATABASE {}").format(Identifier(TEMPLATE)))
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def cluster(base_settings: Settings) -> Iterator[Cluster]:
    """Give a running PostgreSQL 18 for the whole session."""
    yield from _serve(base_settings, "c18", 18)


@pytest.fixture(scope="session")
def cluster15(base_settings: Settings) -> Iterator[Cluster]:
    """Give a running PostgreSQL 15 for the whole session; a machine without one fails, it does not skip."""
    if not (DEBIAN_15 / "postgres").exists():
        pytest.fail(f"no PostgreSQL 15 in {DEBIAN_15}; install postgresql-15 or set OBHUT_POSTGRES_15")
    yield from _serve(base_settings, "c15", 15)


@pytest.fixture(scope="session")
def control_server(base_settings: Settings) -> Iterator[Cluster]:
    """Give a running cluster of its own for control databases."""
    yield from _serve(base_settings, "cc", 18)


def _clone(cluster: Cluster, template: str) -> Iterator[Database]:
    name = f"t{next(_number)}"
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template)))
        yield Database(cluster, name)
        session.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture(scope="session")
def template() -> str:
    """Name the database that is cloned for each test; a module overrides it with one it has filled."""
    return TEMPLATE


@pytest.fixture
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """Give a fresh database on PostgreSQL 18."""
    yield from _clone(cluster, template)


@pytest.fixture
def database15(cluster15: Cluster) -> Iterator[Database]:
    """Give a fresh database on PostgreSQL 15."""
    yield from _clone(cluster15, TEMPLATE)


@pytest.fixture
def place(workplace: Path) -> Iterator[Path]:
    """Give a short directory for one test that the account of servers can pass."""
    directory = workplace / f"p{next(_number)}"
    directory.mkdir(mode=0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def make_settings(place: Path, control_server: Cluster) -> Callable[..., Settings]:
    """Give a function that writes ``obhut.toml`` for the named databases (name=url) and loads it."""

    def write(control: str | None = None, **databases: str) -> Settings:
        lines = [f'[control]\nurl = "{control or control_server.url("obhut")}"', f'[postgres.binaries]\n15 = "{DEBIAN_15}"']
        lines += [f'[databases.{name}]\nurl = "{url}"' for name, url in databases.items()]
        file = place / "obhut.toml"
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return load(file)

    return write


@pytest.fixture
def settings(make_settings: Callable[..., Settings], database: Database) -> Settings:
    """Give the settings of an installation that protects the test's database under the name ``courses``."""
    return make_settings(courses=database.url)


@pytest.fixture(scope="session")
def control_schema(control_server: Cluster) -> str:
    """Make the control database once per session and give its URL."""
    with Session.connect(control_server.url()) as session:
        session.execute("CREATE DATABASE obhut")
    return control_server.url("obhut")


@pytest.fixture
def control(control_schema: str, make_settings: Callable[..., Settings]) -> Iterator[Settings]:
    """Open the control database, emptied; give settings that name it and protect a database ``courses`` that does not answer."""
    settings = make_settings(courses="postgresql:///courses?host=/nowhere")
    with opened(settings):
        yield settings


@pytest.fixture
def control_with_database(control_schema: str, settings: Settings) -> Iterator[Settings]:
    """Open the control database, emptied, beside a real protected database ``courses``."""
    with opened(settings):
        yield settings


class opened:  # noqa: N801 - reads as a verb
    """Opens the control database of ``settings`` and empties it; closes this process's connections at the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __enter__(self) -> Settings:
        """Open, migrate when the session has not done so yet, and empty."""
        try:
            control_module.open_control(self.settings)
        except control_module.ControlSchemaError:
            control_module.migrate()
        with control_module.control_session() as session:
            names = session.rows(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
                " AND NOT relispartition AND relname NOT LIKE 'django\\_%%'"
            )
            # As a replica applies changes: guards against TRUNCATE on append-only tables do not fire.
            session.set("session_replication_role", "replica")
            tables = SQL(", ").join(Identifier(name) for (name,) in names)
            session.execute(SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(tables))
        return self.settings

    def __exit__(self, *_: object) -> None:
        """Close this process's connections."""
        control_module.close_control(self.settings)
