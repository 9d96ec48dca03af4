"""A column of a sample, ready for many questions: which rows hold a value, lie beyond it, or near it. Pure; rows are numbers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from pyroaring import BitMap

Value = str | float | None
_STRIDE = 256  # rows between two prepared prefixes
_NEAR = 0.02  # share of the rows that count as near on either side of a number that no row has


@dataclass
class Column:
    """Values by row; ``ordered`` when all of them are numbers or moments (then as floats, days for dates)."""

    values: Sequence[Value]
    ordered: bool
    _rows: dict[Value, BitMap] = field(init=False)
    _sorted: list[float] = field(init=False)
    _order: list[int] = field(init=False)
    _prefixes: list[BitMap] = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the answers."""
        rows: dict[Value, list[int]] = {}
        for row, value in enumerate(self.values):
            rows.setdefault(value, []).append(row)
        self._rows = {value: BitMap(found) for value, found in rows.items()}
        pairs = sorted((value, row) for row, value in enumerate(self.values) if isinstance(value, float)) if self.ordered else []
        self._sorted, self._order = [value for value, _ in pairs], [row for _, row in pairs]
        self._prefixes = [BitMap()]
        for start in range(0, len(self._order), _STRIDE):
            self._prefixes.append(self._prefixes[-1] | BitMap(self._order[start : start + _STRIDE]))

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.values)

    @property
    def spread(self) -> float:
        """How far the middle nine tenths of an ordered column reach."""
        if not self._sorted:
            return 0.0
        return self._sorted[int(0.95 * (len(self._sorted) - 1))] - self._sorted[int(0.05 * (len(self._sorted) - 1))]

    def outward(self, value: Value) -> str:
        """Return the sign of the condition "at least as far out as this value": towards the nearer end."""
        middle = self._sorted[len(self._sorted) // 2]
        return ">=" if isinstance(value, float) and value > middle else "<="

    def rarest(self, count: int) -> list[tuple[str, Value]]:
        """Return conditions that a single row may fulfil: values that one row has, up to a number, and both ends of an ordered column."""
        found: list[tuple[str, Value]] = [("=", value) for value, rows in self._rows.items() if len(rows) == 1][:count]
        return [*found, ("<=", self._sorted[0]), (">=", self._sorted[-1])] if self._sorted else found

    def where(self, sign: str, value: Value) -> BitMap:
        """Return the rows that fulfil a condition."""
        if sign == "=" or not isinstance(value, float):
            return self._rows.get(value, BitMap())
        if sign == "<=":
            return self._first(bisect_right(self._sorted, value))
        return self._first(len(self._sorted)) - self._first(bisect_left(self._sorted, value))

    def near(self, value: Value) -> BitMap:
        """Return the rows that hold a value, or else (ordered columns) those around it."""
        if value in self._rows or not isinstance(value, float) or not self._sorted:
            return self._rows.get(value, BitMap())
        place, wide = bisect_left(self._sorted, value), max(1, int(len(self._sorted) * _NEAR))
        return self._first(min(len(self._sorted), place + wide)) - self._first(max(0, place - wide))

    def distance(self, row: int, value: Value) -> float:
        """Return how far a row's value is from another, in spreads of the column."""
        mine = self.values[row]
        if not isinstance(mine, float) or not isinstance(value, float):
            return 0.0 if mine == value else 1.0
        return abs(mine - value) / (self.spread or 1.0)

    def typical(self, rows: BitMap) -> Value:
        """Return what the rows mostly hold: the most frequent value, the middle one of an ordered column."""
        found = [self.values[row] for row in rows]
        numbers = [value for value in found if isinstance(value, float)]
        if self.ordered and len(numbers) * 2 > len(found):
            return median(numbers)
        return min(Counter(found).items(), key=lambda item: (-item[1], str(item[0])))[0] if found else None

    def _first(self, count: int) -> BitMap:
        """Return the first rows in the order of values."""
        block, rest = divmod(count, _STRIDE)
        return self._prefixes[block] | BitMap(self._order[count - rest : count]) if rest else self._prefixes[block]
