"""Sets of row addresses: which rows, by position instead of by key.

Inside one transaction of a live database, and for ever in a quarantine that is paused, a row's address (``ctid``) does not change. It says
nothing about a person, so it may stand in a query's text, in a plan and in a log, where a key may not. A roaring bitmap holds a
million of them in a few megabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Self

from pyroaring import BitMap64

from obhut.postgres.connections import TidArray
from obhut.postgres.sql import SQL, Composed, Literal

LINE_POINTER_BITS = 16
_ELEMENT = struct.Struct(">4xHI")


class RowAddresses:
    """An immutable set of packed addresses ``block << 16 | line pointer`` in one relation."""

    __slots__ = ("_bits",)

    def __init__(self, packed: Iterable[int] | BitMap64 = ()) -> None:
        self._bits: BitMap64 = packed if isinstance(packed, BitMap64) else BitMap64(packed)

    @classmethod
    def from_tids(cls, tids: Iterable[bytes]) -> Self:
        """Return the set of addresses given as PostgreSQL's six binary bytes."""
        return cls(BitMap64(int.from_bytes(tid, "big") for tid in tids))

    @classmethod
    def from_array(cls, sent: bytes) -> Self:
        """Return the set of addresses in the binary form of a one-dimensional ``tid[]`` (``array_send``)."""
        # 20 bytes of header; each element is its length (4 bytes) and the address, which is read as 2 + 4 bytes.
        return cls(BitMap64(high << 32 | low for high, low in _ELEMENT.iter_unpack(memoryview(sent)[20:])))

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self._bits)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._bits)

    def __bool__(self) -> bool:
        """Whether the set holds any row."""
        return len(self._bits) > 0

    def __iter__(self) -> Iterator[int]:
        """Yield packed addresses in physical order."""
        return iter(self._bits)

    def __contains__(self, packed: int) -> bool:
        """Whether the row is in the set."""
        return packed in self._bits

    def __eq__(self, other: object) -> bool:
        """Whether both sets hold the same rows."""
        return isinstance(other, RowAddresses) and self._bits == other._bits

    __hash__ = None  # type: ignore[assignment]  # compared by content, never used as a key

    def __or__(self, other: RowAddresses) -> RowAddresses:
        """Return the union; the very set where the other is empty, since every copy costs about a hundred octets a row."""
        if not other or not self:
            return self or other
        return RowAddresses(self._bits | other._bits)

    def __sub__(self, other: RowAddresses) -> RowAddresses:
        """Return the rows that are not in the other set."""
        if not other or not self:
            return self
        return RowAddresses(self._bits - other._bits)

    def __and__(self, other: RowAddresses) -> RowAddresses:
        """Return the rows that are in both sets."""
        if not other or not self:
            return other if self else self
        return RowAddresses(self._bits & other._bits)

    def in_blocks(self, first: int, last: int | None) -> RowAddresses:
        """Return the rows in blocks ``first`` (inclusive) to ``last`` (exclusive; None: to the end), in memory that grows with the rows."""
        if not self or (first == 0 and last is None):
            return self
        # Cut by rank: a bitmap over the whole range of blocks would take memory for every row that could be there.
        low = self._bits.rank((first << LINE_POINTER_BITS) - 1) if first else 0
        high = self._bits.rank((last << LINE_POINTER_BITS) - 1) if last is not None else len(self._bits)
        return RowAddresses(self._bits[low:high])

    def chunks(self, size: int) -> Iterator[RowAddresses]:
        """Yield the set in pieces of at most ``size`` rows, in physical order."""
        if len(self._bits) <= size:
            if self:
                yield self
            return
        for start in range(0, len(self._bits), size):
            yield RowAddresses(self._bits[start : start + size])

    def parameter(self) -> TidArray:
        """Return the set as a query parameter of type ``tid[]``."""
        return TidArray(self._bits)

    def literal(self) -> Composed:
        """Return ``'{"(b,o)",…}'::tid[]`` for statements that take no parameters (COPY)."""
        text = ",".join(f'"({packed >> LINE_POINTER_BITS},{packed & 0xFFFF})"' for packed in self._bits)
        return SQL("{}::tid[]").format(Literal("{" + text + "}"))
