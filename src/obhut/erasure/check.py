"""Full verification of the erasure list (specification, section 10): everything is recomputed, nothing is believed.

Reads one consistent state: database snapshot, end of the mirror and anchor are fixed together under the writer's lock, which is then
released, so that erasures go on while a long list is verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pyroaring import BitMap64

from obhut.erasure import chain
from obhut.erasure.entries import (
    LEGAL_MOVES,
    Members,
    State,
    check_ranges,
    commitment_of,
    parse,
    private_of_resolution,
    private_of_tombstone,
)
from obhut.erasure.errors import (
    AnchorMissingError,
    EntryError,
    ErasureListError,
    ListBehindAnchorError,
    ListForkedError,
    ListGapError,
    ListMissingError,
    ListReorderedError,
    ListRolledBackError,
    ListStateError,
    ListTamperedError,
    ListTruncatedError,
    MirrorBehindError,
    MirrorDamagedError,
    MirrorMissingError,
    MirrorRolledBackError,
    MirrorTornError,
    UnsealError,
)
from obhut.erasure.mirror import Place, Segment
from obhut.erasure.notes import Checkpoint
from obhut.erasure.places import Places, verify_segment
from obhut.erasure.store import SQL, Stored
from obhut.postgres.connections import Row, Session

_TEXT: Final = r'"([^"\\\x00-\x1f]*)"'
_TIME: Final = r'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)"'
# A tombstone whose texts need no escaping: matching proves the canonical form, at a fraction of the cost of parsing.
_PLAIN_TOMBSTONE: Final = re.compile(
    rf'\{{"action":"(erase|anonymise)","at":{_TIME},"commitment":"([0-9a-f]{{64}})","controller":{_TEXT},"database":{_TEXT},'
    rf'"epoch":(0|[1-9]\d{{0,15}}),"erased_at":{_TIME},"id":{_TEXT},"instruction":{_TEXT},"kind":"tombstone","map":{_TEXT},'
    rf'"seq":([1-9]\d{{0,15}}),"subject":{_TEXT}\}}'
)
_TOMBSTONE_ORDER: Final = (
    "action", "at", "commitment", "controller", "database", "epoch", "erased_at", "id", "instruction", "map", "seq", "subject",
)  # fmt: skip
_MEMBERS: Final = {
    "tombstone": {
        "action", "at", "commitment", "controller", "database", "epoch", "erased_at", "id", "instruction", "kind", "map", "seq", "subject",
    },
    "effective": {"at", "database", "kind", "lsn", "run", "seq", "tombstones"},
    "lifted": {"at", "instruction", "kind", "seq", "tombstones"},
    "retired": {"at", "copies_since", "kind", "seq", "taken_at", "tombstones"},
    "epoch": {"at", "database", "epoch", "kind", "run", "seq", "system_identifier", "timeline"},
    "resolved": {"at", "commitment", "decision", "instruction", "kind", "seq", "tombstone"},
}  # fmt: skip


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


@dataclass(slots=True)
class Replay:
    """The state of tombstones as it follows from entries read so far; sets of numbers, so a million tombstones stay small."""

    size: int = 0
    recorded: BitMap64 = field(default_factory=BitMap64)
    effective: BitMap64 = field(default_factory=BitMap64)
    lifted: BitMap64 = field(default_factory=BitMap64)
    retired: BitMap64 = field(default_factory=BitMap64)
    epochs: list[Row] = field(default_factory=list)
    resolved: list[Row] = field(default_factory=list)

    def of(self, state: State) -> BitMap64:
        """Return the numbers of the tombstones in a state."""
        found: BitMap64 = getattr(self, state.value)
        return found

    @property
    def open(self) -> BitMap64:
        """Numbers of the tombstones that a restore applies."""
        return self.recorded | self.effective

    def add(self, seq: int) -> None:
        """Apply the entry of a tombstone."""
        self.size = seq
        self.recorded.add(seq)

    def step(self, entry: dict[str, Any]) -> None:
        """Apply one entry.

        Raises:
            ListStateError: it makes a move that is not legal.
            EntryError: it lacks members or has others.
        """
        kind, seq = entry["kind"], entry["seq"]
        if entry.keys() != _MEMBERS.get(kind):
            raise EntryError("an entry is of an unknown kind or has other members than its kind")
        self.size = seq
        if kind == "tombstone":
            self.recorded.add(seq)
        elif kind == "epoch":
            before = [row[2] for row in self.epochs if row[1] == entry["database"]]
            if entry["epoch"] != max(before, default=0) + 1:
                raise ListStateError(f"entry {seq} opens an epoch out of order")
            values = entry["database"], entry["epoch"], entry["run"], entry["system_identifier"], entry["timeline"], entry["at"]
            self.epochs.append((seq, *values))
        elif kind == "resolved":
            if entry["tombstone"] not in self.open:
                raise ListStateError(f"entry {seq} settles a conflict of a tombstone that is not open")
            self.resolved.append((seq, entry["tombstone"], entry["decision"], entry["commitment"]))
        else:
            self._move(State(kind), seq, check_ranges(entry["tombstones"]))

    def _move(self, to: State, seq: int, spans: list[tuple[int, int]]) -> None:
        moved = BitMap64()
        for low, high in spans:
            if high >= seq:
                raise ListStateError(f"entry {seq} moves a later entry")
            moved |= BitMap64(range(low, high + 1))
        rest = moved
        for source in (state for state, targets in LEGAL_MOVES.items() if to in targets):
            rest = rest - self.of(source)
            setattr(self, source.value, self.of(source) - moved)
        if rest:
            raise ListStateError(f"entry {seq} makes a move that is not legal, with tombstone number {rest[0]}")
        setattr(self, to.value, self.of(to) | moved)


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
        replay = check_database(session, head)
        segments, forgotten = _check_places(places, session, head, anchor, end, replay)
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


def check_database(session: Session, head: Stored) -> Replay:  # noqa: C901 - the one hot loop, kept flat
    """Recompute the list in the control database: chain, legal moves, and the tables that follow from it.

    Raises:
        ErasureListError: a finding about the list itself.
    """
    replay = Replay()
    found = {state: BitMap64() for state in State}
    current = chain.start(head.origin)
    # Two tables in the order of their keys are merged. Statistics of a moment ago, when the list was short, may say "nested loop", which
    # reads the second table once for every entry: hours instead of seconds.
    session.set("enable_nestloop", "off", local=True)
    for rows in session.stream(SQL["check"]):
        for row in rows:
            seq, body, digest = row[0], row[1], row[2]
            if seq != replay.size + 1:
                raise ListGapError(f"entry {replay.size + 1} of the erasure list is missing")
            recomputed = chain.extend(current, body)
            try:
                entry = _read(seq, body)
                if recomputed != digest:
                    raise ListTamperedError(f"entry {seq} of the erasure list was changed")
                current = recomputed
                if isinstance(entry, tuple):
                    replay.add(seq)
                    _check_state(seq, entry, row)
                else:
                    replay.step(entry)
                    if entry["kind"] == "tombstone":
                        _check_state(seq, tuple(entry[name] for name in _TOMBSTONE_ORDER), row)
            except EntryError as error:
                raise ListTamperedError(f"entry {seq} of the erasure list is not valid: {error.fact}") from None
        for state in State:
            found[state].update([row[0] for row in rows if row[15] == state])
    if replay.size < head.size:
        raise ListTruncatedError(f"the erasure list ends at entry {replay.size}, its head counts {head.size}")
    if replay.size > head.size or current != head.hash:
        raise ListTamperedError("the head of the erasure list does not fit its entries")
    _check_tables(session, replay, found)
    return replay


def _read(seq: int, body: str) -> Members | tuple[str, ...]:
    """Return the members of an entry; those of a plain tombstone as a tuple in :data:`_TOMBSTONE_ORDER`."""
    plain = _PLAIN_TOMBSTONE.fullmatch(body)
    entry = None if plain else parse(body)
    number = int(plain[11]) if plain else entry["seq"] if entry else 0
    if number != seq:
        raise ListReorderedError(f"at number {seq} of the erasure list stands entry {number}")
    return plain.groups() if plain else entry or {}


def _check_state(seq: int, entry: tuple[Any, ...], row: Row) -> None:
    action, _, commitment, controller, database, epoch, erased_at, identity, instruction, version, _, subject = entry
    key, fingerprint, salt, label = row[7], row[8], row[9], row[16]
    expected = identity, database, controller, subject, action, version, instruction, int(epoch), erased_at
    if (*row[3:7], *row[10:15]) != expected:
        raise ListStateError(f"the table of tombstones does not follow from entry {seq}")
    if key is not None and (
        salt is None or fingerprint is None or chain.commit(salt, private_of_tombstone(key, fingerprint)).hex() != commitment
    ):
        raise ListStateError(f"the key of tombstone number {seq} is not the one that was recorded")
    if label is None:
        raise ListStateError(f"tombstone number {seq} names no label")


def _check_tables(  # noqa: C901 - one table after the other
    session: Session, replay: Replay, found: dict[State, BitMap64]
) -> None:
    for state in State:
        if difference := replay.of(state) ^ found[state]:
            raise ListStateError(f"tombstone number {difference[0]} is not in the state that follows from the entries")
    _, tombstones = session.row(SQL["counts"]) or (0, 0)
    if tombstones != sum(len(numbers) for numbers in found.values()):
        raise ListStateError("the table holds a tombstone that has no entry")
    (without_key,) = session.row(SQL["open_without_key"]) or (0,)
    if without_key:
        raise ListStateError(f"the keys of {without_key} open tombstones are missing")
    if [tuple(row) for row in session.rows(SQL["all_epochs"])] != replay.epochs:
        raise ListStateError("the table of restore epochs does not follow from the entries")
    rows = session.rows(SQL["all_resolutions"])
    if [row[:3] for row in rows] != [row[:3] for row in replay.resolved]:
        raise ListStateError("the table of resolutions does not follow from the entries")
    for (_, _, _, text, salt), (seq, tombstone, _, commitment) in zip(rows, replay.resolved, strict=True):
        if text is None:
            if tombstone in replay.open:
                raise ListStateError(f"the fingerprint of resolution {seq} is missing")
        elif salt is None or chain.commit(salt, private_of_resolution(text)).hex() != commitment:
            raise ListStateError(f"the fingerprint of resolution {seq} is not the one that was recorded")


def _check_places(  # noqa: C901 - one finding after the other, in the order of the specification
    places: Places, session: Session, head: Stored, anchor: Checkpoint | None, end: Place | None, replay: Replay
) -> tuple[int, int]:
    anchored = anchor.size if anchor else 0
    if anchor is not None and anchor.origin != head.origin:
        raise ListForkedError("list and anchor belong to different lists", "Do control URL and state directory belong to one installation?")
    if end is None and anchored:
        raise MirrorMissingError("the mirror of the erasure list is missing", "Is its disk mounted?")
    size, digest = 0, chain.start(head.origin)
    segments = forgotten = 0
    later: list[ErasureListError] = []  # findings that a rollback would explain are told only when there is none
    try:
        for segment, after in walk(places, head.origin, anchored, end):
            # An entry the list lost is compared as far as the list goes.
            before_size, size, digest = size, segment.last, after
            segments += 1
            if size <= head.size:
                try:
                    forgotten += not check_private(places, head.origin, segment, replay)
                except UnsealError as error:
                    later.append(error)
                if places.hash_at(session, head, size) != digest:
                    raise ListForkedError(f"list and mirror differ between the entries {before_size + 1} and {size}")
            elif before_size < head.size:
                part = Segment(segment.first, segment.entries[: head.size - before_size], None, None, "", segment.start, segment.end)
                before = places.hash_at(session, head, before_size)
                if before is None or verify_segment(before, part) != head.hash:
                    raise ListForkedError(f"list and mirror differ between the entries {before_size + 1} and {head.size}")
    except MirrorTornError as error:
        later.insert(0, error)
    _compare(places, session, head, anchor, size)
    if later:
        raise later[0]
    if size < head.size:
        raise MirrorBehindError(
            f"the mirror ends at entry {size}, the list at {head.size}",
            'A crash leaves this. The next erasure heals it, or run "obhut erasures recover".',
        )
    return segments, forgotten


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


def walk(places: Places, origin: str, anchored: int, end: Place | None) -> Iterator[tuple[Segment, bytes]]:
    """Yield every segment of the mirror with the head after it; frame, chain and signature are verified.

    Raises:
        MirrorDamagedError: a segment is incomplete, does not parse, or its entries do not give the signed head.
        MirrorTornError: the last one was never acknowledged and is one of these.
        ListSignatureError: a checkpoint is not signed by the list's key.
    """
    current = chain.start(origin)
    for segment in places.mirror.segments(anchored, end):
        after = verify_segment(current, segment)
        try:
            if places.checkpoint(segment, origin).hash != after:
                raise MirrorDamagedError(f"the entries {segment.first} to {segment.last} of the mirror do not give the signed head")
        except ErasureListError:
            if segment.last > anchored and end == Place(segment.start.file, segment.end):
                fact = f"the last write to the mirror broke off at entry {segment.first}"
                raise MirrorTornError(fact, "It was never acknowledged.") from None
            raise
        yield segment, after
        current = after


def check_private(places: Places, origin: str, segment: Segment, replay: Replay) -> bool:
    """Check the private parts of a segment against the commitments; false when their data key was destroyed.

    Raises:
        UnsealError: they do not open, do not fit, or an open tombstone has none.
    """
    wanted = BitMap64(range(segment.first, segment.last + 1)) & replay.open
    private = places.unseal(segment, origin)
    if private is None:
        if wanted:
            raise UnsealError(f"the data key {segment.label} was destroyed although tombstone number {wanted[0]} is open")
        return False
    for seq, salt, text in private:
        inside = segment.first <= seq <= segment.last
        if not inside or commitment_of(segment.entries[seq - segment.first]) != chain.commit(salt, text).hex():
            raise UnsealError(f"the private part of entry {seq} in the mirror is not the one that was recorded")
    if missing := wanted - BitMap64([item.seq for item in private]):
        raise UnsealError(f"the mirror holds no private part of the open tombstone number {missing[0]}")
    return True
