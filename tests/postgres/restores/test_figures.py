"""The sums that the proof compares are the same whether rows are counted on the way or fetched by their addresses."""

from __future__ import annotations

from typing import Any

import pytest

from obhut.erasure.addresses import RowAddresses
from obhut.erasure.effects import Change
from obhut.postgres.catalogue import Table, read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL
from obhut.restores import filter as filters
from obhut.restores.figures import SourceSums, Sum, row_hash, sums_at_source
from obhut.restores.filter import TableFilter

SEED = 4711
# Two rows a page.
SCHEMA = """
CREATE TABLE note (id int PRIMARY KEY, name text, body text NOT NULL);
ALTER TABLE note ALTER body SET STORAGE PLAIN;
INSERT INTO note SELECT n, nullif('name ' || n % 7, 'name 3'), repeat('x', 3000) FROM generate_series(1, 300) n;
ANALYZE note;
"""


def _where(session: Session, condition: str) -> RowAddresses:
    return RowAddresses(block << 16 | line for block, line in session.rows(
        f"SELECT (ctid::text::point)[0]::bigint, (ctid::text::point)[1]::int FROM note WHERE {condition}"
    ))  # fmt: skip


def _by_key(session: Session, table: Table, condition: str, name: str = "name") -> Sum:
    hashed = row_hash(list(table.columns), SEED, {"name": SQL(name)}).as_string(None)
    count, total = session.row(f"SELECT count(*), coalesce(sum({hashed}), 0) FROM note WHERE {condition}") or (0, 0)
    return Sum(int(count), int(total))


@pytest.mark.parametrize(("deleted", "changed"), [("id % 3 = 0", "id % 5 = 1 AND id % 3 <> 0"), ("id = 17", "id = 40"), ("false", "false")])
def test_sums_are_those_of_the_rows_that_the_filter_names(
    database: Any, deleted: str, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows and few rows, in one range and in several; never another count, never another sum."""
    monkeypatch.setattr(filters.TableFilter.edges, "__defaults__", (30,))
    with database.session() as session:
        session.execute(SCHEMA)
        table = next(table for table in read_catalogue(session).tables.values() if table.name == "note")
        rows = TableFilter(
            _where(session, deleted), (Change(_where(session, changed), {"name": SQL("'X'")}),) if changed != "false" else ()
        )
        assert sums_at_source(session, table, rows, SEED) == SourceSums(
            _by_key(session, table, "true"),
            _by_key(session, table, deleted),
            _by_key(session, table, changed),
            _by_key(session, table, changed, "'X'"),
        )
