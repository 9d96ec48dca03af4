"""Absence by key: none of the listed people is in the target.

The list itself is laid beside the target's tables, inside the target, in a temporary table; of it, those keys that
:mod:`~obhut.restores.occurring` finds in the target's columns at all. Nothing is shared with the filter, which works by row addresses in
the quarantine, nor with the way in which the filter finds its people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from obhut.datamap.graph import Graph, Link, LinkForm, Subject
from obhut.datamap.models import Verb
from obhut.erasure import reading
from obhut.erasure.entries import Action, Tombstone
from obhut.erasure.fingerprints import Verdict, fingerprint, judge
from obhut.erasure.plan import Cohort, cohort_of, keep_periods
from obhut.erasure.verify import Answer, verify
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, trusted
from obhut.restores.occurring import Listed, Place

_CHUNK = 50_000
_LIST = "obhut_listed"


@dataclass(frozen=True, slots=True)
class Absence:
    """What was asked about one subject kind or link.

    Attributes:
        table: ``schema.name`` of the table asked.
        question: what was counted.
        people: tombstones asked about.
        rows: rows that should not be there.
        others: rows with a tombstone's key that are another incarnation, and stay.
    """

    table: str
    question: str
    people: int
    rows: int
    others: int = 0

    @property
    def holds(self) -> bool:
        """Whether no such row was found."""
        return self.rows == 0


@dataclass(frozen=True)
class _Asked:
    """Whom the questions are about."""

    session: Session
    graph: Graph
    subject: Subject
    size: int  # of the erasure list
    people: int  # listed of this kind
    mac_key: bytes
    now: datetime


def ask(session: Session, graph: Graph, listed: Listed, size: int, mac_key: bytes, now: datetime) -> list[Absence]:
    """Ask the target about every open tombstone.

    Args:
        session: on the target; a temporary table holds the keys while they are asked about.
        graph: the data map resolved against the target's catalogue.
        listed: the list; its place ``target`` is the target.
        size: of the erasure list.
        mac_key: for fingerprints.
        now: which periods of keeping are over.
    """
    found: list[Absence] = []
    for kind in reading.subject_kinds(graph.database):
        subject = graph.subject(kind)
        with session.transaction():
            people = _lay(session, subject, listed)
            found.extend(_ask_kind(_Asked(session, graph, subject, size, people, mac_key, now)))
    return found


def _lay(session: Session, subject: Subject, listed: Listed) -> int:
    """Copy the keys of a kind's open tombstones beside the target's tables, from server to server; return how many people they are."""
    names = [f"k{number}" for number in range(len(subject.key))]
    columns = SQL(", ").join(SQL("{} {}").format(Identifier(n), trusted(kind)) for n, kind in zip(names, subject.key_types, strict=True))
    session.execute(SQL("CREATE TEMPORARY TABLE {} (seq bigint, {}) ON COMMIT DROP").format(Identifier(_LIST), columns))
    arrays = SQL(", ").join([SQL("%s::bigint[]"), *(SQL("%s::text[]::{}[]").format(trusted(kind)) for kind in subject.key_types)])
    query = SQL("INSERT INTO {} SELECT * FROM unnest({})").format(Identifier(_LIST), arrays)
    number = 0
    for count, literals in listed.arrays("target", subject.kind):
        if literals:
            session.execute(query, literals)
        number += count
    if set(subject.key_types) <= {"smallint", "integer", "bigint"}:
        # A sample of the keys stays in the bytes of pg_statistic and WAL: of numbers, never of e-mail addresses or UUIDs.
        session.execute(SQL("ANALYZE {}").format(Identifier(_LIST)))
    return number


def _ask_kind(asked: _Asked) -> Iterator[Absence]:
    table = asked.graph.catalogue.tables[asked.subject.table]
    same, others = _present(asked)
    gone, changed = [], defaultdict(list)
    for tombstone, cohort in same:
        own = cohort.verb(asked.subject.when_anonymised if cohort.anonymising else asked.subject.erase)
        if own is Verb.DELETE:
            gone.append(tombstone)
        elif own is Verb.ANONYMISE:
            changed[cohort].append(tombstone)
    yield Absence(table.full_name, f"rows of the {asked.subject.kind}", asked.people, len(gone), len(others))
    for cohort, members in changed.items():
        yield from _by_eraser(asked, cohort, members)
    for link in asked.graph.links_to(asked.subject.table):
        yield from _ask_link(asked, link, others, staying=len(same) > len(gone))


def _ask_link(asked: _Asked, link: Link, others: set[int], *, staying: bool) -> Iterator[Absence]:
    key = link.foreign_key
    guarded = key is not None and key.validated and key.enforced
    if guarded and not staying:
        return  # an enforced key to a row that is gone is proof enough: the server checked it when it was added
    child = asked.graph.catalogue.tables[link.child]
    question = f"rows that name the {asked.subject.kind} by {link.name}"
    query = _naming(asked, link)
    if query is None:
        yield from _link_by_eraser(asked, link, others)
        return
    named = {int(number): int(count) for number, count in asked.session.rows(query) if number not in others}
    rows = 0
    changed: dict[Cohort, list[Tombstone]] = defaultdict(list)
    for tombstone, cohort in _cohorts(asked, sorted(named)):
        verb = cohort.verb(link.treatment(anonymising=cohort.anonymising))
        if verb in {Verb.DELETE, Verb.UNLINK}:
            rows += named[tombstone.seq]
        elif verb is Verb.ANONYMISE:
            changed[cohort].append(tombstone)
    yield Absence(child.full_name, question, asked.people, rows)
    for cohort, members in changed.items():  # rows that may name the person still, with none of the person's values
        yield from _by_eraser(asked, cohort, members, link)


def _naming(asked: _Asked, link: Link) -> Composable | None:
    """Return the query that counts rows by tombstone, for links whose keys stand in columns or arrays as they are."""
    child, subject = asked.graph.catalogue.tables[link.child], asked.subject
    if link.form is LinkForm.JSON or link.when or set(link.parent_columns) != set(subject.key):
        return None
    places = [Identifier("k", f"k{subject.key.index(name)}") for name in link.parent_columns]
    if link.form is LinkForm.ARRAY:
        source = SQL("{} c CROSS JOIN LATERAL unnest(c.{}) AS e(v)").format(child.relation, Identifier(link.columns[0]))
        on: Composable = SQL("e.v = {}").format(places[0])
    else:
        source = SQL("{} c").format(child.relation)
        on = SQL(" AND ").join(
            SQL("c.{}{cast} = {}{cast}").format(
                Identifier(mine), place, cast=SQL("") if _alike(asked, link, mine, theirs) else SQL("::text")
            )
            for mine, theirs, place in zip(link.columns, link.parent_columns, places, strict=True)
        )
    return SQL("SELECT k.seq, count(*) FROM {} JOIN {} k ON {} GROUP BY 1").format(source, Identifier(_LIST), on)


def _alike(asked: _Asked, link: Link, mine: str, theirs: str) -> bool:
    tables = asked.graph.catalogue.tables
    return tables[link.child].by_name[mine].category == tables[link.parent].by_name[theirs].category


def _present(asked: _Asked) -> tuple[list[tuple[Tombstone, Cohort]], set[int]]:
    """Return the tombstones whose person has a row, and the numbers of those whose key another person bears."""
    subject = asked.subject
    table = asked.graph.catalogue.tables[subject.table]
    on = SQL(" AND ").join(SQL("s.{} = k.{}").format(Identifier(name), Identifier(f"k{n}")) for n, name in enumerate(subject.key))
    created = SQL("s.{}::timestamptz").format(Identifier(subject.created)) if subject.created else SQL("NULL::timestamptz")
    incarnation = SQL("").join(SQL(", s.{}::text").format(Identifier(name)) for name in subject.incarnation)
    query = SQL("SELECT k.seq, {}{} FROM {} k JOIN {} s ON {}").format(created, incarnation, Identifier(_LIST), table.relation, on)
    rows = {int(number): (born, values) for number, born, *values in asked.session.rows(query)}
    settled = reading.resolutions(asked.graph.database)
    same: list[tuple[Tombstone, Cohort]] = []
    others: set[int] = set()
    for tombstone, cohort in _cohorts(asked, sorted(rows)):
        born, values = rows[tombstone.seq]
        found = fingerprint(asked.mac_key, asked.graph.database, subject.kind, values) if tombstone.fingerprint else ""
        verdict = judge(tombstone.fingerprint, found, erased_at=tombstone.erased_at, created_at=born, decisions=settled.get(tombstone.seq))
        if verdict is Verdict.LATER:
            others.add(tombstone.seq)
        else:
            same.append((tombstone, cohort))
    return same, others


def _cohorts(asked: _Asked, numbers: Sequence[int]) -> Iterator[tuple[Tombstone, Cohort]]:
    periods = keep_periods(asked.graph)
    for start in range(0, len(numbers), _CHUNK):
        for tombstone in reading.numbered(numbers[start : start + _CHUNK]):
            yield tombstone, cohort_of(periods, tombstone.action, tombstone.erased_at, asked.now)


def _by_eraser(asked: _Asked, cohort: Cohort, members: Sequence[Tombstone], link: Link | None = None) -> Iterator[Absence]:
    """Ask with the eraser's own questions, which know every form of a link and every rule of anonymising."""
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for start in range(0, len(members), _CHUNK):
        chunk = members[start : start + _CHUNK]
        keys = [tombstone.key for tombstone in chunk if tombstone.key is not None]
        for answer in verify(asked.session, asked.graph, asked.subject.kind, keys, cohort).answers:
            if link is not None and not _is_about(answer, asked, link):
                continue
            totals[answer.table, answer.question][0] += len(chunk)
            totals[answer.table, answer.question][1] += answer.rows
    for (table, question), (people, rows) in totals.items():
        yield Absence(table, question, people, rows)


def _is_about(answer: Answer, asked: _Asked, link: Link) -> bool:
    named = f"rows that name the {asked.subject.kind} by {link.name}"
    about = answer.question in {named, f"values of {named} and are not anonymised"}
    return about and answer.table == asked.graph.catalogue.tables[link.child].full_name


def _link_by_eraser(asked: _Asked, link: Link, others: set[int]) -> Iterator[Absence]:
    groups: dict[Cohort, list[Tombstone]] = defaultdict(list)
    periods = keep_periods(asked.graph)
    for chunk in reading.open_list(asked.graph.database, as_of=asked.size, subject_kind=asked.subject.kind, size=_CHUNK):
        for tombstone in chunk:
            if tombstone.seq in others:
                continue
            groups[cohort_of(periods, tombstone.action, tombstone.erased_at, asked.now)].append(tombstone)
    for cohort, members in groups.items():
        yield from _by_eraser(asked, cohort, members, link)


def rows_of(session: Session, graph: Graph, kind: str, size: int, mac_key: bytes, now: datetime) -> tuple[int, int]:
    """Return how many people of a kind are listed, and how many erased ones of them have a row in the subject's table."""
    subject = graph.subject(kind)
    with session.transaction():
        people = _lay(session, subject, Listed(size, target=Place(session, graph, links=False)))
        same, _ = _present(_Asked(session, graph, subject, size, people, mac_key, now))
    return people, sum(1 for tombstone, _ in same if tombstone.action is Action.ERASE and subject.erase.verb is Verb.DELETE)


def foreign_keys(session: Session) -> tuple[int, int]:
    """Return how many foreign keys the database has, and how many of them the server has not validated."""
    row = session.row(
        "SELECT count(*), count(*) FILTER (WHERE NOT convalidated) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"
    ) or (0, 0)
    return int(row[0]), int(row[1])
