"""The files of one log: where its tiles lie, and how its hashes and entries are read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from obhut.auditlog.errors import LogDamagedError, LogUnknownError
from obhut.auditlog.store import Store
from obhut.auditlog.tlog import tiles
from obhut.auditlog.tlog.merkle import SIZE, WIDTH, Edge, leaves, reduce, root, widths

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The files of a log below ``<controller>/<period>``."""

    store: Store
    base: str

    @classmethod
    def of(cls, store: Store, controller: str, period: str) -> LogFiles:
        """Return the files of a controller's period."""
        return cls(store, f"{controller}/{period}")

    def path(self, level: int | str, number: int, *, part: bool = False) -> str:
        """Return the path of a tile in the store."""
        return f"{self.base}/{tiles.path(level, number)}" + (".part" if part else "")

    def blob(self, name: str) -> str:
        """Return the path of a ciphertext in the store."""
        return f"{self.base}/blob/{name[:2]}/{name}"

    def checkpoint(self) -> str | None:
        """Return the last published checkpoint."""
        found = self.store.read(f"{self.base}/{CHECKPOINT}")
        return None if found is None else found.decode()

    def hashes(self, level: int, number: int, width: int) -> bytes:
        """Return the hashes of a tile.

        Raises:
            LogDamagedError: it is missing or too short.
        """
        return self._tile(level, number, width, width * SIZE)[: width * SIZE]

    def entries(self, number: int, width: int) -> list[bytes]:
        """Return the entries of a bundle.

        Raises:
            LogDamagedError: it is missing or too short.
        """
        try:
            return tiles.unframe(self._tile(tiles.ENTRIES, number, width, None), width)
        except tiles.FrameError as error:
            raise LogDamagedError(f"{self.base}: {error}", _HINT) from None

    def edge(self, size: int) -> Edge:
        """Return the right edge of the log at a size."""
        found = [self.hashes(level, (size >> (8 * level)) // WIDTH, width) if width else b"" for level, width in enumerate(widths(size))]
        return Edge(size, found)

    def root_at(self, size: int) -> bytes:
        """Return the root of the first ``size`` entries of a larger log."""
        carried = b""
        for level, width in enumerate(widths(size)):
            tile = self.hashes(level, (size >> (8 * level)) // WIDTH, width) if width else b""
            if tile or carried:
                carried = reduce(tile + carried)
        return carried or root(b"")

    def reader(self, size: int) -> TileReader:
        """Return a reader of hashes for proofs about a log of this size."""
        return TileReader(self, size)

    def entry(self, index: int, size: int) -> bytes:
        """Return one entry, compared with its leaf hash.

        Raises:
            LogUnknownError: the log has no such entry.
            LogDamagedError: it does not give its hash.
        """
        if not 0 <= index < size:
            raise LogUnknownError(f"the log has {size} entries", "Entries are counted from 0.")
        number, within = divmod(index, WIDTH)
        found = self.entries(number, tiles.width(size, 0, number))[within]
        if leaves([found])[0] != self.hashes(0, number, within + 1)[within * SIZE :]:
            raise LogDamagedError(f"{self.base}: entry {index} does not give its leaf hash", _HINT)
        return found

    def scan(self, size: int, first: int = 0) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the bundles from that of entry ``first`` on, with the index of each one's first entry."""
        for number in range(first // WIDTH, tiles.count(size)):
            yield number * WIDTH, self.entries(number, tiles.width(size, 0, number))

    def finish(self, level: int | str, number: int) -> None:
        """Give a full tile its final name."""
        self.store.rename(self.path(level, number, part=True), self.path(level, number))

    def finish_all(self, size: int) -> None:
        """Give the last full tiles their final names, where a crash came between the commit and that."""
        for level, _ in enumerate(widths(size)):
            full = (size >> (8 * level)) // WIDTH
            for kind in (level, tiles.ENTRIES) if level == 0 else (level,):
                number = full - 1
                # A batch finishes its tiles in ascending order: behind the first that is done nothing is left to do.
                while number >= 0 and self.store.read(self.path(kind, number, part=True), 1) is not None:
                    self.finish(kind, number)
                    number -= 1

    def _tile(self, level: int | str, number: int, width: int, octets: int | None) -> bytes:
        names = [self.path(level, number, part=True)]
        if width == WIDTH:  # a full tile that still has its old name is the truth; the final name may hold what a crash left
            names.append(self.path(level, number))
        for name in names:
            found = self.store.read(name, octets)
            if found is not None and (octets is None or len(found) >= octets):
                return found
        if width < WIDTH:  # another process has filled it in the meantime
            found = self.store.read(self.path(level, number), octets)
            if found is not None and (octets is None or len(found) >= octets):
                return found
        raise LogDamagedError(f"{self.path(level, number)}: missing or too short", _HINT)


_HINT = "Was the store restored, or is a disk failing? Compare it with a copy that a controller has."


class TileReader:
    """Reads runs of hashes for proofs; keeps the tiles it has read."""

    def __init__(self, files: LogFiles, size: int) -> None:
        self._files = files
        self._size = size
        self._known: dict[tuple[int, int], bytes] = {}

    def __call__(self, level: int, first: int, count: int) -> bytes:
        """Return ``count`` hashes of a level; they lie in one tile."""
        number, within = divmod(first, WIDTH)
        tile = self._known.get((level, number))
        if tile is None:
            tile = self._files.hashes(level, number, tiles.width(self._size, level, number))
            self._known[level, number] = tile
        return tile[within * SIZE : (within + count) * SIZE]
