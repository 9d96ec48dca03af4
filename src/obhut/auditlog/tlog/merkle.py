"""Merkle tree hashing of RFC 6962, in bulk: a hash is 32 octets, and a run of hashes is one ``bytes`` of 32 octets each."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

SIZE: Final = 32  # octets of a hash
WIDTH: Final = 256  # hashes of a full tile
TILE: Final = WIDTH * SIZE  # octets of a full tile
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf(entry: bytes) -> bytes:
    """Return the leaf hash of an entry."""
    return sha256(b"\x00" + entry).digest()


def leaves(entries: Iterable[bytes]) -> list[bytes]:
    """Return the leaf hashes of entries, in order."""
    digest = sha256
    return [digest(b"\x00" + entry).digest() for entry in entries]


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def reduce(hashes: bytes) -> bytes:
    """Return the root of a tree with these leaves; a lone last node moves up as it is.

    Raises:
        ValueError: there are none, or not whole ones.
    """
    if not hashes or len(hashes) % SIZE:
        raise ValueError("a run of hashes has a multiple of 32 octets, and at least one")
    digest = sha256
    while len(hashes) > SIZE:
        lone = hashes[-SIZE:] if len(hashes) % (2 * SIZE) else b""
        pairs = len(hashes) - len(lone)
        hashes = b"".join([digest(b"\x01" + hashes[at : at + 64]).digest() for at in range(0, pairs, 64)]) + lone
    return hashes


def root(hashes: bytes) -> bytes:
    """Return the root over leaf hashes, with that of no leaves."""
    return reduce(hashes) if hashes else EMPTY_ROOT


class Edge:
    """The growing right edge of a tree: its size, and on each level of tiles the hashes of the last, unfinished tile.

    Attributes:
        size: number of leaves.
        tiles: a run of fewer than 256 hashes a level, level 0 first.
    """

    __slots__ = ("size", "tiles")

    def __init__(self, size: int = 0, tiles: Iterable[bytes] = ()) -> None:
        self.size = size
        self.tiles = [bytes(tile) for tile in tiles]
        if any(len(tile) != width * SIZE for tile, width in zip(self.tiles, widths(size), strict=True)):
            raise ValueError("the tiles do not belong to a tree of this size")

    def copy(self) -> Edge:
        """Return an edge that grows on its own."""
        return Edge(self.size, self.tiles)

    def grow(self, hashes: bytes) -> list[bytes]:
        """Append leaf hashes and return, a level, the hashes that were added to it."""
        added: list[bytes] = []
        self.size += len(hashes) // SIZE
        level = 0
        while hashes:
            if level == len(self.tiles):
                self.tiles.append(b"")
            added.append(hashes)
            whole = self.tiles[level] + hashes
            full = len(whole) // TILE * TILE
            self.tiles[level] = whole[full:]
            hashes = b"".join([reduce(whole[at : at + TILE]) for at in range(0, full, TILE)])
            level += 1
        return added

    def root(self) -> bytes:
        """Return the root over all leaves."""
        carried = b""
        for tile in self.tiles:
            if tile or carried:
                carried = reduce(tile + carried)
        return carried or EMPTY_ROOT


def widths(size: int) -> list[int]:
    """Return, a level, how many hashes the last unfinished tile of a tree of this size has."""
    found = []
    while size:
        found.append(size % WIDTH)
        size //= WIDTH
    return found
