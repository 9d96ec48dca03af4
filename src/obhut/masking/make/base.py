"""What makers share: a chunk's columns, seeds, and the three ways in which a result is decided: by value, by person, by row."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from obhut.masking.fields import NULL
from obhut.masking.keyed import keyed_blocks

T = TypeVar("T")
Cells = Sequence[bytes]
_GAPS = {NULL: NULL, b"": b""}  # an empty text tells what NULL tells, and stays too
CACHED = 1 << 16  # results that a column remembers at the most
_ENOUGH = 1 << 12  # cells after which it shows whether remembering pays


class Seeds:
    """One seed of 16-byte blocks a row, read by columns: :meth:`words` (16 bits) and :meth:`longs` (64 bits) at a fixed place of each seed.

    Places: words 0 first name, 1 last name, 2 street, 4 town, 5 and 6 company, 7 shift and other draws, 8 a second draw, 28 one of a table;
    longs 2 and 3 digits, 4 and 5 a mark, 6 and 7 a UUID. A block is made when it is first asked for.
    """

    __slots__ = ("_blocks", "_make", "count")

    def __init__(self, count: int, make: Callable[[int], bytes]) -> None:
        self.count = count
        self._make = make
        self._blocks: dict[int, bytes] = {}

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._blocks[number] = self._make(number)
        return self._blocks[number]

    def words(self, place: int) -> array[int]:
        """Return one number below 65,536 a row."""
        return array("H", self._block(place // 8))[place % 8 :: 8]

    def longs(self, place: int) -> array[int]:
        """Return one number below 2**64 a row."""
        return array("Q", self._block(place // 2))[place % 2 :: 2]

    def marks(self, place: int, longs: int = 1) -> list[bytes]:
        """Return 16 letters a to p for each long: a mark that no word list and no number collides with."""
        return self.hexes(place, longs, _LETTERS)

    def hexes(self, place: int, longs: int, letters: bytes | None = None) -> list[bytes]:
        """Return hexadecimal digits, 16 for each long."""
        taken = array("Q", bytes(8 * longs * self.count))
        for index in range(longs):
            taken[index::longs] = self.longs(place + index)
        text, size = taken.tobytes().hex().encode().translate(letters), 16 * longs
        return [text[start : start + size] for start in range(0, len(text), size)]


_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")


def random_seeds(count: int) -> Seeds:
    """Return seeds that are no function of anything."""
    return Seeds(count, lambda _: os.urandom(16 * count))


def keyed_seeds(key: bytes) -> Callable[[Cells], Seeds]:
    """Return what makes the seeds of values under a sub-key."""
    blocks = keyed_blocks(key)

    def seeds(values: Cells) -> Seeds:
        return Seeds(len(values), blocks(values))

    return seeds


@dataclass(slots=True)
class Rows:
    """A chunk by columns: as it came, and what is masked so far (by index); ``seeds`` keeps those of persons for several columns."""

    columns: Sequence[Cells]
    masked: dict[int, Cells] = field(default_factory=dict)
    seeds: dict[tuple[str, int], Seeds] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0


Maker = Callable[[Rows, Cells], Cells]
Invent = Callable[[Seeds, Cells], list[bytes]]  # seeds and the cells they are for (canonical or not) to new cells
Canonical = Callable[[Cells], Cells]


def same(cells: Cells) -> Cells:
    """Leave cells as they are."""
    return cells


def by_value(invent: Invent, key: bytes, canonical: Canonical = same, *, cached: bool = True, fill: bool = False) -> Maker:
    """Return a maker that gives equal values equal results.

    Args:
        invent: makes the cells.
        key: sub-key of the identity domain.
        canonical: brings values that mean the same into one form.
        cached: whether values come again often enough to be remembered.
        fill: whether NULL gets a value too, any.
    """
    digest = keyed_seeds(key)

    def fresh(cells: Cells) -> list[bytes]:
        return invent(digest(canonical(cells)), cells)

    memory = _Memory(fresh) if cached else None

    def make(_: Rows, cells: Cells) -> Cells:
        made = around_gaps(cells, fresh) if memory is None or memory.useless else memory(cells)
        return _filled(made, invent) if fill else made

    return make


class _Memory:
    """Results by value, bounded; ``useless`` once most values of the first thousands came only once."""

    __slots__ = ("_asked", "_fresh", "_known", "_missed", "useless")

    def __init__(self, fresh: Callable[[Cells], list[bytes]]) -> None:
        self._fresh = fresh
        self._known: dict[bytes, bytes] = {}
        self._asked = self._missed = 0
        self.useless = False

    def __call__(self, cells: Cells) -> Cells:
        known = self._known
        if len(known) > CACHED:
            known.clear()
        known.update(_GAPS)
        missing = [cell for cell in set(cells) if cell not in known]
        if missing:
            known.update(zip(missing, self._fresh(missing), strict=True))
        self._asked, self._missed = self._asked + len(cells), self._missed + len(missing)
        made = list(map(known.__getitem__, cells))
        if self._asked > _ENOUGH and self._missed * 2 > self._asked:
            self.useless = True
            known.clear()
        return made


def by_person(invent: Invent, index: int, key: bytes, domain: str, *, fill: bool = False) -> Maker:
    """Return a maker that gives one person's rows equal results.

    Args:
        invent: makes the cells.
        index: of the column with the person's key; where it is NULL, the row stands for itself.
        key: sub-key of the kind of person.
        domain: its name.
        fill: whether NULL gets a value too.
    """
    digest = keyed_seeds(key)

    def make(rows: Rows, cells: Cells) -> Cells:
        seeds = rows.seeds.get((domain, index))
        if seeds is None:
            people = rows.columns[index]
            if NULL in people:
                people = [os.urandom(16) if person == NULL else person for person in people]
            seeds = rows.seeds[domain, index] = digest(people)
        made = invent(seeds, cells)
        if fill or (NULL not in cells and b"" not in cells):
            return made
        return [cell if cell in _GAPS else new for cell, new in zip(cells, made, strict=True)]

    return make


def by_row(invent: Invent, *, fill: bool = False) -> Maker:
    """Return a maker whose results are no function of the value, or add something random to it."""

    def fresh(cells: Cells) -> list[bytes]:
        return invent(random_seeds(len(cells)), cells)

    def make(_: Rows, cells: Cells) -> Cells:
        return fresh(cells) if fill and cells else around_gaps(cells, fresh)

    return make


def around_gaps(cells: Cells, fresh: Callable[[Cells], list[bytes]]) -> Cells:
    """Return what ``fresh`` makes of the cells that hold something; NULL and the empty text stay."""
    if NULL not in cells and b"" not in cells:
        return fresh(cells) if cells else cells
    there = [cell for cell in cells if cell not in _GAPS]
    made = iter(fresh(there) if there else ())
    return [cell if cell in _GAPS else next(made) for cell in cells]


def _filled(cells: Cells, invent: Invent) -> Cells:
    """Return cells with an invented one in the place of each gap."""
    count = sum(1 for cell in cells if cell in _GAPS)
    if not count:
        return cells
    made = iter(invent(random_seeds(count), [b""] * count))
    return [next(made) if cell in _GAPS else cell for cell in cells]


def table_of(words: Sequence[bytes]) -> list[bytes]:
    """Return 65,536 entries that repeat the words, so that 16 bits pick one without arithmetic."""
    size = 1 << 16
    return (list(words) * (size // len(words) + 1))[:size]


def pick(table: list[T], numbers: Iterable[int]) -> list[T]:
    """Return the entries at the numbers, each below 65,536."""
    return list(map(table.__getitem__, numbers))
