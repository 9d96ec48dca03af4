"""Bystanders: nobody is left out, or anonymised, who is not on the erasure list.

The filter can take too much as well as too little, and then source minus filter still equals target. So the listed people are found a
second time in the quarantine, by a plain join of the list's keys and a judgement of their fingerprints, and compared row by row with
what the filter does to the tables of data subjects. A row beyond that needs a row that is gone itself and takes it along: by a link of
the data map or by ``ON DELETE CASCADE``. Shares neither the search nor the fixpoint that made the filter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from obhut.datamap.graph import Graph, Link, LinkForm, Subject
from obhut.datamap.models import Verb
from obhut.erasure import reading
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.fingerprints import Verdict, fingerprint, judge
from obhut.erasure.plan import cohort_of, keep_periods
from obhut.postgres.catalogue import Action as OnDelete
from obhut.postgres.catalogue import Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, Literal, trusted
from obhut.restores.filter import Filter
from obhut.restores.occurring import Listed

_CHUNK = 50_000
_NONE = RowAddresses()


@dataclass(frozen=True, slots=True)
class Innocent:
    """What was counted for one table of data subjects.

    Attributes:
        table: ``schema.name``.
        listed: rows of people on the list.
        left_out: rows that the filter leaves out.
        anonymised: rows that the filter anonymises.
        unexplained: rows left out or anonymised that neither the list nor a row that is gone accounts for.
        certain: whether every way in which the data map could account for a row was looked into.
    """

    table: str
    listed: int
    left_out: int
    anonymised: int
    unexplained: int
    certain: bool


@dataclass(frozen=True, slots=True)
class _Edge:
    """A way in which a row of ``child`` goes along with a row of ``parent``."""

    child: int
    parent: int
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    array: bool = False
    when: tuple[tuple[str, str], ...] = ()


@dataclass
class _Listed:
    """Rows of listed people, by oid of the leaf table, and the tombstones that mean nobody who is there."""

    deleted: dict[int, RowAddresses] = field(default_factory=lambda: defaultdict(RowAddresses))
    anybody: dict[int, RowAddresses] = field(default_factory=lambda: defaultdict(RowAddresses))
    others: set[int] = field(default_factory=set)


def count(session: Session, graph: Graph, rows: Filter, keys: Listed, size: int, mac_key: bytes, now: datetime) -> list[Innocent]:
    """Compare the filter with the list, for each table of data subjects.

    Args:
        session: on the quarantine.
        graph: the data map resolved against it.
        rows: the filter that was applied.
        keys: the list; its place ``source`` is the quarantine.
        size: of the erasure list.
        mac_key: for fingerprints.
        now: which periods of keeping are over.
    """
    listed = _Listed()
    for subject in graph.subjects.values():
        _find(session, graph, subject, keys, mac_key, now, listed)
    roots = list(dict.fromkeys(subject.table for subject in graph.subjects.values()))
    leaves = {root: list(graph.catalogue.leaves(root)) for root in roots}
    anonymised = {leaf.oid: _anonymised(graph, root, rows, leaf) for root in roots for leaf in leaves[root]}
    pending = {
        leaf.oid: (rows.of(leaf.oid).deleted - listed.deleted[leaf.oid]) | (anonymised[leaf.oid] - listed.anybody[leaf.oid])
        for root in roots
        for leaf in leaves[root]
    }
    _explain(session, graph, rows, size, listed, pending)
    return [
        Innocent(
            graph.catalogue.tables[root].full_name,
            sum(listed.anybody[leaf.oid].count for leaf in leaves[root]),
            sum(rows.of(leaf.oid).deleted.count for leaf in leaves[root]),
            sum(anonymised[leaf.oid].count for leaf in leaves[root]),
            sum(pending[leaf.oid].count for leaf in leaves[root]),
            _certain(graph, root),
        )
        for root in roots
    ]


def _find(session: Session, graph: Graph, subject: Subject, keys: Listed, mac_key: bytes, now: datetime, listed: _Listed) -> None:
    table = graph.catalogue.tables[subject.table]
    created = SQL("s.{}::timestamptz").format(Identifier(subject.created)) if subject.created else SQL("NULL::timestamptz")
    incarnation = SQL("").join(SQL(", s.{}::text").format(Identifier(name)) for name in subject.incarnation)
    on = SQL(" AND ").join(SQL("s.{} = k.{}").format(Identifier(name), Identifier(f"k{n}")) for n, name in enumerate(subject.key))
    query = SQL("SELECT k.seq, s.tableoid, s.ctid, {}{} FROM {} JOIN {} s ON {}").format(
        created, incarnation, _keys(subject), table.relation, on
    )
    settled, periods = reading.resolutions(graph.database), keep_periods(graph)
    for _, arrays in keys.arrays("source", subject.kind):
        there = session.addresses(query, arrays) if arrays else []
        known = {tombstone.seq: tombstone for tombstone in reading.numbered([row[0] for row in there])}
        anybody, deleted = defaultdict[int, list[bytes]](list), defaultdict[int, list[bytes]](list)
        for number, oid, address, born, *values in there:
            tombstone = known[int(number)]
            found = fingerprint(mac_key, graph.database, subject.kind, values) if tombstone.fingerprint else ""
            decisions = settled.get(tombstone.seq)
            verdict = judge(tombstone.fingerprint, found, erased_at=tombstone.erased_at, created_at=born, decisions=decisions)
            if verdict is not Verdict.PERSON:
                listed.others.add(tombstone.seq)
                continue
            anybody[oid].append(address)
            cohort = cohort_of(periods, tombstone.action, tombstone.erased_at, now)
            verb = cohort.verb(subject.when_anonymised if cohort.anonymising else subject.erase)
            if verb in {Verb.DELETE, Verb.DELETE_IF_ORPHANED}:
                deleted[oid].append(address)
        for all_of, found_here in ((listed.anybody, anybody), (listed.deleted, deleted)):
            for oid, addresses in found_here.items():
                all_of[oid] = all_of[oid] | RowAddresses.from_tids(addresses)


def _keys(subject: Subject) -> Composable:
    arrays = SQL(", ").join([SQL("%s::int8[]"), *(SQL("%s::text[]::{}[]").format(trusted(kind)) for kind in subject.key_types)])
    names = SQL(", ").join(Identifier(f"k{position}") for position in range(len(subject.key)))
    return SQL("unnest({}) AS k(seq, {})").format(arrays, names)


def _anonymised(graph: Graph, root: int, rows: Filter, leaf: Table) -> RowAddresses:
    """Return the rows that lose a value of their own, not only the key of somebody else's row."""
    node = graph.tables.get(root)
    keys = {name for key in graph.catalogue.foreign_keys if graph.catalogue.root(key.table).oid == root for name in key.columns}
    keys |= {name for link in (node.links if node else ()) for name in link.columns}
    own = (set(node.anonymise) if node else set()) - keys
    found = RowAddresses()
    for change in rows.of(leaf.oid).changes:
        if own & set(change.assignments):
            found = found | change.rows
    return found


# -- rows that go along -----------------------------------------------------------------------------------------------------------


def _explain(session: Session, graph: Graph, rows: Filter, size: int, listed: _Listed, pending: dict[int, RowAddresses]) -> None:
    """Take out of ``pending`` what a row that is gone takes along. A row that waits for an explanation itself explains nothing."""
    subjects = {leaf.oid for subject in graph.subjects.values() for leaf in graph.catalogue.leaves(subject.table)}
    gone = {oid: listed.anybody[oid] if oid in subjects else rows.of(oid).excluded for oid in {*subjects, *rows.touched()}}
    edges = [edge for edge in _edges(graph) if any(pending.get(leaf.oid) for leaf in graph.catalogue.leaves(edge.child))]
    for edge in edges:
        for leaf in graph.catalogue.leaves(edge.child):
            settled = _naming_absent(session, graph, edge, leaf, pending.get(leaf.oid, _NONE), size, listed)
            pending[leaf.oid], gone[leaf.oid] = pending.get(leaf.oid, _NONE) - settled, gone.get(leaf.oid, _NONE) | settled
    grew = True
    while grew:
        grew = False
        for edge in edges:
            for leaf in graph.catalogue.leaves(edge.child):
                for parent in graph.catalogue.leaves(edge.parent):
                    found = _going_along(session, edge, leaf, parent, pending.get(leaf.oid, _NONE), gone.get(parent.oid, _NONE))
                    pending[leaf.oid], gone[leaf.oid] = pending.get(leaf.oid, _NONE) - found, gone.get(leaf.oid, _NONE) | found
                    grew |= bool(found)


def _edges(graph: Graph) -> Iterator[_Edge]:
    for root in dict.fromkeys(subject.table for subject in graph.subjects.values()):
        node = graph.tables.get(root)
        for link in node.links if node else ():
            if _takes_along(link) and link.form is not LinkForm.JSON:
                array = link.form is LinkForm.ARRAY
                yield _Edge(root, link.parent, link.columns, link.parent_columns, array, link.when)
        for key in graph.catalogue.foreign_keys:
            if key.enforced and key.on_delete is OnDelete.CASCADE and graph.catalogue.root(key.table).oid == root:
                yield _Edge(root, graph.catalogue.root(key.references).oid, key.columns, key.referenced_columns)


def _takes_along(link: Link) -> bool:
    return any(treatment is not None and treatment.verb is not Verb.UNLINK for treatment in (link.erase, link.when_anonymised))


def _going_along(session: Session, edge: _Edge, leaf: Table, parent: Table, waiting: RowAddresses, gone: RowAddresses) -> RowAddresses:
    """Return the waiting rows of a leaf that name one of the rows that are gone."""
    if not waiting or not gone:
        return _NONE
    places: list[Composable] = [Identifier("p", name) for name in edge.parent_columns]
    query = SQL("SELECT s.ctid FROM {} s JOIN {} p ON {} WHERE s.ctid = ANY(%s) AND p.ctid = ANY(%s)").format(
        leaf.relation, parent.relation, _on(edge, leaf, places)
    )
    return _met(
        session, query, ([some.parameter(), others.parameter()] for some in waiting.chunks(_CHUNK) for others in gone.chunks(_CHUNK))
    )


def _naming_absent(
    session: Session, graph: Graph, edge: _Edge, leaf: Table, waiting: RowAddresses, size: int, listed: _Listed
) -> RowAddresses:
    """Return the waiting rows that name a listed person by key, whether or not the person's row is there."""
    found = _NONE
    for subject in graph.subjects.values():
        if not waiting or subject.table != edge.parent or set(edge.parent_columns) != set(subject.key):
            continue
        places: list[Composable] = [Identifier("k", f"k{subject.key.index(name)}") for name in edge.parent_columns]
        query = SQL("SELECT s.ctid FROM {} s JOIN {} ON {} WHERE s.ctid = ANY(%s) AND k.seq <> ALL(%s)").format(
            leaf.relation, _keys(subject), _on(edge, leaf, places)
        )
        for _, arrays in reading.key_arrays(graph.database, subject.kind, len(subject.key), as_of=size):
            chunks = waiting.chunks(_CHUNK)
            found = found | _met(session, query, ([*arrays, some.parameter(), sorted(listed.others)] for some in chunks))
    return found


def _on(edge: _Edge, leaf: Table, places: Sequence[Composable]) -> Composable:
    if edge.array:
        conditions = [SQL("{}::text = ANY(s.{}::text[])").format(places[0], Identifier(edge.columns[0]))]
    else:
        # As text: a column that names a row without a foreign key may be of another type.
        conditions = [
            SQL("s.{}::text = {}::text").format(Identifier(mine), theirs) for mine, theirs in zip(edge.columns, places, strict=True)
        ]
    conditions += [
        SQL("s.{} = {}::{}").format(Identifier(name), Literal(value), trusted(leaf.by_name[name].type)) for name, value in edge.when
    ]
    return SQL(" AND ").join(conditions)


def _met(session: Session, query: Composable, params: Iterable[list[object]]) -> RowAddresses:
    found = _NONE
    for given in params:
        found = found | RowAddresses.from_tids(address for (address,) in session.addresses(query, given))
    return found


def _certain(graph: Graph, root: int) -> bool:
    """Whether a row that stays unexplained is certainly an innocent's: shared parents, JSON and kept rows are not looked into."""
    node = graph.tables.get(root)
    if node is None:
        return True
    subjects = {subject.table for subject in graph.subjects.values()}
    kept = any(
        treatment is not None and treatment.verb is Verb.KEEP
        for link in node.links
        if link.parent not in subjects and link.parent in graph.tables
        for above in graph.tables[link.parent].links
        for treatment in (above.erase, above.when_anonymised)
    )
    return not node.shared and not kept and not any(link.form is LinkForm.JSON and _takes_along(link) for link in node.links)
