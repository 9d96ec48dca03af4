"""Three attacks on a masked sample, one for each question of WP216. Pure: values in, rates out.

After Giomi et al., "A Unified Framework for Quantifying Privacy Risk in Synthetic Data" (PoPETs 2023). Each attack is carried out on people
who are in the released rows and, in the same way, on a control set of people who are not. What works on both is knowledge about people in
general; the excess on those released, over what was left to gain, is the risk. Rates come with Wilson's interval, and the upper bound
is what counts. The attacker knows the rules of the map, so classes are compared as classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from random import Random
from typing import Final

from pyroaring import BitMap

from obhut.clones.columns import Column, Value
from obhut.masking.verdict import Attack

ATTACKS: Final = 4000  # of each kind; more tell smaller risks from none
TRIES: Final = 10  # predicates that are tried for each that is wanted
_Z: Final = 1.959964  # 95 %
_WIDE: Final = 5  # columns a predicate names at the most
_SPLITS: Final = 4  # ways to share the columns out between two attackers' data sets
_TOLERANCE: Final = 0.05  # of the middle nine tenths of a column: so near, a guessed number or date is right
_FEW: Final = 100  # attacks below which a rate says nothing

Predicate = tuple[tuple[int, str, Value], ...]  # column, sign, value: all of them hold


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one table.

    Attributes:
        released: the masked rows of the targets, as the copy shows them.
        targets: what an attacker may know of people in the copy: their originals, put through the map's public rules.
        control: the same of people who are not released.
    """

    names: tuple[str, ...]
    released: tuple[Column, ...]
    targets: tuple[Column, ...]
    control: tuple[Column, ...]

    @property
    def size(self) -> int:
        """The number of people on each side."""
        return min((column.size for column in (*self.targets, *self.control, *self.released)), default=0)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often an attack worked, by Wilson's interval."""

    value: float
    error: float

    @classmethod
    def of(cls, hits: int, attacks: int) -> Rate:
        """Return the rate with the half width of its 95 % interval."""
        square = _Z * _Z
        below = attacks + square
        spread = math.sqrt(hits * (attacks - hits) / attacks + square / 4)
        return cls((hits + square / 2) / below, _Z / below * spread)


def excess(hits: int, control: int, attacks: int) -> Attack:
    """Return the upper bound of what an attack gains on the released people over the control set, as a share of what was left to gain."""
    if attacks < _FEW:
        return Attack()
    main, base = Rate.of(hits, attacks), Rate.of(control, attacks)
    left = 1 - base.value
    risk = (main.value - base.value) / left
    error = math.hypot(main.error / left, (1 - main.value) * base.error / left**2)
    return Attack(upper=min(1.0, max(0.0, risk + error)))


def carry_out(sample: Sample, random: Random, *, attacks: int = ATTACKS) -> dict[str, Attack]:
    """Carry out all three attacks on a table; an attack that has nothing to work with says so."""
    if sample.size < _FEW:
        return dict.fromkeys(("singling_out", "linkability", "inference"), Attack())
    number = min(attacks, sample.size)
    return {
        "singling_out": singling_out(sample, random, attacks),
        "linkability": linkability(sample, random, number),
        "inference": inference(sample, random, number),
    }


def singling_out(sample: Sample, random: Random, attacks: int) -> Attack:
    """Look for predicates that hold for one released row only, and count those that hold for one target, or for one of the control set."""
    found: set[Predicate] = set()
    rare = [((index, sign, value),) for index, column in enumerate(sample.released) for sign, value in column.rarest(attacks)]
    random.shuffle(rare)
    tries = [*rare[: attacks // 2], *(None for _ in range(attacks * TRIES))]
    for given in tries:
        predicate = given or _predicate(sample, random)
        if predicate not in found and _matches(sample.released, predicate) == 1:
            found.add(predicate)
            if len(found) == attacks:
                break
    if not found:
        return Attack(not_applicable=f"none of {len(tries)} predicates holds for a single row")
    if len(found) < _FEW:  # so rare that a rate cannot be told: each counts as a success among all that were tried
        return excess(len(found), 0, attacks)
    ordered = sorted(found, key=repr)
    hits = sum(_matches(sample.targets, predicate) == 1 for predicate in ordered)
    chance = sum(_matches(sample.control, predicate) == 1 for predicate in ordered)
    return excess(hits, chance, len(ordered))


def _predicate(sample: Sample, random: Random) -> Predicate:
    """Return conditions taken from a released row: equal, or at least as far out as it."""
    row = random.randrange(sample.released[0].size)
    width = random.randint(1, min(_WIDE, len(sample.released)))
    chosen = sorted(random.sample(range(len(sample.released)), width))
    conditions = []
    for index in chosen:
        column = sample.released[index]
        value = column.values[row]
        sign = "=" if not column.ordered or value is None or random.random() < 0.5 else column.outward(value)
        conditions.append((index, sign, value))
    return tuple(conditions)


def _matches(columns: Sequence[Column], predicate: Predicate) -> int:
    return len(reduce(and_, (columns[index].where(sign, value) for index, sign, value in predicate)))


def linkability(sample: Sample, random: Random, attacks: int) -> Attack:
    """Give two halves of a person's columns to two data sets, and count whom the copy connects: both halves are nearest to one row."""
    columns = list(range(len(sample.names)))
    if len(columns) < 2:
        return Attack(not_applicable="something of a single column is left: there is nothing to connect")
    worst = []
    for _ in range(_SPLITS):
        random.shuffle(columns)
        left, right = columns[: len(columns) // 2], columns[len(columns) // 2 :]

        def linked(side: Sequence[Column], row: int, left: Sequence[int] = left, right: Sequence[int] = right) -> bool:
            return len(_nearest(sample.released, side, row, left) & _nearest(sample.released, side, row, right)) == 1

        worst.append(_compared(sample, random, attacks, linked))
    return _highest(worst)


def inference(sample: Sample, random: Random, attacks: int) -> Attack:
    """Guess each column of a person from the released rows that are nearest in all others, and count the right guesses."""
    if len(sample.names) < 2:
        return Attack(not_applicable="something of a single column is left: there is nothing to guess it from")
    worst = []
    for secret in range(len(sample.names)):
        if len({*sample.targets[secret].values, *sample.control[secret].values}) < 2:
            continue  # everybody has the same
        known = [index for index in range(len(sample.names)) if index != secret]
        released = sample.released[secret]
        near = sample.targets[secret].spread * _TOLERANCE

        def guessed(
            side: Sequence[Column],
            row: int,
            secret: int = secret,
            known: Sequence[int] = known,
            released: Column = released,
            near: float = near,
        ) -> bool:
            guess = released.typical(_nearest(sample.released, side, row, known))
            truth = side[secret].values[row]
            if isinstance(guess, float) and isinstance(truth, float):
                return abs(guess - truth) <= near
            return guess == truth

        worst.append(_compared(sample, random, attacks, guessed))
    return _highest(worst) if worst else Attack(not_applicable="everybody has the same values")


def _compared(sample: Sample, random: Random, attacks: int, works: Callable[[Sequence[Column], int], bool]) -> Attack:
    rows = random.sample(range(sample.size), attacks)
    hits = sum(works(sample.targets, row) for row in rows)
    chance = sum(works(sample.control, row) for row in rows)
    return excess(hits, chance, attacks)


def _nearest(released: Sequence[Column], side: Sequence[Column], row: int, columns: Sequence[int]) -> BitMap:
    """Return the released rows that agree with a person in as many columns as can be had, the rarest agreement first."""
    agreeing = sorted((released[index].near(side[index].values[row]) for index in columns), key=len)
    found = BitMap()
    for rows in agreeing:
        both = found & rows if found else rows
        found = both or found
    ordered = [index for index in columns if released[index].ordered]
    if not ordered or not 1 < len(found) <= 64:
        return found
    distances = {one: sum(released[index].distance(one, side[index].values[row]) for index in ordered) for one in found}
    least = min(distances.values())
    return BitMap(one for one, distance in distances.items() if distance == least)


def _highest(found: Sequence[Attack]) -> Attack:
    """Return the worst of several; one that could not be measured is worse than any figure."""
    if any(one.upper is None and not one.not_applicable for one in found):
        return Attack()
    figures = [one.upper for one in found if one.upper is not None]
    return Attack(upper=max(figures)) if figures else found[0]


def worst(tables: Sequence[dict[str, Attack]]) -> dict[str, Attack]:
    """Return the worst of all tables for each attack."""
    return {name: _highest([table[name] for table in tables]) for name in tables[0]} if tables else {}
