"""Who is on the list already: by key, and by what is still to be done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from obhut.erasure import ledger, reading, store
from obhut.erasure.entries import State, Tombstone
from obhut.postgres.sql import array_literal, load

_SQL = load("obhut.erasure", "known")


def by_keys(database: str, subject_kind: str, keys: Sequence[Sequence[str]]) -> list[Tombstone]:
    """Return the open tombstones of people, of any restore epoch, in the order of the list."""
    listed = json.dumps([array_literal(key) for key in keys])
    return store.tombstones(ledger.places().session().rows(_SQL["by_keys"], (database, subject_kind, listed)))


def in_state(database: str, state: State, *, size: int = reading.CHUNK) -> Iterator[list[Tombstone]]:
    """Yield a database's tombstones in one state, chunk by chunk; those that change meanwhile are not seen twice."""
    position = 0
    while rows := ledger.places().session().rows(_SQL["in_state"], (database, str(state), position, size)):
        position = rows[-1][0]
        yield store.tombstones(rows)


def anonymised_since(database: str, subject_kind: str, controller: str, since: datetime) -> int:
    """Return how many of a controller's people have a tombstone of an anonymisation recorded since a moment."""
    return int(ledger.places().session().value(_SQL["anonymised_since"], (database, subject_kind, controller, since)))


def opened_system(database: str) -> str | None:
    """Return the system identifier of the server that the last restore of a database opened; None before the first restore."""
    row = ledger.places().session().row(_SQL["opened_system"], (database,))
    return None if row is None else str(row[0])


def opened_at(database: str, server: str) -> datetime | None:
    """Return when a restore opened the server with this system identifier, if one did."""
    return ledger.places().session().value(_SQL["opened_at"], (database, server))  # type: ignore[no-any-return]  # a moment or None
