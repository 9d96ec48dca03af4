"""Full verification of the erasure list (specification, section 10): everything is recomputed, nothing is believed.

Reads one consistent state: database snapshot, end of the mirror and anchor are fixed together under the writer's lock, which is then
released, so that erasures go on while a long list is verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pyroaring import BitMap64

from obhut.erasure import chain
from obhut.erasure.entries import State, commitment_of
from obhut.erasure.errors import (
    AnchorMissingError,
    ErasureListError,
    ListBehindAnchorError,
    ListForkedError,
    ListMissingError,
    ListRolledBackError,
    MirrorBehindError,
    MirrorDamagedError,
    MirrorMissingError,
    MirrorRolledBackError,
    MirrorTornError,
    UnsealError,
)
from obhut.erasure.listing import Block, Listing
from obhut.erasure.mirror import Place, Segment
from obhut.erasure.notes import Checkpoint
from obhut.erasure.places import Places, verify_segment
from obhut.erasure.replay import Replay
from obhut.erasure.store import Stored
from obhut.postgres.connections import Session

_NOTHING: Final = Block([], [], [])
_LONG: Final = 20_000  # entries: from here on two backends of the server work on the list


@dataclass(frozen=True, slots=True)
class ListReport:
    """What a verification that found nothing wrong has seen."""

    origin: str
    size: int
    hash: bytes
    segments: int
    states: dict[State, int]
    forgotten_segments: int
    anchored: int
    signed_at: datetime | None


def check(places: Places) -> ListReport:
    """Verify database, mirror and anchor, and return what was seen.

    Raises:
        ErasureListError: one of the findings of section 10, each its own class and code.
    """
    with places.reading() as (session, head, end, anchor):
        if head is None:
            return _nothing(anchor, end)
        if anchor is None and (head.size or end):
            raise AnchorMissingError(
                "the anchor of the erasure list is missing although entries exist",
                'Was the state directory replaced? Once that is clear, "obhut erasures recover --accept-missing-anchor" sets a new one.',
            )
        with places.beside(session) if head.size > _LONG else nullcontext() as second:
            listing = Listing(session, head, *([second] if second else []))
            segments, forgotten, replay = _check_places(places, session, head, anchor, end, listing)
    counts = {state: len(replay.of(state)) for state in State}
    signed_at = anchor.signed_at if anchor and anchor.size else None
    return ListReport(head.origin, head.size, head.hash, segments, counts, forgotten, anchor.size if anchor else 0, signed_at)


def _nothing(anchor: Checkpoint | None, end: Place | None) -> ListReport:
    if (anchor and anchor.size) or end:
        raise ListMissingError(
            "the control database holds no erasure list although mirror or anchor know one",
            'Was the control database replaced or emptied? "obhut erasures recover" rebuilds the list from the mirror.',
        )
    return ListReport("", 0, b"", 0, dict.fromkeys(State, 0), 0, 0, None)


def _check_places(  # noqa: C901, PLR0912 - one finding after the other, in the order of the specification
    places: Places, session: Session, head: Stored, anchor: Checkpoint | None, end: Place | None, listing: Listing
) -> tuple[int, int, Replay]:
    anchored = anchor.size if anchor else 0
    if (anchor is not None and anchor.origin != head.origin) or (end is None and anchored):
        listing.finish()  # a finding about the list itself comes first
    if anchor is not None and anchor.origin != head.origin:
        raise ListForkedError("list and anchor belong to different lists", "Do control URL and state directory belong to one installation?")
    if end is None and anchored:
        raise MirrorMissingError("the mirror of the erasure list is missing", "Is its disk mounted?")
    size, digest = 0, chain.start(head.origin)
    segments = forgotten = 0
    sealed = _Sealed()
    later: list[ErasureListError] = []  # findings that a rollback would explain are told only when there is none
    try:
        for segment, after, known in walk(places, head.origin, anchored, end, listing):
            # An entry the list lost is compared as far as the list goes.
            before_size, size, digest = size, segment.last, after
            segments += 1
            if size <= head.size:
                try:
                    forgotten += not sealed.look(places, head.origin, segment, known.privates)
                except UnsealError as error:
                    later.append(error)
                if known.texts != segment.entries and places.hash_at(session, head, size) != digest:
                    raise ListForkedError(f"list and mirror differ between the entries {before_size + 1} and {size}")
            elif before_size < head.size:
                part = Segment(segment.first, segment.entries[: head.size - before_size], None, None, "", segment.start, segment.end)
                before = places.hash_at(session, head, before_size)
                if before is None or verify_segment(before, part) != head.hash:
                    raise ListForkedError(f"list and mirror differ between the entries {before_size + 1} and {head.size}")
            del segment, known
    except MirrorTornError as error:
        later.insert(0, error)
    except ErasureListError:
        listing.finish()
        raise
    replay = listing.finish()
    _compare(places, session, head, anchor, size)
    if later:
        raise later[0]
    sealed.require(replay)
    if size < head.size:
        raise MirrorBehindError(
            f"the mirror ends at entry {size}, the list at {head.size}",
            'A crash leaves this. The next erasure heals it, or run "obhut erasures recover".',
        )
    return segments, forgotten, replay


def _compare(places: Places, session: Session, head: Stored, anchor: Checkpoint | None, mirrored: int) -> None:
    anchored = anchor.size if anchor else 0
    if head.size < anchored and mirrored < anchored:
        raise ListBehindAnchorError(
            f"the anchor knows {anchored} entries, list and mirror only {max(head.size, mirrored)}",
            "Which copies of control database and mirror are newer? Nothing may be restored before they are found.",
        )
    if head.size < max(anchored, mirrored):
        raise ListRolledBackError(
            f"the list ends at entry {head.size}, mirror or anchor know {max(anchored, mirrored)}",
            'Was the control database restored from an older copy? "obhut erasures recover" completes it from the mirror.',
        )
    if anchor is not None and places.hash_at(session, head, anchored) != anchor.hash:
        raise ListForkedError(f"list and anchor differ at entry {anchored}")
    if mirrored < anchored:
        raise MirrorRolledBackError(
            f"the mirror ends at entry {mirrored}, the anchor knows {anchored}",
            'Was the mirror restored from an older copy? "obhut erasures recover" completes it from the list.',
        )


def walk(
    places: Places, origin: str, anchored: int, end: Place | None, listing: Listing | None = None
) -> Iterator[tuple[Segment, bytes, Block]]:
    """Yield every segment of the mirror with the head after it and what the list holds there; frame, chain and signature are verified.

    Where the list is given, and a segment has the texts of its verified entries, their hashes need not be computed a second time.

    Raises:
        MirrorDamagedError: a segment is incomplete, does not parse, or its entries do not give the signed head.
        MirrorTornError: the last one was never acknowledged and is one of these.
        ListSignatureError: a checkpoint is not signed by the list's key.
    """
    current = chain.start(origin)
    for segment in places.mirror.segments(anchored, end):
        known = listing.take(len(segment.entries)) if listing else _NOTHING
        after = known.digests[-1] if known.texts == segment.entries else verify_segment(current, segment)
        try:
            if places.checkpoint(segment, origin).hash != after:
                raise MirrorDamagedError(f"the entries {segment.first} to {segment.last} of the mirror do not give the signed head")
        except ErasureListError:
            if segment.last > anchored and end == Place(segment.start.file, segment.end):
                fact = f"the last write to the mirror broke off at entry {segment.first}"
                raise MirrorTornError(fact, "It was never acknowledged.") from None
            raise
        current = after
        yield segment, after, known
        del segment, known  # megabytes: gone before the next ones are read


@dataclass
class _Sealed:
    """Which entries have no private part in the mirror: none was sealed, or its data key was destroyed."""

    bare: BitMap64 = field(default_factory=BitMap64)
    destroyed: dict[str, BitMap64] = field(default_factory=dict)

    def look(self, places: Places, origin: str, segment: Segment, known: Sequence[str] = ()) -> bool:
        """Check the private parts of a segment against the commitments; false when their data key was destroyed.

        What equals the ``known`` lines, which the list holds and which are verified already, is right.

        Raises:
            UnsealError: they do not open, or do not fit.
        """
        every = BitMap64(range(segment.first, segment.last + 1))
        plain = places.open_sealed(segment, origin)
        if plain is None:
            self.destroyed.setdefault(str(segment.label), BitMap64()).update(every)
            return False
        if all(known) and known and "\n".join(known) + "\n" == plain.decode():
            return True
        seen = BitMap64()
        for seq, salt, text in places.private_parts(segment, plain):
            inside = segment.first <= seq <= segment.last
            if not inside or commitment_of(segment.entries[seq - segment.first]) != chain.commit(salt, text).hex():
                raise UnsealError(f"the private part of entry {seq} in the mirror is not the one that was recorded")
            seen.add(seq)
        self.bare |= every - seen
        return True

    def require(self, replay: Replay) -> None:
        """Require a private part of every open tombstone.

        Raises:
            UnsealError: one has none.
        """
        for label, numbers in self.destroyed.items():
            if wanted := numbers & replay.open:
                raise UnsealError(f"the data key {label} was destroyed although tombstone number {wanted[0]} is open")
        if missing := self.bare & replay.open:
            raise UnsealError(f"the mirror holds no private part of the open tombstone number {missing[0]}")


def check_private(places: Places, origin: str, segment: Segment, replay: Replay) -> None:
    """Check the private parts of a segment against the commitments.

    Raises:
        UnsealError: they do not open, do not fit, or an open tombstone has none.
    """
    sealed = _Sealed()
    sealed.look(places, origin, segment)
    sealed.require(replay)
