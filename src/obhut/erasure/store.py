"""The erasure list in the control database: all its SQL, and how entries become the state of tombstones.

Speaks through a session of its own beside Django's, so that a tombstone is committed even when its caller is inside a transaction
that is rolled back later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, Final, NamedTuple

from obhut.erasure import chain
from obhut.erasure.entries import (
    Action,
    Canonical,
    Pending,
    Private,
    Range,
    State,
    Tombstone,
    date_of,
    private_of_resolution,
    private_of_tombstone,
)
from obhut.erasure.errors import ListStateError
from obhut.erasure.mirror import LABEL_PREFIX
from obhut.foundation.ids import InstructionId, TombstoneId
from obhut.postgres.connections import Row, Session
from obhut.postgres.sql import array_literal, copy_field, load

SQL: Final = load("obhut.erasure", "store")
_ACTIONS: Final = {str(action): action for action in Action}
_STATES: Final = {str(state): state for state in State}


class Stored(NamedTuple):
    """Name, size and last hash of the list in the control database."""

    origin: str
    size: int
    hash: bytes


class Published(NamedTuple):
    """An entry as the mirror wants it."""

    seq: int
    text: str
    hash: bytes
    private: Private | None


def stored(session: Session, *, lock: bool = False) -> Stored | None:
    """Return the head of the list, or None when the control database holds no list."""
    found = session.row(SQL["head_for_update" if lock else "head"])
    return Stored(found[0], found[1], bytes(found[2])) if found else None


def stored_beside(session: Session, size: int) -> tuple[Stored, bytes | None] | None:
    """Return the head of the list and, in the same moment, the head it had at a size (None where there is no such entry)."""
    found = session.row(SQL["head_and_hash_at"], (size,))
    if not found:
        return None
    origin, current, digest, before = found
    return Stored(origin, current, bytes(digest)), chain.start(origin) if size == 0 else None if before is None else bytes(before)


def create(session: Session, origin: str) -> None:
    """Make a new, empty list unless there is one."""
    session.execute(SQL["create"], (origin, chain.start(origin)))


def append(session: Session, head: Stored, pending: Sequence[Pending]) -> list[Published]:
    """Append entries and move the state along; must run inside a transaction that holds the head."""
    published: list[Published] = []
    lines: list[str] = []
    current = head.hash
    for members, text, private, _ in pending:
        seq, current = members["seq"], chain.extend(current, text)
        published.append(Published(seq, text, current, private))
        lines.append(f"{seq}\t{copy_field(text)}\t\\\\x{current.hex()}\n")
    session.copy_in(SQL["add_entries"], ["".join(lines).encode()])
    _project(session, pending)
    session.execute(SQL["grow"], (published[-1].seq, current))
    return published


def append_one(session: Session, head: Stored, pending: Sequence[Pending]) -> list[Published] | None:
    """Append the tombstone that erasing one person takes, in one round trip and its own transaction; None for anything else.

    Raises:
        ListStateError: the head moved although the writer's lock is held.
    """
    if len(pending) != 1 or pending[0].members["kind"] != "tombstone":
        return None
    m, text, private, _ = pending[0]
    after = chain.extend(head.hash, text)
    known = json.loads(private.text) if private else {"key": [], "fingerprint": ""}
    values = (
        m["seq"], after, head.size, head.hash, text, m["id"], m["database"], m["controller"], m["subject"], array_literal(known["key"]),
        known["fingerprint"], private.salt if private else None, m["action"], m["map"], m["instruction"], m["epoch"], m["erased_at"],
        LABEL_PREFIX + m["at"][:10],
    )  # fmt: skip
    if session.value(SQL["record_one"], values) != 1:
        raise ListStateError("the erasure list changed under its writer")
    return [Published(m["seq"], text, after, private)]


def confirm_one(session: Session, head: Stored, pending: Pending, lock: int) -> Published | None:
    """Append the entry that makes one recorded tombstone effective, in one round trip and its own transaction.

    None, with nothing done, where another writer holds the lock, or head or tombstone are not what the caller saw.
    """
    m, text, *_ = pending
    after = chain.extend(head.hash, text)
    number = m["tombstones"][0][0]
    values = {
        "number": number, "at": m["at"], "lock": lock, "size": head.size, "hash": head.hash, "seq": m["seq"], "after": after, "body": text,
    }  # fmt: skip
    return Published(m["seq"], text, after, None) if session.value(SQL["confirm_one"], values) == 1 else None


def _project(session: Session, pending: Sequence[Pending]) -> None:
    """Apply entries to the state tables, runs of tombstones at once."""
    for kind, group in groupby(pending, key=lambda item: item.members["kind"]):
        items = list(group)
        if kind == "tombstone":
            _add_tombstones(session, items)
        else:
            for item in items:
                _apply(session, kind, item)


def _add_tombstones(session: Session, items: Sequence[Pending]) -> None:
    lines = []
    field = lru_cache(maxsize=256)(copy_field)  # most of the values are the same in a whole batch
    for m, _, private, about in items:
        private_part = "\\N\t\\N\t\\N"
        if private:
            key, fingerprint = about or _about(private)
            private_part = f"{copy_field(array_literal(key))}\t{copy_field(fingerprint)}\t\\\\x{private.salt.hex()}"
        lines.append(
            f"{m['seq']}\t{m['id']}\t{field(m['database'])}\t{field(m['controller'])}\t{field(m['subject'])}\t{private_part}\t{m['action']}"
            f"\t{field(m['map'])}\t{field(m['instruction'])}\t{m['epoch']}\t{m['erased_at']}\trecorded\t{LABEL_PREFIX}{m['at'][:10]}\n"
        )
    session.copy_in(SQL["add_tombstones"], ["".join(lines).encode()])


def _about(private: Private) -> tuple[tuple[str, ...], str]:
    known: dict[str, Any] = json.loads(private.text)
    return tuple(known["key"]), known["fingerprint"]


def _apply(session: Session, kind: str, item: Pending) -> None:
    m = item.members
    spans = spans_of(m.get("tombstones", []))
    moved = sum(high - low + 1 for low, high in m.get("tombstones", []))
    if kind == "effective":
        touched = session.execute(SQL["make_effective"], (m["at"], *spans))
    elif kind in {"lifted", "retired"}:
        touched = session.execute(SQL["forget"], (kind, *spans))
        session.execute(SQL["forget_resolutions"], spans)
    elif kind == "epoch":
        moved = 1
        values = m["seq"], m["database"], m["epoch"], m["run"], m["system_identifier"], m["timeline"], m["at"]
        touched = session.execute(SQL["add_epoch"], values)
    elif kind == "resolved":
        moved = 1
        found = json.loads(item.private.text)["found"] if item.private else None
        salt = item.private.salt if item.private else None
        touched = session.execute(SQL["add_resolution"], (m["seq"], m["tombstone"], m["decision"], found, salt))
    else:
        raise ListStateError("the list holds an entry of an unknown kind", "Was it written by a newer version of Obhut?")
    if touched != moved:
        raise ListStateError("an entry moves tombstones that are not in the table")


def spans_of(ranges: Sequence[Range]) -> tuple[list[int], list[int]]:
    """Return ranges as the two arrays of their ends that the statements take."""
    return [low for low, _ in ranges], [high for _, high in ranges]


def unpublished(session: Session, after: int, limit: int) -> list[Published]:
    """Return the entries behind a number, with the private parts that are still known."""
    return [_published(row) for row in session.rows(SQL["publish"], (after, limit))]


def _published(row: Row) -> Published:
    seq, text, digest, key, fingerprint, salt, found = row
    private: Private | None = None
    if key is not None:
        private = Private(seq, bytes(salt), private_of_tombstone(key, fingerprint))
    elif found is not None:
        private = Private(seq, bytes(salt), private_of_resolution(found))
    return Published(seq, text, bytes(digest), private)


def label_of(text: str) -> str:
    """Return the label of the data key that seals the private part of an entry."""
    return LABEL_PREFIX + date_of(text)


def tombstones(rows: Iterable[Row]) -> list[Tombstone]:
    """Return rows as tombstones."""
    # Without the constructor's call: a restore makes a million of them.
    make, actions, states = partial(tuple.__new__, Tombstone), _ACTIONS, _STATES
    return [
        make((seq, i, db, ctl, kind, None if key is None else tuple(key), fp or "", actions[act], mv, ins, ep, at, states[st]))
        for seq, i, db, ctl, kind, key, fp, act, mv, ins, ep, at, st in rows
    ]  # fmt: skip


def known(session: Session, database: str, kind: str, action: str, keys: Sequence[tuple[str, ...]]) -> tuple[int, list[Tombstone]]:
    """Return the current restore epoch of a database, and the open tombstones of a kind and action in it that have one of the keys."""
    if len(keys) == 1:
        what = {"database": database, "kind": kind, "action": action, "key": array_literal(keys[0])}
        rows = session.rows(SQL["known_one"], what)
        return rows[0][0], tombstones(row[1:] for row in rows if row[1] is not None)
    found = session.row(SQL["epochs"], ([database],))
    epoch = int(found[1]) if found else 0
    given = json.dumps([array_literal(key) for key in keys])
    return epoch, tombstones(session.rows(SQL["known_many"], (given, database, kind, action, epoch)))


def from_pending(item: Pending, erased_at: datetime, key: tuple[str, ...], fingerprint: str) -> Tombstone:
    """Return a tombstone that was just appended."""
    m = item.members
    return Tombstone(
        m["seq"], TombstoneId(m["id"]), m["database"], m["controller"], m["subject"], key, fingerprint, _ACTIONS[m["action"]], m["map"],
        InstructionId(m["instruction"]), m["epoch"], _utc(erased_at), State.RECORDED,
    )  # fmt: skip


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def pend(members: dict[str, Any], text: str, private: Private | None) -> Pending:
    """Return an entry that was read elsewhere, to be appended here."""
    return Pending(members, Canonical(text), private)
