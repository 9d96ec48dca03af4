"""Which of the listed people can matter to a database at all.

A list may hold a million people of whom a database, at some moment, knows a few thousand. Looking each one up is a waste; so the keys that
occur in the database (in subject tables, and in columns that name a person without a foreign key) are laid beside the list, compared as
values of their type, and only the people who meet are looked up. Where that cannot be done exactly, everybody is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from obhut.datamap.graph import EXACT_TYPES, Graph, Link, LinkForm, Subject
from obhut.erasure import reading, store
from obhut.erasure.entries import Tombstone
from obhut.postgres.connections import Session
from obhut.postgres.control import control_session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Composable, Identifier, trusted

FEW = 20_000  # entries of the list: below, looking everybody up costs less than laying lists side by side
CHUNK = 50_000
# Types that the control database knows for sure, and whose text means the same value everywhere.
_EXACT = EXACT_TYPES | {"text"}
_COLUMNS = (
    "t.seq, t.id, t.database, t.controller, t.subject_kind, t.key, t.fingerprint, t.action, t.map_version, t.instruction, t.epoch,"
    " t.erased_at, t.state"
)


def relevant(session: Session, graph: Graph, size: int) -> Iterator[Sequence[Tombstone]]:
    """Yield the open tombstones, up to a size of the list, that can meet a row of this database.

    Args:
        session: on the database.
        graph: the data map resolved against it.
        size: of the erasure list.
    """
    database = graph.database
    few = size <= FEW
    for kind in reading.subject_kinds(database):
        subject = graph.subject(kind)
        sources = None if few else _sources(graph, subject)
        if sources is not None:
            with suppress(DatabaseError):  # a key that is no value of its type: everybody is looked up
                yield from _met(session, subject, sources, database, size)
                continue
        yield from reading.open_list(database, as_of=size, subject_kind=kind, size=CHUNK)


def _sources(graph: Graph, subject: Subject) -> list[Composable] | None:
    """Return queries for all keys that occur, or None where a link cannot be asked exactly."""
    if not set(subject.key_types) <= _EXACT:
        return None
    table = graph.catalogue.tables[subject.table]
    found: list[Composable] = [SQL("SELECT {} FROM {}").format(_list(subject.key), table.relation)]
    for link in graph.links_to(subject.table):
        if link.foreign_key is not None and link.foreign_key.validated and link.foreign_key.enforced:
            continue  # what it names is there, so the subject table has the key already
        query = _named_by(graph, subject, link)
        if query is None:
            return None
        found.append(query)
    return found


def _named_by(graph: Graph, subject: Subject, link: Link) -> Composable | None:
    child = graph.catalogue.tables[link.child]
    if set(link.parent_columns) != set(subject.key) or link.form is LinkForm.JSON:
        return None
    if link.form is LinkForm.ARRAY:
        if child.by_name[link.columns[0]].base_type.removesuffix("[]") not in _EXACT:
            return None
        return SQL("SELECT DISTINCT unnest({}) FROM {}").format(Identifier(link.columns[0]), child.relation)
    mine = dict(zip(link.parent_columns, link.columns, strict=True))
    if any(child.by_name[mine[name]].base_type not in _EXACT for name in subject.key):
        return None
    return SQL("SELECT DISTINCT {} FROM {}").format(_list([mine[name] for name in subject.key]), child.relation)


def _met(session: Session, subject: Subject, sources: Sequence[Composable], database: str, size: int) -> Iterator[Sequence[Tombstone]]:
    names = [f"k{number}" for number in range(len(subject.key))]
    with control_session("obhut restore people") as control, control.transaction():
        columns = SQL(", ").join(
            SQL("{} {}").format(Identifier(name), trusted(kind)) for name, kind in zip(names, subject.key_types, strict=True)
        )
        control.execute(SQL("CREATE TEMPORARY TABLE obhut_met ({}) ON COMMIT DROP").format(columns))
        for query in sources:
            control.copy_in(SQL("COPY obhut_met FROM STDIN"), _gathered(session.copy_out(SQL("COPY ({}) TO STDOUT").format(query))))
        control.execute("ANALYZE obhut_met")
        # A cursor plans for its first rows, and statistics of the list may be older than the list: either would have the keys, which have
        # no index, read once for every tombstone.
        control.set("cursor_tuple_fraction", "1.0", local=True)
        control.set("enable_nestloop", "off", local=True)
        on = SQL(" AND ").join(
            SQL("t.key[{}]::{} = m.{}").format(trusted(str(number)), trusted(kind), Identifier(name))
            for number, (name, kind) in enumerate(zip(names, subject.key_types, strict=True), 1)
        )
        query = SQL(
            "SELECT {} FROM erasure_tombstone t WHERE t.database = %s AND t.subject_kind = %s AND t.state IN ('recorded', 'effective')"
            " AND t.seq <= %s AND cardinality(t.key) = {} AND EXISTS (SELECT FROM obhut_met m WHERE {}) ORDER BY t.seq"
        ).format(trusted(_COLUMNS), trusted(str(len(names))), on)
        found = [store.tombstones(rows) for rows in control.stream(query, (database, subject.kind, size), size=CHUNK)]
    yield from found


def _gathered(blocks: Iterator[memoryview], size: int = 1 << 16) -> Iterator[bytes]:
    """Join the rows that the server sends one by one into larger blocks."""
    held = bytearray()
    for block in blocks:
        held += block
        if len(held) >= size:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _list(names: Sequence[str]) -> Composable:
    return SQL(", ").join(Identifier(name) for name in names)
