"""The short way: where a map is a plain tree of foreign keys, an erasure is one statement, of a crowd one a table.

Most people's rows hang on them by foreign keys and are all deleted, or all anonymised. Then the fixpoint of
:mod:`obhut.erasure.closure` has a closed form, a chain of joins for each table, and the server can do it without handing addresses to the
client and back. For one person everything is one statement, which saves the round trips; of a crowd each table has its own, children
first, which saves the server from keeping a note of each row until the end. Anything else (unlinking, keeping, some rows deleted and
others anonymised, links without a foreign key, cycles) goes the long way. The property tests hold both against each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from obhut.datamap.graph import Graph, Link, LinkForm, Reference, Subject
from obhut.datamap.models import Verb
from obhut.erasure import changes, objects
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.plan import Cohort, PlannedEffect
from obhut.erasure.subjects import Found
from obhut.foundation.faultpoints import reach
from obhut.postgres.catalogue import Action as OnDelete
from obhut.postgres.catalogue import Table
from obhut.postgres.connections import Params, Session
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, array_literal, rendered, trusted

MAX_PATHS = 8  # joins a table; beyond that the long way is faster
_NOTHING = SQL("")
CROWD = 100  # people: from here on each table is deleted on its own

Path = tuple[Link, ...]  # from the subject outwards


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """The statements of a direct erasure; parameters: ``people``, the addresses of their rows, and ``keys``, an array literal.

    Attributes:
        verb: what becomes of every row, delete or anonymise.
        together: does it to everything but shared parents.
        candidates: returns, for each shared table, the addresses of the parents that may go; None where there is no such table.
        apart: a statement for each of ``tables``.
        order: indexes into ``apart`` and ``tables``, children first; None where foreign keys go round in a circle.
        tables: tables with the reason, in the order of the counts that ``together`` returns.
        shared: for each shared table, the statement that deletes what nobody references any more; parameter: candidates.
        relations: oids of all these tables and their partitions.
        keys: returns the keys as an array literal, for a caller who does not have them; None where no statement uses them.
    """

    verb: Verb
    together: Composable
    candidates: Composable | None
    apart: tuple[Composable, ...]
    order: tuple[int, ...] | None
    tables: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, Composable], ...]
    relations: tuple[int, ...]
    keys: Composable | None


_WATCHED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger
               WHERE tgrelid = ANY(%(relations)s::oid[]) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & %(trigger)s <> 0)
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = ANY(%(relations)s::oid[]) AND ev_enabled <> 'D' AND ev_type = %(rule)s)
"""
_EVENTS = {Verb.DELETE: {"trigger": 8, "rule": "4"}, Verb.ANONYMISE: {"trigger": 16, "rule": "2"}}  # bits of tgtype, values of ev_type


def compile_plan(graph: Graph, subject: Subject, cohort: Cohort) -> DirectPlan | None:
    """Return the plan for one subject kind, or None where the map asks for more than a tree of deletions, or of anonymised rows."""
    verb = cohort.verb(subject.when_anonymised if cohort.anonymising else subject.erase)
    if verb not in _EVENTS:
        return None
    if graph.catalogue.tables[subject.table].kind != "r":
        return None  # an address says nothing without its leaf, and the statements name the whole table
    paths = _paths(graph, subject, cohort, verb)
    if paths is None:
        return None
    relations = tuple({oid for root in paths for oid in (root, *(leaf.oid for leaf in graph.catalogue.leaves(root)))})
    return (_deleting if verb is Verb.DELETE else _anonymising)(graph, subject, paths, relations)


def _deleting(graph: Graph, subject: Subject, paths: dict[int, list[Path]], relations: tuple[int, ...]) -> DirectPlan | None:
    if not _foreign_keys_covered(graph, paths):
        return None
    deletions = [_deletion(graph, subject, ways) for ways in paths.values()]
    tables = [(graph.catalogue.tables[oid].full_name, _reason(graph, subject, ways[0])) for oid, ways in paths.items()]
    references = [reference for reference in graph.references if reference.child in paths]
    parents = list(dict.fromkeys(reference.parent for reference in references))
    candidates = [_candidates_of(graph, subject, paths, [one for one in references if one.parent == parent]) for parent in parents]
    shared = [(graph.catalogue.tables[parent].full_name, rendered(_orphans(graph, parent))) for parent in parents]
    relations = (*relations, *parents)
    if any(objects.columns(graph.catalogue.tables[oid]) for oid in relations):
        return None  # large objects go with the rows that name them, and only the long way looks for them
    arrays = SQL(", ").join(SQL("ARRAY({})").format(query) for query in candidates)
    apart = tuple(rendered(SQL("DELETE FROM {}").format(deletion)) for deletion in deletions)
    return DirectPlan(
        Verb.DELETE,
        _together(apart, candidates),
        rendered(SQL("SELECT {}").format(arrays)) if candidates else None,
        apart,
        _children_first(graph, list(paths)),
        tuple(tables),
        tuple(shared),
        relations,
        _keys(graph, subject, apart),
    )


def _anonymising(graph: Graph, subject: Subject, paths: dict[int, list[Path]], relations: tuple[int, ...]) -> DirectPlan | None:
    """Return the plan that changes rows in place; a table that is reached twice, or a shared parent, is left to the long way."""
    if any(len(ways) > 1 for ways in paths.values()) or any(reference.child in paths for reference in graph.references):
        return None
    if any(objects.columns(graph.catalogue.tables[oid]) for oid in relations):
        return None
    updates = {oid: _change(graph, subject, oid, path) for oid, (path,) in paths.items()}
    apart = tuple(update for update in updates.values() if update is not None)
    if updates[subject.table] is None:
        return None
    tables = [
        (graph.catalogue.tables[oid].full_name, _reason(graph, subject, paths[oid][0])) for oid in updates if updates[oid] is not None
    ]
    order = tuple(range(len(apart)))
    return DirectPlan(Verb.ANONYMISE, _together(apart, ()), None, apart, order, tuple(tables), (), relations, _keys(graph, subject, apart))


def _change(graph: Graph, subject: Subject, oid: int, path: Path) -> Composable | None:
    """Return the UPDATE of one table by the rules of its columns; None where no column has any."""
    table, only = graph.catalogue.tables[oid], path[-1].anonymises if path else ()
    rules = changes.rules(graph.tables[oid], only)
    if not rules:
        return None
    values = changes.anonymising(table, rules).expressions
    assignments = SQL(", ").join(SQL("{} = {}").format(Identifier(name), value(Identifier(name))) for name, value in values.items())
    # A rule may read columns of its row by their bare names, so no second relation stands in reach of them.
    sources, condition = _way(graph, subject, path)
    if sources:
        address = SQL("c.tableoid, c.ctid") if table.kind == "p" else SQL("c.ctid")
        condition = SQL("({}) IN ({})").format(address, _select(address, table, (sources, condition)))
    return rendered(SQL("UPDATE {} c SET {} WHERE {}").format(table.relation, assignments, condition))


def _keys(graph: Graph, subject: Subject, statements: Sequence[Composable]) -> Composable | None:
    if not any("%(keys)s" in statement.as_string(None) for statement in statements):
        return None
    table = graph.catalogue.tables[subject.table]
    return rendered(
        SQL("SELECT array_agg({}::text)::text FROM {} WHERE ctid = ANY(%(people)s)").format(Identifier(subject.key[0]), table.relation)
    )


def _candidates_of(graph: Graph, subject: Subject, paths: dict[int, list[Path]], references: Sequence[Reference]) -> Composable:
    ways = [(reference, way) for reference in references for way in paths[reference.child]]
    return SQL(" UNION ").join(_candidates(graph, subject, reference, way) for reference, way in ways)


def _together(statements: Sequence[Composable], candidates: Sequence[Composable]) -> Composable:
    parts: list[Composable] = []
    outputs: list[Composable] = []
    for number, statement in enumerate(statements):
        parts.append(SQL("{} AS ({} RETURNING 1)").format(Identifier(f"d{number}"), statement))
        outputs.append(SQL("(SELECT count(*) FROM {})").format(Identifier(f"d{number}")))
    for number, query in enumerate(candidates):
        parts.append(SQL("{} AS ({})").format(Identifier(f"s{number}"), query))
        outputs.append(SQL("ARRAY(SELECT ctid FROM {})").format(Identifier(f"s{number}")))
    return rendered(SQL("WITH {} SELECT {}").format(SQL(", ").join(parts), SQL(", ").join(outputs)))


def _children_first(graph: Graph, tables: Sequence[int]) -> tuple[int, ...] | None:
    """Return the indexes of tables in an order in which none is deleted before a table that references it."""
    catalogue = graph.catalogue
    sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(tables, ()))
    for key in catalogue.foreign_keys:
        child, parent = catalogue.root(key.table).oid, catalogue.root(key.references).oid
        if child != parent and child in tables and parent in tables:
            sorter.add(parent, child)
    try:
        return tuple(tables.index(oid) for oid in sorter.static_order())
    except CycleError:
        return None


def run(session: Session, plan: DirectPlan, found: Found, keys: Sequence[str] | None = None) -> tuple[PlannedEffect, ...] | None:
    """Delete or anonymise the people found and all that hangs on them, inside the open transaction; return what was done, with reasons.

    None, with nothing done, when a trigger or rule watches the statements: it may suppress some or write rows anew. Only the long way
    looks again.

    Args:
        session: in a REPEATABLE READ transaction, in which the people were found.
        plan: of their kind.
        found: the people.
        keys: first columns of their keys; read from their rows where the caller does not have them.

    Raises:
        ForeignKeyError: a row outside the map references one of theirs.
        SerializationError: another transaction changed one of the rows.
    """
    if session.value(_WATCHED, {"relations": list(plan.relations), **_EVENTS[plan.verb]}):
        return None
    addresses = RowAddresses()
    for seed in found.seeds:
        for rows in seed.rows.values():
            addresses = addresses | rows
    people: dict[str, object] = {"people": addresses.parameter()}
    if plan.keys is not None:
        people["keys"] = array_literal(keys) if keys is not None else session.value(plan.keys, people)
    crowd = addresses.count >= CROWD and plan.order is not None
    counts, orphans = (_apart if crowd else _at_once)(session, plan, people)
    effects = [PlannedEffect(table, plan.verb, reason, count) for (table, reason), count in zip(plan.tables, counts, strict=True) if count]
    for (table, statement), candidates in zip(plan.shared, orphans, strict=True):
        if candidates:
            packed = RowAddresses(int.from_bytes(tid, "big") for tid in candidates)
            gone = session.execute(statement, (packed.parameter(),))
            if gone:
                effects.append(PlannedEffect(table, Verb.DELETE, "no remaining row references it", gone))
    reach("erase.applied")
    return tuple(effects)


def _at_once(session: Session, plan: DirectPlan, people: Params) -> tuple[Sequence[int], Sequence[Sequence[bytes]]]:
    row = session.addresses(plan.together, people)[0]
    return row[: len(plan.tables)], row[len(plan.tables) :]


def _apart(session: Session, plan: DirectPlan, people: Params) -> tuple[Sequence[int], Sequence[Sequence[bytes]]]:
    orphans: Sequence[Sequence[bytes]] = ()
    if plan.candidates is not None:  # while the rows are there that reference them
        orphans = session.addresses(plan.candidates, people)[0]
    counts = [0] * len(plan.tables)
    for number in plan.order or ():
        counts[number] = session.execute(plan.apart[number], people)
    return counts, orphans


def _paths(graph: Graph, subject: Subject, cohort: Cohort, wanted: Verb) -> dict[int, list[Path]] | None:
    """Every way from the subject to a table, or None when the links are not a plain, acyclic set of foreign keys with the same fate."""
    found: dict[int, list[Path]] = {subject.table: [()]}
    queue: deque[tuple[int, Path]] = deque([(subject.table, ())])
    while queue:
        parent, path = queue.popleft()
        for link in graph.links_to(parent):
            verb = cohort.verb(link.treatment(anonymising=cohort.anonymising))
            if verb is None:
                continue
            child = graph.catalogue.tables[link.child]
            key = link.foreign_key
            plain = verb is wanted and link.form is LinkForm.COLUMNS and not link.when
            if not plain or key is None or not (key.validated and key.enforced) or child.kind not in {"r", "p"}:
                return None
            if graph.tables[link.child].shared or link.child == parent or any(link.child in (step.child, step.parent) for step in path):
                return None
            way = (*path, link)
            found.setdefault(link.child, []).append(way)
            if len(found[link.child]) > MAX_PATHS:
                return None
            queue.append((link.child, way))
    return found if _orphans_are_simple(graph, found) else None


def _orphans_are_simple(graph: Graph, paths: dict[int, list[Path]]) -> bool:
    """Whether shared parents that may go are plain tables at the end of the way: nothing follows from their deletion."""
    touched = [reference for reference in graph.references if graph.catalogue.root(reference.child).oid in paths]
    parents = {reference.parent for reference in touched}
    if any(graph.catalogue.tables[parent].kind != "r" or any(True for _ in graph.links_to(parent)) for parent in parents):
        return False
    # A foreign key of one leaf only has no place in statements about whole tables; a shared parent may have shared parents of its own.
    return all(reference.child in paths for reference in touched) and not any(reference.child in parents for reference in graph.references)


def _foreign_keys_covered(graph: Graph, paths: dict[int, list[Path]]) -> bool:
    """Whether each foreign key to a deleted table is a followed link, or forbids rather than acts: nothing may go unnoticed."""
    catalogue = graph.catalogue
    deleted = set(paths)
    for key in catalogue.foreign_keys:
        if not key.enforced or catalogue.root(key.references).oid not in deleted | {reference.parent for reference in graph.references}:
            continue
        if key.on_delete in {OnDelete.NO_ACTION, OnDelete.RESTRICT}:
            continue
        followed = any(way and way[-1].foreign_key is key for way in paths.get(key.table, ()))
        if not followed:
            return False
    return True


def _way(graph: Graph, subject: Subject, path: Path) -> tuple[list[Composable], Composable]:
    """Return the parents' part of FROM and the conditions under which ``c``, at the end of a path, hangs on one of the people.

    The subject's own table is left out where the first link names the people by their keys: then an index on the link's column will do,
    and people whose keys lie together have their rows read together.
    """
    if not path:
        return [], SQL("c.ctid = ANY(%(people)s)")
    aliases = [*(f"p{index}" for index in range(len(path))), "c"]
    by_key = subject.is_keyed_by(graph.catalogue.tables[path[0].child], path[0].columns, path[0].parent_columns)
    sources: list[Composable] = []
    conditions: list[Composable] = []
    for index, link in enumerate(path):
        if index == 0 and by_key:
            keys = SQL("%(keys)s::text[]::{}[]").format(trusted(subject.key_types[0]))
            conditions.append(SQL("{} = ANY({})").format(Identifier(aliases[1], link.columns[0]), keys))
            continue
        sources.append(SQL("{} {}").format(graph.catalogue.tables[link.parent].relation, Identifier(aliases[index])))
        conditions.extend(
            SQL("{} = {}").format(Identifier(aliases[index + 1], mine), Identifier(aliases[index], theirs))
            for mine, theirs in zip(link.columns, link.parent_columns, strict=True)
        )
    if not by_key:
        conditions.append(SQL("p0.ctid = ANY(%(people)s)"))
    return sources, SQL(" AND ").join(conditions)


def _deletion(graph: Graph, subject: Subject, ways: Sequence[Path]) -> Composable:
    table = graph.catalogue.tables[ways[0][-1].child if ways[0] else subject.table]
    if len(ways) == 1:
        sources, condition = _way(graph, subject, ways[0])
        using = SQL(" USING {}").format(SQL(", ").join(sources)) if sources else SQL("")
        return SQL("{} c{} WHERE {}").format(table.relation, using, condition)
    partitioned = table.kind == "p"
    address = SQL("c.tableoid, c.ctid") if partitioned else SQL("c.ctid")
    reached = [_select(address, table, _way(graph, subject, path)) for path in ways]
    union = SQL(" UNION ").join(reached)
    if partitioned:
        return SQL("{} c WHERE (c.tableoid, c.ctid) IN ({})").format(table.relation, union)
    return SQL("{} c WHERE c.ctid = ANY(ARRAY({}))").format(table.relation, union)


def _select(columns: Composable, table: Table, way: tuple[list[Composable], Composable], joined: Composable = _NOTHING) -> Composable:
    sources, condition = way
    others = SQL("").join(SQL(", {}").format(source) for source in sources)
    return SQL("SELECT {} FROM {} c{}{} WHERE {}").format(columns, table.relation, joined, others, condition)


def _candidates(graph: Graph, subject: Subject, reference: Reference, path: Path) -> Composable:
    """Shared parents that rows on a path reference."""
    child, parent = graph.catalogue.tables[reference.child], graph.catalogue.tables[reference.parent]
    named = SQL(" AND ").join(
        SQL("c.{} = o.{}").format(Identifier(mine), Identifier(theirs))
        for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True)
    )
    joined = SQL(" JOIN {} o ON {}").format(parent.relation, named)
    return _select(SQL("o.ctid"), child, _way(graph, subject, path), joined)


def _orphans(graph: Graph, parent: int) -> Composed:
    """The statement that deletes those candidates that no row references any more."""
    unreferenced = SQL(" AND ").join(
        SQL("NOT EXISTS (SELECT FROM {} c WHERE {})").format(
            graph.catalogue.tables[reference.child].relation,
            SQL(" AND ").join(
                SQL("c.{} = o.{}").format(Identifier(mine), Identifier(theirs))
                for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True)
            ),
        )
        for reference in graph.references
        if reference.parent == parent
    )
    return SQL("DELETE FROM {} o WHERE o.ctid = ANY(%s) AND {}").format(graph.catalogue.tables[parent].relation, unreferenced)


def _reason(graph: Graph, subject: Subject, path: Path) -> str:
    if not path:
        return f"is the {subject.kind}"
    return f"belongs to {graph.catalogue.root(path[-1].parent).full_name} by {path[-1].name}"
