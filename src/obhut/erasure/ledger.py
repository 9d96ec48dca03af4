"""The erasure list in use: record who must stay erased, move tombstones along. Read by :mod:`obhut.erasure.reading`.

Every function works on the list that :func:`open_ledger` opened last in this process. What it appends is durable in the control
database, the mirror and the anchor when it returns (see :mod:`obhut.erasure.places` for the order and why).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final, TypeVar

from obhut.erasure import batches, chain, entries, store
from obhut.erasure import recover as recovery
from obhut.erasure.batches import Batch, Prepared
from obhut.erasure.check import ListReport, check
from obhut.erasure.entries import (
    LEGAL_MOVES,
    Decision,
    Epoch,
    Inventory,
    Members,
    NewTombstone,
    Pending,
    Private,
    State,
    Tombstone,
    canonical,
)
from obhut.erasure.errors import (
    CopyMayExistError,
    IllegalMoveError,
    ListForkedError,
    ListNotOpenError,
)
from obhut.erasure.fingerprints import MAC_KEY_NAME
from obhut.erasure.mirror import LABEL_PREFIX
from obhut.erasure.places import LOCK, Places
from obhut.erasure.recover import Recovery
from obhut.erasure.store import SQL, Published, Stored, spans_of
from obhut.foundation import faultpoints
from obhut.foundation.clock import Clock
from obhut.foundation.ids import InstructionId, Lsn, RunId, TombstoneId
from obhut.foundation.settings import Settings
from obhut.keystore import KeyState
from obhut.postgres.connections import Session

T = TypeVar("T")
CHUNK: Final = 10_000  # tombstones
_LABEL_REST: Final = timedelta(days=2)  # a label may still be written to today, and by a clock that is a day behind


_opened: Places | None = None


def open_ledger(settings: Settings) -> Places:
    """Make the list of these settings the one of this process, and return its places; harmless when it already is.

    The control database must be open. Nothing is read yet; :func:`verify` and every append do.
    """
    global _opened  # noqa: PLW0603 - one list a process, like one control database
    if _opened is None or _opened.settings != settings:
        close_ledger()
        _opened = Places(settings)
    return _opened


def close_ledger() -> None:
    """Close this thread's connection and forget the list."""
    global _opened  # noqa: PLW0603 - as above
    if _opened is not None:
        _opened.close()
    _opened = None


def places() -> Places:
    """Return the places of the open list.

    Raises:
        ListNotOpenError: :func:`open_ledger` was not called.
    """
    if _opened is None:
        raise ListNotOpenError("the erasure list is not open in this process", "A programming error: open_ledger comes first.")
    return _opened


def fingerprint_key() -> bytes:
    """Return the MAC key for :func:`obhut.erasure.fingerprints.fingerprint`."""
    return places().keystore.mac_key(MAC_KEY_NAME)


# ---- appending ----


def record(tombstones: Sequence[NewTombstone], clock: Clock) -> list[Tombstone]:
    """Record tombstones durably, and return them in the order given.

    Idempotent: one that repeats an open tombstone of the same database, subject kind, key, fingerprint, action and restore epoch
    returns that one and adds nothing.

    Raises:
        ErasureListError: a place lost entries or cannot be written; nobody may be erased.
        EntryError: a value cannot be part of an entry.
    """
    if not tombstones:
        return []
    for new in tombstones:
        entries.validate(new)

    prepared = batches.prepare(tombstones)

    def build(session: Session, before: Stored, now: datetime) -> tuple[Batch, list[Tombstone]]:
        epochs, known = _known(session, prepared)
        fresh: dict[object, Prepared] = {}
        for one in prepared:
            identity = _identity(one.new)
            if identity not in known:
                fresh.setdefault(identity, one)
        batch = batches.place(list(fresh.values()), before, now, epochs)
        if len(fresh) == len(prepared):
            return batch, batch.tombstones
        known.update(zip(fresh, batch.tombstones, strict=True))
        return batch, [known[_identity(one.new)] for one in prepared]

    return _append(build, clock)


def mark_effective(run: RunId | str, tombstones: Sequence[Tombstone], lsn: Lsn | str, clock: Clock) -> int:
    """Note that the erasing transaction of these tombstones is committed, and return how many were not effective before.

    Durable in the control database when it returns; mirror and anchor get it with the next append or with :func:`settle`. A restore
    applies recorded and effective tombstones alike, so nothing but a note can be lost with the control database.

    Args:
        run: the run that erased.
        tombstones: of one database each transaction; several databases give one entry each.
        lsn: position of the commit in the WAL of the protected database.
        clock: tells when.

    Raises:
        IllegalMoveError: one is lifted or retired.
    """

    def build(session: Session, before: Stored, now: datetime) -> tuple[list[Pending], int]:
        todo = _not_yet_effective(session, tombstones)
        pending: list[Pending] = []
        for database, group in groupby(sorted(todo, key=lambda item: item.database), key=lambda item: item.database):
            numbers = [item.seq for item in group]
            pending.append(_entry(entries.effective(before.size + len(pending) + 1, now, database, RunId(run), lsn, numbers)))
        return pending, len({item.seq for item in todo})

    if len(tombstones) == 1 and _confirm_at_once(run, tombstones[0], lsn, clock):
        return 1
    return _append(build, clock, defer=True) if tombstones else 0


def settle(clock: Clock) -> None:
    """Bring mirror and anchor up to the list: what was deferred, or what a crash left behind.

    Raises:
        ErasureListError: a place lost entries or cannot be written.
    """
    here = places()
    with here.writing() as session:
        if store.stored(session) is not None:
            here.ready(session, clock.now())
            here.take_deferred()


def lift(ids: Sequence[TombstoneId | str], instruction: InstructionId | str, clock: Clock) -> int:
    """Lift tombstones that were recorded in error or whose instruction was reversed, forget who they were about, and return how many.

    Raises:
        TombstoneMissingError: there is no tombstone of one id.
        IllegalMoveError: one is lifted or retired already.
    """

    def build(session: Session, before: Stored, now: datetime) -> tuple[list[Pending], int]:
        found = store.by_id(session, ids)
        for item in found:
            _require(item.id, item.state, State.LIFTED)
        return [_entry(entries.lifted(before.size + 1, now, instruction, [item.seq for item in found]))], len(found)

    return _append(build, clock, forgets=True) if ids else 0


def resolve(tombstone: TombstoneId | str, found: str, decision: Decision, instruction: InstructionId | str, clock: Clock) -> None:
    """Settle a conflict of fingerprints: say whether the row with the fingerprint ``found`` is the erased person.

    Raises:
        TombstoneMissingError: there is no such tombstone.
        IllegalMoveError: it is lifted or retired.
    """

    def build(session: Session, before: Stored, now: datetime) -> tuple[list[Pending], None]:
        item = store.by_id(session, [tombstone])[0]
        if item.state not in entries.OPEN_STATES:
            raise IllegalMoveError(f"tombstone {item.id} is {item.state}", "A conflict is settled on an open tombstone only.")
        private = Private(before.size + 1, os.urandom(chain.SALT_BYTES), entries.private_of_resolution(found))
        commitment = chain.commit(private.salt, private.text)
        members = entries.resolved(before.size + 1, now, item.seq, decision, instruction, commitment)
        return [_entry(members, private)], None

    _append(build, clock)


def retire(inventory: Inventory, clock: Clock) -> int:
    """Retire every tombstone of a database that no existing copy can still hold, forget who they were about, and return how many.

    Raises:
        CopyMayExistError: the inventory is not complete.
    """
    if not inventory.complete:
        raise CopyMayExistError(
            f"not every place that may hold a copy of {inventory.database} could be listed",
            "Which repository did not answer? Nothing retires before the inventory is complete.",
        )

    def build(session: Session, before: Stored, now: datetime) -> tuple[list[Pending], int]:
        since = inventory.copies_since
        numbers = [seq for (seq,) in session.rows(SQL["retirable"], (inventory.database, since, since))]
        return ([_entry(entries.retired(before.size + 1, now, inventory, numbers))] if numbers else []), len(numbers)

    return _append(build, clock, forgets=True)


def new_epoch(database: str, run: RunId | str, system_identifier: int | str, timeline: int, clock: Clock) -> Epoch:
    """Open a restore epoch: from here on the database may hand out identifiers again. Repeating it for the same run changes nothing."""

    def build(session: Session, before: Stored, now: datetime) -> tuple[list[Pending], Epoch]:
        rows = session.rows(SQL["epochs_of"], (database,))
        for number, of_run, system, line, opened_at in rows:
            if of_run == run:
                return [], Epoch(database, number, RunId(of_run), system, line, opened_at)
        number = max((row[0] for row in rows), default=0) + 1
        epoch = Epoch(database, number, RunId(run), str(system_identifier), timeline, now)
        return [_entry(entries.epoch(before.size + 1, epoch))], epoch

    return _append(build, clock)


# ---- looking after the list ----


def verify_list(settings: Settings, *, settle_at: Clock | None = None) -> ListReport:
    """Verify list, mirror and anchor in full, and return what was seen.

    Args:
        settings: the installation.
        settle_at: first bring mirror and anchor up to the list; without it, nothing is written.

    Raises:
        ErasureListError: one of the findings of the specification's section 10, each its own class and code.
    """
    here = open_ledger(settings)
    if settle_at is not None:
        settle(settle_at)
    return check(here)


def recover(settings: Settings, clock: Clock, *, accept_missing_anchor: bool = False) -> Recovery:
    """Make list, mirror and anchor whole again from each other; see :func:`obhut.erasure.recover.recover`."""
    return recovery.recover(open_ledger(settings), clock.now(), accept_missing_anchor=accept_missing_anchor)


# ---- inside ----


def _append(
    build: Callable[[Session, Stored, datetime], tuple[list[Pending] | Batch, T]],
    clock: Clock,
    *,
    forgets: bool = False,
    defer: bool = False,
) -> T:
    """Append what ``build`` decides under the writer's lock, to all three places, or with ``defer`` to the list only for now."""
    here = places()
    now = clock.now()
    with here.writing() as session:
        before = here.ready(session, now, heal=False)
        faultpoints.reach("erasure-list.locked")
        # Decided outside the transaction: the writer's lock keeps what is read, and the append checks that the head has not moved.
        new, result = build(session, before, now)
        published = _write(session, before, new)
        faultpoints.reach("erasure-list.committed")
        here.last = after = Stored(before.origin, published[-1].seq, published[-1].hash) if published else before
        if defer:
            here.defer(published)
        else:
            here.publish(session, after, here.take_deferred(published), now)
        if forgets:
            forget_labels(session, now)
    return result


def _confirm_at_once(run: RunId | str, tombstone: Tombstone, lsn: Lsn | str, clock: Clock) -> bool:
    """Note in one statement that one erasure is committed, where nobody has written since this process did; false with nothing done."""
    here = places()
    before = here.last
    if before is None or tombstone.state is not State.RECORDED:
        return False
    entry = _entry(entries.effective(before.size + 1, clock.now(), tombstone.database, RunId(run), lsn, [tombstone.seq]))
    published = store.confirm_one(here.session(), before, entry, LOCK)
    faultpoints.reach("erasure-list.committed")
    if published is None:
        return False
    here.defer([published])
    here.last = Stored(before.origin, published.seq, published.hash)
    return True


def _write(session: Session, before: Stored, new: list[Pending] | Batch) -> list[Published]:
    """Append to the list in the control database: one tombstone in one statement, anything else in a transaction."""
    if isinstance(new, Batch) and len(new.published) == 1:
        store.append_one(session, before, new.published[0], new.tombstones[0])
        return new.published
    if not (new.published if isinstance(new, Batch) else new):
        return []
    with session.transaction():
        if store.stored(session, lock=True) != before:
            raise ListForkedError("another writer changed the erasure list without its lock")
        published = new.published if isinstance(new, Batch) else store.append(session, before, new)
        if isinstance(new, Batch):
            store.append_batch(session, published[-1], new.entry_lines, new.tombstone_lines)
        faultpoints.reach("erasure-list.inserted")
    return published


def forget_labels(session: Session, now: datetime) -> list[str]:
    """Destroy the data keys of the mirror that no tombstone needs any more, and return their labels."""
    keystore = places().keystore
    needed = {label for (label,) in session.rows(SQL["labels_in_use"])}
    rest = f"{LABEL_PREFIX}{now - _LABEL_REST:%Y-%m-%d}"
    gone = [
        label
        for label, state in keystore.labels()
        if state is KeyState.ACTIVE and label.startswith(LABEL_PREFIX) and label < rest and label not in needed
    ]
    for label in gone:
        keystore.destroy(label)
    return gone


def _identity(item: NewTombstone | Tombstone) -> tuple[object, ...]:
    """Return what makes two tombstones of the same restore epoch the same."""
    return item.database, item.subject_kind, item.key, item.fingerprint, item.action


def _known(session: Session, prepared: Sequence[Prepared]) -> tuple[dict[str, int], dict[object, Tombstone]]:
    """Return the restore epoch of each database, and the open tombstones by what makes two of them the same."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for new, _, literal, *_ in prepared:
        groups.setdefault((new.database, new.subject_kind, new.action), []).append(literal)
    epochs: dict[str, int] = {}
    found: dict[object, Tombstone] = {}
    for (database, kind, action), literals in groups.items():
        epochs[database], older = store.known(session, database, kind, action, literals)
        for old in older:
            found.setdefault(_identity(old), old)
    return epochs, found


def _entry(members: Members, private: Private | None = None) -> Pending:
    return Pending(members, canonical(members), private)


def _not_yet_effective(session: Session, tombstones: Sequence[Tombstone]) -> Sequence[Tombstone]:
    """Return those that are recorded: nearly always all of them, which is one question.

    Raises:
        TombstoneMissingError: one is not in the list.
        IllegalMoveError: one is lifted or retired.
    """
    numbers = [item.seq for item in tombstones]
    spans = entries.ranges(numbers)
    if session.value(SQL["count_recorded"], spans_of(spans)) == len(set(numbers)):
        return tombstones
    states = _states(session, numbers)
    todo = [item for item in tombstones if states[item.seq] is not State.EFFECTIVE]
    for item in todo:
        _require(item.id, states[item.seq], State.EFFECTIVE)
    return todo


def _states(session: Session, numbers: Sequence[int]) -> dict[int, State]:
    states = {seq: State(state) for seq, state in session.rows(SQL["states_of"], (list(numbers),))}
    for number in numbers:
        if number not in states:
            raise store.missing(f"number {number}")
    return states


def _require(identity: str, state: State, wanted: State) -> None:
    if wanted not in LEGAL_MOVES[state]:
        raise IllegalMoveError(
            f"tombstone {identity} is {state} and cannot become {wanted}", "The legal moves: docs/spec/erasure-list.md, section 8."
        )
