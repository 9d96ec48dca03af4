"""Which rows a part of the people needs: theirs, and whatever those reference, to the end.

The start is people; their rows are those that the map links to them, and every foreign key of a row that is carried brings the row it
names along, over cycles, composite keys and keys that name other columns than the primary key. Parents come without their own children,
so one person does not bring the next. Tables that the map calls not personal come whole. The sets live here as row addresses; the source
is only asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from obhut.clones.errors import CloneSubsetError
from obhut.datamap.graph import Graph, Reference
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.closure import select_rows
from obhut.erasure.queries import Queries
from obhut.postgres.catalogue import Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, Literal, trusted

_NONE = RowAddresses()
_SHARE = re.compile(r"(\d{1,2}(?:\.\d+)?|100)%")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A part of the people: one controller's, so many of each kind, or both; or named ones.

    Attributes:
        controller: canonical key, or "" for all.
        number: people of each kind, or None.
        share: of each kind, between 0 and 1, or None.
        these: people by kind and key.
    """

    controller: tuple[str, ...] = ()
    number: int | None = None
    share: float | None = None
    these: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __bool__(self) -> bool:
        """Whether it is a part at all."""
        return bool(self.controller) or self.number is not None or self.share is not None or bool(self.these)

    def describe(self) -> str:
        """Return the part as the mark names it; opaque."""
        people = str(self.number) if self.number is not None else f"{self.share:.6g}" if self.share is not None else "all"
        people = f"named:{len(self.these)}" if self.these else people
        return f"people={people},controllers={'one' if self.controller else 'all'}"


def parse(people: str, controller: tuple[str, ...], these: Sequence[tuple[str, tuple[str, ...]]] = ()) -> Wanted:
    """Return the part that a number (``500``) or a share (``5%``) of people says, or the people that are named.

    Raises:
        CloneSubsetError: neither a number nor a share, or people are named besides a part.
    """
    if these and (people or controller):
        raise CloneSubsetError("people are named, and a part is asked for as well", "Leave out --people and --controller, or --these.")
    if these:
        return Wanted(these=tuple(dict.fromkeys(these)))
    if not people:
        return Wanted(controller)
    if people.isdigit() and int(people) > 0:
        return Wanted(controller, number=int(people))
    if (match := _SHARE.fullmatch(people)) and float(match[1]) > 0:
        return Wanted(controller, share=float(match[1]) / 100)
    raise CloneSubsetError("the number of people is neither a number nor a share", "Write 500, or 5%.")


def select(session: Session, graph: Graph, wanted: Wanted) -> dict[int, RowAddresses] | None:
    """Return the rows to carry by leaf table; a table that is missing is carried whole. None: everything.

    Raises:
        CloneSubsetError: nobody is in the part.
    """
    if not wanted:
        return None
    rows = _start(session, graph, wanted)
    if not any(rows.values()):
        raise CloneSubsetError("nobody is in the part that was asked for", "Is the controller's key right? Is there anybody at all?")
    reached = select_rows(session, graph, rows)
    chosen = {leaf.oid: reached.get(leaf.oid, _NONE) for leaf in _partial(graph)}
    return _with_parents(session, graph, chosen)


def _partial(graph: Graph) -> list[Table]:
    """Return the leaf tables that are not carried whole."""
    roots = {oid for oid, node in graph.tables.items() if node.rule.personal} | {graph.controller}
    roots |= {subject.table for subject in graph.subjects.values()}
    return [leaf for oid in roots for leaf in graph.catalogue.leaves(oid) if leaf.kind == "r"]


def _start(session: Session, graph: Graph, wanted: Wanted) -> dict[int, RowAddresses]:
    rows: dict[int, RowAddresses] = {}
    if wanted.these:
        return _named(session, graph, wanted.these)
    controller = _controller_rows(session, graph, wanted.controller) if wanted.controller else None
    if controller is not None and wanted.number is None and wanted.share is None:
        return controller
    theirs = select_rows(session, graph, controller) if controller is not None else None
    for subject in graph.subjects.values():
        leaves = list(graph.catalogue.leaves(subject.table))
        allowed = theirs if theirs is not None else {leaf.oid: _all(session, leaf) for leaf in leaves}
        total = sum(allowed.get(leaf.oid, _NONE).count for leaf in leaves)
        left = wanted.number if wanted.number is not None else max(1, round(total * (wanted.share or 0)))
        for leaf in leaves:
            mine = allowed.get(leaf.oid, _NONE)
            # Spread over the table: the first rows are the oldest people, who are not like the others.
            count = min(mine.count, -(-left * mine.count // total) if total else 0)
            picked = _spread(mine, count)
            rows[leaf.oid] = rows.get(leaf.oid, _NONE) | picked
    return rows


def _spread(rows: RowAddresses, count: int) -> RowAddresses:
    everyone = list(rows)
    return RowAddresses(everyone[index * len(everyone) // count] for index in range(count)) if count else _NONE


def _all(session: Session, table: Table) -> RowAddresses:
    query = SQL("SELECT array_send(array_agg(ctid)) FROM {}").format(table.relation)
    sent = session.addresses(query)[0][0]
    return RowAddresses.from_array(sent) if sent else _NONE


def _named(session: Session, graph: Graph, these: Sequence[tuple[str, tuple[str, ...]]]) -> dict[int, RowAddresses]:
    rows: dict[int, RowAddresses] = {}
    for kind, key in these:
        subject = graph.subjects.get(kind)
        if subject is None:
            raise CloneSubsetError("there is no subject kind of that name", f"Use one of: {', '.join(graph.subjects)}.")
        if len(key) != len(subject.key):
            raise CloneSubsetError(f"the key of a {kind} has another number of columns", f"It has: {', '.join(subject.key)}.")
        found = _rows_of(session, graph, subject.table, subject.key, key)
        if not any(found.values()):
            raise CloneSubsetError(f"one of the people named is no {kind} of the database", "Are the keys right?")
        for oid, addresses in found.items():
            rows[oid] = rows.get(oid, _NONE) | addresses
    return rows


def _controller_rows(session: Session, graph: Graph, key: tuple[str, ...]) -> dict[int, RowAddresses]:
    if len(key) != len(graph.controller_key):
        raise CloneSubsetError("the controller's key has another number of columns", "Write it as obhut controllers list shows it.")
    return _rows_of(session, graph, graph.controller, graph.controller_key, key)


def _rows_of(session: Session, graph: Graph, table: int, columns: Sequence[str], key: Sequence[str]) -> dict[int, RowAddresses]:
    found: dict[int, RowAddresses] = {}
    conditions = [SQL("{}::text = {}").format(Identifier(name), Literal(value)) for name, value in zip(columns, key, strict=True)]
    for leaf in graph.catalogue.leaves(table):
        query = SQL("SELECT ctid FROM {} WHERE {}").format(leaf.relation, SQL(" AND ").join(conditions))
        found[leaf.oid] = RowAddresses.from_tids(address for (address,) in session.addresses(query))
    return found


def _with_parents(session: Session, graph: Graph, chosen: dict[int, RowAddresses]) -> dict[int, RowAddresses]:
    """Add what the rows reference, until nothing is added: first from tables that come whole, then from rows as they are found."""
    queries = Queries(session, graph.catalogue)
    references = [
        Reference(key.table, key.references, key.columns, key.referenced_columns)
        for key in graph.catalogue.foreign_keys
        if any(leaf.oid in chosen for leaf in graph.catalogue.leaves(key.references))
    ]
    for reference in references:
        for leaf in graph.catalogue.leaves(reference.child):
            if leaf.oid not in chosen:
                _add(chosen, _referenced_by_all(session, graph, reference, leaf))
    fresh: Mapping[int, RowAddresses] = dict(chosen)
    while any(fresh.values()):
        found: dict[int, RowAddresses] = {}
        for reference in references:
            for leaf in graph.catalogue.leaves(reference.child):
                if rows := fresh.get(leaf.oid):
                    for oid, parents in queries.referenced(reference, leaf, rows).items():
                        found[oid] = found.get(oid, _NONE) | parents
        fresh = _add(chosen, found)
    return chosen


def _add(chosen: dict[int, RowAddresses], found: Mapping[int, RowAddresses]) -> dict[int, RowAddresses]:
    """Add rows and return those that are new."""
    fresh = {oid: rows - chosen[oid] for oid, rows in found.items() if oid in chosen}
    for oid, rows in fresh.items():
        chosen[oid] = chosen[oid] | rows
    return fresh


def _referenced_by_all(session: Session, graph: Graph, reference: Reference, child: Table) -> dict[int, RowAddresses]:
    on: list[Composable] = [
        SQL("c.{} = p.{}").format(Identifier(mine), Identifier(theirs))
        for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True)
    ]
    only = trusted("ONLY ") if child.kind == "r" else SQL("")
    query = SQL("SELECT p.tableoid, array_send(array_agg(p.ctid)) FROM {}{} c JOIN {} p ON {} GROUP BY p.tableoid").format(
        only, Identifier(child.schema, child.name), graph.catalogue.tables[reference.parent].relation, SQL(" AND ").join(on)
    )
    return {int(oid): RowAddresses.from_array(sent) for oid, sent in session.addresses(query)}
