"""The short way: where a map is a plain tree of foreign keys, an erasure is one statement.

Most people's rows hang on them by foreign keys and are all deleted. Then the fixpoint of :mod:`obhut.erasure.closure` has a closed form,
a chain of joins for each table, and the server can do it in one statement without handing addresses to the client and back. Anything
else (unlinking, anonymising, keeping, links without a foreign key, cycles) goes the long way. The property tests hold both against
each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from obhut.datamap.graph import Graph, Link, LinkForm, Reference, Subject
from obhut.datamap.models import Verb
from obhut.erasure import objects
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.plan import Cohort, PlannedEffect
from obhut.erasure.subjects import Found
from obhut.foundation.faultpoints import reach
from obhut.postgres.catalogue import Action as OnDelete
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, rendered

MAX_PATHS = 8  # joins a table; beyond that the long way is faster

Path = tuple[Link, ...]  # from the subject outwards


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """The statements of a direct erasure.

    Attributes:
        delete: deletes everything but shared parents; parameters: the people's addresses, once a table and path.
        parameters: how often the addresses are given.
        tables: deleted tables with the reason, in the order of the counts that ``delete`` returns.
        shared: for each shared table, the statement that deletes what nobody references any more; parameter: candidates.
        relations: oids of all these tables and their partitions.
    """

    delete: Composable
    parameters: int
    tables: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, Composable], ...]
    relations: tuple[int, ...]


_WATCHED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger
               WHERE tgrelid = ANY(%s::oid[]) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 8 <> 0)
"""  # 8: fires at DELETE


def compile_plan(graph: Graph, subject: Subject, cohort: Cohort) -> DirectPlan | None:
    """Return the plan for one subject kind, or None where the map asks for more than a tree of deletions."""
    if cohort.anonymising or cohort.verb(subject.erase) is not Verb.DELETE:
        return None
    if graph.catalogue.tables[subject.table].kind != "r":
        return None  # an address says nothing without its leaf, and the statements name the whole table
    paths = _paths(graph, subject, cohort)
    if paths is None or not _foreign_keys_covered(graph, paths):
        return None
    references = [reference for reference in graph.references if reference.child in paths]
    parts: list[Composable] = []
    outputs: list[Composable] = []
    tables: list[tuple[str, str]] = []
    parameters = 0
    for number, (oid, ways) in enumerate(paths.items()):
        table = graph.catalogue.tables[oid]
        source = _deletion(graph, subject, ways[0]) if len(ways) == 1 else _deletion_by_any(graph, subject, ways)
        parts.append(SQL("{} AS (DELETE FROM {} RETURNING 1)").format(Identifier(f"d{number}"), source))
        outputs.append(SQL("(SELECT count(*) FROM {})").format(Identifier(f"d{number}")))
        parameters += len(ways)
        tables.append((table.full_name, _reason(graph, subject, ways[0])))
    shared: list[tuple[str, Composable]] = []
    for number, parent in enumerate(dict.fromkeys(reference.parent for reference in references)):
        candidates = SQL(" UNION ").join(
            _candidates(graph, subject, reference, way)
            for reference in references
            if reference.parent == parent
            for way in paths[reference.child]
        )
        parameters += sum(len(paths[reference.child]) for reference in references if reference.parent == parent)
        parts.append(SQL("{} AS ({})").format(Identifier(f"s{number}"), candidates))
        outputs.append(SQL("ARRAY(SELECT ctid FROM {})").format(Identifier(f"s{number}")))
        shared.append((graph.catalogue.tables[parent].full_name, rendered(_orphans(graph, parent))))
    statement = SQL("WITH {} SELECT {}").format(SQL(", ").join(parts), SQL(", ").join(outputs))
    roots = [*paths, *(reference.parent for reference in references)]
    relations = tuple({oid for root in roots for oid in (root, *(leaf.oid for leaf in graph.catalogue.leaves(root)))})
    if any(objects.columns(graph.catalogue.tables[oid]) for oid in relations):
        return None  # large objects go with the rows that name them, and only the long way looks for them
    return DirectPlan(rendered(statement), parameters, tuple(tables), tuple(shared), relations)


def run(session: Session, plan: DirectPlan, found: Found) -> tuple[PlannedEffect, ...] | None:
    """Delete the people found and all that hangs on them, inside the open transaction; return what was deleted, with reasons.

    None, with nothing done, when a trigger watches the deletions: it may suppress some or write rows anew. Only the long way looks again.

    Raises:
        ForeignKeyError: a row outside the map references one of theirs.
        SerializationError: another transaction changed one of the rows.
    """
    if session.value(_WATCHED, (list(plan.relations),)):
        return None
    addresses = RowAddresses()
    for seed in found.seeds:
        for rows in seed.rows.values():
            addresses = addresses | rows
    row = session.addresses(plan.delete, [addresses.parameter()] * plan.parameters)[0]
    effects = [
        PlannedEffect(table, Verb.DELETE, reason, count)
        for (table, reason), count in zip(plan.tables, row[: len(plan.tables)], strict=True)
        if count
    ]
    for (table, statement), candidates in zip(plan.shared, row[len(plan.tables) :], strict=True):
        if candidates:
            packed = RowAddresses(int.from_bytes(tid, "big") for tid in candidates)
            gone = session.execute(statement, (packed.parameter(),))
            if gone:
                effects.append(PlannedEffect(table, Verb.DELETE, "no remaining row references it", gone))
    reach("erase.applied")
    return tuple(effects)


def _paths(graph: Graph, subject: Subject, cohort: Cohort) -> dict[int, list[Path]] | None:
    """Every way from the subject to a table, or None when the links are not a plain, acyclic set of foreign keys to be deleted."""
    found: dict[int, list[Path]] = {subject.table: [()]}
    queue: deque[tuple[int, Path]] = deque([(subject.table, ())])
    while queue:
        parent, path = queue.popleft()
        for link in graph.links_to(parent):
            verb = cohort.verb(link.treatment(anonymising=False))
            if verb is None:
                continue
            child = graph.catalogue.tables[link.child]
            key = link.foreign_key
            plain = verb is Verb.DELETE and link.form is LinkForm.COLUMNS and not link.when
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


def _aliases(path: Path) -> list[str]:
    """Aliases of the parents along a path, the subject first; the child is ``c``."""
    return [f"p{index}" for index in range(len(path))]


def _joins(graph: Graph, path: Path) -> tuple[Composable, Composable]:
    """Return the parents' FROM list and the join conditions of a path that ends at ``c``."""
    aliases = _aliases(path)
    named: list[Composable] = [
        SQL("{} {}").format(graph.catalogue.tables[link.parent].relation, Identifier(alias))
        for link, alias in zip(path, aliases, strict=True)
    ]
    conditions: list[Composable] = []
    for index, link in enumerate(path):
        child = aliases[index + 1] if index + 1 < len(path) else "c"
        conditions.extend(
            SQL("{} = {}").format(Identifier(child, mine), Identifier(aliases[index], theirs))
            for mine, theirs in zip(link.columns, link.parent_columns, strict=True)
        )
    return SQL(", ").join(named), SQL(" AND ").join(conditions)


def _deletion(graph: Graph, subject: Subject, path: Path) -> Composable:
    if not path:
        return SQL("{} c WHERE c.ctid = ANY(%s)").format(graph.catalogue.tables[subject.table].relation)
    sources, conditions = _joins(graph, path)
    child = graph.catalogue.tables[path[-1].child]
    return SQL("{} c USING {} WHERE {} AND p0.ctid = ANY(%s)").format(child.relation, sources, conditions)


def _deletion_by_any(graph: Graph, subject: Subject, ways: Sequence[Path]) -> Composable:
    table = graph.catalogue.tables[ways[0][-1].child if ways[0] else subject.table]
    partitioned = table.kind == "p"
    address = SQL("c.tableoid, c.ctid") if partitioned else SQL("c.ctid")
    reached: list[Composable] = []
    for path in ways:
        if not path:
            reached.append(SQL("SELECT {} FROM {} c WHERE c.ctid = ANY(%s)").format(address, table.relation))
            continue
        sources, conditions = _joins(graph, path)
        reached.append(SQL("SELECT {} FROM {} c, {} WHERE {} AND p0.ctid = ANY(%s)").format(address, table.relation, sources, conditions))
    union = SQL(" UNION ").join(reached)
    if partitioned:
        return SQL("{} c WHERE (c.tableoid, c.ctid) IN ({})").format(table.relation, union)
    return SQL("{} c WHERE c.ctid = ANY(ARRAY({}))").format(table.relation, union)


def _candidates(graph: Graph, subject: Subject, reference: Reference, path: Path) -> Composable:
    """Shared parents that rows on a path reference."""
    child, parent = graph.catalogue.tables[reference.child], graph.catalogue.tables[reference.parent]
    named = SQL(" AND ").join(
        SQL("c.{} = o.{}").format(Identifier(mine), Identifier(theirs))
        for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True)
    )
    if not path:
        people = graph.catalogue.tables[subject.table].relation
        return SQL("SELECT o.ctid FROM {} c JOIN {} o ON {} WHERE c.ctid = ANY(%s)").format(people, parent.relation, named)
    sources, conditions = _joins(graph, path)
    return SQL("SELECT o.ctid FROM {} c JOIN {} o ON {}, {} WHERE {} AND p0.ctid = ANY(%s)").format(
        child.relation, parent.relation, named, sources, conditions
    )


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
