"""The erasure list as the control database holds it, verified while it is read, in blocks of constant size.

The server compares the table of tombstones with the text of the entries and its private parts with the commitments, next to the data;
the chain is recomputed here, and what the mirror holds is laid beside it. A server that lied in the comparison could lie to every reader
of the table, so nothing is believed that a restore would not have to believe anyway.
Where a block does not come out right at once it is read again row by row, to name the finding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from pyroaring import BitMap64

from obhut.erasure import chain
from obhut.erasure.entries import State, private_of_resolution, private_of_tombstone
from obhut.erasure.errors import EntryError, ErasureListError, ListGapError, ListStateError, ListTamperedError, ListTruncatedError
from obhut.erasure.replay import TOMBSTONE_ORDER, Replay, read
from obhut.erasure.store import SQL, Stored
from obhut.postgres.connections import Row, Session

_BLOCK: Final = 2_500  # entries
_AHEAD: Final = 4  # blocks that the server may have ready
_STATES: Final = {"1": State.RECORDED, "2": State.EFFECTIVE, "3": State.LIFTED, "4": State.RETIRED}


class Block(NamedTuple):
    """Verified entries in a row.

    Attributes:
        texts: of the entries.
        digests: head of the list after each.
        privates: line of the private part as a segment of the mirror seals it; empty where there is none or it was not computed.
    """

    texts: list[str]
    digests: list[bytes]
    privates: list[str]

    def part(self, first: int, end: int | None) -> Block:
        """Return the entries at some positions."""
        return Block(self.texts[first:end], self.digests[first:end], self.privates[first:end])

    def followed_by(self, other: Block) -> Block:
        """Return the entries of both."""
        return Block(self.texts + other.texts, self.digests + other.digests, self.privates + other.privates)


class Listing:
    """One reading of the list: entries are taken in order, or skipped, and all of them are verified by :meth:`finish`."""

    def __init__(self, session: Session, head: Stored, *beside: Session) -> None:
        """Read the list through a session, and through others that see the same snapshot."""
        self._session = session
        self._idle = SimpleQueue[Session]()
        self._sessions = (session, *beside)
        self._head = head
        self._replay = Replay()
        self._found = {state: BitMap64() for state in State}
        self._digest = chain.start(head.origin)
        self._blocks = self._read()
        self._ahead = Block([], [], [])
        self._at = 0
        self._finding: ErasureListError | None = None

    def take(self, count: int) -> Block:
        """Return the next verified entries, fewer at the end of the list.

        Raises:
            ErasureListError: a finding about the list itself.
        """
        while len(self._ahead.texts) - self._at < count:
            block = next(self._blocks, None)
            if block is None:
                break
            self._ahead, self._at = self._ahead.part(self._at, None).followed_by(block), 0
        first, self._at = self._at, min(self._at + count, len(self._ahead.texts))
        return self._ahead.part(first, self._at)

    def finish(self) -> Replay:
        """Verify what was not taken and the tables, and return the state that follows from all entries.

        Raises:
            ErasureListError: a finding about the list itself.
        """
        if self._finding is not None:
            raise self._finding
        for _ in self._blocks:
            pass
        if self._replay.size < self._head.size:
            raise ListTruncatedError(f"the erasure list ends at entry {self._replay.size}, its head counts {self._head.size}")
        if self._replay.size > self._head.size or self._digest != self._head.hash:
            raise ListTamperedError("the head of the erasure list does not fit its entries")
        _check_tables(self._session, self._replay, self._found)
        return self._replay

    def _read(self) -> Iterator[Block]:
        last, _ = self._session.row(SQL["counts"]) or (0, 0)
        # Two tables in the order of their keys are merged. Statistics of a moment ago, when the list was short, may say otherwise.
        for session in self._sessions:
            for name, value in (("enable_nestloop", "off"), ("enable_seqscan", "off"), ("jit", "off")):
                session.set(name, value, local=True)
            self._idle.put(session)
        spans = [(low, min(low + _BLOCK - 1, last)) for low in range(1, (last or 0) + 1, _BLOCK)]
        with ThreadPoolExecutor(
            len(self._sessions), "erasure-list"
        ) as reader:  # the server works on the next blocks while this one is verified
            coming = deque(reader.submit(self._ask, span) for span in spans[:_AHEAD])
            for number, span in enumerate(spans, _AHEAD):
                answer = coming.popleft().result()
                if number < len(spans):
                    coming.append(reader.submit(self._ask, spans[number]))
                try:
                    block = (self._confirm(span, answer) if answer else None) or self._row_by_row(span)
                except ErasureListError as finding:
                    self._finding = finding
                    raise
                yield block

    def _ask(self, span: tuple[int, int]) -> Row | None:
        session = self._idle.get()
        try:
            return session.row(SQL["check_block"], {"low": span[0], "high": span[1], "prefix": chain.PRIVATE}, binary=True)
        finally:
            self._idle.put(session)

    def _confirm(self, span: tuple[int, int], answer: Row) -> Block | None:
        """Return the block if its entries, hashes and private parts are right, else None."""
        number = span[1] - span[0] + 1
        count, text, hashes, lines, parts, states, doubtful = answer
        texts, privates = (text or "").split("\n"), (lines or "").split("\n")
        if not number == count == len(texts) == len(privates):
            return None
        current, digests = self._digest, []
        for entry in texts:
            current = sha256(chain.ENTRY + current + entry.encode()).digest()  # as chain.extend, without the call
            digests.append(current)
        if b"".join(digests) != hashes or not _are_plain(lines or "", len(privates) - privates.count(""), parts):
            return None
        if "\\" in (text or ""):  # what is escaped in an entry is not, as it stands, what the columns hold
            doubtful = sorted({*(doubtful or ()), *(span[0] + place for place, entry in enumerate(texts) if "\\" in entry)})
        if doubtful:
            for row in self._session.rows(SQL["check_rows"], {"numbers": doubtful}):
                self._shown(row[0] - 1)
                self._check_entry(row)
        self._shown(span[1])
        position = span[0]
        for letter, run in groupby(states):
            end = position + sum(1 for _ in run)
            if letter in _STATES:
                self._found[_STATES[letter]] |= BitMap64(range(position, end))
            position = end
        self._digest = current
        return Block(texts, digests, privates)

    def _shown(self, until: int) -> None:
        """Apply the tombstones of which the server showed that their rows follow from their entries."""
        if until > self._replay.size:
            self._replay.recorded |= BitMap64(range(self._replay.size + 1, until + 1))
            self._replay.size = until

    def _row_by_row(self, span: tuple[int, int]) -> Block:
        texts, digests = [], []
        for row in self._session.rows(SQL["check_rows"], {"numbers": list(range(span[0], span[1] + 1))}):
            seq, text, digest, state = row[0], row[1], row[2], row[15]
            if seq != self._replay.size + 1:
                break
            recomputed = chain.extend(self._digest, text)
            self._check_entry(row, changed=recomputed != digest)
            if state is not None:
                self._found[State(state)].add(seq)
            self._digest = recomputed
            texts.append(text)
            digests.append(recomputed)
        if self._replay.size < span[1]:
            raise ListGapError(f"entry {self._replay.size + 1} of the erasure list is missing")
        return Block(texts, digests, [""] * len(texts))

    def _check_entry(self, row: Row, *, changed: bool = False) -> None:
        seq = row[0]
        try:
            entry = read(seq, row[1])
            if changed:
                raise ListTamperedError(f"entry {seq} of the erasure list was changed")
            if isinstance(entry, tuple):
                self._replay.add(seq)
                _check_state(seq, entry, row)
            else:
                self._replay.step(entry)
                if entry["kind"] == "tombstone":
                    _check_state(seq, tuple(entry[name] for name in TOMBSTONE_ORDER), row)
        except EntryError as error:
            raise ListTamperedError(f"entry {seq} of the erasure list is not valid: {error.fact}") from None


def check_database(session: Session, head: Stored) -> Replay:
    """Verify the list in the control database: chain, legal moves, and the tables that follow from it.

    Raises:
        ErasureListError: a finding about the list itself.
    """
    return Listing(session, head).finish()


def _are_plain(lines: str, count: int, parts: int) -> bool:
    """Whether the private parts have the quotation marks around their values and no other, so that each says what its row says.

    Args:
        lines: of all of them.
        count: how many they are.
        parts: of all their keys together.
    """
    return lines.count('"') == 6 * count + 2 * parts


def _check_state(seq: int, entry: tuple[Any, ...], row: Row) -> None:
    action, _, commitment, controller, database, epoch, erased_at, identity, instruction, version, _, subject = entry
    key, fingerprint, salt, label = row[7], row[8], row[9], row[16]
    expected = identity, database, controller, subject, action, version, instruction, int(epoch), erased_at
    if (*row[3:7], *row[10:15]) != expected:
        raise ListStateError(f"the table of tombstones does not follow from entry {seq}")
    if not row[17]:  # read element by element elsewhere: bounds that begin at five would hide the person
        raise ListStateError(f"the key of tombstone number {seq} is no plain list of values")
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
