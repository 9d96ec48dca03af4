"""What becomes of every column of a masked copy, where it happens and why. Pure: decides from the resolved map and the catalogue alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from obhut.datamap.conflicts import Chosen, Conflict, conflicts, unique_conflicts
from obhut.datamap.graph import Graph, LinkForm, TableNode
from obhut.datamap.kinds import kind_of
from obhut.datamap.models import ColumnRule, Mask
from obhut.datamap.surroundings import Surroundings
from obhut.datamap.transformers import CATALOGUE, Family, Per, Place
from obhut.masking import defaults, expressions
from obhut.masking.identity import Identities, Variant
from obhut.masking.identity import Place as IdentityPlace
from obhut.masking.model import ColumnPlan, MaskPlan, Person, Pool, Refusal, TablePlan
from obhut.postgres.catalogue import Column, Table
from obhut.postgres.sql import Composable


def plan(graph: Graph, surroundings: Surroundings, *, locale: str = "de") -> MaskPlan:
    """Decide about every column of every table.

    Args:
        graph: the resolved map.
        surroundings: enums, limits of domains, partition keys, indexes with expressions.
        locale: language of the word lists, where a column does not say its own.
    """
    return _Planner(graph, surroundings, locale).run()


class _Planner:
    """The walk over tables; collects refusals instead of stopping at the first."""

    def __init__(self, graph: Graph, surroundings: Surroundings, locale: str) -> None:
        self._graph, self._surroundings, self._locale = graph, surroundings, locale
        self._identities = Identities(graph, surroundings)
        self._refusals: list[Refusal] = []
        self._pools: dict[str, Pool] = {}

    def run(self) -> MaskPlan:
        """Return the plan."""
        self._unknown_tables()
        for clash in self._identities.clashes():
            table = self._graph.catalogue.tables[clash.oid]
            fact = f"{table.full_name}.{clash.column} names rows of {' and of '.join(clash.domains)}, whose keys are re-issued apart"
            self._refuse("mask-key-conflict", table, clash.column, fact, "Say in the links which rows: when: {type: …}; or rekey: false.")
        drafts = {oid: self._columns(node) for oid, node in self._graph.tables.items() if node.table.kind != "f"}
        drafts = self._along_keys(drafts)
        limits = narrowest(drafts)
        tables = {oid: self._table(self._graph.tables[oid], columns, limits) for oid, columns in drafts.items()}
        return MaskPlan(
            database=self._graph.database,
            version=self._graph.version,
            locale=self._locale,
            tables=tables,
            keys=tuple(self._identities.domains.values()),
            pools=tuple(self._pools.values()),
            refusals=tuple(self._refusals),
            identifiers=frozenset((one.table, name) for one in self._graph.subjects.values() for name in one.identifiers),
        )

    def _refuse(self, code: str, table: Table, column: str | None, fact: str, todo: str) -> None:
        self._refusals.append(Refusal(code, table.full_name, column, fact, todo))

    def _unknown_tables(self) -> None:
        for table in self._graph.catalogue.roots:
            if table.oid not in self._graph.tables:
                self._refuse("table-unknown", table, None, f"table {table.full_name} is not in the map", 'Run "obhut datamap check".')

    def _columns(self, node: TableNode) -> dict[str, ColumnPlan]:
        """Return a draft for every stored column: which transformer, and why."""
        explained = self._explained(node)
        found: dict[str, ColumnPlan] = {}
        for column in node.table.columns:
            if column.is_generated:
                continue  # the target computes it from the masked columns
            found[column.name] = self._column(node, column, explained)
        return found

    def _explained(self, node: TableNode) -> set[str]:
        """Return columns that a link, a subject's key or the way to the controller explains."""
        found: set[str] = set()
        for link in node.links:
            found |= {column for column, _ in link.when} | (set(link.columns) if link.form is not LinkForm.JSON else set())
        for subject in self._graph.subjects.values():
            if subject.table == node.table.oid:
                found |= set(subject.key) | (set(subject.controller_path[0].columns) if subject.controller_path else set())
        return found

    def _column(self, node: TableNode, column: Column, explained: set[str]) -> ColumnPlan:
        kind = kind_of(column, self._surroundings.enums, self._surroundings.domain_limits)
        rule = node.rule.columns.get(column.name)
        bare = ColumnPlan(column.name, kind, column.not_null, "keep", category=rule.category if rule else None)
        variants = tuple(self._identities.variants.get((node.table.oid, column.name), ()))
        if variants and not (rule and rule.mask and rule.mask.transformer == "null"):
            return self._rekeyed(node, bare, variants, rule.mask if rule else None)
        if rule is not None:
            return self._personal(node, column, bare, rule)
        if paths := self._identities.json.get((node.table.oid, column.name)):
            return replace(
                bare, transformer="json", per=Per.VALUE, options={"rest": "keep"}, keys_at=tuple(paths), reason="keys in it are re-issued"
            )
        harmless = not node.rule.personal or node.rule.not_personal == "*" or column.name in node.rule.not_personal
        if not harmless and column.name not in explained:
            fact = f"column {node.table.full_name}.{column.name} is not classified"
            self._refuse(
                "column-unclassified",
                node.table,
                column.name,
                fact,
                'Run "obhut datamap check"; give it a category, or add it to not_personal.',
            )
        why = self._identities.kept.get((node.table.oid, column.name))
        return replace(bare, reason=f"the key stays: {why}" if why else "not personal, says the map")

    def _rekeyed(self, node: TableNode, bare: ColumnPlan, variants: tuple[Variant, ...], mask: Mask | None) -> ColumnPlan:
        place = f"{node.table.full_name}.{bare.name}"
        if mask is not None and mask.transformer != "rekey":
            fact = f"{place} follows the re-issued key {variants[0].domain}, and its mask is {mask.transformer}"
            self._refuse("mask-key-conflict", node.table, bare.name, fact, "Leave out the mask, or use null.")
        own = self._identities.domains.get(place)
        reads = tuple(dict.fromkeys(name for variant in variants for name, _ in variant.when))
        reason = "the key is issued anew" if own else f"follows {variants[0].domain}"
        return replace(bare, transformer="rekey", per=Per.VALUE, key=variants, reads=reads, reason=reason, unique=own is not None)

    def _personal(self, node: TableNode, column: Column, bare: ColumnPlan, rule: ColumnRule) -> ColumnPlan:
        unique = any(column.name in (*key.columns, *self._reads(node).get(key.name, ())) for key in node.table.keys)
        category = str(bare.category)
        options: Mapping[str, Any]
        if rule.mask is not None:
            name, options, reason = rule.mask.transformer, rule.mask.options, "the map says so"
        elif rule.anonymise is not None and rule.anonymise.way == "keep":
            name, options, reason = "keep", {"reason": rule.anonymise.reason}, "the map says that it tells nothing"
        else:
            name, options = defaults.choose(category, column, bare.kind, unique=unique)
            reason = f"default for {category}" + (" in a unique index" if unique else "")
        chosen = Chosen(CATALOGUE[name], options, column, bare.kind)
        for conflict in conflicts(f"{node.table.full_name}.{column.name}", category, chosen):
            self._conflict(node, column.name, conflict)
        drafted = replace(bare, transformer=name, options=options, reason=reason, per=chosen.per, unique=unique)
        if bare.kind.family not in chosen.transformer.families:
            return drafted
        return self._finished(node, column, drafted)

    def _finished(self, node: TableNode, column: Column, draft: ColumnPlan) -> ColumnPlan:
        """Return the draft with what its place needs: an expression on the server; person, identity and readings in the client."""
        if draft.place is Place.SERVER:
            return replace(draft, expression=self._expression(node, column, draft))
        person = self._person(node, column.name) if draft.per is Per.PERSON and not draft.kind.array else None
        if draft.per is Per.PERSON and person is None:
            draft = replace(draft, per=Per.VALUE, reason=f"{draft.reason}; no column of the row names the person: by value")
        listed = tuple(draft.options.get("columns", ())) if draft.transformer == "tsvector" else ()
        reads = (*listed, *((person.column,) if person else ()))
        identity = str(draft.options.get("identity") or (f"person.{person.subject}" if person else draft.transformer))
        keys_at = tuple(self._identities.json.get((node.table.oid, column.name), ()))
        if draft.transformer == "sample":
            self._pool(node, draft)
        return replace(draft, person=person, reads=tuple(dict.fromkeys(reads)), identity=identity, keys_at=keys_at)

    def _expression(self, node: TableNode, column: Column, draft: ColumnPlan) -> Composable | None:
        read = [name for name in expressions.fields(draft.options.get("text")) if draft.transformer == "template"]
        for name in read:
            at = f"{node.table.full_name}.{column.name}"
            if name not in node.table.by_name:
                self._refuse(
                    "column-missing", node.table, column.name, f"the template of {at} reads {name}, which is no column", "Name one."
                )
            elif name in node.rule.columns or (node.table.oid, name) in self._identities.variants:
                fact = f"the template of {at} reads {name}, which the copy masks or re-issues"
                self._refuse(
                    "template-reads-personal", node.table, column.name, fact, "Use a transformer that invents, such as name or username."
                )
        return expressions.masked(draft.transformer, draft.options, column)

    def _pool(self, node: TableNode, draft: ColumnPlan) -> None:
        name = f"{node.table.full_name}.{draft.name}"
        smooth = draft.kind.family in {Family.INTEGER, Family.NUMBER, Family.DATE} and not draft.kind.array
        self._pools[name] = Pool(name, node.table.oid, draft.name, smooth, int(draft.options.get("k", 5)))

    def _reads(self, node: TableNode) -> Mapping[str, tuple[str, ...]]:
        return self._surroundings.index_reads.get(node.table.oid, {})

    def _conflict(self, node: TableNode, column: str, conflict: Conflict) -> None:
        self._refuse(conflict.code, node.table, column, conflict.fact, conflict.todo)

    def _person(self, node: TableNode, column: str) -> Person | None:
        """Return where the row names the person of a cell; None when it names none, or several that could be meant."""
        for kind, subject in self._graph.subjects.items():
            if subject.table == node.table.oid and len(subject.key) == 1:
                return Person(kind, subject.key[0])
        found: list[tuple[bool, Person]] = []
        for link in node.links:
            if (
                link.form is not LinkForm.COLUMNS
                or link.when
                or len(link.columns) != 1
                or (link.anonymises and column not in link.anonymises)
            ):
                continue
            for kind, subject in self._graph.subjects.items():
                if link.parent == subject.table and link.parent_columns == subject.key:
                    found.append((bool(link.anonymises), Person(kind, link.columns[0])))
        named = [person for own, person in found if own] or [person for _, person in found]
        return named[0] if len(named) == 1 else None

    def _along_keys(self, drafts: dict[int, dict[str, ColumnPlan]]) -> dict[int, dict[str, ColumnPlan]]:
        """Make referencing columns follow masked natural keys: an e-mail address that is a foreign key becomes the same one."""
        for _ in range(len(self._graph.catalogue.foreign_keys) + 1):
            changed = False
            for key in self._graph.catalogue.foreign_keys:
                child, parent = self._graph.catalogue.root(key.table).oid, self._graph.catalogue.root(key.references).oid
                if child not in drafts or parent not in drafts:
                    continue
                for mine, theirs in zip(key.columns, key.referenced_columns, strict=True):
                    changed |= self._natural(drafts, (child, mine), (parent, theirs), key.name)
            if not changed:
                break
        return drafts

    def _natural(self, drafts: dict[int, dict[str, ColumnPlan]], child: IdentityPlace, parent: IdentityPlace, constraint: str) -> bool:
        mine, theirs = drafts[child[0]].get(child[1]), drafts[parent[0]].get(parent[1])
        if mine is None or theirs is None or "rekey" in {mine.transformer, theirs.transformer} or mine.transformer == "null":
            return False
        same = (mine.transformer, mine.options, mine.per, mine.identity) == (
            theirs.transformer,
            theirs.options,
            theirs.per,
            theirs.identity,
        )
        if same:
            return False
        node = self._graph.tables[child[0]]
        rule = node.rule.columns.get(child[1])
        follows = theirs.per is Per.VALUE and theirs.place is Place.CLIENT
        if not follows or (rule is not None and rule.mask is not None):
            if theirs.transformer != "keep" or mine.transformer != "keep":
                fact = f"{node.table.full_name}.{child[1]} and the column it references by {constraint} are masked differently"
                self._refuse("mask-key-conflict", node.table, child[1], fact, "Give both the same transformer per value, or null here.")
            return False
        drafts[child[0]][child[1]] = replace(
            mine, transformer=theirs.transformer, options=theirs.options, per=theirs.per, identity=theirs.identity, expression=None,
            reason=f"follows the foreign key {constraint}",
        )  # fmt: skip
        return True

    def _table(self, node: TableNode, columns: dict[str, ColumnPlan], limits: Mapping[str, int]) -> TablePlan:
        self._unique(node, columns)
        self._partitioned(node, columns)
        placed = [replace(plan, limit=limits.get(plan.identity, plan.kind.limit)) if plan.identity else plan for plan in columns.values()]
        read = {name for plan in placed for name in plan.reads}
        first = [plan for plan in placed if plan.place is Place.CLIENT or plan.name in read]
        rest = [plan for plan in placed if plan not in first]
        followed = {variant.domain for plan in placed for variant in plan.key} | {found.domain for plan in placed for found in plan.keys_at}
        domains = tuple(domain for name, domain in self._identities.domains.items() if name in followed)
        return TablePlan(node.table.oid, node.table.full_name, (*first, *rest), len(first), domains, limits)

    def _unique(self, node: TableNode, columns: dict[str, ColumnPlan]) -> None:
        chosen = {
            name: Chosen(CATALOGUE[plan.transformer], plan.options, node.table.by_name[name], plan.kind)
            for name, plan in columns.items()
            if plan.transformer != "keep"
        }
        for name, conflict in unique_conflicts(node.table, chosen, self._reads(node)):
            self._conflict(node, name, conflict)

    def _partitioned(self, node: TableNode, columns: dict[str, ColumnPlan]) -> None:
        for name in self._surroundings.partition_keys.get(node.table.oid, ()):
            if name not in columns or columns[name].transformer == "keep":
                continue
            followed = columns[name].key
            todo = f"Write rekey: false at {followed[0].domain.rpartition('.')[0]}." if followed else "Write mask: {keep: reason}."
            fact = f"{node.table.full_name} is partitioned by {name}: another value belongs into another partition"
            self._refuse("mask-partition-key", node.table, name, fact, todo)


def narrowest(drafts: Mapping[int, Mapping[str, ColumnPlan]]) -> dict[str, int]:
    """Return the characters that the narrowest column of each identity domain holds: equal values stay equal in all of them."""
    found: dict[str, int] = {}
    for columns in drafts.values():
        for plan in columns.values():
            if plan.identity and plan.per is Per.VALUE and plan.kind.limit is not None:
                found[plan.identity] = min(plan.kind.limit, found.get(plan.identity, plan.kind.limit))
    return found
