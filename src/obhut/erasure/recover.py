"""Bringing a place that lost entries back from one that has them (specification, section 10).

Copies forward only: what a place holds is verified first and never replaced. Both behind the anchor, a fork, or damage in the middle
are refused: no copy here can tell what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from obhut.erasure import chain, store
from obhut.erasure.check import check_private, walk
from obhut.erasure.entries import Pending, Private, parse
from obhut.erasure.errors import (
    AnchorMissingError,
    EntryError,
    ListBehindAnchorError,
    ListForkedError,
    ListMissingError,
    MirrorTornError,
    UnsealError,
)
from obhut.erasure.listing import check_database
from obhut.erasure.mirror import Segment
from obhut.erasure.notes import Checkpoint
from obhut.erasure.places import Places
from obhut.erasure.replay import Replay
from obhut.erasure.store import Stored
from obhut.foundation import faultpoints
from obhut.postgres.connections import Session

_UNKNOWN: Final = "nothing to recover from: neither list nor mirror holds an entry"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a recovery did.

    Attributes:
        to_list: entries copied from the mirror into the control database.
        to_mirror: entries copied from the control database into the mirror.
        torn: whether a torn end of the mirror was cut off.
        size: entries that all places hold now.
    """

    to_list: int
    to_mirror: int
    torn: bool
    size: int


@dataclass(frozen=True, slots=True)
class _Mirrored:
    size: int
    hash: bytes
    torn: bool
    replay: Replay


def recover(places: Places, now: datetime, *, accept_missing_anchor: bool = False) -> Recovery:
    """Make list, mirror and anchor whole again from each other.

    Repeating it after a kill continues; it is harmless when nothing is wrong.

    Args:
        places: of the list.
        now: when new checkpoints are signed.
        accept_missing_anchor: set a new anchor where the old one is lost. Without it nobody can tell whether list and mirror lost
            the same entries, so this is for a person who knows what happened to the state directory.

    Raises:
        ListBehindAnchorError: list and mirror both lost entries.
        ListForkedError: they hold different histories.
        MirrorDamagedError: the mirror is damaged in the middle; move it away to write a new one from a complete list.
        AnchorMissingError: the anchor is missing and that was not accepted.
        UnsealError: the key store lacks what opens the mirror.
    """
    with places.writing() as session:
        anchor = places.anchor()
        head = store.stored(session)
        mirrored = _read_mirror(places, anchor, head)
        if anchor is None and (mirrored.size or (head and head.size)) and not accept_missing_anchor:
            raise AnchorMissingError(
                "the anchor of the erasure list is missing although entries exist",
                'What happened to the state directory? If list and mirror cannot have lost the same, add "--accept-missing-anchor".',
            )
        if head is None:
            if not mirrored.size:
                if anchor and anchor.size:
                    raise ListBehindAnchorError(f"the anchor knows {anchor.size} entries, list and mirror hold none")
                raise ListMissingError(_UNKNOWN, "There is no erasure list yet; the first erasure makes it.")
            store.create(session, _origin(places, anchor))
            head = store.stored(session)
        if head is None:
            raise ListMissingError("the erasure list could not be created")
        _compare(places, session, head, mirrored, anchor)
        before = head
        if mirrored.size > head.size:
            head = _copy_to_list(places, session, head, mirrored, anchor.size if anchor else 0)
        if anchor is None:
            # From here on the list is the measure; publishing needs an anchor to compare with.
            places.write_anchor(Stored(head.origin, mirrored.size, mirrored.hash) if mirrored.size < head.size else head, now)
        places.publish(session, head, [], now)
        return Recovery(head.size - before.size, head.size - mirrored.size if head.size > mirrored.size else 0, mirrored.torn, head.size)


def _origin(places: Places, anchor: Checkpoint | None) -> str:
    """Return the name of the list that anchor or mirror are about."""
    if anchor is not None:
        return anchor.origin
    for segment in places.mirror.segments(0, places.mirror.size_of_last()):
        return segment.note.split("\n", 1)[0]  # its signature is verified by every reader
    raise ListMissingError(_UNKNOWN)


def _read_mirror(places: Places, anchor: Checkpoint | None, head: Stored | None) -> _Mirrored:
    """Verify the mirror as far as it is complete, and replay it."""
    end = places.mirror.size_of_last()
    replay, size, torn = Replay(), 0, False
    if end is None:
        return _Mirrored(0, b"", torn=False, replay=replay)
    origin = head.origin if head else _origin(places, anchor)
    digest = chain.start(origin)
    try:
        for segment, after, _ in walk(places, origin, anchor.size if anchor else 0, end):
            for text in segment.entries:
                try:
                    replay.step(parse(text))
                except EntryError as error:
                    raise ListForkedError(f"an entry of the mirror is not valid: {error.fact}") from None
            size, digest = segment.last, after
    except MirrorTornError:
        torn = True
    return _Mirrored(size, digest, torn, replay)


def _compare(places: Places, session: Session, head: Stored, mirrored: _Mirrored, anchor: Checkpoint | None) -> None:
    if anchor is not None and anchor.origin != head.origin:
        raise ListForkedError("list and anchor belong to different lists", "Do control URL and state directory belong to one installation?")
    with session.transaction("repeatable read", read_only=True):
        check_database(session, head)
    if anchor is not None and max(head.size, mirrored.size) < anchor.size:
        raise ListBehindAnchorError(
            f"the anchor knows {anchor.size} entries, list and mirror only {max(head.size, mirrored.size)}",
            "Which copies of control database and mirror are newer? Nothing may be restored before they are found.",
        )
    if mirrored.size and mirrored.size <= head.size and places.hash_at(session, head, mirrored.size) != mirrored.hash:
        raise ListForkedError(f"list and mirror differ at or before entry {mirrored.size}")
    if anchor is not None and anchor.size <= head.size and places.hash_at(session, head, anchor.size) != anchor.hash:
        raise ListForkedError(f"list and anchor differ at entry {anchor.size}")


def _copy_to_list(places: Places, session: Session, head: Stored, mirrored: _Mirrored, anchored: int) -> Stored:
    """Append the mirror's later entries to the list, a segment a transaction, so that a kill loses nothing that was copied."""
    start = head.size
    for segment, after, _ in walk(places, head.origin, anchored, places.mirror.size_of_last()):
        if segment.last <= head.size:
            if segment.last == head.size and after != head.hash:
                raise ListForkedError(f"list and mirror differ at or before entry {head.size}")
            continue
        pending = _pending(places, head, segment, mirrored.replay)
        with session.transaction():
            if store.stored(session, lock=True) != head:
                raise ListForkedError("another writer changed the erasure list without its lock")
            published = store.append(session, head, pending)
            if published[-1].hash != after:
                # Rolls the transaction back: the list was no prefix of the mirror.
                raise ListForkedError(f"list and mirror differ at or before entry {start}")
        head = Stored(head.origin, published[-1].seq, published[-1].hash)
        faultpoints.reach("erasure-list.recovered-segment")
        if head.size == mirrored.size:
            break
    return head


def _pending(places: Places, head: Stored, segment: Segment, replay: Replay) -> list[Pending]:
    check_private(places, head.origin, segment, replay)
    private = {item.seq: item for item in places.unseal(segment, head.origin) or []}
    settled = {seq: tombstone for seq, tombstone, *_ in replay.resolved}
    pending = []
    for text in segment.entries[max(0, head.size + 1 - segment.first) :]:
        members = parse(text)
        seq = members["seq"]
        # A person who was lifted or retired later is not brought back into the table, even for a moment.
        needed = (seq if members["kind"] == "tombstone" else settled.get(seq, 0)) in replay.open
        known: Private | None = private.get(seq) if needed else None
        if needed and known is None:
            raise UnsealError(f"the mirror holds no private part of entry {seq}")
        pending.append(store.pend(members, text, known))
    return pending
