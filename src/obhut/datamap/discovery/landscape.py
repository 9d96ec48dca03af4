"""How the tables of a database lie around its people: who they are, who the controller is, how far each table is from a person."""

from __future__ import annotations

from collections import defaultdict, deque
from functools import cached_property
from typing import Final

from obhut.datamap import vocabulary
from obhut.datamap.discovery import names
from obhut.datamap.discovery.findings import Discovery
from obhut.datamap.discovery.references import People, Reference, references
from obhut.datamap.surroundings import Surroundings
from obhut.postgres.catalogue import Catalogue, ForeignKey, Table

_CONTACT: Final = ("user.contact.email", "user.account", "user.authorization.password")


class Landscape:
    """Everything that follows from the foreign keys and the verdicts; computed when asked for."""

    def __init__(self, catalogue: Catalogue, discovery: Discovery, surroundings: Surroundings) -> None:
        self.catalogue = catalogue
        self.discovery = discovery
        self.surroundings = surroundings
        self.tables = catalogue.roots

    @cached_property
    def keys(self) -> list[ForeignKey]:
        """Foreign keys between topmost tables; one for a key that every partition declares."""
        found: dict[tuple[int, tuple[str, ...], int], ForeignKey] = {}
        for key in self.catalogue.foreign_keys:
            found.setdefault((self.root(key.table), key.columns, self.root(key.references)), key)
        return list(found.values())

    def root(self, oid: int) -> int:
        """Return the oid of the topmost table above a partition."""
        return self.catalogue.root(oid).oid

    def keys_of(self, oid: int) -> list[ForeignKey]:
        """Return the foreign keys of a table's rows."""
        return self._keys_by_table.get(oid, [])

    def keys_to(self, oid: int) -> list[ForeignKey]:
        """Return the foreign keys that lead to a table."""
        return self._keys_by_parent.get(oid, [])

    @cached_property
    def _keys_by_table(self) -> dict[int, list[ForeignKey]]:
        found: dict[int, list[ForeignKey]] = defaultdict(list)
        for key in self.keys:
            found[self.root(key.table)].append(key)
        return found

    @cached_property
    def _keys_by_parent(self) -> dict[int, list[ForeignKey]]:
        found: dict[int, list[ForeignKey]] = defaultdict(list)
        for key in self.keys:
            found[self.root(key.references)].append(key)
        return found

    @cached_property
    def _ranks(self) -> dict[int, int]:
        return {table.oid: rank for rank, table in enumerate(self.subject_tables)}

    @cached_property
    def incoming(self) -> dict[int, int]:
        """Number of foreign keys of other tables that lead to a table."""
        counts: dict[int, int] = defaultdict(int)
        for key in self.keys:
            if self.root(key.table) != self.root(key.references):
                counts[self.root(key.references)] += 1
        return counts

    @cached_property
    def subject_tables(self) -> list[Table]:
        """Tables in which a row is a person: named so, or with a person's name and address for contact, and referenced."""
        scored: list[tuple[int, str, Table]] = []
        for table in self.tables:
            sure = set(self.discovery.sure(table.oid).values())
            words = names.about(table.name)
            contact = any(category.startswith(_CONTACT) for category in sure)
            person = any(category.startswith("user.name") for category in sure)
            score = 3 * ("person" in words and "event" not in words) + 2 * contact + 2 * person + min(2, self.incoming[table.oid])
            if table.primary_key and score >= 5 and (contact or person) and not self._is_detail(table):
                scored.append((-score, table.full_name, table))
        return [table for _, _, table in sorted(scored)]

    def _is_detail(self, table: Table) -> bool:
        """Whether a row only adds to another table's row: its primary key is a foreign key."""
        return any(set(key.columns) == set(table.primary_key) for key in self.keys_of(table.oid))

    @cached_property
    def controller(self) -> Table | None:
        """The table of the vendor's customers: named so, and reached from the people by a foreign key."""
        subjects = {table.oid for table in self.subject_tables}
        parents: dict[int, int] = defaultdict(int)
        for key in self.keys:
            if self.root(key.table) in subjects and self.root(key.references) not in subjects:
                parents[self.root(key.references)] += 1
        best = [
            (-parents[table.oid], -self.incoming[table.oid], table.full_name, table)
            for table in self.tables
            if table.oid not in subjects and table.primary_key and "controller" in names.about(table.name)
        ]
        return min(best)[3] if best else None

    @cached_property
    def distance(self) -> dict[int, int]:
        """Steps from a person, along links against foreign keys; people are at 0. The controller's own rows are nobody's."""
        controller = self.controller.oid if self.controller else -1
        found = {table.oid: 0 for table in self.subject_tables}
        waiting = deque(found)
        while waiting:
            oid = waiting.popleft()
            for child in self._children.get(oid, ()):
                if child not in found and child != controller:
                    found[child] = found[oid] + 1
                    waiting.append(child)
        return found

    @cached_property
    def _children(self) -> dict[int, set[int]]:
        children: dict[int, set[int]] = defaultdict(set)
        for key in self.keys:
            children[self.root(key.references)].add(self.root(key.table))
        for child, found in self.declared.items():
            for reference in found:
                children[reference.parent].add(child)
        return children

    @cached_property
    def declared(self) -> dict[int, list[Reference]]:
        """References without a foreign key, by child."""
        found: dict[int, list[Reference]] = {}
        people = People(self.subject_tables)
        for table in self.tables:
            bound = {name for key in self.keys_of(table.oid) for name in key.columns}
            if listed := references(table, people, bound, self.surroundings):
                found[table.oid] = listed
        return found

    @cached_property
    def shared(self) -> set[int]:
        """Tables with personal values that people reference instead of being referenced: an address, say."""
        people = {table.oid for table in self.subject_tables}
        controller = self.controller.oid if self.controller else -1
        found = set()
        for key in self.keys:
            parent = self.root(key.references)
            if self.root(key.table) in people and parent not in self.distance and self.discovery.sure(parent) and parent != controller:
                found.add(parent)
        return found

    def follows(self, key: ForeignKey) -> bool:
        """Whether a link goes along the key: the child is further from a person, and the key is its best way there."""
        child, parent = self.root(key.table), self.root(key.references)
        if child not in self.distance or parent not in self.distance or self.distance[child] == 0:
            return False
        people = [self.root(other.references) for other in self.keys_of(child) if self.distance.get(self.root(other.references)) == 0]
        # With several people in one row, the first by rank owns it; the others are only named in it.
        if parent in self._ranks and people:
            return parent == min(people, key=lambda oid: self._ranks[oid])
        return self.distance[parent] < self.distance[child] or parent not in self._ranks

    def way_to(self, table: Table, controller: Table) -> list[ForeignKey]:
        """Return the fewest foreign keys that lead from a table to another, or nothing."""
        before: dict[int, ForeignKey] = {}
        waiting = deque([table.oid])
        while waiting and controller.oid not in before:
            oid = waiting.popleft()
            for key in self.keys_of(oid):
                parent = self.root(key.references)
                if parent not in before and parent != table.oid:
                    before[parent] = key
                    waiting.append(parent)
        hops: list[ForeignKey] = []
        oid = controller.oid
        while oid in before and oid != table.oid:
            hops.insert(0, before[oid])
            oid = self.root(before[oid].table)
        return hops


def kind_of(table: Table) -> str:
    """Return the name of a kind of data subject for a table of people."""
    kind = "_".join(vocabulary.words(table.name)).encode("ascii", "ignore").decode().removesuffix("s")
    return kind or "person"
