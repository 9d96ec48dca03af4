"""Append entries to the controllers' logs, exactly once.

Order of a batch: blobs and tiles are durable; then index rows, heads, marks and settled acts become so in one transaction; then the
checkpoints are published. A crash before the commit leaves octets behind the committed ends, which belong to no log and are overwritten;
a crash after it leaves an older checkpoint, which the next opening replaces.
"""

from __future__ import annotations

import base64
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final

from obhut.auditlog import entries as entry_codec
from obhut.auditlog.entries import Entry, Position
from obhut.auditlog.errors import EntryRefusedError, LogForkedError, LogRolledBackError
from obhut.auditlog.files import CHECKPOINT, LogFiles
from obhut.auditlog.signing import Signer, SigningKeys
from obhut.auditlog.store import Store, open_store
from obhut.auditlog.tlog import tiles
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.auditlog.tlog.merkle import SIZE, WIDTH, Edge, leaves
from obhut.foundation import faultpoints, notes
from obhut.foundation.clock import Clock
from obhut.foundation.ids import new_id
from obhut.foundation.settings import Settings
from obhut.keystore import open_keystore
from obhut.postgres.connections import Session
from obhut.postgres.control import control_session
from obhut.postgres.sql import SQL, Identifier, load

STATEMENTS: Final = load("obhut.auditlog", "index")
ORIGIN: Final = "obhut.audit-log/"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_COPY: Final = SQL("COPY {} (period, log, seq, at, topic, subject) FROM STDIN (FORMAT binary)")
_HEADER: Final = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"
_TRAILER: Final = b"\xff\xff"
_ROW_BEGUN: Final = Struct(">hiiii")  # six columns: period and log, each after its length
_ROW: Final = Struct(">iqiqiii16s")  # seq, at, topic, subject
_ROW_NOBODY: Final = Struct(">iqiqiii")
_CONTROLLER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")  # becomes a directory
_KNOWN_LOGS: Final = 2_048  # logs whose edge is kept in memory, 8 to 24 KB each


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append has made durable.

    Attributes:
        sizes: size of each log that grew, by controller.
        appended: entries that were new.
        skipped: entries at or below the mark, in the logs already.
    """

    sizes: dict[str, int]
    appended: int
    skipped: int


@dataclass(slots=True)
class _Head:
    """A log while it is written."""

    id: int
    controller: str
    period: str
    origin: str
    edge: Edge
    tail: int  # octets of the unfinished bundle of entries
    finished: list[tuple[int | str, int]] = field(default_factory=list)

    @property
    def month(self) -> int:
        return int(self.period.replace("-", ""))

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.origin, self.edge.size, self.edge.root())


@contextmanager
def open_log(settings: Settings, database: str, clock: Clock) -> Iterator[Log]:
    """Open the logs of a protected database's controllers for writing; the control database is open.

    Several processes may: each batch waits for the one before.
    """
    with control_session("obhut audit log") as session:
        yield Log(session, open_store(settings), open_keystore(settings), database, clock)


class Log:
    """Writer of the logs of one protected database's controllers."""

    def __init__(self, session: Session, store: Store, keys: SigningKeys, database: str, clock: Clock) -> None:
        self._session = session
        self._store = store
        self._keys = keys
        self._database = database
        self._clock = clock
        self._heads: OrderedDict[str, _Head] = OrderedDict()
        self._signers: dict[str, Signer] = {}
        self._topics: dict[tuple[str, str, str, str], int] = {}
        self._partitions: set[int] = set()

    def position(self, source: str) -> Position | None:
        """Return how far a source (a replication slot) was read, or None when nothing was."""
        found = self._session.row(STATEMENTS["mark"], (self._database, source))
        return Position(*found) if found else None

    def append(self, controller: str, entries: Sequence[Entry], upto: Position | None = None, *, source: str = "") -> Receipt:
        """Append to one controller's log; see :meth:`append_all`."""
        return self.append_all({controller: entries}, source=source, upto=upto)

    def append_all(
        self,
        batch: Mapping[str, Sequence[Entry]],
        *,
        source: str = "",
        upto: Position | None = None,
        settled: Sequence[int] = (),
    ) -> Receipt:
        """Append entries to the logs of many controllers, all or nothing; durable when it returns.

        Args:
            batch: entries by controller, each list in ascending order of position.
            source: the replication slot they came from; "" for entries without a position.
            upto: up to here the source was read, also where nothing was to be logged. None leaves the mark alone.
            settled: acts of the outbox that these entries stand for.

        Raises:
            EntryRefusedError: an entry is too long.
            LogRolledBackError: the control database is behind what was published.
            LogForkedError: it has another history than what was published.
            LogStoreError: the place of the tiles cannot be written.
        """
        self._session.execute(STATEMENTS["lock"], (self._database,))
        try:
            return self._append(batch, source, upto, settled)
        except BaseException:
            for known in (self._heads, self._topics):
                known.clear()  # what was prepared may not have been committed
            raise
        finally:
            if not self._session.closed:
                self._session.execute(STATEMENTS["unlock"], (self._database,))

    def index(self, identifier: int, period: str, found: Sequence[Entry], start: int) -> None:
        """Fill the index of entries that are in a log already; inside the caller's transaction on the same session."""
        head = _Head(identifier, "", period, "", Edge(), 0)
        self._partition(head.month)
        self._session.copy_in(_COPY.format(Identifier(partition_of(head.month))), [_HEADER + self._rows(head, found, start) + _TRAILER])

    def publish(self, controllers: Iterable[str]) -> None:
        """Publish the checkpoints of controllers' last logs, where a crash came before that."""
        self.append_all(dict.fromkeys(controllers, ()))

    def _append(self, batch: Mapping[str, Sequence[Entry]], source: str, upto: Position | None, settled: Sequence[int]) -> Receipt:
        mark = self.position(source) if source else None
        if mark and upto and upto.system == mark.system and upto.order() <= mark.order():
            upto = None  # sent again
        fresh = {controller: _behind(mark, found) for controller, found in batch.items()}
        skipped = sum(len(found) - len(fresh[controller]) for controller, found in batch.items())
        wanted = sorted(controller for controller, found in fresh.items() if found or not batch[controller])
        now = self._clock.now()
        heads = self._load(wanted)
        before = list(heads.values())
        openings = [controller for controller in wanted if fresh[controller] and _over(heads.get(controller), now)]
        rows: list[tuple[_Head, list[Entry], int]] = []
        with self._session.transaction():
            for controller in openings:
                heads[controller], first = self._opened(controller, heads.get(controller), now)
                fresh[controller] = [first, *fresh[controller]]
            for controller in wanted:
                if fresh[controller]:
                    head = heads[controller]
                    start = head.edge.size
                    self._write(head, fresh[controller])
                    rows.append((head, list(fresh[controller]), start))
            self._store.sync()
            faultpoints.reach("auditlog.append.written")
            self._commit(rows, source, upto, settled, now)
        faultpoints.reach("auditlog.append.committed")
        self._publish([*(head for head in before if head.controller in openings), *heads.values()])  # a period that ends, too
        faultpoints.reach("auditlog.append.published")
        while len(self._heads) > _KNOWN_LOGS:
            self._heads.popitem(last=False)
        return Receipt(
            {head.controller: head.edge.size for head, _, _ in rows}, sum(len(found) for _, found, _ in rows) - len(openings), skipped
        )

    def _load(self, controllers: Sequence[str]) -> dict[str, _Head]:
        """Return the last log of each controller that has one, checked against what was published when it is new here."""
        found: dict[str, _Head] = {}
        for identifier, controller, period, origin, size, root, tail, removed_at in self._session.rows(
            STATEMENTS["heads"], (list(controllers),)
        ):
            head = self._heads.get(controller)
            if head is None or (head.id, head.edge.size) != (identifier, size):
                files = LogFiles.of(self._store, controller, period)
                if removed_at is None:
                    edge = files.edge(size)
                    head = _Head(identifier, controller, period, origin, edge, tail)
                    if edge.root() != bytes(root):
                        raise LogForkedError(f"{files.base}: the tiles do not give the root of the control database", _RESTORED)
                    check_published(files, head.checkpoint, self._signer(controller))
                    files.finish_all(size)
                else:  # only its end is needed, for the opening of the next period
                    head = _Removed(identifier, controller, period, origin, Edge(), 0, last=Checkpoint(origin, size, bytes(root)))
            found[controller] = self._heads[controller] = head
            self._heads.move_to_end(controller)
        return found

    def _opened(self, controller: str, before: _Head | None, now: datetime) -> tuple[_Head, Entry]:
        if not _CONTROLLER.fullmatch(controller):
            raise EntryRefusedError("a log needs an opaque controller id", "Letters, digits, dots, colons and dashes, 64 at the most.")
        period = f"{now:%Y-%m}"
        for later in self._store.children(controller):
            if later > (before.period if before else "") and LogFiles.of(self._store, controller, later).checkpoint():
                raise LogRolledBackError(f"{controller}/{later} was published, and the control database does not know it", _RESTORED)
        self._partition(int(f"{now:%Y%m}"))
        origin = ORIGIN + new_id("x").removeprefix("x_")
        previous = None
        if before:
            last = before.checkpoint
            previous = (last.origin, last.size, base64.b64encode(last.root).decode())
        identifier = self._session.value(STATEMENTS["add_log"], (controller, period, origin, now, now))
        head = _Head(identifier, controller, period, origin, Edge(), 0)
        return head, entry_codec.opening(at=now, controller=controller, period=period, previous=previous)

    def _write(self, head: _Head, entries: Sequence[Entry]) -> None:
        """Write tiles and blobs of new entries; nothing of it counts before the commit."""
        files = LogFiles.of(self._store, head.controller, head.period)
        encode = entry_codec.encode
        octets = [encode(entry) for entry in entries]
        for place, encoded in enumerate(octets):
            if len(encoded) > entry_codec.MAX_INLINE:  # else no ciphertext in it is longer
                entry, blobs = entry_codec.blobs_apart(entries[place])
                for name, content in blobs.items():
                    self._store.put(files.blob(name), content)
                octets[place] = encode(entry)
        if max(map(len, octets)) > tiles.MAX_ENTRY:
            raise EntryRefusedError(f"an entry takes {tiles.MAX_ENTRY} octets at the most", "Too many sealed parts in one entry.")
        start = head.edge.size
        head.tail = self._write_entries(files, start, head.tail, octets, head)
        for level, added in enumerate(head.edge.grow(b"".join(leaves(octets)))):
            self._write_hashes(files, level, start >> (8 * level), added, head)

    def _write_entries(self, files: LogFiles, start: int, offset: int, octets: Sequence[bytes], head: _Head) -> int:
        at = 0
        while at < len(octets):
            number, within = divmod(start + at, WIDTH)
            taken = octets[at : at + WIDTH - within]
            content = tiles.frame(taken)
            self._store.append(files.path(tiles.ENTRIES, number, part=True), offset, content)
            at += len(taken)
            offset += len(content)
            if within + len(taken) == WIDTH:
                head.finished.append((tiles.ENTRIES, number))
                offset = 0
        return offset

    def _write_hashes(self, files: LogFiles, level: int, start: int, added: bytes, head: _Head) -> None:
        at = 0
        while at < len(added):
            number, within = divmod(start + at // SIZE, WIDTH)
            taken = added[at : at + (WIDTH - within) * SIZE]
            self._store.append(files.path(level, number, part=True), within * SIZE, taken)
            at += len(taken)
            if within * SIZE + len(taken) == WIDTH * SIZE:
                head.finished.append((level, number))

    def _commit(
        self, rows: Sequence[tuple[_Head, list[Entry], int]], source: str, upto: Position | None, settled: Sequence[int], now: datetime
    ) -> None:
        months: dict[int, list[bytes]] = {}
        for head, found, start in rows:
            months.setdefault(head.month, []).append(self._rows(head, found, start))
        for month, pieces in months.items():
            statement = SQL("COPY {} (period, log, seq, at, topic, subject) FROM STDIN (FORMAT binary)").format(
                Identifier(partition_of(month))
            )
            self._session.copy_in(statement, [b"".join([_HEADER, *pieces, _TRAILER])])
        if rows:
            heads = [head for head, _, _ in rows]
            grown = (
                now,
                [head.id for head in heads],
                [head.edge.size for head in heads],
                [head.edge.root() for head in heads],
                [head.tail for head in heads],
            )
            self._session.execute(STATEMENTS["grow"], grown)
        if source and upto:
            self._session.execute(STATEMENTS["set_mark"], (self._database, source, upto.system, upto.timeline, upto.lsn, upto.ordinal, now))
        if settled:
            self._session.execute(STATEMENTS["settle"], (list(settled),))

    def _rows(self, head: _Head, found: Sequence[Entry], start: int) -> bytes:
        """Return the index rows of entries in the binary format of COPY."""
        pack, pack_nobody = _ROW.pack, _ROW_NOBODY.pack
        begun = _ROW_BEGUN.pack(6, 4, head.month, 4, head.id)
        pieces: list[bytes] = []
        known = self._topics
        moment, at = None, 0  # many entries are of one transaction
        for seq, entry in enumerate(found, start):
            key = (entry.database, entry.table, entry.kind, entry.operation)
            topic = known.get(key) or self._topic(key)
            if entry.at is not moment:
                moment = entry.at
                at = (moment - _EPOCH) // _MICROSECOND
            if entry.subjects:
                for subject in entry.subjects:
                    pieces.append(begun)
                    pieces.append(pack(8, seq, 8, at, 4, topic, 16, subject))
            else:
                pieces.append(begun + pack_nobody(8, seq, 8, at, 4, topic, -1))
        return b"".join(pieces)

    def _topic(self, key: tuple[str, str, str, str]) -> int:
        database, relation, kind, operation = key
        number: int = self._session.value(STATEMENTS["add_topic"], (database, relation, str(kind), operation))
        self._topics[key] = number
        return number

    def _publish(self, heads: Iterable[_Head]) -> None:
        """Give full tiles their names and publish the checkpoints."""
        for head in heads:
            if isinstance(head, _Removed):
                continue
            files = LogFiles.of(self._store, head.controller, head.period)
            for level, number in head.finished:
                files.finish(level, number)
            head.finished.clear()
            note = self._signer(head.controller).sign(head.checkpoint)
            self._store.put(f"{files.base}/{CHECKPOINT}", str(note).encode())
            self._heads[head.controller] = head
        self._store.sync()

    def _signer(self, controller: str) -> Signer:
        if controller not in self._signers:
            self._signers[controller] = Signer.of(self._keys, controller)
        return self._signers[controller]

    def _partition(self, month: int) -> None:
        """Make the index of a month unless it exists; attaching it keeps no reader waiting."""
        name = partition_of(month)
        if month in self._partitions or self._session.value(STATEMENTS["has_partition"], (name,)):
            self._partitions.add(month)
            return
        self._session.execute(STATEMENTS["lock_partitions"])
        if not self._session.value(STATEMENTS["has_partition"], (name,)):
            names = {"name": Identifier(name), "month": SQL(str(month))}  # a number of six digits
            self._session.execute(SQL("CREATE TABLE {name} (LIKE auditlog_index)").format(**names))
            self._session.execute(SQL("ALTER TABLE auditlog_index ATTACH PARTITION {name} FOR VALUES IN ({month})").format(**names))


@dataclass(slots=True)
class _Removed(_Head):
    """A log whose entries are gone; only its end counts."""

    last: Checkpoint = field(default_factory=lambda: Checkpoint("", 0, b""))

    @property
    def checkpoint(self) -> Checkpoint:
        return self.last


def check_published(files: LogFiles, ours: Checkpoint, signer: Signer) -> None:
    """Refuse to sign what does not continue what was published.

    Raises:
        LogRolledBackError: the control database knows fewer entries.
        LogForkedError: it knows other ones.
    """
    published = files.checkpoint()
    if published is None:
        return  # killed between the first commit and its checkpoint
    try:
        note = notes.parse(published)
        note.signed_by(signer.verifier_keys(ours.origin)[0])
        seen = Checkpoint.of(note)
    except (notes.NoteError, notes.SignatureError):
        raise LogForkedError(f"{files.base}: the published checkpoint is not of this log", _RESTORED) from None
    if seen.size > ours.size:
        raise LogRolledBackError(f"{files.base}: {seen.size} entries were published, the control database knows {ours.size}", _RESTORED)
    if files.root_at(seen.size) != seen.root:
        raise LogForkedError(f"{files.base}: the published checkpoint has another root at {seen.size} entries", _RESTORED)


_RESTORED: Final = 'Was the control database restored? Nothing is signed until it has caught up: "obhut audit recover".'


def _behind(mark: Position | None, found: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries behind the mark; all of them when they come from another server."""
    if not mark or not found:
        return found
    first = found[0].position
    if first and first.system == mark.system and first.order() > mark.order():
        return found
    end = mark.order()
    return [entry for entry in found if not entry.position or entry.position.system != mark.system or entry.position.order() > end]


def _over(head: _Head | None, now: datetime) -> bool:
    """Whether a new period begins; a clock that was set back does not begin an old one."""
    return head is None or head.period < f"{now:%Y-%m}" or isinstance(head, _Removed)


def partition_of(month: int) -> str:
    """Return the name of the table that indexes a month."""
    return f"auditlog_index_{month}"
