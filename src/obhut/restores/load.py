"""Loading: rows side by side, each table's indexes as soon as its rows are there, then what connects tables.

Everything that is complete is recorded in the target, in the transaction that completed it; what is recorded is never done again. So
the order survives a kill at any instant, and a repeated run does only what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from obhut.foundation import faultpoints
from obhut.postgres.catalogue import Catalogue, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Literal, trusted
from obhut.restores import pool, streams
from obhut.restores.filter import Filter
from obhut.restores.plan import Part, split
from obhut.restores.progress import Progress
from obhut.restores.schema import Entry, Section
from obhut.restores.target import UNBOUND

_NAMED = r'((?:"(?:[^"]|"")+"|[^\s."(]+)\.(?:"(?:[^"]|"")+"|[^\s."(;]+))'
_ALTERED = re.compile(rf"^ALTER TABLE (?:ONLY )?{_NAMED}\s", re.MULTILINE)
_INDEXED = re.compile(rf"^CREATE (?:UNIQUE )?INDEX (?:\S+|\"(?:[^\"]|\"\")+\") ON (?:ONLY )?{_NAMED}[\s]", re.MULTILINE)
_REFERENCED = re.compile(rf"REFERENCES {_NAMED}\s*\(")
_EARLY = {"INDEX", "CONSTRAINT"}
_LAST = {"EVENT TRIGGER", "PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "SUBSCRIPTION", "SUBSCRIPTION TABLE"}
_BUILDING = {**UNBOUND, "maintenance_work_mem": "256MB", "max_parallel_maintenance_workers": "1", "synchronous_commit": "off"}


@dataclass
class Worker:
    """What one worker works with."""

    source: Session
    target: Session

    def close(self) -> None:
        """Close both sessions."""
        self.source.close()
        self.target.close()


@dataclass(frozen=True)
class Loading:
    """Everything that the load needs to know, fixed before it begins."""

    pipe: streams.Pipe
    source_url: str
    target_url: str
    catalogue: Catalogue
    rows: Filter
    entries: Mapping[Section, Sequence[Entry]]
    workers: int
    schema: str | None = None  # a side schema, or None for the tables' own
    left_out: frozenset[str] = field(default_factory=frozenset)  # names of entries
    snapshot: str = ""  # exported by the source where that is alive: every reading session sees this moment
    carrier: Callable[[Worker, Table, Part], int] | None = None  # carries a part instead of the plain streams; returns its rows
    path: str = ""  # search path in which names of types in the filter and in a carrier's expressions were read

    def wanted(self, section: Section) -> list[Entry]:
        """Return the entries of a section that are to be made."""
        return [entry for entry in self.entries[section] if entry.name not in self.left_out and not entry.kind.startswith("DATABASE")]

    @property
    def reading(self) -> dict[str, str]:
        """Run-time parameters of reading sessions; a live source may end long statements by its own settings."""
        return {**self.rows.settings, **({**streams.AS_TEXT, **UNBOUND, "search_path": self.path} if self.snapshot else {})}

    def worker(self) -> Worker:
        """Open the sessions of one worker."""
        source = Session.connect(self.source_url, application_name=self.pipe.application, settings=self.reading)
        if self.snapshot:
            source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            source.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(Literal(self.snapshot)))
        return Worker(source, Session.connect(self.target_url, application_name=self.pipe.application, settings=_BUILDING))


def tables_to_load(catalogue: Catalogue) -> list[Table]:
    """Return the leaf tables whose rows are carried: not foreign ones, not unlogged ones (empty after recovery), not an extension's."""
    return [table for table in catalogue.tables.values() if table.kind == "r" and table.persistence == "p" and table.extension is None]


def parts_of(loading: Loading, tables: Iterable[Table]) -> list[Part]:
    """Return the parts of the load."""
    sizes = [(table.oid, table.full_name, max(table.heap_bytes // 8192, 1)) for table in tables]
    return split(sizes, {oid: loading.rows.of(oid).edges() for oid in loading.rows.touched()}, workers=loading.workers)


def make_schema(target: Session, loading: Loading) -> None:
    """Make everything that comes before the data, in one transaction."""
    if "schema" in streams.finished(target):
        return
    with target.transaction():
        for entry in loading.wanted(Section.PRE_DATA):
            _make(target, entry)
        streams.record(target, "schema")
    faultpoints.reach("restore.schema.committed")


def load(loading: Loading, progress: Progress) -> int:
    """Load all rows and build what belongs to single tables; return the number of rows loaded by this call."""
    tables = tables_to_load(loading.catalogue)
    parts = parts_of(loading, tables)
    by_oid = {table.oid: table for table in tables}
    carried: list[int] = []
    with loading_session(loading) as target:
        done = streams.finished(target)
    with progress.phase("loading and indexing", streams.total(parts), "blocks") as advance:

        def carry(part: Part) -> pool.Task[Worker]:
            def work(worker: Worker) -> None:
                carried.append(_carry(loading, worker, by_oid[part.oid], part))
                advance(part.weight)

            return pool.Task(part.name, work, rank=part.weight)

        tasks = [carry(part) for part in parts]
        tasks += list(_table_entries(loading, parts, by_oid))
        pool.run(tasks, loading.worker, Worker.close, workers=loading.workers, done=done)
    return sum(carried)


def connect_tables(loading: Loading, progress: Progress) -> None:
    """Make what connects tables: partition indexes, foreign keys (whose check is a free proof), triggers, rules, policies."""
    entries = [entry for entry in loading.wanted(Section.POST_DATA) if entry.kind not in _LAST]
    with loading_session(loading) as target:
        done = set(streams.finished(target))
        plain = [entry for entry in entries if entry.kind != "FK CONSTRAINT" and _record(entry) not in done]
        for entry in plain:
            _execute(target, entry)
    keys = [entry for entry in entries if entry.kind == "FK CONSTRAINT"]
    with progress.phase("checking foreign keys", len(keys), "keys") as advance:

        def check(entry: Entry) -> pool.Task[Worker]:
            def work(worker: Worker) -> None:
                _execute(worker.target, entry)
                advance(1)

            found = [*_ALTERED.findall(entry.sql), *_REFERENCED.findall(entry.sql)]
            return pool.Task(_record(entry), work, locks=frozenset(found or ["*"]))

        pool.run([check(entry) for entry in keys], loading.worker, Worker.close, workers=loading.workers, done=done)


def make_last(loading: Loading) -> None:
    """Make event triggers, publications and subscriptions: nothing that they would watch happens after them."""
    with loading_session(loading) as target:
        done = streams.finished(target)
        for entry in loading.wanted(Section.POST_DATA):
            if entry.kind in _LAST and _record(entry) not in done:
                _execute(target, entry)


def loading_session(loading: Loading) -> Session:
    """Open a session on the target for one step."""
    return Session.connect(loading.target_url, application_name=loading.pipe.application, settings=_BUILDING)


def _carry(loading: Loading, worker: Worker, table: Table, part: Part) -> int:
    if not table.stored_columns:
        raise AssertionError("a table without columns has no rows to carry")
    faultpoints.reach("restore.part.before")
    carried = loading.carrier(worker, table, part) if loading.carrier else _carry_plain(loading, worker, table, part)
    faultpoints.reach("restore.part.after")
    return carried


def _carry_plain(loading: Loading, worker: Worker, table: Table, part: Part) -> int:
    rows = loading.rows.of(table.oid)
    query = streams.reading(table, part, rows, worker.source.server_version, table.stored_columns)
    into: Composable = streams.destination(table, loading.schema)
    if part.weight < streams.SMALL:
        return loading.pipe.small(worker.source, worker.target, table, part, query, into)
    return loading.pipe.large(worker.target, table, part, query, into)


def _table_entries(loading: Loading, parts: Sequence[Part], tables: Mapping[int, Table]) -> Iterable[pool.Task[Worker]]:
    waits: dict[str, set[str]] = {}
    weights: dict[str, int] = {}
    for part in parts:
        table = tables[part.oid]
        place = streams.destination(table).as_string(None)
        waits.setdefault(place, set()).add(part.name)
        weights[place] = weights.get(place, 0) + part.weight
    for entry in loading.wanted(Section.POST_DATA):
        name = _own_table(entry)
        if entry.kind in _EARLY and name is not None:
            quoted = _requoted(name)

            def work(worker: Worker, entry: Entry = entry) -> None:
                _execute(worker.target, entry)

            # Rows first: an index keeps one table busy, rows keep all others waiting.
            yield pool.Task(
                _record(entry), work, after=frozenset(waits.get(quoted, ())), locks=frozenset({quoted}), rank=weights.get(quoted, 0) / 2
            )


def _own_table(entry: Entry) -> str | None:
    match = (_INDEXED if entry.kind == "INDEX" else _ALTERED).search(entry.sql)
    return match[1] if match else None


def _requoted(name: str) -> str:
    """Return ``schema.table`` with both names quoted, as the driver writes them."""
    found = re.findall(r'"((?:[^"]|"")+)"|([^."]+)', name)
    return ".".join('"' + (quoted or plain.replace('"', '""')) + '"' for quoted, plain in found)


def _record(entry: Entry) -> str:
    return f"{entry.section.value} {entry.number}"


def _execute(target: Session, entry: Entry) -> None:
    with target.transaction():
        _make(target, entry)
        streams.record(target, _record(entry))
    faultpoints.reach("restore.entry.after")


def _make(target: Session, entry: Entry) -> None:
    if entry.sql:
        target.execute(
            SQL("SET LOCAL search_path TO ''; SET LOCAL check_function_bodies TO off; SET LOCAL default_table_access_method TO heap;")
        )
        target.execute(trusted(entry.sql))
