"""Carrying a part: rows leave the source under its snapshot, without erased people, and reach the target masked.

The rules of the server stand in the SELECT; what the client masks passes through memory in chunks, large parts in processes of their own.
What no rule of the client touches goes from psql to psql. A part is committed with its record, and only after the source has ended well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from obhut.clones.maskers import Maskers
from obhut.clones.passing import Looking, Watch
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.effects import Change
from obhut.masking.facts import Facts
from obhut.masking.keys import RunKey
from obhut.masking.model import MaskPlan, TablePlan
from obhut.masking.stream import Count, Masker, Watched, stream
from obhut.postgres.catalogue import Catalogue, Table
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, column_list
from obhut.restores import streams
from obhut.restores.filter import Filter, TableFilter
from obhut.restores.load import Worker
from obhut.restores.plan import Part, Range


@dataclass
class Carrier:
    """Carries parts for one run; safe for several workers.

    Attributes:
        watch: looks at the rows that pass through this process.
        chosen: what is looked at.
        parts: names of the parts of each leaf table that were carried.
        counts: cells that the masker saw, by place, such as ``public.person.email``.
    """

    plan: MaskPlan
    key: RunKey
    facts: Facts
    rows: Filter
    catalogue: Catalogue
    pipe: streams.Pipe
    maskers: Maskers
    watch: Watch
    chosen: Mapping[int, Looking]
    parts: dict[int, list[str]] = field(default_factory=dict)
    counts: dict[str, Count] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, worker: Worker, table: Table, part: Part) -> int:
        """Carry a part and return its number of rows."""
        mask = self.plan.tables[self.catalogue.root(table.oid).oid]
        query = reading(table, part, self.rows.of(table.oid), mask, worker.source.server_version)
        with self._lock:
            self.parts.setdefault(table.oid, []).append(part.name)
        if part.weight < streams.SMALL:
            return self._small(worker, table, part, mask, query)
        looking = self.chosen[mask.oid]
        through = partial(self._through, mask, binary=looking.binary) if mask.masked or looking.columns else None
        way = streams.Way(mask.names, "binary" if looking.binary else "text", through)
        return self.pipe.large(worker.target, table, part, query, streams.destination(table), way)

    def _through(self, mask: TablePlan, source: IO[bytes], target: IO[bytes], read: Path, done: Path, *, binary: bool) -> None:
        self._add(mask.name, self.maskers.mask(mask.oid, source, target, read, done, binary=binary))

    def _small(self, worker: Worker, table: Table, part: Part, mask: TablePlan, query: Composed) -> int:
        masker = Masker(mask, self.key, self.facts, locale=self.plan.locale, watched=self._watched(mask.oid))
        into = streams.destination(table)
        try:
            with worker.target.transaction():
                options = SQL(", FREEZE") if streams.truncate_alone(worker.target, into, part) else SQL("")
                statement = SQL("COPY {} ({}) FROM STDIN (FORMAT text{})").format(into, column_list(mask.names), options)
                blocks = worker.source.copy_out(SQL("COPY ({}) TO STDOUT (FORMAT text)").format(query))
                copied = worker.target.copy_in(statement, self._looked_at(mask.oid, stream(blocks, masker)))
                streams.record(worker.target, part.name, copied)
            self._add(mask.name, masker.counts)
        finally:
            masker.close()
        return copied

    def _looked_at(self, table: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            with self._lock:
                self.watch.text(table, chunk)
            yield chunk

    def _watched(self, table: int) -> Watched:
        compare = self.watch.columns(table)

        def guarded(name: str, before: Sequence[bytes], after: Sequence[bytes]) -> None:
            with self._lock:  # small parts of several workers pass through this process
                compare(name, before, after)

        return guarded

    def _add(self, table: str, counts: Mapping[str, Count]) -> None:
        with self._lock:
            for name, count in counts.items():
                total = self.counts.setdefault(f"{table}.{name}", Count())
                total.cells += count.cells
                total.nulls += count.nulls
                total.unchanged += count.unchanged


def reading(table: Table, part: Part, rows: TableFilter, mask: TablePlan, version: int) -> Composed:
    """Return the SELECT of a part: rows that stay, those that the erasure list changes with their new values, all by the server's rules.

    Args:
        table: a leaf.
        part: which blocks.
        rows: what is deleted, changed and wanted.
        mask: the plan of the table.
        version: of the source server.
    """
    branches: list[Composable] = []
    for span in part.ranges:
        if where := _conditions(rows, span, version):
            branches.append(SQL("SELECT {} FROM {} WHERE {}").format(mask.select_list(), table.relation, SQL(" AND ").join(where)))
        elif rows.only is None:
            branches.append(SQL("SELECT {} FROM {}").format(mask.select_list(), table.relation))
        for change in rows.changes:
            changed = change.rows.in_blocks(span.first, span.last)
            changed = changed if rows.only is None else changed & rows.only
            if changed:
                branches.append(_changed(table, change, changed, mask))
    if not branches:
        return SQL("SELECT {} FROM {} WHERE false").format(mask.select_list(), table.relation)
    return SQL(" UNION ALL ").join(branches)


def _conditions(rows: TableFilter, span: Range, version: int) -> list[Composable]:
    excluded = rows.excluded.in_blocks(span.first, span.last)
    if rows.only is None:
        return [*streams.between(span), *streams.without(excluded, version)]
    wanted = rows.only.in_blocks(span.first, span.last) - excluded
    return [SQL("ctid = ANY({})").format(wanted.literal())] if wanted else []


def _changed(table: Table, change: Change, rows: RowAddresses, mask: TablePlan) -> Composed:
    """Return the rows with the list's new values; the server's rules read those and not the old ones."""
    names = table.stored_columns
    values = SQL(", ").join(change.assignments.get(name, Identifier(name)) for name in names)
    # The empty half gives the new values the types of their columns, which have no name that every search path knows.
    inner = SQL("SELECT {} FROM {t} WHERE false UNION ALL SELECT {} FROM {t} WHERE ctid = ANY({})").format(
        column_list(names), values, rows.literal(), t=table.relation
    )
    return SQL("SELECT {} FROM ({}) AS changed").format(mask.select_list(), inner)
