"""Whose row it is: controller and data subjects of a changed row, from the data map's graph.

A row names its people by its own key, by links that lead up to them, or (a shared parent, such as an address) by rows that point at it.
What the row itself does not hold is looked for in rows that the stream has shown, then in the live database, one query a table and
batch. A parent that is nowhere any more leaves the row unresolved: the caller logs it as unassigned, it is never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from obhut.auditlog.capture.texts import array_items, json_items
from obhut.datamap.graph import Graph, Link, LinkForm, Reference, Subject

Record = Mapping[str, str | None]  # columns of a row that tell whose it is, as text
Shown = tuple[int, Record, bool]  # table, row, and whether its people are asked for
Key = tuple[str, ...]
Fetch = Callable[[int, tuple[str, ...], Sequence[Key], tuple[str, ...]], Iterator[Record]]
BOUND: Final = 100_000  # rows remembered
_DEPTH: Final = 12  # hops from a row to its people, at the most


class Owner(NamedTuple):
    """A data subject: key of its controller in the database, kind and key as the data map names them."""

    controller: Key
    kind: str
    key: Key


class Claim(NamedTuple):
    """A person whom a row is about. ``link`` is the way the row leads to it; None for the person's own row and for shared parents."""

    owner: Owner
    link: Link | None


class _Missing(Exception):  # noqa: N818 - control flow inside this module
    """A row is needed that is not known yet."""


class Owners:
    """Resolves rows of one database; keeps what it has learned, up to a bound.

    Args:
        graph: the data map resolved against the database.
        fetch: returns the columns asked for of the live rows whose key columns have one of the values:
            ``fetch(table, key columns, values, columns)``.
        bound: rows remembered at the most.
    """

    def __init__(self, graph: Graph, fetch: Fetch, bound: int = BOUND) -> None:
        self._graph = graph
        self._fetch = fetch
        self._bound = bound
        self._subjects = _grouped((subject.table, subject) for subject in graph.subjects.values())
        self._shared = _grouped((reference.parent, reference) for reference in graph.references)
        self._parents = _named_keys(graph)  # table: sets of columns by which others name its rows
        self._children = _grouped((reference.child, reference) for reference in graph.references)
        self._needed: dict[int, tuple[str, ...]] = {}
        self._known: dict[tuple[int, tuple[str, ...]], dict[Key, Record]] = {}
        self._pointing: dict[Reference, dict[Key, list[Record]]] = {}
        self._asked: dict[tuple[int, tuple[str, ...]], set[Key]] = {}
        self._asked_pointing: dict[Reference, set[Key]] = {}
        self._wanted: dict[tuple[int, tuple[str, ...]], set[Key]] = {}
        self._wanted_pointing: dict[Reference, set[Key]] = {}

    def columns(self, table: int) -> tuple[str, ...]:
        """Return the columns of a table that tell whose a row is."""
        if table not in self._needed:
            self._needed[table] = tuple(dict.fromkeys(self._columns(table)))
        return self._needed[table]

    def named(self, table: int) -> bool:
        """Whether rows of other tables may lead to their people through a row of this one, or the other way round."""
        return table in self._parents or table in self._children

    def alone(self, table: int) -> bool:
        """Whether a row of a table names its people by its own values, so that no other row is ever looked for."""
        node = self._graph.tables.get(table)
        return bool(self._subjects.get(table)) and table not in self._shared and not (node and node.links) and all(
            not subject.controller_path or self._ends(subject.controller_path[0]) for subject in self._subjects[table]
        )  # fmt: skip

    def led(self, table: int) -> Link | None:
        """Return the link by which rows of a table are of one person and nobody else, whose own row names it (see :meth:`alone`)."""
        node = self._graph.tables.get(table)
        if node is None or len(node.links) != 1 or self._subjects.get(table) or table in self._shared:
            return None
        (link,) = node.links
        plain = link.form is LinkForm.COLUMNS and not link.when and self.alone(link.parent)
        return link if plain and [subject.key for subject in self._subjects[link.parent]] == [link.parent_columns] else None

    def leads(self, table: int) -> tuple[str, ...] | None:
        """Return the columns by which rows of other tables are led to the people of this one (see :meth:`led`); None where none are."""
        found = (self.led(other) for other in self._graph.tables)
        return next((link.parent_columns for link in found if link is not None and link.parent == table), None)

    def claims(self, table: int, record: Record) -> tuple[Claim, ...] | None:
        """Return the people of a row that names them itself (see :meth:`alone`); None where a value is missing."""
        try:
            return self._claims(table, record, 0)
        except _Missing:
            return None

    def resolve(self, rows: Sequence[Shown]) -> list[tuple[Claim, ...] | None]:
        """Return the people of each row, in the order of the stream; None where that cannot be told, or was not asked.

        A row without any person (all its links are null) has no claims: the empty tuple.
        """
        self._begin()
        results: list[tuple[Claim, ...] | None] = [None] * len(rows)
        pending: list[int] = []
        for number, (table, record, asked) in enumerate(rows):
            if self.named(table):
                self._learn(table, record)  # as it stood when the next row was changed, not as it stands at the end
            if asked and not self._found(results, number, table, record):
                pending.append(number)
        for _ in range(_DEPTH):
            if not pending or not (self._wanted or self._wanted_pointing):
                break
            self._look_up()
            pending = [number for number in pending if not self._found(results, number, *rows[number][:2])]
        return results

    def _found(self, results: list[tuple[Claim, ...] | None], number: int, table: int, record: Record) -> bool:
        try:
            results[number] = self._claims(table, record, 0)
        except _Missing:
            return False
        return True

    # -- what the stream shows ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._asked.clear()
        self._asked_pointing.clear()
        self._wanted.clear()
        self._wanted_pointing.clear()
        for known in self._known.values():
            _trim(known, self._bound)
        for pointing in self._pointing.values():
            _trim(pointing, self._bound)

    def _learn(self, table: int, record: Record) -> None:
        for columns in self._parents.get(table, ()):
            key = _values(record, columns)
            if key is not None:
                self._known.setdefault((table, columns), {})[key] = record
        for reference in self._children.get(table, ()):
            key = _values(record, reference.columns)
            if key is not None:
                seen = self._pointing.setdefault(reference, {}).setdefault(key, [])
                if record not in seen:
                    seen.append(record)

    # -- from a row to its people ---------------------------------------------------------------------------------------------

    def _claims(self, table: int, record: Record, depth: int) -> tuple[Claim, ...]:
        if depth > _DEPTH:
            raise _Missing
        found: dict[Claim, None] = {}
        for subject in self._subjects.get(table, ()):
            found[Claim(self._owner(subject, record), None)] = None
        node = self._graph.tables.get(table)
        for link in node.links if node else ():
            for owner in self._through(link, record, depth):
                found[Claim(owner, link)] = None
        for reference in self._shared.get(table, ()):
            key = _values(record, reference.parent_columns)
            for child in self._pointing_at(reference, key) if key else ():
                for claim in self._claims(reference.child, child, depth + 1):
                    found[Claim(claim.owner, None)] = None
        return tuple(found)

    def _owner(self, subject: Subject, record: Record) -> Owner:
        key = _values(record, subject.key)
        if key is None:
            raise _Missing
        return Owner(self._controller(subject, record), subject.kind, key)

    def _controller(self, subject: Subject, record: Record) -> Key:
        for hop in subject.controller_path:
            named = _values(record, hop.columns)
            if named is None:
                raise _Missing
            if self._ends(hop):
                by_name = dict(zip(hop.parent_columns, named, strict=True))
                return tuple(by_name[name] for name in self._graph.controller_key)
            record = self._row(hop.parent, hop.parent_columns, named)
        key = _values(record, self._graph.controller_key)
        if key is None:
            raise _Missing
        return key

    def _ends(self, hop: Link) -> bool:
        """Whether a row names its controller by this hop's own columns."""
        return hop.parent == self._graph.controller and set(self._graph.controller_key) <= set(hop.parent_columns)

    def _through(self, link: Link, record: Record, depth: int) -> Iterator[Owner]:
        if any(value not in _readings(record.get(column)) for column, value in link.when):
            return
        for key in _named(link, record):
            direct = next((s for s in self._subjects.get(link.parent, ()) if s.key == link.parent_columns), None)
            parent = self._row(link.parent, link.parent_columns, key)
            if direct is not None:
                yield self._owner(direct, parent)
            else:
                for claim in self._claims(link.parent, parent, depth + 1):
                    yield claim.owner

    # -- rows that are needed -------------------------------------------------------------------------------------------------

    def _row(self, table: int, columns: tuple[str, ...], key: Key) -> Record:
        place = table, columns
        found = self._known.get(place, {}).get(key)
        if found is not None:
            return found
        if key not in self._asked.get(place, ()):
            self._wanted.setdefault(place, set()).add(key)
        raise _Missing

    def _pointing_at(self, reference: Reference, key: Key) -> list[Record]:
        if key not in self._asked_pointing.get(reference, ()):
            self._wanted_pointing.setdefault(reference, set()).add(key)
            raise _Missing
        return self._pointing.get(reference, {}).get(key, [])

    def _look_up(self) -> None:
        wanted, self._wanted = self._wanted, {}
        for (table, columns), keys in wanted.items():
            self._asked.setdefault((table, columns), set()).update(keys)
            for record in self._fetch(table, columns, sorted(keys), self._all_columns(table, columns)):
                self._learn(table, record)
        pointing, self._wanted_pointing = self._wanted_pointing, {}
        for reference, keys in pointing.items():
            self._asked_pointing.setdefault(reference, set()).update(keys)
            columns = self._all_columns(reference.child, reference.columns)
            for record in self._fetch(reference.child, reference.columns, sorted(keys), columns):
                self._learn(reference.child, record)

    def _all_columns(self, table: int, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*columns, *self.columns(table))))

    def _columns(self, table: int) -> Iterator[str]:
        for subject in self._subjects.get(table, ()):
            yield from subject.key
            yield from subject.controller_path[0].columns if subject.controller_path else ()
        node = self._graph.tables.get(table)
        for link in node.links if node else ():
            yield from link.columns
            yield from (column for column, _ in link.when)
        for reference in self._shared.get(table, ()):
            yield from reference.parent_columns
        for reference in self._children.get(table, ()):
            yield from reference.columns
        for columns in self._parents.get(table, ()):
            yield from columns
        for subject in self._graph.subjects.values():
            for hop, following in zip(subject.controller_path, subject.controller_path[1:], strict=False):
                if hop.parent == table:
                    yield from following.columns
        if table == self._graph.controller:
            yield from self._graph.controller_key


def _named_keys(graph: Graph) -> dict[int, set[tuple[str, ...]]]:
    """Return by which columns rows of each table are named by others."""
    found: dict[int, set[tuple[str, ...]]] = {}
    links = [link for node in graph.tables.values() for link in node.links]
    for link in (*links, *(hop for subject in graph.subjects.values() for hop in subject.controller_path)):
        found.setdefault(link.parent, set()).add(link.parent_columns)
    return found


def _named(link: Link, record: Record) -> list[Key]:
    """Return the keys that a row names by a link."""
    if link.form is LinkForm.COLUMNS:
        key = _values(record, link.columns)
        return [] if key is None else [key]
    text = record.get(link.columns[0])
    if text is None:
        return []
    items = array_items(text) if link.form is LinkForm.ARRAY else json_items(text, link.path)
    return [(item,) for item in dict.fromkeys(items) if item is not None]


def _values(record: Record, columns: tuple[str, ...]) -> Key | None:
    """Return the values of columns; None when one is null or not known."""
    found = []
    for column in columns:
        value = record.get(column)
        if value is None:
            return None
        found.append(value)
    return tuple(found)


def _readings(text: str | None) -> tuple[str | None, ...]:
    """Return a value as it stands and as the data map writes booleans; PostgreSQL sends t and f."""
    return (text, {"t": "true", "f": "false"}.get(text)) if text else (text,)


def _grouped(pairs: Any) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _trim(known: dict[Key, Any], bound: int) -> None:
    """Forget the oldest half of a full memory."""
    if len(known) > bound:
        for key in list(known)[: len(known) // 2]:
            del known[key]
