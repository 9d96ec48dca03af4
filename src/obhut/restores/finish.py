"""What comes after rows, indexes and keys: sequences, large objects, materialised views, planner statistics.

Sequences end above everything that was ever handed out: the value at the target of the recovery, the furthest value that a heartbeat saw
in production afterwards, and every key in the erasure list. Otherwise the next person gets the number of an erased one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from obhut.backups import heartbeat
from obhut.datamap.graph import Graph
from obhut.erasure import reading
from obhut.postgres.catalogue import Sequence as SequenceFacts
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier, Literal, qualified
from obhut.restores import pool, streams
from obhut.restores.load import Loading, Worker, loading_session
from obhut.restores.plan import next_value
from obhut.restores.progress import Progress

_POPULATED = """
WITH RECURSIVE views AS (
  SELECT c.oid, c.relkind, n.nspname, c.relname, c.relispopulated FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
uses AS (
  SELECT DISTINCT r.ev_class AS view, d.refobjid AS used FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
  WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class),
depth AS (
  SELECT v.oid, 0 AS depth FROM views v
  UNION SELECT u.view, d.depth + 1 FROM depth d JOIN uses u ON u.used = d.oid WHERE d.depth < 100)
SELECT v.nspname, v.relname FROM views v JOIN depth d ON d.oid = v.oid WHERE v.relkind = 'm' AND v.relispopulated
GROUP BY 1, 2 ORDER BY max(d.depth), 1, 2
"""

_PARTITIONED = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND n.nspname !~ '^pg_'
"""


@dataclass(frozen=True, slots=True)
class Counter:
    """Where a sequence stood at the source, and where it must stand at the target."""

    sequence: SequenceFacts
    last: int | None
    wanted: int | None


def counters(source: Session, graph: Graph, database: str) -> list[Counter]:
    """Return for every sequence the value that it must have handed out last."""
    marks = {(mark.schema, mark.name): mark.value for mark in heartbeat.sequence_marks(database)}
    erased = _erased_keys(graph, database)
    found = []
    for sequence in graph.catalogue.sequences:
        if sequence.extension is not None:
            continue
        row = source.row(SQL("SELECT last_value, is_called FROM {}").format(qualified(sequence.schema, sequence.name)))
        last = int(row[0]) if row and row[1] else None
        highest = erased.get((sequence.table, sequence.column)) if sequence.table is not None and sequence.column is not None else None
        wanted = next_value(
            sequence.increment, sequence.minimum, sequence.maximum, [last, marks.get((sequence.schema, sequence.name)), highest]
        )
        found.append(Counter(sequence, last, wanted))
    return found


def set_sequences(target: Session, counted: Iterable[Counter], *, fresh: Mapping[tuple[str, str], int] | None = None) -> int:
    """Set every sequence; one that never handed out a value stays as it is. Return how many were set."""
    number = 0
    for counter in counted:
        wanted = counter.wanted
        later = (fresh or {}).get((counter.sequence.schema, counter.sequence.name))
        if later is not None and wanted is not None:
            wanted = max(wanted, later) if counter.sequence.increment > 0 else min(wanted, later)
        if wanted is None:
            continue
        name = Literal(qualified(counter.sequence.schema, counter.sequence.name).as_string(None))
        target.execute(SQL("SELECT setval({}::regclass, %s, true)").format(name), (wanted,))
        number += 1
    return number


def _erased_keys(graph: Graph, database: str) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for kind, subject in graph.subjects.items():
        for position, value in reading.highest_keys(database, kind).items():
            if position < len(subject.key):
                place = subject.table, subject.key[position]
                found[place] = max(found.get(place, value), value)
    return found


def refresh_views(loading: Loading, source: Session, progress: Progress) -> int:
    """Fill the materialised views that were filled at the source, those that others read first."""
    views = source.rows(_POPULATED)
    with loading_session(loading) as target, progress.phase("refreshing materialised views", len(views), "views") as advance:
        done = streams.finished(target)
        for schema, name in views:
            mark = f"view {schema}.{name}"
            if mark not in done:
                with target.transaction():
                    target.execute("SET LOCAL search_path TO ''")
                    target.execute(SQL("REFRESH MATERIALIZED VIEW {}").format(qualified(schema, name)))
                    streams.record(target, mark)
            advance(1)
    return len(views)


def refresh_again(target: Session) -> None:
    """Fill views and statistics anew after rows went at the target itself: both keep copies of values."""
    for schema, name in target.rows(_POPULATED):
        target.execute(SQL("REFRESH MATERIALIZED VIEW {}").format(qualified(schema, name)))
        target.execute(SQL("ANALYZE {}").format(qualified(schema, name)))
    for schema, name in target.rows(_PARTITIONED):
        target.execute(SQL("ANALYZE {}").format(qualified(schema, name)))
    for catalogue in ("pg_statistic", "pg_statistic_ext_data"):
        target.execute(SQL("VACUUM (FULL) {}").format(qualified("pg_catalog", catalogue)))


def analyse(loading: Loading, progress: Progress) -> None:
    """Gather planner statistics anew; those of the source hold sample values and are never carried over."""
    names = [table.full_name for table in loading.catalogue.roots if table.kind in {"r", "p"}]
    tables = {table.full_name: table for table in loading.catalogue.tables.values()}
    with progress.phase("analysing", len(names), "tables") as advance:

        def work(name: str) -> pool.Task[Worker]:
            def analyse_one(worker: Worker) -> None:
                table = tables[name]
                with worker.target.transaction():
                    worker.target.execute(SQL("ANALYZE {}").format(qualified(table.schema, table.name)))
                    streams.record(worker.target, f"analyse {name}")
                advance(1)

            return pool.Task(f"analyse {name}", analyse_one, rank=tables[name].pages)

        with loading_session(loading) as target:
            done = streams.finished(target)
        pool.run([work(name) for name in names], loading.worker, Worker.close, workers=loading.workers, done=done)


def doomed_large_objects(source: Session, loading: Loading, columns: Sequence[tuple[int, str]]) -> tuple[list[int], int]:
    """Return the large objects that rows which stay still name, and how many are named by no row that stays.

    Args:
        source: the quarantine.
        loading: with the filter.
        columns: oid of the leaf table and name of each column that holds oids of large objects.
    """
    kept: set[int] = set()
    for oid, column in columns:
        table = loading.catalogue.tables[oid]
        deleted = loading.rows.of(oid).deleted
        where = SQL(" WHERE ctid <> ALL({})").format(deleted.literal()) if deleted else SQL("")
        query = SQL("SELECT DISTINCT {}::oid::int8 FROM {}{}").format(Identifier(column), table.relation, where)
        kept.update(int(found) for (found,) in source.rows(query) if found)
    everything = {int(oid) for (oid,) in source.rows("SELECT oid::int8 FROM pg_largeobject_metadata")}
    return sorted(kept & everything), len(everything - kept)


def copy_large_objects(source: Session, target: Session, oids: Sequence[int]) -> int:
    """Copy large objects under their own oids, piece by piece in constant memory; return how many."""
    done = streams.finished(target)
    for oid in oids:
        mark = f"large object {oid}"
        if mark in done:
            continue
        with target.transaction():
            target.execute("SELECT lo_create(%s::oid)", (oid,))
            offset = 0
            while piece := source.value("SELECT lo_get(%s::oid, %s, 1048576)", (oid, offset)):
                target.execute("SELECT lo_put(%s::oid, %s, %s)", (oid, offset, piece))
                offset += len(piece)
            owner = source.value("SELECT pg_get_userbyid(lomowner) FROM pg_largeobject_metadata WHERE oid = %s", (oid,))
            target.execute(SQL("ALTER LARGE OBJECT {} OWNER TO {}").format(Literal(oid), Identifier(str(owner))))
            streams.record(target, mark)
    return len(oids)
