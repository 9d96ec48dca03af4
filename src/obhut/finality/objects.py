"""What there is on a server in which erased values may remain: files of heaps and indexes, statistics, WAL."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from obhut.datamap.graph import Graph
from obhut.datamap.models import Verb
from obhut.erasure.entries import Action
from obhut.finality.vocabulary import Place
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import load

_SQL = load("obhut.finality", "objects")
CATALOGUE = "pg_catalog.pg_statistic"


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a server stands.

    Attributes:
        server: system identifier.
        xid: number of the next transaction: all that are over are older.
        lsn: position in the WAL.
        at: its clock.
        sees_all: whether the role sees the snapshots of others.
    """

    server: str
    xid: int
    lsn: str
    at: datetime
    sees_all: bool


@dataclass(frozen=True, slots=True)
class File:
    """An object that holds values.

    Attributes:
        name: ``schema.name`` of the relation, the index, or the table whose statistics these are.
        owner: ``schema.name`` of the table that is rewritten to renew it.
        filenode: number of the file; 0 for statistics, which are no file of their own.
        size: bytes.
        renewed_at: of statistics: when they were gathered; None where that is not known.
        concurrent: of an index: whether it can be rebuilt while others read and write.
        oid: of the relation; 0 for statistics.
    """

    place: Place
    name: str
    owner: str
    filenode: int = 0
    size: int = 0
    renewed_at: datetime | None = None
    concurrent: bool = True
    oid: int = 0


def mark(session: Session) -> Mark:
    """Return where the server stands."""
    row = session.row(_SQL["mark"])
    if row is None:
        raise AssertionError("a query without FROM has a row")
    return Mark(*row)


def held_back(session: Session, xid: int) -> int:
    """Return how many snapshots, transactions, slots or prepared transactions are older than a transaction."""
    return int(session.value(_SQL["older"], (xid,)))


def catalogue_held_back(session: Session, xid: int) -> int:
    """Return the same for rows of the catalogue, which logical replication slots keep, too."""
    return held_back(session, xid) + int(session.value(_SQL["slots"], (xid,)))


def touched(graph: Graph, kind: str, action: Action) -> set[int]:
    """Return the (root) tables in which an erasure of a kind of person deletes or changes rows, whether it met any or not."""
    subject = graph.subject(kind)
    anonymising = action is Action.ANONYMISE
    found, queue = {subject.table}, deque([subject.table])
    while queue:
        parent = queue.popleft()
        for link in graph.links_to(parent):
            treatment = link.treatment(anonymising=anonymising)
            if treatment is not None and link.child not in found:
                found.add(link.child)
                if treatment.verb is not Verb.UNLINK:
                    queue.append(link.child)
        for reference in graph.references:
            if reference.child == parent and reference.parent not in found:
                found.add(reference.parent)
                queue.append(reference.parent)
    return found


def read(session: Session, graph: Graph, roots: Iterable[int]) -> list[File]:
    """Return every object in which values of these tables may lie, materialised views over them included."""
    listed = sorted(roots)
    leaves = [leaf for root in listed for leaf in graph.catalogue.leaves(root) if leaf.kind == "r"]
    views = [int(oid) for (oid,) in session.rows(_SQL["views"], ([*listed, *(leaf.oid for leaf in leaves)],))]
    relations = [*(leaf.oid for leaf in leaves), *views]
    found = _heaps(session, [*relations, int(session.value(_SQL["catalogue"]))])
    names = {oid: f"{schema}.{name}" for oid, schema, name, *_ in session.rows(_SQL["heaps"], (relations,))}
    personal = [(leaf.oid, leaf.by_name[column].number) for leaf in leaves for column in _personal(graph, leaf.oid)]
    pairs = [oid for oid, _ in personal], [number for _, number in personal]
    for oid, table, schema, name, filenode, size, valid, exclusion in session.rows(_SQL["indexes"], (*pairs, relations)):
        concurrent = bool(valid) and not exclusion
        found.append(File(Place.INDEX, f"{schema}.{name}", names[table], int(filenode or 0), int(size), concurrent=concurrent, oid=oid))
    for _, schema, name, at, some in session.rows(_SQL["analysed"], ([*relations, *listed],)):
        if some:
            found.append(File(Place.STATISTICS, f"{schema}.{name}", f"{schema}.{name}", renewed_at=at))
    return found


def _heaps(session: Session, relations: list[int]) -> list[File]:
    found = []
    for oid, schema, name, _, filenode, size, toast, toast_node, toast_size in session.rows(_SQL["heaps"], (relations,)):
        full = f"{schema}.{name}"
        place = Place.STATISTICS if full == CATALOGUE else Place.HEAP
        found.append(File(place, full, full, int(filenode or 0), int(size), oid=oid))
        if toast is not None:
            found.append(File(place, f"TOAST of {full}", full, int(toast_node or 0), int(toast_size), oid=toast))
    return found


def _personal(graph: Graph, leaf: int) -> set[str]:
    """Return the personal columns of a table or partition; keys tell nothing, or the map would not be accepted."""
    root = graph.catalogue.root(leaf)
    node = graph.tables.get(root.oid)
    if node is None:
        return set()
    return {column for column in node.rule.columns if column in graph.catalogue.tables[leaf].by_name}


def oldest_wal(session: Session) -> int | None:
    """Return the address of the oldest page in the server's WAL files, files kept for reuse included; None when it may not be read.

    A file that is kept for reuse holds what it held before, until it is overwritten from its beginning: its name says nothing.
    """
    try:
        if not session.value(_SQL["readable"]):
            return None
        rows = session.rows(_SQL["wal"])
    except DatabaseError:
        return None
    addresses = [int.from_bytes(bytes.fromhex(page), "little") for _, page in rows if page]
    written = [address for address in addresses if address]  # a page that was never written is zero
    return min(written, default=None)
