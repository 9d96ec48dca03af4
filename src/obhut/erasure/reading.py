"""The erasure list read: for a restore, for a reader, and for questions about all of it.

Every function reads the list that :func:`obhut.erasure.ledger.open_ledger` opened last in this process. Nothing is verified here:
:func:`obhut.erasure.ledger.verify_list` does, before every restore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, TypeVar

from obhut.erasure import ledger, store
from obhut.erasure.entries import Decision, Head, State, Tombstone
from obhut.erasure.store import SQL
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.ids import TombstoneId, new_id
from obhut.postgres import sql as compose
from obhut.postgres.connections import Session

T = TypeVar("T")
CHUNK: Final = 10_000  # tombstones


class Purpose(StrEnum):
    """Why somebody looks at the private part of a tombstone; an enumeration, because a remark would be free text."""

    SUPPORT = "support"
    AUDIT = "audit"
    CONFLICT = "conflict"


def current_epoch(database: str) -> int:
    """Return the restore epoch of the database; 0 before its first restore."""
    found = ledger.places().session().row(SQL["epochs"], ([database],))
    return int(found[1]) if found else 0


def open_list(
    database: str, *, as_of: int | None = None, after: int = 0, subject_kind: str | None = None, size: int = CHUNK
) -> Iterator[list[Tombstone]]:
    """Yield the open (recorded or effective) tombstones of a database, chunk by chunk, one subject kind a chunk, in constant memory.

    No transaction stays open between chunks, so the reader may take its time. A restore reads the list at its start, then again
    with ``after`` for what arrived meanwhile.

    Args:
        database: name of the protected database.
        as_of: only tombstones up to this size of the list; by default up to the size at the first call.
        after: only tombstones behind this size of the list.
        subject_kind: only this kind of data subject.
        size: tombstones a chunk at the most.
    """
    session = ledger.places().session()
    if as_of is None:
        as_of = head().size
    kind = subject_kind if subject_kind is not None else session.value(SQL["next_kind"], (database, ""))
    while kind is not None:
        position = after
        while rows := session.rows(SQL["chunk"], (database, kind, position, as_of, size)):
            position = rows[-1][0]
            yield store.tombstones(rows)
            if len(rows) < size:
                break
        kind = session.value(SQL["next_kind"], (database, kind)) if subject_kind is None else None


def key_arrays(database: str, subject_kind: str, width: int, *, as_of: int, size: int = 50_000) -> Iterator[tuple[int, list[str]]]:
    """Yield the keys of the open tombstones of a kind as array literals: a million of them pass from server to server untouched.

    Args:
        database: name of the protected database.
        subject_kind: the kind of data subject.
        width: number of columns of its key.
        as_of: only tombstones up to this size of the list.
        size: tombstones a part at the most.

    Yields:
        How many tombstones, and the literals of their numbers (``bigint[]``) and of each column of their keys (``text[]``).
    """
    columns = compose.SQL(", ").join(
        compose.SQL("array_agg(key[{}])::text").format(compose.trusted(str(number))) for number in range(1, width + 1)
    )
    query = SQL["keys"].format(columns=columns)
    after = 0
    while True:
        values = {"database": database, "kind": subject_kind, "after": after, "as_of": as_of, "width": width, "size": size}
        number, last, *arrays = ledger.places().session().row(query, values) or (0, 0)
        if not number:
            return
        yield number, arrays
        if number < size:
            return
        after = last


def key_lines(database: str, subject_kind: str, *, as_of: int, size: int = 1 << 18) -> Iterator[str]:
    """Yield the keys of the open tombstones of a kind whose key is one column, as whole lines ``number TAB key`` of the COPY text format.

    Args:
        database: name of the protected database.
        subject_kind: the kind of data subject.
        as_of: only tombstones up to this size of the list.
        size: characters a part at the least, but for the last.
    """
    query = SQL["key_lines"].format(*(compose.Literal(value) for value in (database, subject_kind, as_of)))
    held = bytearray()
    for block in ledger.places().session().copy_out(query):
        held += block
        if len(held) >= size:
            yield held.decode()
            held.clear()
    if held:
        yield held.decode()


def numbered(numbers: Sequence[int]) -> list[Tombstone]:
    """Return tombstones by number, in the order of the list, in whatever state."""
    return store.tombstones(ledger.places().session().rows(SQL["numbered"], (list(numbers),)))


def count(database: str) -> int:
    """Return the number of open tombstones of a database."""
    return _once(("count", database), lambda session: int(session.value(SQL["count"], (database,))))


def states() -> list[tuple[str, State, int]]:
    """Return how many tombstones each database has in each state."""
    return [(database, State(state), number) for database, state, number in ledger.places().session().rows(SQL["states"])]


def head() -> Head:
    """Return size and hash of the list, and when its anchor was signed; size 0 when there is no list yet."""
    here = ledger.places()
    found = store.stored(here.session())
    anchor = here.anchor()
    return Head(found.size if found else 0, found.hash if found else b"", anchor.signed_at if anchor and anchor.size else None)


def highest_keys(database: str, subject_kind: str) -> dict[int, int]:
    """Return the highest integer at each position (from 0) of the keys of a subject kind; positions without integers are left out.

    After a restore every sequence must continue above these, or the next person gets the number of an erased one.
    """

    def ask(session: Session) -> dict[int, int]:
        return {int(position) - 1: int(value) for position, value in session.rows(SQL["highest_keys"], (database, subject_kind))}

    return _once(("highest_keys", database, subject_kind), ask)


def subject_kinds(database: str) -> list[str]:
    """Return the kinds of data subjects that have tombstones in a database, in any state."""
    session, kinds, kind = ledger.places().session(), list[str](), ""
    while (kind := session.value(SQL["next_kind"], (database, kind))) is not None:
        kinds.append(kind)
    return kinds


def resolutions(database: str) -> dict[int, dict[str, Decision]]:
    """Return the settled conflicts of a database: by number of the tombstone, then by fingerprint of the row; the latest counts."""
    settled: dict[int, dict[str, Decision]] = {}
    for tombstone, found, decision in ledger.places().session().rows(SQL["resolutions"], (database,)):
        settled.setdefault(tombstone, {})[found] = Decision(decision)
    return settled


class Resolutions(Mapping[int, Mapping[str, Decision]]):
    """The settled conflicts of a database, read when one is first asked for: hardly any erasure does."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._settled: dict[int, dict[str, Decision]] | None = None

    def _read(self) -> dict[int, dict[str, Decision]]:
        if self._settled is None:
            self._settled = resolutions(self._database)
        return self._settled

    def __getitem__(self, tombstone: int) -> Mapping[str, Decision]:
        return self._read()[tombstone]

    def __iter__(self) -> Iterator[int]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def find(ids: Sequence[TombstoneId | str]) -> list[Tombstone]:
    """Return tombstones by id, in the order of the list, in whatever state.

    Raises:
        TombstoneMissingError: there is no tombstone of one id.
    """
    return store.by_id(ledger.places().session(), ids)


def page(*, database: str | None = None, state: State | None = None, after: int = 0, limit: int = CHUNK) -> list[Tombstone]:
    """Return tombstones in any state for a reader, with key and fingerprint withheld."""
    wanted = None if state is None else str(state)
    return store.tombstones(ledger.places().session().rows(SQL["page"], (database, database, wanted, wanted, after, limit)))


def reveal(tombstone: TombstoneId | str, actor: Actor, purpose: Purpose, clock: Clock) -> tuple[tuple[str, ...], str] | None:
    """Return key and fingerprint of a tombstone to a named actor, or None when they are forgotten. The look is on record first.

    Raises:
        TombstoneMissingError: there is no such tombstone.
    """
    session = ledger.places().session()
    if not session.execute(SQL["looked"], (new_id("look"), str(actor), str(purpose), clock.now(), tombstone)):
        raise store.missing(str(tombstone))
    key, fingerprint = session.row(SQL["reveal"], (tombstone,)) or (None, None)
    return None if key is None else (tuple(key), fingerprint)


def _once(question: tuple[str, ...], ask: Callable[[Session], T]) -> T:
    """Return the answer to a question about all tombstones; asked anew only when the list has grown, since nothing else changes it."""
    here = ledger.places()
    session = here.session()
    head = store.stored(session)
    size = head.size if head else 0
    held = here.answers.get(question)
    if held is None or held[0] != size:
        held = here.answers[question] = size, ask(session)
    answer: T = held[1]
    return answer
