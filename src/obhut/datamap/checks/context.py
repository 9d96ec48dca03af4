"""What every check sees, and the derived facts that several of them need."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from obhut.datamap.findings import Finding, Severity
from obhut.datamap.graph import Graph, Link, TableNode
from obhut.datamap.models import DatabaseMap, Treatment, Verb
from obhut.datamap.surroundings import Surroundings
from obhut.postgres.catalogue import Action, Catalogue, ForeignKey

Where = tuple[str | int, ...]


def verbs(treatment: Treatment | None) -> set[Verb]:
    """Return the verbs that a treatment can come to; ``keep`` ends in another one."""
    if treatment is None:
        return set()
    return {treatment.verb, treatment.then} if treatment.then else {treatment.verb}


@dataclass
class Context:
    """One database's map beside its catalogue. ``graph`` is None while names are unresolved."""

    database: str
    rules: DatabaseMap
    catalogue: Catalogue
    surroundings: Surroundings
    graph: Graph | None = None
    findings: list[Finding] = field(default_factory=list)

    def error(self, code: str, where: Where, fact: str, todo: str) -> None:
        """Add a finding that stops every run."""
        self.findings.append(Finding(code, (self.database, *where), fact, todo))

    def warn(self, code: str, where: Where, fact: str, todo: str) -> None:
        """Add a finding for the reviewer."""
        self.findings.append(Finding(code, (self.database, *where), fact, todo, Severity.WARNING))

    def info(self, code: str, where: Where, fact: str, todo: str) -> None:
        """Add a finding for the record."""
        self.findings.append(Finding(code, (self.database, *where), fact, todo, Severity.INFO))

    @property
    def resolved(self) -> Graph:
        """The graph of a map whose names are all resolved."""
        if self.graph is None:
            raise AssertionError("this check runs on a resolved map only")
        return self.graph

    @cached_property
    def subject_kinds(self) -> dict[int, list[str]]:
        """Subject kinds by their table."""
        kinds: dict[int, list[str]] = defaultdict(list)
        for kind, subject in self.resolved.subjects.items():
            kinds[subject.table].append(kind)
        return kinds

    @cached_property
    def links_by_parent(self) -> dict[int, list[Link]]:
        """Links by the table they lead to."""
        found: dict[int, list[Link]] = defaultdict(list)
        for node in self.resolved.tables.values():
            for link in node.links:
                found[link.parent].append(link)
        return found

    @cached_property
    def keys_to(self) -> dict[int, list[ForeignKey]]:
        """Foreign keys by the (topmost) table they reference; a key declared on each partition alike counts once."""
        found: dict[int, list[ForeignKey]] = defaultdict(list)
        seen: set[tuple[int, tuple[str, ...], int, tuple[str, ...]]] = set()
        for key in self.catalogue.foreign_keys:
            parent = self.catalogue.root(key.references).oid
            mark = (self.catalogue.root(key.table).oid, key.columns, parent, key.referenced_columns)
            if key.enforced and mark not in seen:
                seen.add(mark)
                found[parent].append(key)
        return found

    @cached_property
    def keys_from(self) -> dict[int, list[ForeignKey]]:
        """Foreign keys by the (topmost) table that holds the referencing columns."""
        found: dict[int, list[ForeignKey]] = defaultdict(list)
        for keys in self.keys_to.values():
            for key in keys:
                found[self.catalogue.root(key.table).oid].append(key)
        return found

    def link_along(self, key: ForeignKey) -> Link | None:
        """Return the link of the map that goes along a foreign key."""
        child, parent = self.catalogue.root(key.table).oid, self.catalogue.root(key.references).oid
        node = self.resolved.tables.get(child)
        pairs = set(zip(key.columns, key.referenced_columns, strict=True))
        for link in node.links if node else ():
            if link.parent == parent and not link.when and set(zip(link.columns, link.parent_columns, strict=True)) == pairs:
                return link
        return None

    def treatments(self, node: TableNode) -> Iterator[tuple[Where, Treatment, tuple[str, ...], bool]]:
        """Yield every treatment that rows of a table can meet.

        With it come the place where it is written, the columns it is about (empty: all), and whether it is that of an anonymisation.
        """
        place: Where = ("tables", node.table.full_name)
        for index, link in self.written_links(node):
            for anonymising in (False, True):
                if (treatment := link.treatment(anonymising=anonymising)) is not None:
                    yield (*place, "links", index), treatment, link.anonymises, anonymising
        for kind in self.subject_kinds.get(node.table.oid, ()):
            subject = self.resolved.subjects[kind]
            yield (*place, "erase"), subject.erase, (), False
            if subject.when_anonymised:
                yield (*place, "when_anonymised"), subject.when_anonymised, (), True
        if node.shared and node.rule.erase:
            yield (*place, "erase"), node.rule.erase, (), True

    def written_links(self, node: TableNode) -> Iterator[tuple[int, Link]]:
        """Yield links with their number in the file (all of them: the map is resolved)."""
        return iter(enumerate(node.links))

    @cached_property
    def deleted(self) -> set[int]:
        """Tables that lose rows in an erasure: by a treatment, or by ON DELETE CASCADE.

        Shared parents are left out: nothing references a row of theirs when it goes.
        """
        found = {
            oid
            for oid, node in self.resolved.tables.items()
            if not node.shared and any(Verb.DELETE in verbs(treatment) for _, treatment, _, _ in self.treatments(node))
        }
        waiting = deque(found)
        while waiting:
            for key in self.keys_to.get(waiting.popleft(), ()):
                child = self.catalogue.root(key.table).oid
                if key.on_delete is Action.CASCADE and child not in found:
                    found.add(child)
                    waiting.append(child)
        return found

    @cached_property
    def reached(self) -> set[int]:
        """Tables with rows that belong to a person, shared parents included; a link that is only unlinked leads no further."""
        found = set(self.subject_kinds)
        waiting = deque(found)
        references: dict[int, list[int]] = defaultdict(list)
        for reference in self.resolved.references:
            references[self.catalogue.root(reference.child).oid].append(reference.parent)
        through: set[int] = set()
        while waiting:
            oid = waiting.popleft()
            if oid in through:
                continue
            through.add(oid)
            for link in self.links_by_parent.get(oid, ()):
                found.add(link.child)
                if verbs(link.erase) != {Verb.UNLINK}:
                    waiting.append(link.child)
            for parent in references.get(oid, ()):
                found.add(parent)
                waiting.append(parent)
        return found

    def nodes(self, oids: Iterable[int]) -> list[TableNode]:
        """Return nodes of the graph, by name."""
        return sorted((self.resolved.tables[oid] for oid in oids if oid in self.resolved.tables), key=lambda node: node.table.full_name)
