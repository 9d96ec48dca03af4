"""Find entries by time, table, person, actor and action; the youngest first, page by page.

The index names candidates only: each entry is read from the log itself, so that what is shown is what is signed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from obhut.auditlog import entries
from obhut.auditlog.entries import Entry, Kind
from obhut.auditlog.files import LogFiles
from obhut.auditlog.reading import STATEMENTS, LogHead, logs
from obhut.auditlog.store import Store
from obhut.auditlog.tlog import tiles
from obhut.auditlog.tlog.merkle import WIDTH
from obhut.postgres.connections import Session

_EVER = datetime(1, 1, 1, tzinfo=UTC)
_SKEW = timedelta(days=1)  # clocks of the protected server and of this machine differ by less
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page goes on: behind this entry."""

    period: str
    at: datetime
    index: int

    def __str__(self) -> str:
        return f"{self.period}/{self.at:%Y-%m-%dT%H:%M:%S.%fZ}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor of a text.

        Raises:
            ValueError: it is none.
        """
        period, at, index = text.split("/")
        return cls(period, datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC), int(index))


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for; None asks for everything.

    Attributes:
        subjects: ids of keys: of a data subject, or of a member of staff (the actor); None for anybody, empty for nobody.
        until: exclusive.
        limit: entries a page.
    """

    since: datetime | None = None
    until: datetime | None = None
    table: str | None = None
    operation: str | None = None
    kind: Kind | None = None
    subjects: Collection[bytes] | None = None
    limit: int = 100
    after: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that was found."""

    controller: str
    period: str
    index: int
    octets: bytes
    entry: Entry
    files: LogFiles

    @property
    def cursor(self) -> Cursor:
        """Where the page behind this entry begins."""
        return Cursor(self.period, self.entry.at, self.index)


def search(session: Session, store: Store, controller: str, query: Query) -> list[Found]:
    """Return the youngest entries of a controller's logs that a query asks for.

    Args:
        session: on the control database.
        store: where the logs lie.
        controller: whose.
        query: what is asked for.

    Raises:
        LogDamagedError: a bundle of entries cannot be read.
    """
    topics = [row[0] for row in session.rows(STATEMENTS["topics"], _names(query))]
    found: list[Found] = []
    if not topics or (query.subjects is not None and not query.subjects):
        return found
    for head in logs(session, [controller]):
        if head.removed_at is not None or not head.size or (query.after and head.period > query.after.period):
            continue
        if query.since and head.grown_at + _SKEW < query.since:
            break  # a change is older than its entry, and periods follow each other
        found += _read(head, store, _candidates(session, head, topics, query, query.limit - len(found)))
        if len(found) >= query.limit:
            break
    return found


def _names(query: Query) -> dict[str, str | None]:
    return {"table": query.table, "operation": query.operation, "kind": query.kind.value if query.kind else None}


def _candidates(session: Session, head: LogHead, topics: Sequence[int], query: Query, limit: int) -> list[int]:
    here = query.after if query.after and query.after.period == head.period else None
    asked = {
        "period": head.month,
        "log": head.id,
        "topics": list(topics),
        "since": query.since or _EVER,
        "until": query.until or _NEVER,
        "before_at": here.at if here else _NEVER,
        "before_seq": here.index if here else 0,
        "limit": limit,
    }
    if query.subjects is None:
        rows = session.rows(STATEMENTS["find_by_topic"], asked)
    else:
        people = [subject.hex() for subject in query.subjects]
        rows = session.rows(STATEMENTS["find_by_subject"], {**asked, "size": head.size, "subjects": people})
    return [seq for _, seq in rows]


def _read(head: LogHead, store: Store, indices: Sequence[int]) -> list[Found]:
    """Read entries, a bundle once for all that are wanted from it, and keep the order."""
    files = head.files(store)
    octets: dict[int, bytes] = {}
    for number, wanted in groupby(sorted(indices), key=lambda index: index // WIDTH):
        bundle = files.entries(number, tiles.width(head.size, 0, number))
        octets |= {index: bundle[index % WIDTH] for index in wanted}
    return [Found(head.controller, head.period, index, octets[index], entries.decode(octets[index]), files) for index in indices]
