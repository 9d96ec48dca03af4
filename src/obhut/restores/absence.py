"""Absence by key: none of the listed people is in the target.

Asks the target alone, by key values and fingerprints. It shares no statement with the filter, which works by row addresses in the quarantine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from obhut.datamap.graph import Graph, LinkForm, Subject
from obhut.datamap.models import Verb
from obhut.erasure import ledger
from obhut.erasure.entries import Action, Tombstone
from obhut.erasure.fingerprints import Verdict, fingerprint, judge
from obhut.erasure.plan import Cohort, cohort_of, keep_periods
from obhut.erasure.verify import verify
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, trusted

_CHUNK = 50_000


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


def ask(session: Session, graph: Graph, chunks: Iterable[Sequence[Tombstone]], mac_key: bytes, now: datetime) -> list[Absence]:
    """Ask the target about every tombstone.

    Args:
        session: on the target; temporary tables hold the keys while they are asked about.
        graph: the data map resolved against the target's catalogue.
        chunks: the open tombstones.
        mac_key: for fingerprints.
        now: which periods of keeping are over.
    """
    asked: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    decisions = ledger.resolutions(graph.database)
    periods = keep_periods(graph)
    for tombstones in chunks:
        by_group: dict[tuple[str, Cohort], list[Tombstone]] = defaultdict(list)
        for tombstone in tombstones:
            if tombstone.key is not None:
                by_group[tombstone.subject_kind, cohort_of(periods, tombstone.action, tombstone.erased_at, now)].append(tombstone)
        for (kind, cohort), members in by_group.items():
            subject = graph.subject(kind)
            for table, question, people, rows, others in _ask_group(session, graph, subject, cohort, members, mac_key, decisions):
                totals = asked[kind, table, question]
                totals[0] += people
                totals[1] += rows
                totals[2] += others
    return [Absence(table, question, *totals) for (_, table, question), totals in asked.items()]


def _ask_group(
    session: Session, graph: Graph, subject: Subject, cohort: Cohort, members: list[Tombstone], mac_key: bytes, decisions: object
) -> Iterator[tuple[str, str, int, int, int]]:
    table = graph.catalogue.tables[subject.table]
    own = cohort.verb(subject.when_anonymised if cohort.action is Action.ANONYMISE else subject.erase)
    same, others = _present(session, graph, subject, members, mac_key, decisions)
    ours = [tombstone for tombstone in members if tombstone.seq not in others]
    if own is Verb.DELETE:
        yield table.full_name, f"rows of the {subject.kind}", len(members), len(same), len(others)
    for link in graph.links_to(subject.table):
        verb = cohort.verb(link.treatment(anonymising=cohort.anonymising))
        simple = link.form is LinkForm.COLUMNS and not link.when and set(link.parent_columns) <= set(subject.key)
        enforced = link.foreign_key is not None and link.foreign_key.validated and link.foreign_key.enforced
        if verb not in {Verb.DELETE, Verb.UNLINK} or (enforced and own is Verb.DELETE) or not simple or not ours:
            continue  # an enforced key to a row that is gone is proof enough: the server checked it when it was added
        child = graph.catalogue.tables[link.child]
        count = sum(_naming(session, child.relation, link.columns, link.parent_columns, subject, chunk) for chunk in _chunks(ours))
        yield child.full_name, f"rows that name the {subject.kind} by {link.name}", len(ours), count, 0
    complex_links = any(link.form is not LinkForm.COLUMNS or link.when for link in graph.links_to(subject.table))
    if own is Verb.ANONYMISE or complex_links:
        yield from _asked_by_eraser(session, graph, subject, cohort, ours, own)


def _asked_by_eraser(
    session: Session, graph: Graph, subject: Subject, cohort: Cohort, ours: Sequence[Tombstone], own: Verb | None
) -> Iterator[tuple[str, str, int, int, int]]:
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for chunk in _chunks(ours):
        for answer in verify(session, graph, subject.kind, [tombstone.key or () for tombstone in chunk], cohort).answers:
            if own is Verb.DELETE and answer.question.startswith("rows of the"):
                continue
            totals[answer.table, answer.question][0] += len(chunk)
            totals[answer.table, answer.question][1] += answer.rows
    for (table, question), (people, rows) in totals.items():
        yield table, question, people, rows, 0


def _present(
    session: Session, graph: Graph, subject: Subject, members: Sequence[Tombstone], mac_key: bytes, decisions: object
) -> tuple[set[int], set[int]]:
    """Return the tombstones whose person is there, and those whose key another person bears."""
    same: set[int] = set()
    others: set[int] = set()
    settled = decisions if isinstance(decisions, dict) else {}
    table = graph.catalogue.tables[subject.table]
    on = SQL(" AND ").join(SQL("s.{} = k.{}").format(Identifier(name), Identifier(f"k{n}")) for n, name in enumerate(subject.key))
    created = SQL("s.{}::timestamptz").format(Identifier(subject.created)) if subject.created else SQL("NULL::timestamptz")
    incarnation = SQL("").join(SQL(", s.{}::text").format(Identifier(name)) for name in subject.incarnation)
    for chunk in _chunks(members):
        query = SQL("SELECT k.n, {}{} FROM {} JOIN {} s ON {}").format(created, incarnation, _listed(subject), table.relation, on)
        for number, created_at, *values in session.rows(query, _arrays(subject, chunk)):
            tombstone = chunk[number - 1]
            found = fingerprint(mac_key, graph.database, subject.kind, values) if tombstone.fingerprint else ""
            verdict = judge(
                tombstone.fingerprint, found, erased_at=tombstone.erased_at, created_at=created_at, decisions=settled.get(tombstone.seq)
            )
            (others if verdict is Verdict.LATER else same).add(tombstone.seq)
    return same, others


def rows_of(session: Session, graph: Graph, kind: str, members: Sequence[Tombstone], mac_key: bytes) -> int:
    """Return how many of these erased people have a row in the subject's table."""
    erased = [tombstone for tombstone in members if tombstone.action is Action.ERASE and tombstone.key is not None]
    return len(_present(session, graph, graph.subject(kind), erased, mac_key, ledger.resolutions(graph.database))[0])


def _naming(
    session: Session, child: Composable, columns: Sequence[str], parents: Sequence[str], subject: Subject, members: Sequence[Tombstone]
) -> int:
    on = SQL(" AND ").join(
        SQL("c.{}::text = k.{}::text").format(Identifier(mine), Identifier(f"k{subject.key.index(theirs)}"))
        for mine, theirs in zip(columns, parents, strict=True)
    )
    query = SQL("SELECT count(*) FROM {} JOIN {} c ON {}").format(_listed(subject), child, on)
    return int(session.value(query, _arrays(subject, members)))


def _listed(subject: Subject) -> Composable:
    arrays = SQL(", ").join(SQL("%s::text[]::{}[]").format(trusted(kind)) for kind in subject.key_types)
    names = SQL(", ").join(Identifier(f"k{number}") for number in range(len(subject.key)))
    return SQL("unnest({}) WITH ORDINALITY AS k({}, n)").format(arrays, names)


def _arrays(subject: Subject, members: Sequence[Tombstone]) -> list[list[str]]:
    return [[(tombstone.key or ())[position] for tombstone in members] for position in range(len(subject.key))]


def _chunks(members: Sequence[Tombstone]) -> Iterator[Sequence[Tombstone]]:
    for start in range(0, len(members), _CHUNK):
        yield members[start : start + _CHUNK]


def foreign_keys(session: Session) -> tuple[int, int]:
    """Return how many foreign keys the database has, and how many of them the server has not validated."""
    row = session.row(
        "SELECT count(*), count(*) FILTER (WHERE NOT convalidated) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"
    ) or (0, 0)
    return int(row[0]), int(row[1])


