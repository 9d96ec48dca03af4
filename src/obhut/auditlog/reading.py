"""Read entries: the sealed parts of those whose keys still exist are opened, the others say that they are erased.

Never keeps a value and never writes one anywhere: what is opened goes back to the caller, who answers for showing it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, Protocol

from obhut.auditlog import entries
from obhut.auditlog.entries import Entry, Sealed
from obhut.auditlog.errors import LogUnknownError
from obhut.auditlog.files import LogFiles
from obhut.auditlog.store import Store
from obhut.keystore.errors import CommitmentError, SealedValueError
from obhut.keystore.sealing import Key, committed, unseal
from obhut.postgres.connections import Session
from obhut.postgres.sql import load

STATEMENTS: Final = load("obhut.auditlog", "index")


class KeyReader(Protocol):
    """Where the keys of people are."""

    def by_id(self, ids: Collection[bytes]) -> Mapping[bytes, object]:
        """Return what is known under ids: a key, or anything else for one that was destroyed; absent where there never was one."""
        ...


class PartState(StrEnum):
    """What became of a sealed part."""

    OPEN = "open"
    ERASED = "erased"  # its key was destroyed, or it was dropped because the person was erased already
    UNREADABLE = "unreadable"  # key, commitment, ciphertext and digest do not belong together, or the ciphertext is gone
    CLOSED = "closed"  # nobody asked for it to be opened


@dataclass(frozen=True, slots=True)
class Opened:
    """A sealed part as far as it can be read."""

    part: str
    key: bytes
    state: PartState
    plaintext: bytes | None = None


@dataclass(frozen=True, slots=True)
class LogHead:
    """A log as the control database knows it."""

    id: int
    controller: str
    period: str
    origin: str
    size: int
    root: bytes
    removed_at: datetime | None
    opened_at: datetime
    grown_at: datetime
    checkpoint: str

    @property
    def month(self) -> int:
        """Its period as a number, such as 202611."""
        return int(self.period.replace("-", ""))

    def files(self, store: Store) -> LogFiles:
        """Return its files."""
        return LogFiles.of(store, self.controller, self.period)


def logs(session: Session, controllers: Sequence[str] | None = None) -> list[LogHead]:
    """Return the logs of controllers, or of all, the youngest first."""
    wanted = {"controllers": None if controllers is None else list(controllers)}
    return [LogHead(row[0], row[1], row[2], row[3], row[4], bytes(row[5]), *row[7:11]) for row in session.rows(STATEMENTS["logs"], wanted)]


def log_of(session: Session, controller: str, period: str) -> LogHead:
    """Return a log whose entries are there.

    Raises:
        LogUnknownError: there is none, or its entries are past their retention.
    """
    found = [head for head in logs(session, [controller]) if head.period == period]
    if not found:
        raise LogUnknownError(f"controller {controller} has no log of {period}", 'Look at "obhut audit logs".')
    if found[0].removed_at is not None:
        raise LogUnknownError(f"the entries of {period} were removed when their retention ended", "The checkpoint is still there.")
    return found[0]


def open_parts(controller: str, found: Iterable[tuple[LogFiles, Entry]], keys: KeyReader | None) -> list[list[Opened]]:
    """Return the sealed parts of entries, opened where a key is given and still exists.

    Args:
        controller: whose log it is: ciphertexts are bound to it.
        found: entries with the files of their log; blobs are read from there.
        keys: where the keys are; None opens nothing.
    """
    pairs = list(found)
    wanted = {part.key for _, entry in pairs for part in entry.sealed if not part.dropped}
    known = keys.by_id(wanted) if keys is not None and wanted else {}
    return [[_opened(controller, files, entry, part, known, asked=keys is not None) for part in entry.sealed] for files, entry in pairs]


def _opened(controller: str, files: LogFiles, entry: Entry, part: Sealed, known: Mapping[bytes, object], *, asked: bool) -> Opened:
    key: Any = known.get(part.key)
    if part.dropped or (asked and not isinstance(key, Key)):
        return Opened(part.part, part.key, PartState.ERASED)
    if not asked:
        return Opened(part.part, part.key, PartState.CLOSED)
    data = files.store.read(files.blob(part.blob)) if part.blob else part.data
    if data is None or (part.blob and sha256(data).hexdigest() != part.blob):
        return Opened(part.part, part.key, PartState.UNREADABLE)
    bound = entries.binding(controller, entry.database, entry.table, entry.operation, entry.position, part.part)
    try:
        plaintext = unseal(committed(key.id, key.secret, part.commitment), data, bound)
    except (CommitmentError, SealedValueError):
        return Opened(part.part, part.key, PartState.UNREADABLE)
    if entries.digest(plaintext) != part.digest:
        return Opened(part.part, part.key, PartState.UNREADABLE)
    return Opened(part.part, part.key, PartState.OPEN, plaintext)
