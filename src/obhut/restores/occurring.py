"""Which of the listed keys occur in a database: the others need not be laid beside its tables when absence is asked about.

Everybody on the list is asked about. But of a million erased people a database that was restored knows a few thousand keys at the most;
numbers and UUIDs are therefore compared as sets here, and only the keys that meet go to the server, which then answers by a join as it
does for a short list. A key that is left out stands in no column that could name the person, so no join could have found it. Keys of
other types all go. Shares nothing with :mod:`~obhut.restores.people`, which finds the people for the filter by a join in the control
database: what one of them overlooked the other would show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pyroaring import BitMap64

from obhut.datamap.graph import Graph, Link, LinkForm, Subject
from obhut.erasure import reading
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier

Part = tuple[int, list[str]]
_BLOCK: Final = 1 << 18  # octets of keys that are read at once
_ALL_64: Final = (1 << 64) - 1


def _of_number(text: str) -> int:
    return int(text) & _ALL_64


def _of_uuid(text: str) -> int:
    """Return the last 64 bits: two UUIDs that share them both go to the server, which tells them apart."""
    return int(text[19:23] + text[24:], 16)


# By type: which types of columns its values are compared with, and the mark of a value in PostgreSQL's output format; equal values have
# equal marks.
_MARKS: Final[dict[str, tuple[frozenset[str], Callable[[str], int]]]] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), (frozenset({"smallint", "integer", "bigint"}), _of_number)),
    "uuid": (frozenset({"uuid"}), _of_uuid),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A database that the list is laid beside.

    Attributes:
        session: on the database.
        graph: the data map resolved against it.
        links: whether columns that name a person without an enforced foreign key are asked too.
    """

    session: Session
    graph: Graph
    links: bool


class Listed:
    """The keys of the open tombstones up to a size of the list, read once for all the databases they are laid beside."""

    def __init__(self, size: int, **places: Place) -> None:
        self._size = size
        self._places = places
        self._met: dict[tuple[str, str], list[Part] | None] = {}

    def arrays(self, name: str, kind: str) -> Iterator[Part]:
        """Yield the keys of a kind of data subject that occur in the place of that name, and of how many people they are.

        Yields:
            How many people a part of the list holds, and the literals of numbers and keys: see :func:`obhut.erasure.reading.key_arrays`;
            none where no key of the part occurs.
        """
        if (name, kind) not in self._met:
            self._meet(kind)
        found = self._met[name, kind]
        if found is not None:
            yield from found
            return
        graph = self._places[name].graph
        yield from reading.key_arrays(graph.database, kind, len(graph.subject(kind).key), as_of=self._size)

    def _meet(self, kind: str) -> None:
        there = {name: _occurring(place, place.graph.subject(kind)) for name, place in self._places.items()}
        for name, marks in there.items():
            self._met[name, kind] = None if marks is None else []
        asked = {name: marks for name, marks in there.items() if marks is not None}
        if not asked:
            return
        graph = next(iter(self._places.values())).graph
        mark = _MARKS[graph.subject(kind).key_types[0]][1]
        for lines in reading.key_lines(graph.database, kind, as_of=self._size):
            words = lines.replace("\t", "\n").split("\n")  # in the keys either is escaped
            try:
                part = _Part(words[:-1:2], words[1::2], list(map(mark, words[1::2])))
            except ValueError:  # no value of its type: all of them go, and the server says so
                self._met.update(((name, kind), None) for name in asked)
                return
            for name, marks in asked.items():
                self._met[name, kind].append((len(part.keys), part.met(marks)))  # type: ignore[union-attr]  # those asked have a list


class _Part(NamedTuple):
    """A part of the list, as text of numbers and keys, and marks of the keys."""

    numbers: Sequence[str]
    keys: Sequence[str]
    marks: Sequence[int]

    def met(self, there: BitMap64) -> list[str]:
        """Return the literals of what occurs; none where nothing does."""
        met = BitMap64(self.marks) & there
        if not met:
            return []
        chosen = [(number, key) for number, key, mark in zip(self.numbers, self.keys, self.marks, strict=True) if mark in met]
        return ["{" + ",".join(column) + "}" for column in zip(*chosen, strict=True)]


def _occurring(place: Place, subject: Subject) -> BitMap64 | None:
    """Return the marks of all keys of a kind of data subject that a database holds; None where they cannot be compared here."""
    if len(subject.key) != 1 or subject.key_types[0] not in _MARKS:
        return None
    graph = place.graph
    alike, mark = _MARKS[subject.key_types[0]]
    queries: list[Composable] = [
        SQL("SELECT {} FROM {}").format(Identifier(subject.key[0]), graph.catalogue.tables[subject.table].relation)
    ]
    for link in graph.links_to(subject.table) if place.links else ():
        if link.foreign_key is not None and link.foreign_key.validated and link.foreign_key.enforced:
            continue  # what it names has a row
        query = _naming(graph, subject, link, alike)
        if query is None:
            return None
        queries.append(query)
    found = BitMap64()
    for query in queries:
        for text in _blocks(place.session, query):
            found.update(map(mark, text.split()))
    return found


def _naming(graph: Graph, subject: Subject, link: Link, alike: frozenset[str]) -> Composable | None:
    child = graph.catalogue.tables[link.child]
    if link.form is LinkForm.JSON or link.parent_columns != subject.key or len(link.columns) != 1:
        return None
    column = child.by_name[link.columns[0]]
    if column.base_type.removesuffix("[]") not in alike:
        return None
    value = SQL("unnest({})").format(Identifier(column.name)) if link.form is LinkForm.ARRAY else Identifier(column.name)
    return SQL("SELECT v FROM (SELECT DISTINCT {} AS v FROM {}) AS named WHERE v IS NOT NULL").format(value, child.relation)


def _blocks(session: Session, query: Composable) -> Iterator[str]:
    held = bytearray()
    for block in session.copy_out(SQL("COPY ({}) TO STDOUT").format(query)):
        held += block
        if len(held) >= _BLOCK:
            yield held.decode()
            held.clear()
    yield held.decode()
