"""Values moved a little, dealt out anew, or drawn from how the column is distributed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from operator import add

from obhut.datamap.kinds import Kind
from obhut.datamap.transformers import Family
from obhut.masking.errors import MaskingFactsError
from obhut.masking.facts import Distribution
from obhut.masking.fields import NULL, escape
from obhut.masking.make.base import Cells, Invent, Maker, Rows, Seeds, pick, random_seeds

_FIRST_DAY = b"0001-01-01"


def noise(kind: Kind, ratio: float, days: int) -> Invent:
    """Return numbers moved by a random part of themselves, or dates by random days; never out of the type or to more digits."""
    if kind.family is Family.DATE:
        return lambda seeds, cells: [moved(cell, _days(word, days)) for cell, word in zip(cells, seeds.words(7), strict=True)]
    one = _whole(kind) if kind.family is Family.INTEGER else _broken(kind)
    return lambda seeds, cells: [one(cell, (word - 32767.5) / 32767.5 * ratio) for cell, word in zip(cells, seeds.words(7), strict=True)]


def _whole(kind: Kind) -> Callable[[bytes, float], bytes]:
    def one(cell: bytes, part: float) -> bytes:
        value = int(cell)
        by = round(value * part) or (1 if part > 0 else -1)
        new = value + by
        if len(str(abs(new))) > len(str(abs(value))) or (new < 0) != (value < 0) or not kind.low <= new <= kind.high:
            new = value - by
        return b"%d" % (value if (new < 0) != (value < 0) or not kind.low <= new <= kind.high else new)

    return one


def _broken(kind: Kind) -> Callable[[bytes, float], bytes]:
    def one(cell: bytes, part: float) -> bytes:
        try:
            value = Decimal(cell.decode("ascii"))
            if not value.is_finite() or not value:
                return cell
        except (InvalidOperation, UnicodeDecodeError):
            return cell
        if kind.base_type != "numeric":
            return repr(float(value) * (1 + part)).encode()
        step = Decimal(1).scaleb(int(value.as_tuple().exponent))
        by = (value * Decimal(repr(part))).quantize(step) or step.copy_sign(Decimal(repr(part)))
        new = value + by
        if new.adjusted() > value.adjusted():
            new = value - by  # numeric(4,2) holds 99.99 and no more
        return str(new).encode() if "E" not in str(new) else format(new, "f").encode()

    return one


def _days(word: int, largest: int) -> int:
    """Return a number of days between ``-largest`` and ``largest``, never 0."""
    distance = word % (2 * largest) - largest
    return distance if distance < 0 else distance + 1


def shift(largest: int) -> Invent:
    """Return dates moved by the days that the seed says: one seed for a person keeps all intervals."""
    table = [_days(word, largest) for word in range(2 * largest)] * (65536 // (2 * largest) + 1)

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        days, width = pick(table, seeds.words(7)), len(cells[0]) if cells else 0
        ordinals = list(map(_ordinal, cells)) if width == 10 else [0]
        if 0 in ordinals:
            return list(map(moved, cells, days))
        return list(map(_iso, map(add, ordinals, days)))  # plain dates: no Python code for each

    return invent


def moved(cell: bytes, days: int) -> bytes:
    """Return a date or timestamp (ISO) moved by days; time of day and ``infinity`` stay, what lies before our era becomes day one."""
    day = _ordinal(cell[:10])
    if day and cell[-1:] != b"C":
        return _iso(day + days) + cell[10:]
    return cell if cell in {b"infinity", b"-infinity"} else _FIRST_DAY


@lru_cache(maxsize=1 << 16)
def _ordinal(head: bytes) -> int:
    try:
        return date.fromisoformat(head.decode("ascii")).toordinal()
    except ValueError:
        return 0


@lru_cache(maxsize=1 << 16)
def _iso(day: int) -> bytes:
    return date.fromordinal(min(max(day, 1), date.max.toordinal())).isoformat().encode()


def forget_dates() -> None:
    """Forget the dates that were looked up: they are people's."""
    _ordinal.cache_clear()
    _iso.cache_clear()


def shuffle(_: Rows, cells: Cells) -> Cells:
    """Deal the values of the chunk out anew; NULL stays where it is."""
    there = [cell for cell in cells if cell != NULL]
    order = array("Q", os.urandom(8 * len(there)))
    dealt = iter([there[index] for index in sorted(range(len(there)), key=order.__getitem__)])
    return [NULL if cell == NULL else next(dealt) for cell in cells]


def sample(place: str, kind: Kind, found: Distribution, *, not_null: bool, fill: bool) -> Maker:
    """Return values drawn from a column's distribution.

    Raises:
        MaskingFactsError: no class has enough rows, and the column must hold a value.
    """
    draw = _between(kind, found.quantiles) if len(found.quantiles) > 1 else _classes(kind, found)
    if draw is None:
        if not_null:
            fact = f"no value of {place} is shared by enough rows to be drawn, and it is NOT NULL"
            raise MaskingFactsError(fact, "Use a smaller k, constant, or another transformer.")
        return lambda _, cells: [NULL] * len(cells)
    chosen = draw

    def make(_: Rows, cells: Cells) -> Cells:
        seeds = random_seeds(len(cells))
        drawn = chosen(seeds, cells)
        if fill:
            limit = int(found.nulls * 65536)
            return (
                [NULL if word < limit else new for word, new in zip(seeds.words(8), drawn, strict=True)]
                if limit and not not_null
                else drawn
            )
        return [NULL if cell == NULL else new for cell, new in zip(cells, drawn, strict=True)]

    return make


def _classes(kind: Kind, found: Distribution) -> Invent | None:
    classes = [(escape(value), count) for value, count in found.classes if value is not None]
    if not classes and kind.labels:
        classes = [(label.encode(), 1) for label in kind.labels]
    if not classes and kind.family is Family.BOOLEAN:
        classes = [(b"t", 1), (b"f", 1)]
    if not classes:
        return None
    total = sum(count for _, count in classes)
    table: list[bytes] = []
    reached = 0
    for value, count in classes:
        reached += count
        table += [value] * (reached * 65536 // total - len(table))
    return lambda seeds, _: pick(table, seeds.words(7))


def _between(kind: Kind, quantiles: Sequence[bytes]) -> Invent:
    """Return the maker that takes a place between two neighbouring quantiles: no original value comes back on purpose."""
    steps = len(quantiles) - 1
    if kind.family is Family.DATE:
        return lambda seeds, _: [
            _date_between(quantiles[a % steps], quantiles[a % steps + 1], b) for a, b in zip(seeds.words(7), seeds.longs(2), strict=True)
        ]
    numbers = [Decimal(value.decode()) for value in quantiles if value.lower() not in {b"nan", b"infinity", b"-infinity"}]
    steps = max(len(numbers) - 1, 1)
    places = Decimal(1) if kind.family is Family.INTEGER else Decimal(1).scaleb(min(int(value.as_tuple().exponent) for value in numbers))
    return lambda seeds, _: [
        _number_between(numbers[a % steps], numbers[min(a % steps + 1, len(numbers) - 1)], b, places)
        for a, b in zip(seeds.words(7), seeds.words(8), strict=True)
    ]


def _number_between(low: Decimal, high: Decimal, word: int, places: Decimal) -> bytes:
    return format((low + (high - low) * word / 65536).quantize(places), "f").encode()


def _date_between(low: bytes, high: bytes, long: int) -> bytes:
    try:
        first, last = (date.fromisoformat(value[:10].decode()).toordinal() for value in (low, high))
    except ValueError:
        return low if low.lstrip(b"-") == b"infinity" else _FIRST_DAY
    day = date.fromordinal(first + long % (last - first + 1)).isoformat().encode()
    if len(low) == 10:
        return day
    seconds = (long >> 20) % 86400
    return b"%b %02d:%02d:%02d%b" % (
        day,
        seconds // 3600,
        seconds // 60 % 60,
        seconds % 60,
        b"+00" if b"+" in low[19:] or b"-" in low[19:] else b"",
    )


def choice(values: Sequence[object]) -> Invent:
    """Return one of the values given, all alike."""
    words = [escape(("true" if value else "false").encode() if isinstance(value, bool) else str(value).encode()) for value in values]
    return lambda seeds, _: [words[number % len(words)] for number in seeds.words(7)]
