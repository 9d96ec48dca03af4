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


def references(table: Table, people: Iterable[Table], bound: set[str], surroundings: Surroundings) -> list[Reference]:
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
        for subject in people:
            if len(subject.primary_key) == 1 and subject.oid != table.oid and (link := _link(table, column, subject, surroundings)):
                found.append(Reference(subject.oid, link))
    return found


def _link(table: Table, column: Column, subject: Table, surroundings: Surroundings) -> LinkProposal | None:
    key = subject.by_name[subject.primary_key[0]]
    stems = {subject.name, subject.name.rstrip("s"), subject.name.removesuffix("es"), subject.name.removesuffix("n")}
    name, base = column.name.lower(), column.base_type
    ids = {f"{stem}_{end}" for stem in stems for end in ("id", "ids", "no", "nr", key.name)} | ({key.name, f"{key.name}s"} - {"id", "ids"})
    if column.category == "A" and base == f"{key.base_type}[]" and (name in ids or name.removesuffix("s") in ids):
        return LinkProposal(subject.full_name, f"array: {scalar(column.name)}, erase: unlink", "an array of keys by its name; is it so?")
    kind = _kind_column(table, column)
    if kind is not None and (base == key.base_type or base in TEXT):
        return _pair(column, kind, subject, key, _value(kind, subject, stems, surroundings))
    if name in ids and base == key.base_type:
        text = f"columns: {{{scalar(column.name)}: {scalar(key.name)}}}"
        return LinkProposal(subject.full_name, text, "no foreign key says so, only the name")
    return None


def _kind_column(table: Table, column: Column) -> Column | None:
    """Return the column that says to which table a polymorphic key leads."""
    if not column.name.lower().endswith("_id"):
        return None
    stem = column.name.removesuffix("_id")
    kinds = (table.by_name.get(stem + suffix) for suffix in _TYPE_SUFFIXES)
    return next((kind for kind in kinds if kind is not None and (kind.base_type in TEXT or kind.category == "E")), None)


def _value(kind: Column, subject: Table, stems: set[str], surroundings: Surroundings) -> str:
    labels = surroundings.enums.get(kind.type, ())
    known = next((label for label in labels if label.lower().rstrip("s") in stems), None)
    return known or "".join(word.capitalize() for word in vocabulary.words(subject.name.removesuffix("s")))


def _pair(column: Column, kind: Column, subject: Table, key: Column, value: str) -> LinkProposal:
    text = f"columns: {{{scalar(column.name)}: {scalar(key.name)}}}, when: {{{scalar(kind.name)}: {scalar(value)}}}"
    return LinkProposal(subject.full_name, text, f"a polymorphic pair by its names; which value of {kind.name} stands for {subject.name}?")
