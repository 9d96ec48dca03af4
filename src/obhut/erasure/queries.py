"""The questions that the fixpoint asks the database: which rows lead to these rows, by a link, a foreign key or a shared parent.

Rows are named by relation and address in both directions. Answers come packed, one array of addresses for each relation, so that a
million rows cost neither a million Python objects nor a million round trips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from obhut.datamap.graph import Link, LinkForm, Reference
from obhut.erasure.addresses import RowAddresses
from obhut.postgres.catalogue import Catalogue, Column, ForeignKey, Table
from obhut.postgres.connections import Params, Row, Session
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, Literal, trusted

CHUNK = 200_000  # row addresses or keys a query at the most: two megabytes of parameters
LITERAL = 8_000_000  # characters of an array of keys
_COMPARABLE = {"N", "S", "D"}  # type categories within which any two types can be compared


@dataclass(frozen=True, slots=True)
class Absent:
    """Keys of rows that are gone, as array literals: one a column, in pieces of bounded size. Personal data.

    Attributes:
        table: the (partitioned) table that the rows were in.
        columns: names of the key's columns.
        types: their types.
        pieces: array literals of equal length, one a column.
    """

    table: int
    columns: tuple[str, ...]
    types: tuple[str, ...]
    pieces: list[tuple[str, ...]]

    def __repr__(self) -> str:
        """Return a text without the keys."""
        return f"<Absent rows of relation {self.table}>"


@dataclass(frozen=True, slots=True)
class Leading:
    """Rows that lead to others: addresses by relation, and the keys by which an array or a JSON value names them."""

    rows: Mapping[int, RowAddresses]
    keys: frozenset[str] = frozenset()


@dataclass
class _Gathered:
    rows: dict[int, RowAddresses] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)

    def add(self, answer: Sequence[Row]) -> None:
        for oid, addresses, *keys in answer:
            self.rows[oid] = self.rows.get(oid, RowAddresses()) | RowAddresses.from_array(addresses)
            if keys:
                self.keys.update(keys[0])


def merged(pieces: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return array literals joined into few long ones, since each of them costs a pass over a table."""
    found: list[list[tuple[str, ...]]] = []
    size = LITERAL
    for piece in pieces:
        if size + len(piece[0]) > LITERAL:
            found.append([])
            size = 0
        found[-1].append(piece)
        size += len(piece[0])
    return [tuple("{" + ",".join(each[1:-1] for each in column) + "}" for column in zip(*group, strict=True)) for group in found]


class Queries:
    """Asks one database about one catalogue; reads and never writes."""

    def __init__(self, session: Session, catalogue: Catalogue) -> None:
        self._session = session
        self._catalogue = catalogue
        self._linked: dict[tuple[int, int], tuple[RowAddresses, Leading]] = {}

    def linked(self, link: Link, parent: Table, rows: RowAddresses) -> Leading:
        """Return the rows of the link's child that lead to rows of a relation that is (a partition of) its parent.

        The last answer for each link and relation is kept: what is deleted is asked about once as the person's and once as deleted.
        """
        asked, answer = self._linked.get((id(link), parent.oid), (None, None))
        if answer is None or asked != rows:
            answer = self._ask_linked(link, parent, rows)
            self._linked[id(link), parent.oid] = rows, answer
        return answer

    def _ask_linked(self, link: Link, parent: Table, rows: RowAddresses) -> Leading:
        child = self._catalogue.tables[link.child]
        query = SQL("SELECT c.tableoid, array_send(array_agg(c.ctid)){key} FROM {child} c{lateral} JOIN {parent} p ON {join}"
                    " WHERE p.ctid = ANY(%s){when} GROUP BY c.tableoid").format(
            key=_link_key(link),
            child=child.relation,
            lateral=_lateral(link, child),
            parent=_only(parent),
            join=SQL(" AND ").join(self._link_condition(link, child)),
            when=_when(link, child),
        )  # fmt: skip
        return self._gather(query, [(chunk.parameter(),) for chunk in rows.chunks(CHUNK)])

    def linked_to_absent(self, link: Link, absent: Absent) -> Leading:
        """Return the rows of the link's child that name rows which are gone."""
        child = self._catalogue.tables[link.child]
        types = dict(zip(absent.columns, absent.types, strict=True))
        arrays = SQL(", ").join(SQL("%s::{}[]").format(trusted(types[name])) for name in link.parent_columns)
        names = SQL(", ").join(Identifier(name) for name in link.parent_columns)
        query = SQL("SELECT c.tableoid, array_send(array_agg(c.ctid)){key} FROM {child} c{lateral}"
                    " JOIN (SELECT * FROM unnest({arrays}) AS k({names})) p ON {join} WHERE true{when} GROUP BY c.tableoid").format(
            key=_link_key(link),
            child=child.relation,
            lateral=_lateral(link, child),
            arrays=arrays,
            names=names,
            join=SQL(" AND ").join(self._link_condition(link, child)),
            when=_when(link, child),
        )  # fmt: skip
        order = [absent.columns.index(name) for name in link.parent_columns]
        return self._gather(query, [tuple(piece[position] for position in order) for piece in absent.pieces])

    def keys(self, table: Table, columns: Sequence[str], rows: RowAddresses) -> list[tuple[str, ...]]:
        """Return the keys of rows of a relation as array literals, made by the server."""
        literals = SQL(", ").join(SQL("array_agg({}::text)::text").format(Identifier(name)) for name in columns)
        where = SQL(" AND ").join(SQL("{} IS NOT NULL").format(Identifier(name)) for name in columns)
        query = SQL("SELECT {} FROM {} WHERE ctid = ANY(%s) AND {}").format(literals, _only(table), where)
        found = [self._session.row(query, (chunk.parameter(),)) for chunk in rows.chunks(CHUNK)]
        return [row for row in found if row and row[0] is not None]

    def children(self, key: ForeignKey, parent: Table, rows: RowAddresses) -> Mapping[int, RowAddresses]:
        """Return the rows that reference rows of a relation by a foreign key."""
        join = SQL(" AND ").join(
            SQL("c.{} = p.{}").format(Identifier(mine), Identifier(theirs))
            for mine, theirs in zip(key.columns, key.referenced_columns, strict=True)
        )
        query = SQL(
            "SELECT c.tableoid, array_send(array_agg(c.ctid)) FROM {} c JOIN {} p ON {} WHERE p.ctid = ANY(%s) GROUP BY c.tableoid"
        ).format(self._catalogue.tables[key.table].relation, _only(parent), join)
        return self._gather(query, [(chunk.parameter(),) for chunk in rows.chunks(CHUNK)]).rows

    def defaults(self, key: ForeignKey) -> Mapping[int, RowAddresses]:
        """Return the row that a foreign key's columns reference once they hold their defaults."""
        child = self._catalogue.tables[key.table]
        chosen = set(key.set_columns or key.columns)
        if chosen != set(key.columns) or any(child.by_name[name].default is None for name in key.columns):
            return {}  # a null among the columns references nothing
        values = SQL(", ").join(
            SQL("({})::{} AS {}").format(trusted(child.by_name[name].default or ""), trusted(child.by_name[name].type), Identifier(name))
            for name in key.columns
        )
        join = SQL(" AND ").join(
            SQL("c.{} = p.{}").format(Identifier(mine), Identifier(theirs))
            for mine, theirs in zip(key.columns, key.referenced_columns, strict=True)
        )
        query = SQL("SELECT p.tableoid, array_send(array_agg(p.ctid)) FROM (SELECT {}) c JOIN {} p ON {} GROUP BY p.tableoid").format(
            values, self._catalogue.tables[key.references].relation, join
        )
        return self._gather(query, [()]).rows

    def partly_null(self, table: Table, columns: Sequence[str], rows: RowAddresses) -> int:
        """Return how many of the rows hold a value in any of the columns."""
        any_left = SQL(" OR ").join(SQL("{} IS NOT NULL").format(Identifier(name)) for name in columns)
        query = SQL("SELECT count(*) FROM {} WHERE ctid = ANY(%s) AND ({})").format(_only(table), any_left)
        return sum(int(self._session.value(query, (chunk.parameter(),))) for chunk in rows.chunks(CHUNK))

    def referenced(self, reference: Reference, child: Table, rows: RowAddresses) -> Mapping[int, RowAddresses]:
        """Return the shared parents that rows of a child relation reference."""
        query = SQL(
            "SELECT p.tableoid, array_send(array_agg(p.ctid)) FROM {} c JOIN {} p ON {} WHERE c.ctid = ANY(%s) GROUP BY p.tableoid"
        ).format(_only(child), self._catalogue.tables[reference.parent].relation, _reference_join(reference))
        return self._gather(query, [(chunk.parameter(),) for chunk in rows.chunks(CHUNK)]).rows

    def referencing(self, reference: Reference, parent: Table, rows: RowAddresses) -> Iterator[tuple[int, int, int]]:
        """Yield ``(parent address, child relation, child address)`` for every row that references one of these shared parents."""
        query = SQL("SELECT p.ctid, c.tableoid, c.ctid FROM {} c JOIN {} p ON {} WHERE p.ctid = ANY(%s)").format(
            self._catalogue.tables[reference.child].relation, _only(parent), _reference_join(reference)
        )
        for address, child, other in self._session.addresses(query, (rows.parameter(),)):
            yield int.from_bytes(address, "big"), child, int.from_bytes(other, "big")

    def _gather(self, query: Composable, params: Sequence[Params]) -> Leading:
        gathered = _Gathered()
        for each in params:
            gathered.add(self._session.addresses(query, each))
        return Leading(gathered.rows, frozenset(gathered.keys))

    def _link_condition(self, link: Link, child: Table) -> list[Composed]:
        parent = self._catalogue.tables[link.parent]
        if link.form is LinkForm.JSON:
            return [SQL("p.{}::text = e.v").format(Identifier(link.parent_columns[0]))]
        if link.form is LinkForm.ARRAY:
            element, theirs = child.by_name[link.columns[0]].base_type.removesuffix("[]"), parent.by_name[link.parent_columns[0]]
            cast = SQL("") if element == theirs.base_type or (theirs.category == "N" and element in _NUMBERS) else SQL("::text")
            return [SQL("p.{}{} = e.v{}").format(Identifier(theirs.name), cast, cast)]
        pairs = []
        for mine, theirs_name in zip(link.columns, link.parent_columns, strict=True):
            # A polymorphic pair often keeps keys of several types as text.
            cast = SQL("") if _comparable(child.by_name[mine], parent.by_name[theirs_name]) else SQL("::text")
            pairs.append(SQL("c.{}{} = p.{}{}").format(Identifier(mine), cast, Identifier(theirs_name), cast))
        return pairs


_NUMBERS = {"smallint", "integer", "bigint", "numeric"}


def _comparable(left: Column, right: Column) -> bool:
    return left.base_type == right.base_type or (left.category == right.category and left.category in _COMPARABLE)


def _lateral(link: Link, child: Table) -> Composable:
    """The keys inside an array or a JSON value as ``e.v``, read in the very way in which unlinking removes them."""
    column = Identifier("c", link.columns[0]) if link.columns else SQL("")
    if link.form is LinkForm.ARRAY:
        return SQL(" CROSS JOIN LATERAL unnest({}) AS e(v)").format(column)
    if link.form is not LinkForm.JSON:
        return SQL("")
    value = column if child.by_name[link.columns[0]].base_type == "jsonb" else SQL("{}::jsonb").format(column)
    if None not in link.path:
        return SQL(" CROSS JOIN LATERAL (SELECT {} #>> {} AS v) AS e").format(value, Literal(list(link.path)))
    star = link.path.index(None)
    above, below = Literal([step for step in link.path[:star] if step]), Literal([step for step in link.path[star + 1 :] if step])
    return SQL(
        " CROSS JOIN LATERAL (SELECT q.j #>> {below} AS v FROM jsonb_array_elements("
        "CASE WHEN jsonb_typeof({value} #> {above}) = 'array' THEN {value} #> {above} END) AS q(j)) AS e"
    ).format(value=value, above=_path(above), below=_path(below))


def _path(steps: Composable) -> Composable:
    return SQL("{}::text[]").format(steps)


def _link_key(link: Link) -> Composable:
    return SQL("") if link.form is LinkForm.COLUMNS else SQL(", array_agg(DISTINCT e.v::text)")


def _when(link: Link, child: Table) -> Composable:
    return SQL("").join(
        SQL(" AND c.{} = {}::{}").format(Identifier(column), Literal(value), trusted(child.by_name[column].type))
        for column, value in link.when
    )


def _only(table: Table) -> Composable:
    return SQL("ONLY {}").format(Identifier(table.schema, table.name))


def _reference_join(reference: Reference) -> Composed:
    return SQL(" AND ").join(
        SQL("c.{} = p.{}").format(Identifier(mine), Identifier(theirs))
        for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True)
    )
