"""Counts and checksums: source minus what was left out equals target, for every table and every stored column.

The checksum of a set of rows is the sum of a 64-bit hash of each row; the order of rows does not matter, so parts of a sum can be added
and taken away. The hash of a row is ``hashint8extended(hash_record_extended(ROW(…), seed), seed)`` with a random seed for each run. The
outer hash is needed: a record's hash is linear in the hashes of its columns, and without it two values swapped between rows would not
show. Columns of types whose equality is bytewise go in as they are, others as text (specification, section 4).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from obhut.erasure.addresses import RowAddresses
from obhut.postgres.catalogue import Catalogue, Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, Literal, trusted
from obhut.restores import pool
from obhut.restores.filter import Filter, TableFilter
from obhut.restores.plan import Range
from obhut.restores.progress import Progress
from obhut.restores.streams import between, select

# Equal values of these types have equal bytes, so their own hash tells them apart as well as their text would, at a third of the cost.
AS_VALUE = frozenset(
    {
        "smallint", "integer", "bigint", "boolean", "uuid", "bytea", "date", "timestamp without time zone", "timestamp with time zone",
    }
)  # fmt: skip
AS_BYTES = frozenset({"text", "character varying"})
_READING = {"max_parallel_workers_per_gather": "2", "lc_monetary": "C"}
_CHUNK = 100_000
_COUNTED = 10**12  # more than the rows of a range that the filter can name
_SPARSE = 32  # blocks an address: fetching fewer rows than that one by one is cheaper than asking every row whether it is one of them


@dataclass(frozen=True, slots=True)
class Sum:
    """Number of rows and sum of their hashes."""

    rows: int = 0
    hash: int = 0

    def __add__(self, other: Sum) -> Sum:
        """Return the sum over both sets."""
        return Sum(self.rows + other.rows, self.hash + other.hash)

    def __sub__(self, other: Sum) -> Sum:
        """Return the sum over this set without the other."""
        return Sum(self.rows - other.rows, self.hash - other.hash)


@dataclass(frozen=True, slots=True)
class TableFigures:
    """What was counted for one leaf table."""

    schema: str
    name: str
    columns: tuple[tuple[str, str], ...]  # name, and how it goes into the hash: value, bytes or text
    source: Sum
    deleted: Sum
    changed_before: Sum
    changed_after: Sum
    target: Sum

    @property
    def expected(self) -> Sum:
        """What the target must hold."""
        return self.source - self.deleted - self.changed_before + self.changed_after

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.expected == self.target


def new_seed() -> int:
    """Return a random seed of 62 bits."""
    return secrets.randbits(62)


def how(column: Column) -> str:
    """Return how a column goes into the hash."""
    if column.base_type in AS_VALUE:
        return "value"
    return "bytes" if column.base_type in AS_BYTES else "text"


def row_hash(columns: Sequence[Column], seed: int, values: Mapping[str, Composable] | None = None) -> Composed:
    """Return the hash of a row, with the given expressions in place of columns."""
    if not columns:
        return SQL("hashint8extended(0, {})").format(Literal(seed))
    inputs = [_input(column, (values or {}).get(column.name, Identifier(column.name))) for column in columns]
    return SQL("hashint8extended(hash_record_extended(ROW({}), {seed}), {seed})").format(SQL(", ").join(inputs), seed=Literal(seed))


def _input(column: Column, value: Composable) -> Composed:
    way = how(column)
    if way == "value":
        return SQL("({})::{}").format(value, trusted(column.base_type))
    return SQL('({})::text COLLATE "C"').format(value)


def sum_all(session: Session, table: Table, seed: int, *, schema: str | None = None) -> Sum:
    """Return the sum over all rows of a table."""
    relation = SQL("ONLY {}").format(Identifier(schema or table.schema, table.name))
    return _sum(session, SQL("SELECT count(*), coalesce(sum({}), 0) FROM {}").format(row_hash(_stored(table), seed), relation))


@dataclass(frozen=True, slots=True)
class SourceSums:
    """What was counted at the source for one leaf table."""

    all: Sum = Sum()
    deleted: Sum = Sum()
    before: Sum = Sum()
    after: Sum = Sum()

    def __add__(self, other: SourceSums) -> SourceSums:
        """Return the sums over both sets of rows."""
        return SourceSums(self.all + other.all, self.deleted + other.deleted, self.before + other.before, self.after + other.after)


def sums_at_source(session: Session, table: Table, rows: TableFilter, seed: int) -> SourceSums:
    """Return all sums of a table of the quarantine.

    Every row is read once. Rows that the filter names are counted on the way where there are many of them, and by their addresses where
    there are few.
    """
    if rows.excluded.count * _SPARSE > table.heap_bytes // 8192:
        borders = [0, *rows.edges()]
        spans = [Range(first, last) for first, last in zip(borders, [*borders[1:], None], strict=True)]
        return sum((_sums_in(session, table, rows, seed, span) for span in spans), SourceSums())
    return replace(_by_address(session, table, rows, seed), all=sum_all(session, table, seed))


def sums_of_rows(session: Session, table: Table, chosen: RowAddresses, rows: TableFilter, seed: int) -> SourceSums:
    """Return all sums of the chosen rows of a table of the quarantine."""
    changes = tuple(replace(change, rows=chosen & change.rows) for change in rows.changes)
    named = _by_address(session, table, TableFilter(chosen & rows.deleted, changes), seed)
    return replace(named, all=sum_at(session, table, chosen, seed))


def _by_address(session: Session, table: Table, rows: TableFilter, seed: int) -> SourceSums:
    """Return the sums of the rows that the filter names, fetched by their addresses."""
    before, after = Sum(), Sum()
    for change in rows.changes:
        before = before + sum_at(session, table, change.rows, seed)
        after = after + sum_at(session, table, change.rows, seed, change.assignments)
    return SourceSums(Sum(), sum_at(session, table, rows.deleted, seed), before, after)


def _sums_in(session: Session, table: Table, rows: TableFilter, seed: int, span: Range) -> SourceSums:
    plain = row_hash(_stored(table), seed)
    wanted: list[tuple[RowAddresses, Composable]] = [(rows.deleted.in_blocks(span.first, span.last), plain)]
    for change in rows.changes:
        mine = change.rows.in_blocks(span.first, span.last)
        wanted += [(mine, plain), (mine, row_hash(_stored(table), seed, change.assignments))]
    sums = [SQL("count(*), coalesce(sum({}), 0)").format(plain), *(_counted_sum(some, hashed) for some, hashed in wanted)]
    row = session.row(select(table, SQL(", ").join(sums), between(span)))
    if row is None:
        raise AssertionError("an aggregate without groups has one row")
    total = Sum(int(row[0]), int(row[1]))
    deleted, *changed = [Sum(int(both) % _COUNTED, int(both) // _COUNTED) for both in row[2:]]
    return SourceSums(total, deleted, sum(changed[::2], Sum()), sum(changed[1::2], Sum()))


def _counted_sum(rows: RowAddresses, hashed: Composable) -> Composable:
    """Return number and sum in one figure, so that each row is looked up in the array once.

    In a FILTER the server hashes the array; as a column to group by it would compare every row with each element.
    """
    if not rows:
        return SQL("0")
    return SQL("coalesce(sum(({})::numeric * {} + 1) FILTER (WHERE ctid = ANY ({})), 0)").format(hashed, Literal(_COUNTED), rows.literal())


def sum_at(session: Session, table: Table, rows: RowAddresses, seed: int, values: Mapping[str, Composable] | None = None) -> Sum:
    """Return the sum over the rows at some addresses, with expressions in place of columns."""
    query = SQL("SELECT count(*), coalesce(sum({}), 0) FROM {} WHERE ctid = ANY(%s)").format(
        row_hash(_stored(table), seed, values), table.relation
    )
    found = Sum()
    for chunk in rows.chunks(_CHUNK):
        row = session.row(query, (chunk.parameter(),)) or (0, 0)
        found = found + Sum(int(row[0]), int(row[1]))
    return found


def compare(
    source_url: str, target_url: str, catalogue: Catalogue, tables: Sequence[Table], rows: Filter, seed: int, progress: Progress, *,
    application: str, schema: str | None = None,
) -> list[TableFigures]:  # fmt: skip
    """Count and sum every table on both sides."""
    sources: dict[int, SourceSums] = {}
    targets: dict[int, Sum] = {}
    with progress.phase("comparing source and target", len(tables) * 2, "tables") as advance:

        def at_source(table: Table) -> pool.Task[tuple[Session, Session]]:
            def work(sessions: tuple[Session, Session]) -> None:
                sources[table.oid] = sums_at_source(sessions[0], table, rows.of(table.oid), seed)
                advance(1)

            return pool.Task(f"source {table.oid}", work, rank=table.heap_bytes)

        def at_target(table: Table) -> pool.Task[tuple[Session, Session]]:
            def work(sessions: tuple[Session, Session]) -> None:
                targets[table.oid] = sum_all(sessions[1], table, seed, schema=schema)
                advance(1)

            return pool.Task(f"target {table.oid}", work, rank=table.heap_bytes)

        def surroundings() -> tuple[Session, Session]:
            source = Session.connect(source_url, application_name=application, settings={**rows.settings, **_READING})
            return source, Session.connect(target_url, application_name=application, settings=_READING)

        tasks = [task for table in tables for task in (at_source(table), at_target(table))]
        pool.run(tasks, surroundings, _close, workers=2)
    del catalogue
    return [
        TableFigures(
            schema or table.schema,
            table.name,
            tuple((column.name, how(column)) for column in _stored(table)),
            sources[table.oid].all,
            sources[table.oid].deleted,
            sources[table.oid].before,
            sources[table.oid].after,
            targets[table.oid],
        )
        for table in tables
    ]


def _close(sessions: tuple[Session, Session]) -> None:
    for session in sessions:
        session.close()


def _stored(table: Table) -> list[Column]:
    return [column for column in table.columns if not column.is_generated]


def _sum(session: Session, query: Composable) -> Sum:
    row = session.row(query) or (0, 0)
    return Sum(int(row[0]), int(row[1]))
