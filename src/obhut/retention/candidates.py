"""Who is inactive: asked of the protected database, set by set, in one statement for all controllers with the same terms.

A person counts as long as anything personal is left in the person's own row: whoever is anonymised already is no candidate, whatever the
erasure list has forgotten meanwhile. Somebody about whom nothing is known (no moment at all) is never a candidate, but counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime

from obhut.controllers.vocabulary import canonical_key
from obhut.datamap.activity import Source, sources
from obhut.datamap.graph import Graph, Link, Subject
from obhut.datamap.models import Verb
from obhut.erasure.subjects import controller_columns
from obhut.masking import expressions
from obhut.postgres.catalogue import Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, Literal, array_literal, trusted

Key = tuple[str, ...]
_ZONED = "timestamp with time zone"
_DISTINCT = SQL("{} IS DISTINCT FROM {}")
_AT_ONCE = frozenset({"null", "constant", "empty"})  # ways whose result is no function of the row
_OfColumn = Callable[[Identifier], Composable]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one controller: people with personal data, those without any moment, and those last seen before each of two moments."""

    people: int = 0
    unknown: int = 0
    due: int = 0
    soon: int = 0


class Inactivity:
    """Questions about one kind of person in one time zone.

    Args:
        session: on the protected database; one of its own where locks are held elsewhere.
        graph: the data map resolved against it.
        kind: subject kind of the map.
        zone: IANA name; dates and times without a zone are read in it.
        beside: a second session on it, which counts everybody while the first counts the inactive; without it, one after the other.
    """

    def __init__(self, session: Session, graph: Graph, kind: str, zone: str, *, beside: Session | None = None) -> None:
        self._session = session
        self._beside = beside or session
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
        with ThreadPoolExecutor(1, "figures") as pool:
            counting = pool.submit(self._grouped, self._beside, SQL("true"))
            if self._beside is self._session:
                wait([counting])  # a session answers one question at a time
            certain = any(column.not_null for column in self._own)
            unknown = {} if certain else self._grouped(self._session, SQL("NOT ({})").format(self._known()))
            before = self._grouped(self._session, self._inactive(due))
            later = before if soon == due else self._grouped(self._session, self._inactive(soon))
            everybody = counting.result()
        return {
            controller: Figures(number, unknown.get(controller, 0), before.get(controller, 0), later.get(controller, 0))
            for controller, number in everybody.items()
        }

    def select(self, before: datetime, controller: Sequence[str], most: int, without: Collection[Key]) -> list[Key]:
        """Return people of a controller last seen before a moment, in the order of their keys.

        Args:
            before: the moment.
            controller: values of its key, as text.
            most: people at the most.
            without: keys to leave out.
        """
        condition, parameters = self._without(without)
        columns, joins = self._owner()
        query = SQL(
            "SELECT {arrays} FROM (SELECT {texts} FROM {people}{joins}"
            " WHERE {owner} AND s.obhut_personal AND {inactive} AND {condition} ORDER BY {keys} LIMIT %s) AS found"
        ).format(
            arrays=SQL(", ").join(SQL("json_agg(k{})").format(trusted(str(number))) for number in range(len(self._subject.key))),
            texts=SQL(", ").join(
                SQL("{}::text AS k{}").format(Identifier("s", name), trusted(str(number))) for number, name in enumerate(self._subject.key)
            ),
            people=self._people(),
            joins=joins,
            owner=SQL(" AND ").join(SQL("{} = %s").format(column) for column in columns),
            inactive=self._inactive(before),
            condition=condition,
            keys=SQL(", ").join(Identifier("s", name) for name in self._subject.key),
        )
        arrays = self._session.row(query, [*controller, *parameters, most]) or ()
        return list(zip(*(array or () for array in arrays), strict=True))

    def still(self, before: datetime, keys: Sequence[Key]) -> set[Key]:
        """Return those of the people who are there, have personal data, and were last seen before a moment."""
        return self._of(keys, SQL("s.obhut_personal AND {}").format(self._inactive(before)))

    def returned(self, before: datetime, keys: Sequence[Key]) -> set[Key]:
        """Return those of the people who have personal data and were seen since a moment, or of whom nothing is known."""
        return self._of(keys, SQL("s.obhut_personal AND NOT {}").format(self._inactive(before)))

    # -- parts ----------------------------------------------------------------------------------------------------------------

    def _grouped(self, session: Session, condition: Composable) -> dict[str, int]:
        """Count by controller; a scan for each question, because only what stands in WHERE is joined well, whatever the indexes."""
        found = controller_columns(self._graph, self._subject)
        names = [Identifier(f"c{number}") for number in range(len(found.natives))]
        numbers = SQL(", ").join(trusted(str(number)) for number in range(1, len(names) + 1))
        # Texts are made of the groups, not of every row.
        query = SQL(
            "SELECT {texts}, n FROM (SELECT {columns}, count(*) AS n FROM {people}{joins} WHERE s.obhut_personal AND {condition}"
            " GROUP BY {numbers}) AS counted"
        ).format(
            texts=SQL(", ").join(SQL("{}::text").format(name) for name in names),
            columns=SQL(", ").join(SQL("{} AS {}").format(column, name) for column, name in zip(found.natives, names, strict=True)),
            people=self._people(), joins=found.joins, condition=condition, numbers=numbers,
        )  # fmt: skip
        return {canonical_key(key): number for *key, number in session.rows(query, []) if None not in key}

    def _of(self, keys: Sequence[Key], condition: Composable) -> set[Key]:
        if not keys:
            return set()
        if self._subject.is_keyed_by(self._table, self._subject.key, self._subject.key):
            found = self._of_keyed(keys, condition)
            if found is not None:
                return found
        names = [Identifier(f"obhut_k{position}") for position in range(len(self._subject.key))]
        on = SQL(" AND ").join(
            SQL("s.{} = k.{}").format(Identifier(mine), asked) for mine, asked in zip(self._subject.key, names, strict=True)
        )
        query = SQL("SELECT k.n FROM unnest({arrays}) WITH ORDINALITY AS k({names}, n) JOIN {people} ON {on} WHERE {condition}").format(
            arrays=self._arrays(), names=SQL(", ").join(names), people=self._people(), on=on, condition=condition
        )
        return {keys[number - 1] for (number,) in self._session.rows(query, self._literals(keys))}

    def _of_keyed(self, keys: Sequence[Key], condition: Composable) -> set[Key] | None:
        """Ask with the keys as an array, which reads an index in its order; None where a key is not written as the server writes it."""
        column = Identifier("s", self._subject.key[0])
        query = SQL("SELECT json_agg({}::text) FROM {} WHERE {} = ANY({}) AND {}").format(
            column, self._people(), column, self._arrays(), condition
        )
        found: set[Key] = {(str(text),) for text in self._session.value(query, self._literals(keys)) or ()}
        return found if found <= set(keys) else None

    def _people(self) -> Composable:
        """The kind's rows as ``s``, with a column that tells whether anything personal is left; templates read only their own row."""
        return SQL("(SELECT o.*, {} AS obhut_personal FROM {} o) AS s").format(self._personal(), self._table.relation)

    def _personal(self) -> Composable:
        treatment = self._subject.when_anonymised
        if treatment is not None and treatment.verb is not Verb.ANONYMISE:
            return SQL("true")
        return still_personal(self._graph, self._table, "o")

    def _owner(self) -> tuple[list[Composable], Composable]:
        """The columns of the controller's key as texts, and the joins that they need."""
        found = controller_columns(self._graph, self._subject)
        return found.columns, found.joins

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
    # What is compared without computing comes first: the first difference decides.
    for name, rule in sorted(graph.tables[table.oid].anonymise.items(), key=lambda item: item[1].way not in _AT_ONCE):
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
