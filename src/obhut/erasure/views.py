"""Materialised views keep copies of rows: they are refreshed after the rows are gone, and before the erasure counts as done.

Not inside the erasing transaction: its snapshot is older than erasures that were committed meanwhile, and a view filled from it would
show those people again. So the rows are committed, then each view is refreshed in a transaction of its own, one after the other
under a lock. Until all are, the tombstones stay recorded, so a killed process leaves work that ``finish`` finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obhut.datamap.graph import Graph
from obhut.erasure.refusals import StaleViewsError
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, qualified

_LOCK = 7_309_453_218_806_144_001  # of all refreshes in one database
# Filled views that read one of the tables, also through other views, those first that others read; and whether they may be refreshed
# while others read them. What a function reads cannot be known.
_READING = """
WITH RECURSIVE uses AS (
  SELECT DISTINCT r.ev_class AS view, d.refobjid AS used FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')
  WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class),
reading AS (
  SELECT view, 1 AS depth FROM uses WHERE used = ANY(%s::oid[])
  UNION SELECT u.view, r.depth + 1 FROM reading r JOIN uses u ON u.used = r.view WHERE r.depth < 100)
SELECT n.nspname, c.relname, EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
                                     AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL)
FROM reading r JOIN pg_catalog.pg_class c ON c.oid = r.view JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated GROUP BY c.oid, n.nspname, c.relname ORDER BY max(r.depth), 1, 2
"""


def refresh(session: Session, graph: Graph) -> int:
    """Refresh every filled materialised view that reads personal tables; return how many.

    A database without materialised views costs no statement.

    Raises:
        StaleViewsError: some could not be refreshed and may still show the people; the others are.
    """
    if not graph.catalogue.materialised_views:
        return 0
    roots = [node.table.oid for node in graph.tables.values() if node.rule.personal]
    tables = {oid for root in roots for oid in (root, *(leaf.oid for leaf in graph.catalogue.leaves(root)))}
    views = session.rows(_READING, (sorted(tables),))
    stale: list[str] = []
    for schema, name, unhindered in views:
        try:
            with _alone(session):
                # Concurrently the readers are not kept waiting; that needs a unique index.
                way = SQL("CONCURRENTLY ") if unhindered else SQL("")
                session.execute(SQL("REFRESH MATERIALIZED VIEW {}{}").format(way, qualified(schema, name)))
        except DatabaseError:
            stale.append(f"{schema}.{name}")
    if stale:
        raise StaleViewsError(
            f"the rows are gone, and {len(stale)} materialised views may still show them: {', '.join(stale)}",
            'May the role refresh them (owner, or MAINTAIN from PostgreSQL 17 on)? Then run "obhut erase --finish".',
        )
    return len(views)


@contextmanager
def _alone(session: Session) -> Iterator[None]:
    """Hold the lock of all refreshes for a transaction whose next statement sees all that was committed when the lock was got."""
    with session.transaction("read committed"):
        timeout = str(session.value("SELECT current_setting('lock_timeout')"))
        session.set("lock_timeout", "0", local=True)  # another erasure's refresh ends by itself
        session.value("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (_LOCK,))
        session.set("lock_timeout", timeout, local=True)
        yield


class Pending:
    """Notes on disk that views may be stale, for changes that no recorded tombstone stands for; survives a kill."""

    def __init__(self, directory: Path, database: str) -> None:
        self._file = directory / f"views-stale-{database}"

    def __bool__(self) -> bool:
        return self._file.exists()

    def note(self) -> None:
        """Note it before the rows go."""
        self._file.touch()

    def clear(self) -> None:
        """Forget it after the refresh."""
        self._file.unlink(missing_ok=True)
