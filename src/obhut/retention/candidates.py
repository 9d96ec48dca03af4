"""Who is inactive: asked of the protected database, set by set, in one statement for all controllers with the same terms.

A person counts as long as anything personal is left in the person's own row: whoever is anonymised already is no candidate, whatever the
erasure list has forgotten meanwhile. Somebody about whom nothing is known (no moment at all) is never a candidate, but counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from obhut.datamap.activity import Source, sources
from obhut.datamap.graph import Graph, Link, Subject
from obhut.datamap.models import Verb
from obhut.erasure.queries import array_literal
from obhut.erasure.subjects import controller_columns
from obhut.masking import expressions
from obhut.postgres.catalogue import Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, Literal, trusted

Key = tuple[str, ...]
_ZONED = "timestamp with time zone"
_DISTINCT = SQL("{} IS DISTINCT FROM {}")
_OfColumn = Callable[[Identifier], Composable]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one controller: people with personal data, those without any moment, and those last seen before each of two moments."""

    people: int = 0
    unknown: int = 0
    due: int = 0
    soon: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person last seen before the moment asked for; the key is personal data."""

    controller: str  # canonical key
    key: Key
    seen: date | None  # the day of the last activity in the time zone asked for

    def __repr__(self) -> str:
        """Return a text without the key."""
        return "<Candidate>"


class Inactivity:
    """Questions about one kind of person in one time zone.

    Args:
        session: on the protected database; one of its own where locks are held elsewhere.
        graph: the data map resolved against it.
        kind: subject kind of the map.
        zone: IANA name; dates and times without a zone are read in it.
    """

    def __init__(self, session: Session, graph: Graph, kind: str, zone: str) -> None:
        self._session = session
        self._graph = graph
        self._subject: Subject = graph.subject(kind)
        self._table: Table = graph.catalogue.tables[self._subject.table]
        self._zone = Literal(zone)
        self._sources = sources(graph, self._subject)
        created = (Source(column=self._subject.created),) if self._subject.created else ()
        self._own = [self._table.by_name[source.column] for source in (*created, *self._sources) if source.column and not source.table]
        self._children = [source for source in self._sources if source.table]
        self._expressions = [trusted(source.sql.replace("%", "%%")) for source in self._sources if source.sql]

    # -- questions ------------------------------------------------------------------------------------------------------------

    def figures(self, due: datetime, soon: datetime) -> dict[str, Figures]:
        """Return the figures of each controller by its canonical key; ``soon`` is the later of the two moments."""
        everybody = self._grouped(SQL("true"))
        unknown = self._grouped(SQL("NOT ({})").format(self._known()))
        before = [self._grouped(self._inactive(moment)) for moment in (due, soon)]
        return {
            controller: Figures(number, unknown.get(controller, 0), before[0].get(controller, 0), before[1].get(controller, 0))
            for controller, number in everybody.items()
        }

    def select(self, before: datetime, controllers: Sequence[str], most: int, without: Collection[Key]) -> list[Candidate]:
        """Return people of these controllers (canonical keys) last seen before a moment, at most so many of each.

        Args:
            before: the moment.
            controllers: whose people.
            most: people a controller at the most.
            without: keys to leave out.
        """
        condition, parameters = self._without(without)
        owner, joins = self._controller()
        keys = SQL(", ").join(Identifier("s", name) for name in self._subject.key)
        query = SQL(
            "SELECT c, k, seen FROM (SELECT {owner} AS c, jsonb_build_array({texts}) AS k, {seen} AS seen,"
            " row_number() OVER (PARTITION BY {owner} ORDER BY {keys}) AS n"
            " FROM {people}{joins} WHERE {owner} = ANY(%s::text[]) AND s.obhut_personal AND {inactive} AND {condition}) AS found"
            " WHERE n <= %s"
        ).format(
            owner=owner,
            texts=SQL(", ").join(SQL("{}::text").format(Identifier("s", name)) for name in self._subject.key),
            seen=self._seen(),
            keys=keys,
            people=self._people(),
            joins=joins,
            inactive=self._inactive(before),
            condition=condition,
        )
        rows = self._session.rows(query, [list(controllers), *parameters, most])
        return [Candidate(controller, tuple(key), _day(seen)) for controller, key, seen in rows]

    def still(self, before: datetime, keys: Sequence[Key]) -> set[Key]:
        """Return those of the people who are there, have personal data, and were last seen before a moment."""
        return self._of(keys, SQL("s.obhut_personal AND {}").format(self._inactive(before)))

    def returned(self, before: datetime, keys: Sequence[Key]) -> set[Key]:
        """Return those of the people who have personal data and were seen since a moment, or of whom nothing is known."""
        return self._of(keys, SQL("s.obhut_personal AND NOT {}").format(self._inactive(before)))

    # -- parts ----------------------------------------------------------------------------------------------------------------

    def _grouped(self, condition: Composable) -> dict[str, int]:
        owner, joins = self._controller()
        query = SQL("SELECT {owner}, count(*) FROM {people}{joins} WHERE s.obhut_personal AND {condition} GROUP BY 1").format(
            owner=owner, people=self._people(), joins=joins, condition=condition
        )
        return {str(controller): number for controller, number in self._session.rows(query, []) if controller is not None}

    def _of(self, keys: Sequence[Key], condition: Composable) -> set[Key]:
        if not keys:
            return set()
        names = [Identifier(f"obhut_k{position}") for position in range(len(self._subject.key))]
        on = SQL(" AND ").join(
            SQL("s.{} = k.{}").format(Identifier(mine), asked) for mine, asked in zip(self._subject.key, names, strict=True)
        )
        query = SQL("SELECT k.n FROM unnest({arrays}) WITH ORDINALITY AS k({names}, n) JOIN {people} ON {on} WHERE {condition}").format(
            arrays=self._arrays(), names=SQL(", ").join(names), people=self._people(), on=on, condition=condition
        )
        return {keys[number - 1] for (number,) in self._session.rows(query, self._literals(keys))}

    def _people(self) -> Composable:
        """The kind's rows as ``s``, with a column that tells whether anything personal is left; templates read only their own row."""
        return SQL("(SELECT o.*, {} AS obhut_personal FROM {} o) AS s").format(self._personal(), self._table.relation)

    def _personal(self) -> Composable:
        treatment = self._subject.when_anonymised
        if treatment is not None and treatment.verb is not Verb.ANONYMISE:
            return SQL("true")
        return still_personal(self._graph, self._table, "o")

    def _controller(self) -> tuple[Composable, Composable]:
        """The canonical text of the controller's key, and the joins that it needs."""
        columns = controller_columns(self._graph, self._subject)
        return SQL("to_json(ARRAY[{}]::text[])::text").format(SQL(", ").join(columns.columns)), columns.joins

    def _inactive(self, before: datetime) -> Composable:
        moment = SQL("{}::timestamptz").format(Literal(before))
        parts: list[Composable] = [SQL("({})").format(self._known())]
        for column in self._own:
            name = Identifier("s", column.name)
            parts.append(SQL("({} < {} OR {} IS NULL)").format(name, self._as(column, moment), name))
        parts += [self._no_child_since(source, moment) for source in self._children]
        parts += [SQL("coalesce(({})::timestamptz < {}, true)").format(expression, moment) for expression in self._expressions]
        return SQL("({})").format(SQL(" AND ").join(parts))

    def _known(self) -> Composable:
        parts: list[Composable] = [SQL("{} IS NOT NULL").format(Identifier("s", column.name)) for column in self._own]
        parts += [SQL("EXISTS ({})").format(self._child(source, _one, _given)) for source in self._children]
        parts += [SQL("({}) IS NOT NULL").format(expression) for expression in self._expressions]
        return SQL(" OR ").join(parts) if parts else SQL("false")

    def _no_child_since(self, source: Source, moment: Composable) -> Composable:
        since = self._as(_column(source), moment)
        return SQL("NOT EXISTS ({})").format(self._child(source, _one, lambda at: SQL("{} >= {}").format(at, since)))

    def _child(self, source: Source, what: _OfColumn, condition: _OfColumn) -> Composable:
        """Rows of another table that belong to ``s``, joined along the links; the table itself is the last alias."""
        aliases = [f"obhut_a{number}" for number in range(len(source.path))]
        tables = [
            SQL("{} {}").format(self._graph.catalogue.tables[link.child].relation, Identifier(alias))
            for link, alias in zip(source.path, aliases, strict=True)
        ]
        joined = [self._joined(link, "s" if index == 0 else aliases[index - 1], aliases[index]) for index, link in enumerate(source.path)]
        at = Identifier(aliases[-1], source.column)
        return SQL("SELECT {} FROM {} WHERE {} AND {}").format(what(at), SQL(", ").join(tables), SQL(" AND ").join(joined), condition(at))

    def _joined(self, link: Link, parent: str, child: str) -> Composable:
        mine, theirs = self._graph.catalogue.tables[link.child], self._graph.catalogue.tables[link.parent]
        parts: list[Composable] = []
        for name, other in zip(link.columns, link.parent_columns, strict=True):
            alike = mine.by_name[name].category == theirs.by_name[other].category
            form = SQL("{} = {}") if alike else SQL("{}::text = {}::text")
            parts.append(form.format(Identifier(child, name), Identifier(parent, other)))
        parts += [
            SQL("{} = {}::{}").format(Identifier(child, name), Literal(value), trusted(mine.by_name[name].type))
            for name, value in link.when
        ]
        return SQL(" AND ").join(parts)

    def _seen(self) -> Composable:
        """The day of the last activity; infinite moments are no day."""
        moments: list[Composable] = [self._moment(column, Identifier("s", column.name)) for column in self._own]
        for source in self._children:
            latest = self._child(source, lambda at: SQL("max({})").format(at), _given)
            moments.append(self._moment(_column(source), SQL("({})").format(latest)))
        moments += [SQL("({})::timestamptz").format(expression) for expression in self._expressions]
        return SQL("(greatest({}) AT TIME ZONE {})::date::text").format(SQL(", ").join(moments), self._zone)

    def _moment(self, column: Column, value: Composable) -> Composable:
        return value if column.base_type == _ZONED else SQL("({}::timestamp AT TIME ZONE {})").format(value, self._zone)

    def _as(self, column: Column, moment: Composable) -> Composable:
        """The moment in the type of a column, so that an index on the column serves."""
        if column.base_type == _ZONED:
            return moment
        local = SQL("({} AT TIME ZONE {})").format(moment, self._zone)
        return SQL("{}::date").format(local) if column.base_type == "date" else local

    def _without(self, keys: Collection[Key]) -> tuple[Composable, list[str]]:
        if not keys:
            return SQL("true"), []
        names = [Identifier(f"obhut_k{position}") for position in range(len(self._subject.key))]
        same = SQL(" AND ").join(
            SQL("s.{} = w.{}").format(Identifier(mine), other) for mine, other in zip(self._subject.key, names, strict=True)
        )
        condition = SQL("NOT EXISTS (SELECT FROM unnest({}) AS w({}) WHERE {})").format(self._arrays(), SQL(", ").join(names), same)
        return condition, self._literals(list(keys))

    def _arrays(self) -> Composable:
        return SQL(", ").join(SQL("%s::{}[]").format(trusted(kind)) for kind in self._subject.key_types)

    def _literals(self, keys: Sequence[Key]) -> list[str]:
        return [array_literal([key[position] for key in keys]) for position in range(len(self._subject.key))]


def still_personal(graph: Graph, table: Table, alias: str) -> Composable:
    """Return the condition that a row behind ``alias`` holds a value that its rule would change; no other relation may be in reach.

    A table without rules for its columns never becomes anonymous: the condition is always true.
    """
    parts: list[Composable] = []
    for name, rule in graph.tables[table.oid].anonymise.items():
        column = table.by_name[name]
        wanted = expressions.anonymised(rule, column)(Identifier(alias, name))
        form = SQL("{}::text IS DISTINCT FROM ({})::text") if column.base_type in {"json", "xml", "point"} else _DISTINCT
        parts.append(form.format(Identifier(alias, name), wanted))
    return SQL("({})").format(SQL(" OR ").join(parts)) if parts else SQL("true")


def _one(_: Identifier) -> Composable:
    return SQL("1")


def _given(at: Identifier) -> Composable:
    return SQL("{} IS NOT NULL").format(at)


def _column(source: Source) -> Column:
    if source.table is None:
        raise AssertionError("only rows of another table have a table")
    return source.table.by_name[source.column]


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        return None


def chunks(keys: Sequence[Key], size: int) -> Iterator[Sequence[Key]]:
    """Yield keys in pieces."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
