"""The erasure list in the control database: all its SQL, and how entries become the state of tombstones.

Speaks through a session of its own beside Django's, so that a tombstone is committed even when its caller is inside a transaction
that is rolled back later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
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
from obhut.erasure.errors import ListStateError, TombstoneMissingError
from obhut.erasure.mirror import LABEL_PREFIX
from obhut.foundation.ids import TombstoneId
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
    for members, text, private in pending:
        seq, current = members["seq"], chain.extend(current, text)
        published.append(Published(seq, text, current, private))
        lines.append(f"{seq}\t{copy_field(text)}\t\\\\x{current.hex()}\n")
    session.copy_in(SQL["add_entries"], ["".join(lines).encode()])
    _project(session, pending)
    session.execute(SQL["grow"], (published[-1].seq, current))
    return published


def append_batch(session: Session, last: Published, entry_lines: Sequence[str], tombstone_lines: Sequence[str]) -> None:
    """Append many tombstones whose lines are made; must run inside a transaction that holds the head."""
    session.copy_in(SQL["add_entries"], ["".join(entry_lines).encode()])
    session.copy_in(SQL["add_tombstones"], ["".join(tombstone_lines).encode()])
    session.execute(SQL["grow"], (last.seq, last.hash))


def append_one(session: Session, head: Stored, new: Published, tombstone: Tombstone) -> None:
    """Append the tombstone that erasing one person takes, in one round trip and its own transaction.

    Raises:
        ListStateError: the head moved although the writer's lock is held.
    """
    t, private = tombstone, new.private
    values = (
        new.seq, new.hash, head.size, head.hash, new.text, t.id, t.database, t.controller, t.subject_kind, array_literal(t.key or ()),
        t.fingerprint, private.salt if private else None, str(t.action), t.map_version, t.instruction, t.epoch, t.erased_at,
        label_of(new.text),
    )  # fmt: skip
    if session.value(SQL["record_one"], values) != 1:
        raise ListStateError("the erasure list changed under its writer")


def confirm_one(session: Session, head: Stored, pending: Pending, lock: int) -> Published | None:
    """Append the entry that makes one recorded tombstone effective, in one round trip and its own transaction.

    None, with nothing done, where another writer holds the lock, or head or tombstone are not what the caller saw.
    """
    m, text, _ = pending
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
    rows = []
    for m, _, private in items:
        known: dict[str, Any] | None = json.loads(private.text) if private else None
        rows.append((
            m["seq"], m["id"], m["database"], m["controller"], m["subject"],
            array_literal(known["key"]) if known else None,
            known["fingerprint"] if known else None,
            "\\x" + private.salt.hex() if private else None,
            m["action"], m["map"], m["instruction"], m["epoch"], m["erased_at"], "recorded", LABEL_PREFIX + m["at"][:10],
        ))  # fmt: skip
    session.copy_rows(SQL["add_tombstones"], rows)


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


def known(session: Session, database: str, kind: str, action: str, keys: Sequence[str]) -> tuple[int, list[Tombstone]]:
    """Return the current restore epoch of a database, and the open tombstones of a kind and action in it that have one of the keys.

    The keys are array literals.
    """
    if len(keys) == 1:
        what = {"database": database, "kind": kind, "action": action, "key": keys[0]}
        rows = session.rows(SQL["known_one"], what)
        return rows[0][0], tombstones(row[1:] for row in rows if row[1] is not None)
    found = session.row(SQL["epochs"], ([database],))
    epoch = int(found[1]) if found else 0
    return epoch, tombstones(session.rows(SQL["known_many"], (json.dumps(keys), database, kind, action, epoch)))


def pend(members: dict[str, Any], text: str, private: Private | None) -> Pending:
    """Return an entry that was read elsewhere, to be appended here."""
    return Pending(members, Canonical(text), private)


def by_id(session: Session, ids: Iterable[TombstoneId | str]) -> list[Tombstone]:
    """Return tombstones by id, in the order of the list, in whatever state.

    Raises:
        TombstoneMissingError: there is no tombstone of one id.
    """
    wanted = [str(item) for item in ids]
    found = tombstones(session.rows(SQL["by_id"], (wanted,)))
    if unknown := set(wanted) - {item.id for item in found}:
        raise missing(min(unknown))
    return found


def missing(identity: str) -> TombstoneMissingError:
    """Return the error that there is no such tombstone."""
    return TombstoneMissingError(f"there is no tombstone {identity}", 'Run "obhut erasures list" to see them.')
