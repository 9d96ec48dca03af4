"""Hand a controller its log: a bundle that anybody can verify (specification, section 9), whole periods or one person's history.

Without values a bundle holds ciphertext only, and is as erased as the keys are. With values it holds personal data in clear; the caller has
asked the gate for that. A directory appears under its name when it is complete, never before.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Self, TextIO

import msgspec

from obhut.auditlog import bundles, entries, page, reading
from obhut.auditlog.bundles import Cover, Stretch
from obhut.auditlog.entries import Entry, Kind
from obhut.auditlog.errors import LogDamagedError, LogStoreError, LogUnknownError
from obhut.auditlog.files import LogFiles
from obhut.auditlog.reading import STATEMENTS, KeyReader, LogHead, PartState, logs
from obhut.auditlog.search import Query, search
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import Store
from obhut.auditlog.tlog import proofs, tiles
from obhut.auditlog.tlog.checkpoints import Checkpoint, ProofFile
from obhut.auditlog.tlog.merkle import WIDTH, widths
from obhut.foundation import notes
from obhut.foundation.clock import Clock
from obhut.foundation.notes import Note
from obhut.postgres.connections import Session

_EVER: Final = datetime(1, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
_HISTORY: Final = 10_000  # entries of one person that fit into a bundle of proofs


@dataclass(slots=True)
class Contents:
    """What a bundle holds, counted while it is written."""

    cover: Cover
    entries: int = 0
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    gaps: list[tuple[str, int, datetime, str, str]] = field(default_factory=list)  # period, index, at, reason, table
    parts: Counter[PartState] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Writes bundles of one controller.

    Attributes:
        signer: the controller's log keys: checkpoints that leave the house carry both signatures.
        keys: opens what is to be disclosed; None discloses nothing.
    """

    session: Session
    store: Store
    signer: Signer
    controller: str
    name: str
    clock: Clock
    keys: KeyReader | None = None

    def export(self, target: Path, *, since: datetime | None = None, until: datetime | None = None) -> Contents:
        """Write the bundle of all entries of a time, with the whole tree of each period concerned.

        Args:
            target: a directory that does not exist yet, or a name that ends in ``.zip``.
            since: from when; None for the beginning.
            until: until when, exclusive; None for the end.

        Raises:
            LogUnknownError: there is nothing of that time.
            LogStoreError: the target exists or cannot be written.
        """
        heads = [head for head in reversed(logs(self.session, [self.controller])) if head.removed_at is None and head.size]
        chosen = [(head, self._stretch(head, since, until)) for head in heads]
        # Periods without an entry of that time go at both ends; between two others they stay, so that none can be left out.
        while chosen and chosen[0][1].last < 0:
            chosen.pop(0)
        while chosen and chosen[-1][1].last < 0:
            chosen.pop()
        if not chosen:
            raise LogUnknownError(f"controller {self.controller} has no log of that time", 'Look at "obhut audit logs".')
        cover = self._cover(since, until, [stretch for _, stretch in chosen], ())
        with _Writer.at(target, cover) as writer:
            for head, stretch in chosen:
                self._write_log(writer, head, stretch)
            writer.finish(self._keys_text(cover))
            return writer.contents

    def history(self, target: Path, subjects: Collection[bytes]) -> Contents:
        """Write one person's history: every entry that concerns the keys, each with its own proof (Art. 15).

        Args:
            target: as for :meth:`export`.
            subjects: ids of the person's keys.

        Raises:
            LogUnknownError: no entry concerns the person.
        """
        found = search(self.session, self.store, self.controller, Query(subjects=subjects, limit=_HISTORY))
        if not found:
            raise LogUnknownError("no entry concerns that person", "Was the person's key of another controller, or never made?")
        found.reverse()
        heads = {head.period: head for head in logs(self.session, [self.controller])}
        ranges = {head.period: Stretch(head.period, head.origin, head.size, 0, head.size - 1) for head in heads.values()}
        used = sorted({one.period for one in found})
        names = tuple(f"proofs/{one.period}-{one.index}.tlog-proof" for one in found)
        cover = self._cover(None, None, [ranges[period] for period in used], names)
        with _Writer.at(target, cover) as writer:
            signed = {period: self._note(heads[period]) for period in used}
            readers = {period: heads[period].files(self.store).reader(heads[period].size) for period in used}
            for name, one in zip(names, found, strict=True):
                path = proofs.inclusion(readers[one.period], one.index, heads[one.period].size)
                writer.write(name, str(ProofFile(one.index, tuple(path), signed[one.period], one.octets)).encode())
                self._blobs(writer, one.files, one.period, one.entry)
            self._readable(writer, [(one.period, one.index, one.octets, one.entry, one.files) for one in found], subjects)
            writer.finish(self._keys_text(cover))
            return writer.contents

    def _cover(self, since: datetime | None, until: datetime | None, stretches: Sequence[Stretch], names: tuple[str, ...]) -> Cover:
        now = self.clock.now()
        return Cover(bundles.FORMAT, self.controller, self.name, now, since, until, tuple(stretches), self.keys is not None, names)

    def _stretch(self, head: LogHead, since: datetime | None, until: datetime | None) -> Stretch:
        asked = {"period": head.month, "log": head.id, "since": since or _EVER, "until": until or _NEVER}
        first, last = self.session.row(STATEMENTS["bounds"], asked) or (None, None)
        return Stretch(head.period, head.origin, head.size, first if first is not None else 0, last if last is not None else -1)

    def _note(self, head: LogHead) -> Note:
        """Return the checkpoint as it leaves the house, with the cosignatures that came in for this very size."""
        checkpoint = Checkpoint(head.origin, head.size, head.root)
        note = self.signer.hand_out(checkpoint, self.clock.now())
        if head.checkpoint:
            stored = notes.parse(head.checkpoint)
            if stored.text == note.text:
                note = notes.with_signatures(note, [line for line in stored.signatures if line.name != head.origin])
        return note

    def _write_log(self, writer: _Writer, head: LogHead, stretch: Stretch) -> None:
        files, base = head.files(self.store), f"logs/{head.period}"
        if files.root_at(head.size) != head.root:
            raise LogDamagedError(f"{files.base}: the tiles do not give the root of the control database", "Nothing was handed out.")
        writer.write(f"{base}/checkpoint", str(self._note(head)).encode())
        for level, _ in enumerate(widths(head.size)):
            for number in range(tiles.count(head.size, level)):
                width = tiles.width(head.size, level, number)
                writer.write(f"{base}/{tiles.path(level, number, width)}", files.hashes(level, number, width))
        wanted = {0, *range(stretch.first // WIDTH, stretch.last // WIDTH + 1)} if stretch.last >= 0 else {0}
        for number in sorted(wanted):
            width = tiles.width(head.size, 0, number)
            found = files.entries(number, width)
            writer.write(f"{base}/{tiles.path(tiles.ENTRIES, number, width)}", tiles.frame(found))
            rows = [
                (head.period, index, octets, entries.decode(octets), files)
                for index, octets in enumerate(found, number * WIDTH)
                if stretch.first <= index <= stretch.last
            ]
            for _, _, _, entry, _ in rows:
                self._blobs(writer, files, head.period, entry)
            self._readable(writer, rows)

    def _blobs(self, writer: _Writer, files: LogFiles, period: str, entry: Entry) -> None:
        for part in entry.sealed:
            if part.blob:
                content = self.store.read(files.blob(part.blob))
                if content is None:
                    raise LogDamagedError(f"{files.base}: a ciphertext that an entry names is missing", "Nothing was handed out.")
                writer.write(f"logs/{period}/blob/{part.blob[:2]}/{part.blob}", content)

    def _readable(
        self, writer: _Writer, rows: Sequence[tuple[str, int, bytes, Entry, LogFiles]], subjects: Collection[bytes] | None = None
    ) -> None:
        """Write lines to be read; of a history only the parts under the person's own keys are disclosed."""
        opened = reading.open_parts(self.controller, [(files, entry) for _, _, _, entry, files in rows], self.keys)
        for (period, index, octets, entry, _), parts in zip(rows, opened, strict=True):
            values = [
                part.plaintext.decode() if part.plaintext is not None and (subjects is None or part.key in subjects) else None
                for part in parts
            ]
            writer.readable(period, index, octets, entry, values)
            writer.contents.parts.update(part.state for part in parts)

    def _keys_text(self, cover: Cover) -> str:
        return "".join(f"{key}\n" for stretch in cover.logs for key in self.signer.verifier_keys(stretch.origin))


class _Writer:
    """The files of a bundle while it is made, in a directory beside its target."""

    def __init__(self, root: Path, cover: Cover) -> None:
        self._root = root
        self.contents = Contents(cover)
        self._lines: BinaryIO = (root / bundles.LINES).open("wb")
        self._table: TextIO = (root / bundles.TABLE).open("w", encoding="utf-8", newline="")
        self._table.write(bundles.csv_line(bundles.CSV_HEAD))

    @classmethod
    @contextmanager
    def at(cls, target: Path, cover: Cover) -> Iterator[Self]:
        """Make the bundle of the block appear at ``target`` when the block has ended well; leave nothing when it has not."""
        if target.exists():
            raise LogStoreError(f"{target} exists already", "Name a directory or a file that does not exist yet.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise LogStoreError(
                f"{target} cannot be written: {error.strerror}", "Is there room, and may this account write there?"
            ) from None
        try:
            writer = cls(work, cover)
            try:
                yield writer
            finally:
                writer.close()
            if target.suffix == ".zip":
                _pack(work, target)
            else:
                work.chmod(0o700)
                work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def write(self, path: str, content: bytes) -> None:
        """Write a file."""
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def readable(self, period: str, index: int, octets: bytes, entry: Entry, values: Sequence[str | None]) -> None:
        """Write the lines of an entry."""
        self._lines.write(bundles.line(period, index, octets, values))
        self._table.write(bundles.csv_row(period, index, entry, values))
        self.contents.entries += 1
        if entry.kind == Kind.GAP:
            self.contents.gaps.append((period, index, entry.at, entry.operation, entry.table))
        elif entry.kind == Kind.CHANGE:
            self.contents.operations[entry.table, entry.operation] += 1
        elif entry.kind == Kind.ACTION:
            self.contents.actions[entry.operation] += 1

    def finish(self, keys: str) -> None:
        """Write cover, keys and the page."""
        self.write(bundles.COVER, msgspec.json.format(msgspec.json.encode(self.contents.cover)) + b"\n")
        self.write(bundles.KEYS, keys.encode())
        self.write(bundles.PAGE, page.render(self.contents).encode())

    def close(self) -> None:
        """Close what is written line by line."""
        self._lines.close()
        self._table.close()


def _pack(work: Path, target: Path) -> None:
    made = work.with_name(work.name + ".zip")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(work.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(work))
    made.rename(target)
