"""Which columns hold keys that a copy re-issues, and which columns follow them.

A key that stays the same in the copy links every row of it to production. So the numbers and uuids under which people's rows are known are
re-issued, and whatever names them follows: foreign keys, links that the map declares, polymorphic pairs, arrays, JSON paths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from obhut.datamap.graph import Graph, LinkForm, TableNode
from obhut.datamap.kinds import Kind, kind_of
from obhut.datamap.surroundings import Surroundings
from obhut.datamap.transformers import Family

Place = tuple[int, str]  # oid of the topmost table, column


@dataclass(frozen=True, slots=True)
class KeyDomain:
    """Keys that are re-issued together, named after the column that they identify, ``public.person.id``."""

    name: str
    oid: int
    table: str
    column: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Variant:
    """A domain that a column follows: always, or in rows in which another column has a value."""

    domain: str
    when: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class JsonKey:
    """Keys inside a JSON column at a path (None stands for ``[*]``)."""

    path: tuple[str | None, ...]
    domain: str


@dataclass(frozen=True, slots=True)
class Clash:
    """A column that would have to follow two domains."""

    oid: int
    column: str
    domains: tuple[str, ...]


class Identities:
    """Domains by column, worked out once for a map."""

    def __init__(self, graph: Graph, surroundings: Surroundings) -> None:
        self._graph, self._surroundings = graph, surroundings
        self.domains: dict[str, KeyDomain] = {}
        self.variants: dict[Place, list[Variant]] = defaultdict(list)
        self.json: dict[Place, list[JsonKey]] = defaultdict(list)
        self.kept: dict[Place, str] = {}  # keys of people that are not re-issued, and why
        for node in graph.tables.values():
            for name in self._wanted(node):
                self._found(node, name)
        self._follow()
        self._narrow()
        self._note_kept()

    def clashes(self) -> Iterator[Clash]:
        """Yield columns that follow several domains in the same rows."""
        for (oid, column), variants in self.variants.items():
            always = {variant.domain for variant in variants if not variant.when}
            every = {variant.domain for variant in variants}
            if len(always) > 1 or (always and every != always):
                yield Clash(oid, column, tuple(sorted(every)))

    def people(self, node: TableNode) -> bool:
        """Whether rows of a table are people or belong to them."""
        oid = node.table.oid
        return oid != self._graph.controller and (
            bool(node.rule.columns) or bool(node.links) or any(subject.table == oid for subject in self._graph.subjects.values())
        )

    def _wanted(self, node: TableNode) -> tuple[str, ...]:
        rule = node.rule.rekey
        if isinstance(rule, tuple):
            return tuple(name for name in rule if name in node.table.by_name)
        if rule is False or (rule is None and not self.people(node)):
            return ()
        return self._default(node)

    def _default(self, node: TableNode) -> tuple[str, ...]:
        """Return the parts of the primary key to re-issue: a number or uuid that stands alone; among several a counted one or a uuid."""
        key = node.table.primary_key
        found: list[str] = []
        for name in key:
            kind, column = self._kind(node, name), node.table.by_name[name]
            counted = len(key) == 1 or kind.family is Family.UUID or column.identity or "nextval" in (column.default or "")
            named = name in node.rule.columns or self._names_a_parent(node, name)
            divides = name in self._surroundings.partition_keys.get(node.table.oid, ())
            if counted and not named and not divides and kind.family in {Family.INTEGER, Family.UUID}:
                found.append(name)
        return tuple(found)

    def _stays(self, node: TableNode) -> str:
        """Return why a key of people's rows is not re-issued."""
        key = node.table.primary_key
        if any(name in self._surroundings.partition_keys.get(node.table.oid, ()) for name in key):
            return "the table is partitioned by it"
        return f"it is {', '.join(self._kind(node, name).words for name in key)}; give it a category and a mask, or list it under rekey"

    def _note_kept(self) -> None:
        """Note the keys of people's rows of which no part is re-issued, masked, or follows another table's."""
        for node in self._graph.tables.values():
            key, oid = node.table.primary_key, node.table.oid
            if not self.people(node) or any((oid, name) in self.variants or name in node.rule.columns for name in key):
                continue
            why = "the map says rekey: false" if node.rule.rekey is False else self._stays(node)
            self.kept.update({(oid, name): why for name in key})

    def _kind(self, node: TableNode, name: str) -> Kind:
        return kind_of(node.table.by_name[name], self._surroundings.enums, self._surroundings.domain_limits)

    def _names_a_parent(self, node: TableNode, column: str) -> bool:
        declared = any(self._root(key.table) == node.table.oid and column in key.columns for key in self._graph.catalogue.foreign_keys)
        return declared or any(link.form is LinkForm.COLUMNS and column in link.columns for link in node.links)

    def _found(self, node: TableNode, column: str) -> None:
        name = f"{node.table.full_name}.{column}"
        self.domains[name] = KeyDomain(name, node.table.oid, node.table.full_name, column, self._kind(node, column))
        self.variants[node.table.oid, column].append(Variant(name))

    def _root(self, oid: int) -> int:
        return self._graph.catalogue.root(oid).oid

    def _follow(self) -> None:
        """Carry domains along every reference until none is new."""
        edges = list(self._edges())
        changed = True
        while changed:
            changed = False
            for child, parent, when in edges:
                for variant in list(self.variants.get(parent, ())):
                    new = Variant(variant.domain, tuple(sorted({*variant.when, *when}))) if not variant.when else None
                    if new is not None and not self._covered(child, new):
                        self.variants[child].append(new)
                        changed = True
        self._json_paths()

    def _narrow(self) -> None:
        """Limit each domain to numbers that all of its columns can hold."""
        for (oid, column), variants in self.variants.items():
            kind = kind_of(self._graph.catalogue.tables[oid].by_name[column], self._surroundings.enums)
            for domain in [self.domains[variant.domain] for variant in variants] if kind.family is Family.INTEGER else ():
                if kind.high < domain.kind.high:
                    self.domains[domain.name] = replace(domain, kind=replace(domain.kind, low=kind.low, high=kind.high))

    def _covered(self, place: Place, new: Variant) -> bool:
        return any(old == new or (old.domain == new.domain and not old.when) for old in self.variants.get(place, ()))

    def _edges(self) -> Iterator[tuple[Place, Place, tuple[tuple[str, str], ...]]]:
        for key in self._graph.catalogue.foreign_keys:
            for mine, theirs in zip(key.columns, key.referenced_columns, strict=True):
                yield (self._root(key.table), mine), (self._root(key.references), theirs), ()
        for node in self._graph.tables.values():
            for link in node.links:
                if link.form is not LinkForm.JSON:
                    for mine, theirs in zip(link.columns, link.parent_columns, strict=True):
                        yield (link.child, mine), (link.parent, theirs), link.when
        for reference in self._graph.references:
            for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True):
                yield (self._root(reference.child), mine), (reference.parent, theirs), ()

    def _json_paths(self) -> None:
        for node in self._graph.tables.values():
            for link in node.links:
                if link.form is not LinkForm.JSON:
                    continue
                for variant in self.variants.get((link.parent, link.parent_columns[0]), ()):
                    self.json[link.child, link.columns[0]].append(JsonKey(link.path, variant.domain))
