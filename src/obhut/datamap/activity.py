"""When a person was last seen, as the map declares it: columns of the own row, rows of other tables, an expression."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from obhut.datamap.graph import Graph, Link, LinkForm, Subject
from obhut.postgres.catalogue import Table


@dataclass(frozen=True, slots=True)
class Source:
    """One place that tells of activity; exactly one of ``column`` alone, ``table`` with ``column``, or ``sql``.

    Attributes:
        column: with the moment.
        table: whose rows count; None for the person's own row.
        path: links from the person outwards to ``table``.
        sql: an expression of the reviewed map; ``s`` is the person's row.
    """

    column: str = ""
    table: Table | None = None
    path: tuple[Link, ...] = ()
    sql: str = ""


def sources(graph: Graph, subject: Subject) -> tuple[Source, ...]:
    """Return all that counts as activity of a kind of person; registration is no activity and not among it."""
    found = []
    for item in subject.activity:
        if isinstance(item, str):
            found.append(Source(column=item))
        elif item.sql:
            found.append(Source(sql=item.sql))
        else:
            table = graph.catalogue.find(str(item.table))
            if table is not None:
                found.append(Source(str(item.column), table, way(graph, subject, table.oid) or ()))
    return tuple(found)


def way(graph: Graph, subject: Subject, table: int) -> tuple[Link, ...] | None:
    """Return the shortest way of links by columns from a kind of person to a table, the person first; None when there is none."""
    queue: deque[tuple[int, tuple[Link, ...]]] = deque([(subject.table, ())])
    seen = {subject.table}
    while queue:
        parent, path = queue.popleft()
        for link in graph.links_to(parent):
            if link.form is not LinkForm.COLUMNS:
                continue
            if link.child == table:
                return (*path, link)
            if link.child not in seen:
                seen.add(link.child)
                queue.append((link.child, (*path, link)))
    return None
