"""What a bundle's tiles say: leaf hashes that give the signed root, and entries that give their leaf hashes (specification, section 10).

Every leaf of a log costs two hashes here, its own and a node's, however much of its entry is read afterwards.
"""

from __future__ import annotations

from obhut.auditlog.bundles import Source, Stretch
from obhut.auditlog.errors import (
    BundleError,
    EntriesReorderedError,
    EntryAlteredError,
    EntryMissingError,
    EntryReplayedError,
    TreeDiffersError,
)
from obhut.auditlog.tlog import merkle, tiles
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.auditlog.tlog.merkle import SIZE, WIDTH


class Files:
    """The files of one log of a bundle."""

    def __init__(self, source: Source, stretch: Stretch) -> None:
        self._source = source
        self._base = f"logs/{stretch.period}"

    def note(self) -> str:
        """Return the signed checkpoint."""
        return self._source.read(f"{self._base}/checkpoint").decode(errors="replace")

    def tile(self, level: int | str, number: int, width: int) -> bytes:
        """Return a tile of hashes, or a bundle of entries."""
        return self._source.read(f"{self._base}/{tiles.path(level, number, width)}")

    def blob(self, name: str) -> bytes:
        """Return a ciphertext that is kept beside the log."""
        return self._source.read(f"{self._base}/blob/{name[:2]}/{name}")


def check_tree(files: Files, checkpoint: Checkpoint, stretch: Stretch, before: int) -> bytes:
    """Check that all leaf hashes give the signed root and every tile above them; returns the root of the first ``before`` of them.

    Raises:
        TreeDiffersError: they do not.
    """
    edge, earlier = merkle.Edge(), merkle.Edge()
    levels: dict[int, bytearray] = {}
    for number in range(tiles.count(checkpoint.size)):
        width = tiles.width(checkpoint.size, 0, number)
        tile = files.tile(0, number, width)
        if len(tile) != width * SIZE:
            raise _differs(stretch)
        if earlier.size < before:
            earlier.grow(tile[: (before - earlier.size) * SIZE])
        for level, added in enumerate(edge.grow(tile)):
            if level:
                levels.setdefault(level, bytearray()).extend(added)
    if edge.root() != checkpoint.root:
        raise _differs(stretch)
    for level, expected in levels.items():
        for number in range(tiles.count(checkpoint.size, level)):
            width = tiles.width(checkpoint.size, level, number)
            if files.tile(level, number, width) != bytes(expected[number * WIDTH * SIZE :][: width * SIZE]):
                raise _differs(stretch)
    return earlier.root()


def _differs(stretch: Stretch) -> BundleError:
    return TreeDiffersError(
        f"the leaf hashes of {stretch.period} do not give the signed root",
        "An entry of this period was changed, moved, dropped or added after it was signed.",
    )


def checked_entries(files: Files, stretch: Stretch, number: int) -> list[bytes]:
    """Return a bundle's entries, each of which gives its leaf hash.

    Raises:
        EntryAlteredError, EntryMissingError, EntriesReorderedError, EntryReplayedError: one does not.
    """
    width = tiles.width(stretch.size, 0, number)
    try:
        found = tiles.unframe(files.tile(tiles.ENTRIES, number, width))
    except tiles.FrameError:
        found = []
    leaf_hashes = merkle.leaves(found)
    expected = files.tile(0, number, width)
    if b"".join(leaf_hashes) != expected:
        raise _what_differs(leaf_hashes, [expected[at : at + SIZE] for at in range(0, len(expected), SIZE)], stretch, number)
    return found


def _what_differs(found: list[bytes], expected: list[bytes], stretch: Stretch, number: int) -> BundleError:
    """Say what was done to a bundle of entries."""
    first = number * WIDTH
    if len(found) < len(expected):
        return EntryMissingError(
            f"entries {first} to {first + len(expected) - 1} of {stretch.period} are not all there", "Ask for them again."
        )
    wrong = [at for at, digest in enumerate(found) if at >= len(expected) or digest != expected[at]]
    where = f"entry {first + wrong[0]} of {stretch.period}"
    if sorted(found) == sorted(expected):
        return EntriesReorderedError(f"{where} and others stand in each other's place", "The order of what happened was changed.")
    if found[wrong[0]] in expected:
        return EntryReplayedError(f"{where} is another entry a second time", "What stood there was replaced.")
    return EntryAlteredError(f"{where} does not give its leaf hash", "It was changed after it was signed.")
