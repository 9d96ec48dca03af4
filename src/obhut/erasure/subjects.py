"""From tombstones to rows: who of the listed people is in this database, and who only bears the same key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import NamedTuple

from obhut.datamap.graph import Graph, Subject
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.effects import Seed
from obhut.erasure.entries import Decision, Tombstone
from obhut.erasure.fingerprints import Verdict, fingerprint, judge
from obhut.erasure.plan import Calendar, Cohort, keep_periods
from obhut.erasure.queries import Absent, merged
from obhut.erasure.refusals import IncarnationConflictError, SubjectMissingError
from obhut.postgres.connections import Row, Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, array_literal, rendered, trusted

CHUNK = 50_000

Decisions = Mapping[int, Mapping[str, Decision]]  # tombstone number, fingerprint found


class Person(NamedTuple):
    """A row of a subject table as an erasure request needs it; the key is personal data. A named tuple, because a batch makes thousands.

    Attributes:
        address: packed.
    """

    oid: int
    address: int
    key: tuple[str, ...]
    controller_key: tuple[str, ...]
    fingerprint: str

    def __repr__(self) -> str:
        """Return a text without the key."""
        return f"<Person in relation {self.oid}>"


@dataclass
class Found:
    """Outcome of looking a list of tombstones up.

    Attributes:
        seeds: start of the closure.
        people: rows that are the erased person.
        later: rows with the same key that are another incarnation, left alone.
        missing: tombstones whose row is not in the database.
    """

    seeds: list[Seed] = field(default_factory=list)
    people: int = 0
    later: int = 0
    missing: int = 0


def lookup(session: Session, graph: Graph, kind: str, keys: Sequence[Sequence[str]], mac_key: bytes, *, lock: bool = False) -> list[Person]:
    """Return the rows of a subject kind that bear these keys, each with its controller's key and its fingerprint.

    Args:
        session: on the protected database.
        graph: the data map resolved against it.
        kind: subject kind of the map.
        keys: columns of the primary key as text, in the map's order.
        mac_key: key of the fingerprints.
        lock: also lock the rows against every change, those first that come first in the table.

    Raises:
        SubjectMissingError: a key is not a value of the key's type.
        SerializationError: somebody changed a row that was to be locked after the transaction's snapshot.
    """
    subject = graph.subject(kind)
    query = _query(graph, subject, Looking.TO_LOCK if lock else Looking.FOR_CONTROLLER)
    found: list[Person] = []
    end = 3 + len(subject.incarnation)
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        for row in _rows_of(session, subject, query, _arrays(subject, chunk)):
            mark = fingerprint(mac_key, graph.database, kind, row[3:end])
            found.append(Person(row[0], int.from_bytes(row[1], "big"), tuple(chunk[row[2] - 1]), row[end:], mark))
    return found


def find(
    session: Session,
    graph: Graph,
    chunks: Iterable[Sequence[Tombstone]],
    mac_key: bytes,
    now: datetime,
    decisions: Decisions | None = None,
) -> Found:
    """Look tombstones up in a database and return the seeds of the closure.

    Raises:
        IncarnationConflictError: rows bear a tombstone's key but are perhaps other people, and nobody has decided yet.
    """
    search = _Search(session, graph, mac_key, now, {} if decisions is None else decisions)
    for tombstones in chunks:
        search.add(tombstones)
    return search.finish()


class _Search:
    def __init__(self, session: Session, graph: Graph, mac_key: bytes, now: datetime, decisions: Decisions) -> None:
        self._session = session
        self._graph = graph
        self._mac_key = mac_key
        self._decisions = decisions
        self._calendar = Calendar(keep_periods(graph), now)
        self._sets: dict[tuple[Cohort, str], dict[int, RowAddresses]] = defaultdict(lambda: defaultdict(RowAddresses))
        self._missing: dict[tuple[Cohort, str], list[tuple[str, ...]]] = defaultdict(list)
        self._conflicts: list[tuple[int, str, str, int, int]] = []  # number, id, fingerprint of the row, and where it is
        self._found = Found()

    def add(self, tombstones: Sequence[Tombstone]) -> None:
        by_kind: dict[str, list[Tombstone]] = defaultdict(list)
        for tombstone in tombstones:
            if tombstone.key is not None:
                by_kind[tombstone.subject_kind].append(tombstone)
        for kind, members in by_kind.items():
            for start in range(0, len(members), CHUNK):
                self._look_up(self._graph.subject(kind), members[start : start + CHUNK])

    def _look_up(self, subject: Subject, tombstones: list[Tombstone]) -> None:
        keys = [tombstone.key or () for tombstone in tombstones]
        seen = bytearray(len(keys))
        rows: dict[tuple[Cohort, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        query = _query(self._graph, subject, Looking.FOR_TOMBSTONES)
        for oid, tid, number, created, *incarnation in self._session.addresses(query, _arrays(subject, keys)):
            tombstone = tombstones[number - 1]
            seen[number - 1] = 1
            verdict = self._judge(subject, tombstone, created, incarnation)
            if verdict is Verdict.PERSON:
                self._found.people += 1
                rows[self._group(tombstone)][oid].append(int.from_bytes(tid, "big"))
            elif verdict is Verdict.LATER:
                self._found.later += 1
            else:
                found = fingerprint(self._mac_key, self._graph.database, subject.kind, incarnation)
                self._conflicts.append((tombstone.seq, tombstone.id, found, oid, int.from_bytes(tid, "big")))
        self._found.missing += seen.count(0)
        if self._keyed_links(subject):
            self._remember(subject, [tombstone for tombstone, here in zip(tombstones, seen, strict=True) if not here])
        for group, relations in rows.items():
            for oid, addresses in relations.items():
                self._sets[group][oid] = self._sets[group][oid] | RowAddresses(addresses)

    def _remember(self, subject: Subject, missing: Sequence[Tombstone]) -> None:
        """Keep the keys of people without a row as array literals: a million of them fit into a few megabytes."""
        grouped: dict[tuple[Cohort, str], list[tuple[str, ...]]] = defaultdict(list)
        for tombstone in missing:
            grouped[self._group(tombstone)].append(tombstone.key or ())
        for group, keys in grouped.items():
            self._missing[group].append(tuple(_arrays(subject, keys)))

    def _keyed_links(self, subject: Subject) -> bool:
        """Whether rows can name a person whose row is gone: some link to the subject has no foreign key behind it."""
        keys = (link.foreign_key for link in self._graph.links_to(subject.table))
        return any(not (key and key.validated and key.enforced) for key in keys)

    def _judge(self, subject: Subject, tombstone: Tombstone, created: datetime | None, incarnation: Sequence[str | None]) -> Verdict:
        found = fingerprint(self._mac_key, self._graph.database, subject.kind, incarnation) if tombstone.fingerprint else ""
        return judge(
            tombstone.fingerprint,
            found,
            erased_at=tombstone.erased_at,
            created_at=created,
            decisions=None if tombstone.fingerprint in {"", found} else self._decisions.get(tombstone.seq),
        )

    def _group(self, tombstone: Tombstone) -> tuple[Cohort, str]:
        return self._calendar.cohort(tombstone.action, tombstone.erased_at), tombstone.subject_kind

    def finish(self) -> Found:
        # A row that another tombstone claims is settled: the same key was erased twice, and this is the other bearer.
        claimed: dict[int, RowAddresses] = defaultdict(RowAddresses)
        for relations in self._sets.values():
            for oid, rows in relations.items():
                claimed[oid] = claimed[oid] | rows
        open_conflicts = [item for item in self._conflicts if item[4] not in claimed[item[3]]]
        if open_conflicts:
            _, identifier, found, *_ = min(open_conflicts)
            raise IncarnationConflictError(
                f"{len(open_conflicts)} rows bear the key of a tombstone but differ in their incarnation columns,"
                f" first that of tombstone {identifier}",
                f'Is it the same person? Decide with "obhut erasures resolve {identifier} same_person|other_person --fingerprint {found}'
                ' --instruction …", then run the command again.',
            )
        for group in dict.fromkeys([*self._sets, *self._missing]):
            cohort, kind = group
            subject = self._graph.subject(kind)
            pieces = self._missing.get(group)
            missing = Absent(subject.table, subject.key, subject.key_types, merged(pieces)) if pieces else None
            self._found.seeds.append(Seed(cohort, subject, dict(self._sets.get(group, {})), missing))
        return self._found


@dataclass(frozen=True, slots=True)
class ControllerColumns:
    """The columns of the controller's key, and the joins behind the person's row ``s`` that they need."""

    natives: list[Composable]
    joins: Composable

    @property
    def columns(self) -> list[Composable]:
        """The same columns as texts."""
        return [SQL("{}::text").format(column) for column in self.natives]


def controller_columns(graph: Graph, subject: Subject) -> ControllerColumns:
    """Return the controller key's columns for a subject row ``s``, joined only as far as needed."""
    alias, joins = "s", SQL("")
    composed: Composable = joins
    path = subject.controller_path
    for index, hop in enumerate(path):
        last = index == len(path) - 1
        if last and set(graph.controller_key) <= set(hop.parent_columns):
            mine = dict(zip(hop.parent_columns, hop.columns, strict=True))
            return ControllerColumns([Identifier(alias, mine[name]) for name in graph.controller_key], composed)
        following = f"h{index}"
        on = SQL(" AND ").join(
            SQL("{} = {}").format(Identifier(alias, mine), Identifier(following, theirs))
            for mine, theirs in zip(hop.columns, hop.parent_columns, strict=True)
        )
        parent = graph.catalogue.tables[hop.parent]
        composed = SQL("{} LEFT JOIN {} {} ON {}").format(composed, parent.relation, Identifier(following), on)
        alias = following
    return ControllerColumns([Identifier(alias, name) for name in graph.controller_key], composed)


class Looking(Enum):
    """What is asked of a row besides its address, the number of the key asked for, and its incarnation."""

    FOR_TOMBSTONES = auto()  # its creation
    FOR_CONTROLLER = auto()  # the controller's key
    TO_LOCK = auto()  # the same, and nobody may change the row


def _query(graph: Graph, subject: Subject, looking: Looking) -> SQL:
    """Return the query for the rows that bear the keys given as one array a column."""
    wanted = "subjects", subject.kind, looking
    if wanted not in graph.made:
        graph.made[wanted] = rendered(_compose(graph, subject, looking))
    made: SQL = graph.made[wanted]
    return made


def _compose(graph: Graph, subject: Subject, looking: Looking) -> Composed:
    table = graph.catalogue.tables[subject.table]
    arrays = SQL(", ").join(SQL("%s::{}[]").format(trusted(kind)) for kind in subject.key_types)
    names = SQL(", ").join(Identifier(f"k{position}") for position in range(len(subject.key)))
    pairs = ((Identifier(name), Identifier(f"k{position}")) for position, name in enumerate(subject.key))
    on = SQL(" AND ").join(SQL("s.{} = k.{}").format(mine, asked) for mine, asked in pairs)
    incarnation = SQL("").join(SQL(", s.{}::text").format(Identifier(name)) for name in subject.incarnation)
    created = SQL(", s.{}::timestamptz").format(Identifier(subject.created)) if subject.created else SQL(", NULL::timestamptz")
    controller = controller_columns(graph, subject)
    for_tombstones = looking is Looking.FOR_TOMBSTONES
    return SQL(
        "SELECT s.tableoid, s.ctid, k.n{created}{incarnation}{extra}"
        " FROM unnest({arrays}) WITH ORDINALITY AS k({names}, n) JOIN {table} s ON {on}{joins}{locking}"
    ).format(
        created=created if for_tombstones else SQL(""),
        incarnation=incarnation,
        extra=SQL("") if for_tombstones else SQL(", {}").format(SQL(", ").join(controller.columns)),
        arrays=arrays,
        names=names,
        table=table.relation,
        on=on,
        joins=SQL("") if for_tombstones else controller.joins,
        locking=SQL(" ORDER BY s.tableoid, s.ctid FOR UPDATE OF s") if looking is Looking.TO_LOCK else SQL(""),
    )


def _arrays(subject: Subject, keys: Sequence[Sequence[str]]) -> list[str]:
    if any(len(key) != len(subject.key) for key in keys):
        raise SubjectMissingError(
            f"the key of a {subject.kind} has {len(subject.key)} columns: {', '.join(subject.key)}",
            "Give one value for each column, in this order.",
        )
    return [array_literal([key[position] for key in keys]) for position in range(len(subject.key))]


def _rows_of(session: Session, subject: Subject, query: Composable, arrays: list[str]) -> list[Row]:
    try:
        return session.addresses(query, arrays)
    except DatabaseError as error:
        if not (error.sqlstate or "").startswith("22"):
            raise
    raise SubjectMissingError(
        f"a key is not a value of the type of {subject.kind}: {', '.join(subject.key_types)}",
        f"Give {', '.join(subject.key)} as PostgreSQL writes them.",
    )


__all__ = ["ControllerColumns", "Decisions", "Found", "Person", "controller_columns", "find", "lookup"]
