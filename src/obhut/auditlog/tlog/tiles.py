"""Names and contents of tiles (C2SP *tlog-tiles*): where a hash or an entry lies, and how entries are framed."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from obhut.auditlog.tlog.merkle import WIDTH

MAX_ENTRY: Final = 65_535  # octets
ENTRIES: Final = "entries"
_LENGTH: Final = Struct(">H")


class FrameError(Exception):
    """A bundle of entries is cut short or has more octets than its entries."""


def path(level: int | str, number: int, width: int = WIDTH) -> str:
    """Return the path of a tile, such as ``tile/0/x001/067`` or, unfinished, ``tile/0/x001/067.p/5``.

    Args:
        level: level of hashes, or :data:`ENTRIES`.
        number: which tile of the level.
        width: how many hashes or entries it has.
    """
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03d}")
    name = f"tile/{level}/{'/'.join(reversed(groups))}"
    return name if width == WIDTH else f"{name}.p/{width}"


def count(size: int, level: int = 0) -> int:
    """Return how many tiles, a last unfinished one included, a level of a tree of this size has."""
    return -(-(size >> (8 * level)) // WIDTH)


def width(size: int, level: int, number: int) -> int:
    """Return how many hashes a tile of a tree of this size has."""
    return min((size >> (8 * level)) - number * WIDTH, WIDTH)


def frame(entries: Iterable[bytes]) -> bytes:
    """Return entries one after the other, each after its length.

    Raises:
        struct.error: an entry is longer than 65,535 octets.
    """
    pack = _LENGTH.pack
    return b"".join([piece for entry in entries for piece in (pack(len(entry)), entry)])


def unframe(content: bytes, number: int | None = None) -> list[bytes]:
    """Return the entries of a bundle.

    Args:
        content: the bundle.
        number: how many it must have at the least; what stands behind them is not looked at. None for all there are.

    Raises:
        FrameError: it is cut short.
    """
    entries: list[bytes] = []
    at, end = 0, len(content)
    unpack = _LENGTH.unpack_from
    while at < end and (number is None or len(entries) < number):
        if at + 2 > end:
            raise FrameError("a bundle of entries ends inside a length")
        after = at + 2 + unpack(content, at)[0]
        if after > end:
            raise FrameError("a bundle of entries ends inside an entry")
        entries.append(content[at + 2 : after])
        at = after
    if number is not None and len(entries) < number:
        raise FrameError("a bundle has too few entries")
    return entries
