"""References that no foreign key declares: polymorphic pairs, arrays of keys, columns named after a table of people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from obhut.datamap import vocabulary
from obhut.datamap.discovery.looking import JSON, TEXT
from obhut.datamap.proposal import LinkProposal
from obhut.datamap.surroundings import Surroundings
from obhut.datamap.writing import scalar
from obhut.postgres.catalogue import Column, Table

_TYPE_SUFFIXES: Final = ("_type", "_kind", "_class", "_typ")


@dataclass(frozen=True, slots=True)
class Reference:
    """A link that names prove, and the table it leads to."""

    parent: int
    link: LinkProposal


@dataclass(frozen=True, slots=True)
class _Person:
    """A table of people with what a column that holds its key may be called."""

    table: Table
    key: Column
    stems: frozenset[str]
    names: frozenset[str]


class People:
    """The tables of people of a database, looked up by the names that their keys have elsewhere."""

    def __init__(self, tables: Iterable[Table]) -> None:
        self.all = [_person(table) for table in tables if len(table.primary_key) == 1]
        self.by_name: dict[str, list[_Person]] = {}
        for person in self.all:
            for name in person.names:
                self.by_name.setdefault(name, []).append(person)


def _person(table: Table) -> _Person:
    key = table.by_name[table.primary_key[0]]
    stems = frozenset({table.name, table.name.rstrip("s"), table.name.removesuffix("es"), table.name.removesuffix("n")})
    ids = {f"{stem}_{end}" for stem in stems for end in ("id", "ids", "no", "nr", key.name)}
    return _Person(table, key, stems, frozenset(ids | ({key.name, f"{key.name}s"} - {"id", "ids"})))


def references(table: Table, people: People, bound: set[str], surroundings: Surroundings) -> list[Reference]:
    """Return the references of a table's columns to tables of people.

    Args:
        table: the table.
        people: tables in which a row is a person.
        bound: columns of foreign keys, which need no guess.
        surroundings: enums, for the value that stands for a table in a polymorphic pair.
    """
    found = []
    for column in table.columns:
        if column.name in bound or column.is_generated or column.name in table.primary_key or column.base_type in JSON:
            continue
        kind = _kind_column(table, column)
        for person in people.all if kind is not None else _called(column, people):
            if person.table.oid != table.oid and (link := _link(column, kind, person, surroundings)):
                found.append(Reference(person.table.oid, link))
    return found


def _called(column: Column, people: People) -> list[_Person]:
    """Return the people whose key the column's name stands for, in the order in which they were found."""
    name = column.name.lower()
    singular = people.by_name.get(name.removesuffix("s"), []) if column.category == "A" else []
    return list({person.table.oid: person for person in [*people.by_name.get(name, []), *singular]}.values())


def _link(column: Column, kind: Column | None, person: _Person, surroundings: Surroundings) -> LinkProposal | None:
    key, base, name = person.key, column.base_type, column.name.lower()
    to = person.table.full_name
    if column.category == "A" and base == f"{key.base_type}[]" and {name, name.removesuffix("s")} & person.names:
        return LinkProposal(to, f"array: {scalar(column.name)}, erase: unlink", "an array of keys by its name; is it so?")
    if kind is not None and (base == key.base_type or base in TEXT):
        return _pair(column, kind, person.table, key, _value(kind, person, surroundings))
    if name in person.names and base == key.base_type:
        return LinkProposal(to, f"columns: {{{scalar(column.name)}: {scalar(key.name)}}}", "no foreign key says so, only the name")
    return None


def _kind_column(table: Table, column: Column) -> Column | None:
    """Return the column that says to which table a polymorphic key leads."""
    if not column.name.lower().endswith("_id"):
        return None
    stem = column.name.removesuffix("_id")
    kinds = (table.by_name.get(stem + suffix) for suffix in _TYPE_SUFFIXES)
    return next((kind for kind in kinds if kind is not None and (kind.base_type in TEXT or kind.category == "E")), None)


def _value(kind: Column, person: _Person, surroundings: Surroundings) -> str:
    labels = surroundings.enums.get(kind.type, ())
    known = next((label for label in labels if label.lower().rstrip("s") in person.stems), None)
    return known or "".join(word.capitalize() for word in vocabulary.words(person.table.name.removesuffix("s")))


def _pair(column: Column, kind: Column, subject: Table, key: Column, value: str) -> LinkProposal:
    text = f"columns: {{{scalar(column.name)}: {scalar(key.name)}}}, when: {{{scalar(kind.name)}: {scalar(value)}}}"
    return LinkProposal(subject.full_name, text, f"a polymorphic pair by its names; which value of {kind.name} stands for {subject.name}?")
