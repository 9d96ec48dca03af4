"""Kursblick, the sample vendor: its PostgreSQL, its schema, its five customers and their 60,000 participants.

The same rows at every run, but for the days on which people were last seen: made by the server from word lists and arithmetic
(``sql/kursblick_rows.sql``), in mail domains, telephone numbers and networks that are reserved for examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from obhut.foundation.settings import FILE_NAME, Settings, load
from obhut.postgres import sql
from obhut.postgres.clusters import Cluster, binaries, make_directory, server_user
from obhut.postgres.connections import Session

DATABASE = "kursblick"
MAP = "datamap.yaml"
PERSON = "4711"  # the participant whom the story is about
CONTROLLERS = ("1", "2", "3", "4", "5")  # tenants.id

_SERVER: dict[str, str | int | bool | None] = {
    "wal_level": "logical",
    "max_slot_wal_keep_size": "1GB",  # what the audit log's stream may hold back
    "summarize_wal": True,  # incremental base backups
    "max_wal_size": "1GB",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "128MB",
}
_BEFORE = ("roles", "types", "tables", "partitions")
_AFTER = ("keys", "references", "behaviour")

Progress = Callable[[int], None]  # steps done since the last call


@dataclass(frozen=True, slots=True)
class Vendor:
    """The vendor's running server."""

    cluster: Cluster

    @property
    def url(self) -> str:
        """Connection string of its database."""
        return self.cluster.url(DATABASE)

    def session(self) -> Session:
        """Return a new session of the vendor's own, as its application would open one."""
        return Session.connect(self.url, application_name="kursblick")


def settings_text(url: str) -> str:
    """Return the demo's ``obhut.toml``."""
    return f"""# Obhut's settings for the sample vendor. Every command works on it: obhut --config THIS-FILE …
[state]
directory = "obhut"                     # all that Obhut writes

[control]
url = "embedded"                        # Obhut's own PostgreSQL, a cluster of its own

[erasure_list]
mirror = "mirror"                       # in production: another disk or host

[keystore]
directory = "keys"

[databases.{DATABASE}]
url = "{url}"
map = "{MAP}"

[databases.{DATABASE}.backup]
full_every = "P1D"
incremental_every = "PT6H"
restorable = "P33D"
gone_after = "P35D"
heartbeat = 60                          # seconds; "obhut serve" beats
"""


def start(folder: Path) -> tuple[Vendor, Settings]:
    """Start the vendor's server in the demo's folder and write settings and data map beside it."""
    file = folder / FILE_NAME
    file.write_text('[state]\ndirectory = "obhut"\n', encoding="utf-8")  # enough to know programs and account
    bare = load(file)
    make_directory(folder / "kursblick")
    cluster = Cluster(folder / "kursblick", binaries(bare), server_user(bare))
    cluster.init(durable=False)
    cluster.configure(_SERVER)
    cluster.start()
    with Session.connect(cluster.url()) as session:
        session.execute(f"CREATE DATABASE {DATABASE}")
    vendor = Vendor(cluster)
    (folder / MAP).write_text(data_map(), encoding="utf-8")
    file.write_text(settings_text(vendor.url), encoding="utf-8")
    return vendor, load(file)


def data_map() -> str:
    """Return the vendor's data map as it is written."""
    return resources.files("obhut.demo").joinpath(MAP).read_text(encoding="utf-8")


def steps() -> int:
    """Return how many steps :func:`fill` takes."""
    return len(_BEFORE) + len(_AFTER) + len(sql.load("obhut.demo", "kursblick_rows"))


def fill(session: Session, progress: Progress = lambda _: None) -> None:
    """Create schema and rows in an empty database; keys and indexes after the rows, because that is faster."""
    schema, rows = sql.load("obhut.demo", "kursblick_tables"), sql.load("obhut.demo", "kursblick_rows")
    session.set("synchronous_commit", "off")
    for statement in [*(schema[name] for name in _BEFORE), *rows.values(), *(schema[name] for name in _AFTER)]:
        session.execute(statement)
        progress(1)
    session.execute("ANALYZE")


def figures(session: Session) -> dict[str, int]:
    """Return how large the sample is."""
    people, controllers, tables = session.row(
        "SELECT (SELECT count(*) FROM participants), (SELECT count(*) FROM tenants),"
        " (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition)"
    ) or (0, 0, 0)
    rows, size = session.row(
        "SELECT sum(reltuples)::bigint, pg_database_size(current_database())"
        " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    ) or (0, 0)
    return {"participants": people, "controllers": controllers, "tables": tables, "rows": rows, "bytes": size}
