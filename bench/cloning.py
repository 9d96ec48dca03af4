"""A masked copy, against the raw stream of the same rows with the same parallelism.

Both sides end with a new, durable, open server that has every index and every key. Raw, that is ``COPY … TO STDOUT`` into ``COPY … FROM
STDIN`` by psql, in text as people type it, two streams side by side, tables cut and indexes spread as Obhut does it itself; nothing is
masked, analysed or searched, and the people are all in it.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import house, shop
from bench.alone import TIMEOUT, alone
from bench.measure import Comparison, Stopwatch, compare
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import Table, read_catalogue
from obhut.postgres.clusters import Cluster, binaries, make_directory, server_user
from obhut.postgres.connections import Session
from obhut.postgres.programs import environment
from obhut.postgres.sql import SQL, Composable, Identifier, column_list
from obhut.restores import load, schema, streams
from obhut.restores import target as targets
from obhut.restores.filter import Filter, TableFilter
from obhut.restores.load import Worker
from obhut.restores.plan import Part
from obhut.restores.progress import Silent

WORKERS = 2
MASKED = 10
_MAP = Path(__file__).with_name("clone.yaml")
_KEPT_KEYS = "        rekey: false\n"


@dataclass
class Series:
    """Seconds of each way, round by round, and the peak memory of Obhut's processes in bytes."""

    masked: list[float] = field(default_factory=list)
    rekeyed: list[float] = field(default_factory=list)
    text: list[float] = field(default_factory=list)
    binary: list[float] = field(default_factory=list)
    memory: int = 0


def map_text(*, rekeyed: bool) -> str:
    """Return the map with ten masked columns; ``rekeyed``: and every key of people's rows issued anew, as Obhut does unless told not to."""
    text = _MAP.read_text(encoding="utf-8")
    return text.replace(_KEPT_KEYS, "") if rekeyed else text


def measure(directory: Path, source: Cluster, rounds: int) -> tuple[list[Comparison], int]:
    """Run all ways in turn; return the comparisons and the peak memory of Obhut's largest process in bytes."""
    url = source.url(shop.DATABASE)
    installations = [house.found(directory / f"clone-{keys}", url, map_text=map_text(rekeyed=keys)) for keys in (False, True)]
    series = Series()
    try:
        for _ in range(rounds):
            for settings, seconds in zip(installations, (series.masked, series.rekeyed), strict=True):
                taken, memory = cloned(settings, source)
                seconds.append(taken)
                series.memory = max(series.memory, memory)
            series.text.append(raw(directory / "raw", installations[0], source, "text"))
            series.binary.append(raw(directory / "raw", installations[0], source, "binary"))
    finally:
        house.leave(installations)
    return list(_compared(series, url)), series.memory


def _compared(series: Series, url: str) -> Iterator[Comparison]:
    rows, size = shop.size(url)
    sizes = {"rows": rows, "bytes": size, "tables": shop.TABLES, "masked_columns": MASKED, "streams": WORKERS}
    says = f"masked copy, {MASKED} columns, checked and opened / raw COPY, {WORKERS} streams, same indexes and keys"
    yield compare("clone", says, series.masked, series.text, sizes, bound=1.35, aim=1.15)
    yield compare("clone-binary", "the same / raw COPY in binary, which cannot be masked", series.masked, series.binary, sizes, bound=None)
    yield compare("clone-rekeyed", "the same, all keys of people re-issued / raw COPY", series.rekeyed, series.text, sizes, bound=None)


def cloned(settings: Settings, source: Cluster) -> tuple[float, int]:
    """Make a masked copy in a process of its own; return seconds from its start to its end and its peak memory in bytes."""
    url, seconds, memory = alone("clone", str(settings.path))
    with Session.connect(source.url(shop.DATABASE)) as there, Session.connect(url) as copy:
        for table in ("users", "items", "messages"):
            counted = SQL("SELECT count(*) FROM {}").format(Identifier(table))
            if copy.value(counted) != there.value(counted):
                raise AssertionError(f"rows of {table} are missing in the copy; nothing was measured")
        if copy.value("SELECT EXISTS (SELECT FROM users WHERE email LIKE '%%@example.com' OR name LIKE 'Person %%')", []):
            raise AssertionError("somebody is still in the copy; nothing was measured")
    for version in settings.state.directory.glob("clones/*/target/data/PG_VERSION"):
        Cluster(version.parent.parent, binaries(settings, source.binaries.major), server_user(settings)).remove()
    return seconds, memory


def raw(directory: Path, settings: Settings, source: Cluster, form: str) -> float:
    """Copy every row as it is into a new server made and configured as a copy of Obhut's own; return seconds."""
    programs, url = source.binaries, source.url(shop.DATABASE)
    with Stopwatch() as watch:
        make_directory(directory)
        cluster = targets.new_cluster(settings, directory / "target", programs.major, "obhut", 16)
        try:
            with Session.connect(url) as session, session.transaction("repeatable read", read_only=True):
                snapshot = str(session.value("SELECT pg_export_snapshot()"))
                catalogue = read_catalogue(session)
                entries = schema.dump(programs, url, directory, snapshot=snapshot)
                target = targets.on_cluster(cluster, shop.DATABASE, "obhut")
                targets.make_database(target, entries[schema.Section.PRE_DATA], [])
                rows = Filter({}, {})
                pipe = streams.Pipe(url, target.url, {}, directory, programs, f"bench-{secrets.token_hex(4)}")
                carry = _Raw(url, target.url, programs.path("psql"), snapshot, form)
                loading = load.Loading(pipe, url, target.url, catalogue, rows, entries, WORKERS, snapshot=snapshot, carrier=carry)
                with load.loading_session(loading) as made:
                    streams.prepare_records(made)
                    load.make_schema(made, loading)
                load.load(loading, Silent())
                load.connect_tables(loading, Silent())
            targets.make_durable(cluster)
            cluster.start()
        except BaseException:
            cluster.remove()
            raise
    cluster.remove()
    return watch.seconds


@dataclass(frozen=True)
class _Raw:
    """Carries a part from psql to psql."""

    source: str
    target: str
    psql: Path
    snapshot: str
    form: str

    def __call__(self, worker: Worker, table: Table, part: Part) -> int:
        query = streams.reading(table, part, TableFilter(), worker.source.server_version, table.stored_columns).as_string(None)
        into: Composable = streams.destination(table)
        columns = column_list(table.stored_columns).as_string(None)
        name = into.as_string(None)
        first = [f"TRUNCATE ONLY {name}"] if part.alone else []
        frozen = ", FREEZE" if part.alone else ""
        read = self._psql(
            self.source,
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            f"SET TRANSACTION SNAPSHOT '{self.snapshot}'",
            f"COPY ({query}) TO STDOUT (FORMAT {self.form})",
        )
        write = self._psql(self.target, "BEGIN", *first, f"COPY {name} ({columns}) FROM STDIN (FORMAT {self.form}{frozen})", "COMMIT")
        with subprocess.Popen(read, stdout=subprocess.PIPE, env=environment()) as reader:
            subprocess.run(write, stdin=reader.stdout, env=environment(), check=True, timeout=TIMEOUT)
        if reader.returncode:
            raise RuntimeError(f"reading {table.full_name} ended with status {reader.returncode}")
        streams.record(worker.target, part.name)
        return 0

    def _psql(self, url: str, *statements: str) -> list[str]:
        commands = [word for statement in statements for word in ("-c", statement)]
        return [str(self.psql), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url, *commands]
