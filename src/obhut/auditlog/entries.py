"""Entries of the audit log (specification, sections 2 and 3): values, and their octets.

Knows neither keys nor places. What is personal arrives here as ciphertext; nothing in this module could show a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from obhut.auditlog.tlog.tiles import MAX_ENTRY

VERSION: Final = 1
MAX_INLINE: Final = 8_192  # octets of a ciphertext inside an entry
KEY_ID: Final = 16  # octets
_VALUE: Final = b"obhut audit log v1 value\n"
_BOUND: Final = "obhut audit log v1 sealed"


class Kind(StrEnum):
    """What an entry is."""

    OPENING = "opening"
    CHANGE = "change"
    GAP = "gap"
    ACTION = "action"


class Part(StrEnum):
    """What a sealed part is about."""

    ROW = "row"
    ACTOR = "actor"


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a change stands in the WAL; an LSN alone is not unique."""

    system: str
    timeline: int
    lsn: str  # of the commit, such as 0/16B3748
    ordinal: int  # in the transaction, from 0

    def order(self) -> tuple[int, int, int]:
        """Return what positions of one server are compared by: on a new timeline the same LSN is another moment."""
        high, _, low = self.lsn.partition("/")
        return self.timeline, int(high, 16) << 32 | int(low, 16), self.ordinal


class Sealed(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What only one person's key opens."""

    part: str
    key: bytes  # id, 16 octets
    commitment: bytes = b""
    digest: bytes = b""
    data: bytes = b""
    blob: str = ""
    size: int = 0
    dropped: str = ""


class Fact(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What the server knew about the session."""

    session_user: str = ""
    application: str = ""
    client: str = ""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One entry. Build it by :func:`change`, :func:`gap` or :func:`action`; openings are the log's own business."""

    v: int
    kind: Kind
    at: datetime  # aware, UTC
    position: Position | None = None
    database: str = ""
    table: str = ""
    operation: str = ""
    subjects: tuple[bytes, ...] = ()
    fact: Fact | None = None
    capture: str = ""
    detail: dict[str, str | int] = {}  # msgspec gives each entry its own
    sealed: tuple[Sealed, ...] = ()


class EntryFormError(Exception):
    """Octets that are no entry of this version, or a value that no entry may have."""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Entry)

encode = _ENCODER.encode


def change(
    *,
    at: datetime,
    position: Position,
    database: str,
    table: str,
    operation: str,
    sealed: Sequence[Sealed],
    fact: Fact | None = None,
    capture: str = "wal",
) -> Entry:
    """Return an entry about one changed row; its subjects are those of its sealed parts."""
    return Entry(
        v=VERSION,
        kind=Kind.CHANGE,
        at=at,
        position=position,
        database=database,
        table=table,
        operation=operation,
        subjects=(sealed[0].key,) if len(sealed) == 1 else tuple(sorted({part.key for part in sealed})),
        fact=fact,
        capture=capture,
        sealed=tuple(sealed),
    )


def gap(
    *,
    at: datetime,
    database: str,
    reason: str,
    table: str = "",
    position: Position | None = None,
    detail: Mapping[str, str | int] | None = None,
    fact: Fact | None = None,
    capture: str = "event",
) -> Entry:
    """Return an entry that says what could not be seen."""
    return Entry(
        v=VERSION, kind=Kind.GAP, at=at, position=position, database=database, table=table, operation=reason,
        fact=fact, capture=capture, detail=dict(detail or {}),
    )  # fmt: skip


def action(*, at: datetime, name: str, detail: Mapping[str, str | int], database: str = "", subjects: Sequence[bytes] = ()) -> Entry:
    """Return an entry about something Obhut itself did."""
    return Entry(
        v=VERSION, kind=Kind.ACTION, at=at, database=database, operation=name, capture="obhut", detail=dict(detail),
        subjects=tuple(sorted(set(subjects))),
    )  # fmt: skip


def opening(*, at: datetime, controller: str, period: str, previous: tuple[str, int, str] | None) -> Entry:
    """Return entry 0 of a log; ``previous`` is origin, size and root (base64) of the log before it."""
    detail: dict[str, str | int] = {"controller": controller, "period": period}
    if previous:
        detail |= dict(zip(("previous_origin", "previous_size", "previous_root"), previous, strict=True))
    return Entry(v=VERSION, kind=Kind.OPENING, at=at, detail=detail)


def decode(octets: bytes) -> Entry:
    """Return the entry of these octets.

    Raises:
        EntryFormError: they are none. The message never quotes them.
    """
    try:
        entry = _DECODER.decode(octets)
    except msgspec.MsgspecError:
        raise EntryFormError("not an entry of the audit log") from None
    if entry.v != VERSION:
        raise EntryFormError("an entry of another version")
    return entry


def blobs_apart(entry: Entry) -> tuple[Entry, dict[str, bytes]]:
    """Return the entry with long ciphertexts replaced by their hashes, and these ciphertexts by hash."""
    blobs: dict[str, bytes] = {}
    parts = []
    for part in entry.sealed:
        if len(part.data) > MAX_INLINE:
            name = sha256(part.data).hexdigest()
            blobs[name] = part.data
            part = msgspec.structs.replace(part, data=b"", blob=name, size=len(blobs[name]))  # noqa: PLW2901 - the same part
        parts.append(part)
    return msgspec.structs.replace(entry, sealed=tuple(parts)), blobs


def checked(octets: bytes) -> bytes:
    """Return the octets of an entry.

    Raises:
        EntryFormError: there are more than a log takes.
    """
    if len(octets) > MAX_ENTRY:
        raise EntryFormError(f"an entry of {len(octets)} octets; a log takes {MAX_ENTRY}")
    return octets


def digest(plaintext: bytes) -> bytes:
    """Return what an entry says about a plaintext, which must begin with a salt (see :func:`plain`)."""
    return sha256(_VALUE + plaintext).digest()


def plain(salt: bytes, members: Mapping[str, object]) -> bytes:
    """Return the plaintext of a sealed part: a JSON object that begins with its salt.

    Args:
        salt: 16 random octets, used for nothing else.
        members: ``key``, ``old``, ``new``, ``unchanged`` of a row, or ``actor``, ``reason``, ``request``.
    """
    return _ENCODER.encode({"salt": salt, **members})


def binding(controller: str, database: str, table: str, operation: str, position: Position | None, part: str) -> bytes:
    """Return the associated data of a sealed part: what it cannot be moved away from."""
    where = f"{position.system} {position.timeline} {position.lsn} {position.ordinal}" if position else "-"
    return f"{_BOUND}\n{controller}\n{database}\n{table}\n{operation}\n{where}\n{part}".encode()
