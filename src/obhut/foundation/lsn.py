"""Positions in the write-ahead log: PostgreSQL's text, and the number of octets that it stands for."""

from __future__ import annotations

from typing import Final

from obhut.foundation.ids import Lsn

_GREATEST: Final = (1 << 64) - 1


def lsn_number(lsn: Lsn | str) -> int:
    """Return a position such as ``0/16B3748`` as number of octets.

    Raises:
        ValueError: it is not one.
    """
    high, _, low = lsn.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(position: int) -> Lsn:
    """Return a position as PostgreSQL writes it.

    Raises:
        ValueError: it has more than 64 bits.
    """
    if not 0 <= position <= _GREATEST:
        raise ValueError("a position has 64 bits")
    return Lsn(f"{position >> 32:X}/{position & 0xFFFFFFFF:X}")
