"""What is known of a relation before its rows come: the map's rule for it, and which of its values tell whose a row is.

Most changes are of rows about one person that name it themselves. For those the answer depends on a few values, so it is remembered by
them, up to a bound; what it depends on besides (map, catalogue, controllers) makes the writer forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

from obhut.auditlog.capture.owners import Owners, Record
from obhut.auditlog.capture.pgoutput import Change, Relation, Value, Values
from obhut.controllers.vocabulary import SubjectRef
from obhut.datamap.graph import TableNode

PEOPLE: Final = 100_000  # remembered at the most
Raw = tuple[Value, ...]


class Whose:
    """A person in the log of a controller. One object a person, compared by identity: a batch asks for it thousands of times."""

    __slots__ = ("controller", "ref")

    def __init__(self, controller: str, ref: SubjectRef) -> None:
        self.controller = controller
        self.ref = ref


class Form:
    """A captured relation.

    Attributes:
        relation: as the stream describes it.
        node: the map's rule for it or its partitioned root.
        table: full name of the table that the map knows.
        key: columns of its primary key.
        alone: a row names its people by its own values, without other rows.
        named: other rows may name people through it, so all its rows are shown to the owners.
        seen: people by the values that name them.
        parent: the table of people that every row is led to by one link alone; None for other relations.
        person: gives the key of that person, or of this relation's own where others are led to it; None where nobody is.
    """

    __slots__ = ("_layout", "_pick", "alone", "key", "named", "node", "oid", "parent", "person", "relation", "seen", "table")

    def __init__(self, relation: Relation, node: TableNode, owners: Owners) -> None:
        self.relation = relation
        self.node = node
        self.oid = node.table.oid
        self.table = node.table.full_name
        self.key = node.table.primary_key
        self.alone = owners.alone(self.oid)
        self.named = owners.named(self.oid)
        self.seen: dict[Raw, tuple[Whose, Record]] = {}
        needed = set(owners.columns(self.oid))
        self._layout = [(number, column.name) for number, column in enumerate(relation.columns) if column.name in needed]
        self._pick = _picker([number for number, _ in self._layout])
        link = owners.led(self.oid)
        leading = link.columns if link else owners.leads(self.oid)
        numbers = {column.name: number for number, column in enumerate(relation.columns)}
        there = leading is not None and set(leading) <= set(numbers)
        self.parent = link.parent if link and there else None
        self.person = _picker([numbers[name] for name in leading or ()]) if there else None

    def raw(self, change: Change) -> Raw | None:
        """Return the values that tell whose a row is; None where they changed or were not all sent."""
        old, new = change.old, change.new
        if change.partial or change.lacking:
            return None
        if new is None:
            return self._pick(old)
        raw = self._pick(new)
        return raw if old is None or self._pick(old) == raw else None

    def record(self, values: Values) -> Record:
        """Return the columns that tell whose a row is; what was not sent is as good as null."""
        found: dict[str, str | None] = {}
        for number, name in self._layout:
            value = values[number]
            found[name] = value.decode("utf-8", "backslashreplace") if type(value) is bytes else None
        return found


def _picker(numbers: Sequence[int]) -> Callable[[Any], Raw]:
    if len(numbers) > 1:
        return itemgetter(*numbers)
    return lambda values: tuple(values[number] for number in numbers)
