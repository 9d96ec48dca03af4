"""Verify a bundle with nothing but the bundle, a key and what was seen before (specification, section 10): no database, no network.

Imports neither the writer of logs nor the exporter. The first thing that does not hold ends the verification with its own error; what is
reported at the end was all checked.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from obhut.auditlog import bundles, entries, hashes, memory
from obhut.auditlog.bundles import Cover, Source, Stretch
from obhut.auditlog.entries import Entry, EntryFormError
from obhut.auditlog.errors import (
    BlobSwappedError,
    BundleError,
    BundleForkedError,
    BundleIncompleteError,
    CheckpointSignatureError,
    EntryAlteredError,
    EntryMissingError,
    EntryReplayedError,
    KeyDiffersError,
    OpeningWrongError,
    PeriodMissingError,
    PeriodTruncatedError,
    ReadableDiffersError,
    ValueAlteredError,
)
from obhut.auditlog.memory import Memory, Seen
from obhut.auditlog.tlog import checkpoints, merkle, proofs
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.auditlog.tlog.merkle import SIZE, WIDTH
from obhut.foundation import notes
from obhut.foundation.notes import Kind, VerifierKey


@dataclass(frozen=True, slots=True)
class Gap:
    """What the log says it could not see."""

    period: str
    index: int
    at: str
    reason: str
    table: str


@dataclass(slots=True)
class Report:
    """What was checked.

    Attributes:
        new_key: the signing key was neither pinned nor remembered: it is now, and this first time is worth what the way it came is.
    """

    controller: str
    periods: list[str] = field(default_factory=list)
    leaves: int = 0
    entries: int = 0
    sealed: int = 0
    dropped: int = 0
    disclosed: int = 0
    blobs: int = 0
    gaps: list[Gap] = field(default_factory=list)
    tables: Counter[str] = field(default_factory=Counter)
    key: str = ""
    new_key: bool = False
    cosignatures: int = 0
    compared_with_memory: int = 0


def verify(path: Path, *, key: str | None = None, remember: Path | None = None) -> Report:
    """Check everything that a bundle can show.

    Args:
        path: the bundle, a directory or a ZIP file.
        key: the Ed25519 key of the controller's logs (base64, or a verifier key), as it was handed over with the contract.
        remember: file with what was seen before; read, and written when everything holds.

    Raises:
        BundleError: one of its kinds for whatever does not hold.
    """
    source = bundles.open_source(path)
    cover = bundles.read_cover(source)
    known = memory.load(remember)
    report = Report(cover.controller)
    public = _key(source, cover, key, known, report)
    seen: dict[str, Checkpoint] = {}
    if cover.proofs:
        _proofs(source, cover, public, known, report, seen)
    else:
        _logs(source, cover, public, known, report, seen)
    _remembered_periods(cover, known, seen)
    if remember is not None:
        known.keys[cover.controller] = public
        for stretch in () if cover.proofs else cover.logs:  # single proofs do not show that a log only grew
            known.note(cover.controller, stretch.period, seen[stretch.origin])
        memory.save(known, remember)
    return report


def _key(source: Source, cover: Cover, pinned: str | None, known: Memory, report: Report) -> bytes:
    """Return the key to check with: the pinned one, else the remembered one, else, for the first time, the bundle's own."""
    try:
        offered = {
            key.name: key.public
            for key in map(notes.parse_key, source.read(bundles.KEYS).decode().splitlines())
            if key.kind == Kind.ED25519
        }
    except (notes.NoteError, UnicodeDecodeError):
        raise BundleIncompleteError(f"{bundles.KEYS} holds no verifier keys", "Is this the whole of what was exported?") from None
    publics = set(offered.values())
    expected = parse_pinned(pinned) if pinned else known.keys.get(cover.controller)
    report.new_key = expected is None
    if len(publics) != 1 or (expected is not None and publics != {expected}):
        raise KeyDiffersError(
            "the bundle was signed with another key than the one that is known",
            "Ask the vendor on another way than the one the bundle came by; a changed key can hide another history.",
        )
    (public,) = publics
    report.key = base64.b64encode(public).decode()
    return public


def parse_pinned(text: str) -> bytes:
    """Return the public key of a base64 text or of a verifier key.

    Raises:
        KeyDiffersError: it is neither.
    """
    try:
        public = notes.parse_key(text).public if text.count("+") >= 2 and "obhut." in text else base64.b64decode(text, validate=True)
    except (notes.NoteError, ValueError):
        public = b""
    if len(public) != SIZE:
        raise KeyDiffersError("the key that was given is none", "Give the 32 octets of the Ed25519 key in base64, or a line of key.txt.")
    return public


def _logs(source: Source, cover: Cover, public: bytes, known: Memory, report: Report, seen: dict[str, Checkpoint]) -> None:
    readable = _Readable(source, cover)
    openings: dict[str, Entry] = {}
    for stretch in cover.logs:
        files = hashes.Files(source, stretch)
        checkpoint = _checkpoint(files.note(), stretch, public, report)
        seen[stretch.origin] = checkpoint
        before = known.logs.get(stretch.origin)
        root_before = hashes.check_tree(files, checkpoint, stretch, before.size if before else 0)
        if before:
            _continues(root_before, checkpoint, before, report)
        opening = _entries(files, stretch, readable, report)
        if opening:
            openings[stretch.period] = opening
        report.periods.append(stretch.period)
        report.leaves += checkpoint.size
    readable.end()
    _openings(cover, openings, seen, known)


def _checkpoint(text: str, stretch: Stretch, public: bytes, report: Report) -> Checkpoint:
    try:
        note = notes.parse(text)
        note.signed_by(VerifierKey(stretch.origin, Kind.ED25519, public))
        checkpoint = Checkpoint.of(note)
    except (notes.NoteError, notes.SignatureError):
        raise CheckpointSignatureError(
            f"the checkpoint of {stretch.period} is not signed by the log's key", "Nothing in this period is proved."
        ) from None
    if (checkpoint.origin, checkpoint.size) != (stretch.origin, stretch.size):
        raise CheckpointSignatureError(f"the checkpoint of {stretch.period} is of another log or size", "Nothing in this period is proved.")
    report.cosignatures += sum(line.name != stretch.origin for line in note.signatures)
    return checkpoint


def _continues(root_before: bytes, checkpoint: Checkpoint, before: Seen, report: Report) -> None:
    """Compare with the last checkpoint of this log that was seen before."""
    if before.size > checkpoint.size:
        raise PeriodTruncatedError(
            f"the log of {before.period} has {checkpoint.size} entries, and had {before.size} when it was seen before",
            "This is an older bundle, or entries at its end were taken away; without --remember it shows what it holds.",
        )
    if root_before != before.root:
        raise BundleForkedError(
            f"the first {before.size} entries of {before.period} are others than when they were seen before",
            "Two histories were signed: keep both bundles, they prove it.",
        )
    report.compared_with_memory += 1


def _entries(files: hashes.Files, stretch: Stretch, readable: _Readable, report: Report) -> Entry | None:
    """Check every entry of a log that the bundle holds; returns its opening where that is among them."""
    if stretch.last >= stretch.size or stretch.first < 0:
        raise EntryMissingError(f"the bundle claims entries that the log of {stretch.period} does not have", "Was bundle.json changed?")
    opening = None
    highest: dict[tuple[str, str], tuple[int, int, int]] = {}
    numbers = {0, *range(stretch.first // WIDTH, stretch.last // WIDTH + 1)} if stretch.last >= 0 else {0}
    for number in sorted(numbers):
        for index, octets in enumerate(hashes.checked_entries(files, stretch, number), number * WIDTH):
            try:
                entry = entries.decode(octets)
            except EntryFormError as error:
                raise EntryAlteredError(
                    f"entry {index} of {stretch.period} is {error}", "It was signed as it is: ask the vendor."
                ) from None
            if index == 0:
                opening = entry
            if stretch.first <= index <= stretch.last:
                _ascending(entry, highest, stretch, index)
                _counted(entry, stretch, index, report)
                _blobs(files, entry, stretch, index, report)
                readable.compare(stretch.period, index, octets, entry, report)
    return opening


def _ascending(entry: Entry, highest: dict[tuple[str, str], tuple[int, int, int]], stretch: Stretch, index: int) -> None:
    if entry.position is None or entry.kind != entries.Kind.CHANGE:
        return
    key, order = (entry.database, entry.position.system), entry.position.order()
    if key in highest and order <= highest[key]:
        raise EntryReplayedError(
            f"entry {index} of {stretch.period} says a change that was said before", "The vendor logged it twice or out of order."
        )
    highest[key] = order


def _counted(entry: Entry, stretch: Stretch, index: int, report: Report) -> None:
    report.entries += 1
    if entry.table:
        report.tables[entry.table] += 1
    report.sealed += len(entry.sealed)
    report.dropped += sum(bool(part.dropped) for part in entry.sealed)
    if entry.kind == entries.Kind.GAP:
        report.gaps.append(Gap(stretch.period, index, entry.at.isoformat(), entry.operation, entry.table))


def _blobs(files: hashes.Files, entry: Entry, stretch: Stretch, index: int, report: Report) -> None:
    for part in entry.sealed:
        if not part.blob:
            continue
        content = files.blob(part.blob)
        if len(content) != part.size or sha256(content).hexdigest() != part.blob:
            raise BlobSwappedError(f"a ciphertext of entry {index} of {stretch.period} is not the one that was signed", "Ask for it again.")
        report.blobs += 1


class _Readable:
    """Compares what is meant to be read with the entries, line by line."""

    def __init__(self, source: Source, cover: Cover) -> None:
        self._lines = source.lines(bundles.LINES)
        self._rows = _rows(source.lines(bundles.TABLE))
        self._values = cover.values
        if next(self._rows, None) != bundles.csv_line(bundles.CSV_HEAD):
            raise _readable_differs(bundles.TABLE, "its head")

    def compare(self, period: str, index: int, octets: bytes, entry: Entry, report: Report) -> None:
        """Check the next line of both files against an entry."""
        where = f"entry {index} of {period}"
        line = next(self._lines, b"")
        values = self._disclosed(line, where) if self._values and line else [None] * len(entry.sealed)
        if line != bundles.line(period, index, octets, values) and not _same(line, period, index, octets):
            raise _readable_differs(bundles.LINES, where)
        for part, value in zip(entry.sealed, values, strict=False):
            if value is not None:
                if entries.digest(value.encode()) != part.digest:
                    raise ValueAlteredError(f"a value of {where} is not the one that was signed", "It was changed after the fact.")
                report.disclosed += 1
        if next(self._rows, None) != bundles.csv_row(period, index, entry, values):
            raise _readable_differs(bundles.TABLE, where)

    def end(self) -> None:
        """Check that nothing follows."""
        if next(self._lines, None) is not None:
            raise _readable_differs(bundles.LINES, "its end")
        if next(self._rows, None) is not None:
            raise _readable_differs(bundles.TABLE, "its end")

    def _disclosed(self, line: bytes, where: str) -> list[str | None]:
        try:
            values = json.loads(line).get("values", [])
        except (ValueError, AttributeError):
            raise _readable_differs(bundles.LINES, where) from None
        if not isinstance(values, list) or not all(value is None or isinstance(value, str) for value in values):
            raise _readable_differs(bundles.LINES, where)
        return values


def _rows(lines: Iterator[bytes]) -> Iterator[str]:
    """Yield the rows of a CSV file, each with the line feeds that stand inside its quotes."""
    held = ""
    for text in lines:
        held += text.decode(errors="replace")
        if held.count('"') % 2 == 0:
            yield held
            held = ""
    if held:
        yield held


def _same(line: bytes, period: str, index: int, octets: bytes) -> bool:
    """Whether a line written by another program says the same."""
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and (said.get("log"), said.get("index"), said.get("entry")) == (period, index, json.loads(octets))


def _readable_differs(file: str, where: str) -> BundleError:
    return ReadableDiffersError(f"{file} says something else than the signed entries at {where}", "Do not read it; the entries hold.")


def _openings(cover: Cover, openings: dict[str, Entry], seen: dict[str, Checkpoint], known: Memory) -> None:
    """Follow the chain of periods through their openings."""
    for stretch in cover.logs:
        opening = openings.get(stretch.period)
        if opening is None:
            continue
        said = opening.detail
        if opening.kind != entries.Kind.OPENING or (said.get("controller"), said.get("period")) != (cover.controller, stretch.period):
            raise OpeningWrongError(
                f"the log of {stretch.period} was opened for another controller or period", "It is not what it claims to be."
            )
        origin = str(said.get("previous_origin"))
        if origin in seen:
            _follows(said, seen[origin], stretch, ended=True)
        elif origin in known.logs:
            before = known.logs[origin]
            _follows(said, Checkpoint(origin, before.size, before.root), stretch, ended=False)
    for earlier, later in pairwise(sorted(cover.logs, key=lambda stretch: stretch.period)):
        opening = openings.get(later.period)
        if opening is not None and opening.detail.get("previous_origin") != earlier.origin:
            raise PeriodMissingError(
                f"the period before {later.period} is not in the bundle, though {earlier.period} is", "Ask for all periods of the time."
            )


def _follows(said: dict[str, str | int], before: Checkpoint, stretch: Stretch, *, ended: bool) -> None:
    """Compare what an opening says of the period before with its checkpoint.

    Args:
        said: the opening's detail.
        before: of the period before.
        stretch: the period that was opened.
        ended: the checkpoint is the last one; else it was seen on the way, and the period may have grown since.
    """
    size = said.get("previous_size")
    if not isinstance(size, int) or before.size > size:
        raise PeriodTruncatedError(
            f"the period before {stretch.period} has {before.size} entries, its successor says {size}", "One of them is not the true one."
        )
    if ended and before.size < size:
        raise PeriodTruncatedError(
            f"the period before {stretch.period} ended with {size} entries, here it has {before.size}",
            "Entries at its end were taken away.",
        )
    if before.size == size and said.get("previous_root") != base64.b64encode(before.root).decode():
        raise BundleForkedError(f"{stretch.period} continues another history than the period before it", "Keep the bundle, it proves it.")


def _remembered_periods(cover: Cover, known: Memory, seen: dict[str, Checkpoint]) -> None:
    """Demand every log of the controller that was seen before and lies between the periods of the bundle."""
    periods = sorted(stretch.period for stretch in cover.logs)
    for origin, before in known.logs.items():
        inside = bool(periods) and periods[0] <= before.period <= periods[-1]
        if before.controller == cover.controller and inside and origin not in seen and not cover.proofs:
            raise PeriodMissingError(
                f"a log of {before.period} was seen before and is not in the bundle", "Its place was taken by another, or it was left out."
            )


def _proofs(source: Source, cover: Cover, public: bytes, known: Memory, report: Report, seen: dict[str, Checkpoint]) -> None:
    """Check a bundle about one person: each entry comes with its own proof."""
    readable = _Readable(source, cover)
    by_period = {stretch.period: stretch for stretch in cover.logs}
    for name in cover.proofs:
        period, _, index = name.removeprefix("proofs/").removesuffix(".tlog-proof").rpartition("-")
        stretch = by_period.get(period)
        try:
            proof = checkpoints.parse_proof(source.read(name).decode())
            entry = entries.decode(proof.extra)
        except (notes.NoteError, UnicodeDecodeError):
            raise BundleIncompleteError(f"{name} is not a proof", "Ask for it again.") from None
        except EntryFormError:
            raise EntryAlteredError(f"{name}: its entry is none", "Ask for it again.") from None
        if stretch is None or str(proof.index) != index:
            raise EntryReplayedError(f"{name} proves another entry than its name says", "What stood there was replaced.")
        seen[stretch.origin] = _checkpoint(str(proof.note), stretch, public, report)
        before = known.logs.get(stretch.origin)
        if before and before.size >= stretch.size:
            _continues(seen[stretch.origin].root if before.size == stretch.size else b"", seen[stretch.origin], before, report)
        try:
            proof.verify(merkle.leaf(proof.extra))
        except proofs.ProofError:
            raise EntryAlteredError(f"{name}: its entry is not in the signed log", "It was changed after it was signed.") from None
        _counted(entry, stretch, proof.index, report)
        _blobs(hashes.Files(source, stretch), entry, stretch, proof.index, report)
        readable.compare(period, proof.index, proof.extra, entry, report)
    report.periods = sorted(by_period)
    report.leaves = len(cover.proofs)
    readable.end()
