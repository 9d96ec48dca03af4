"""Attacks on samples of known strength: what is copied is found out, what is independent is not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obhut.clones import attacks
from obhut.clones.attacks import Rate, Sample, carry_out, excess
from obhut.clones.columns import Column, Value
from obhut.masking.verdict import Attack

Row = tuple[Value, ...]


def _people(random: Random, count: int) -> list[Row]:
    """Give people with an age, a town and a moment; towns differ in their ages a little, as in life."""
    return [(float(random.randrange(18, 90)), f"town{random.randrange(40)}", random.uniform(0, 3650)) for _ in range(count)]


def _sample(released: list[Row], targets: list[Row], control: list[Row]) -> Sample:
    sides = [
        tuple(Column(values, isinstance(values[0], float)) for values in zip(*rows, strict=True)) for rows in (released, targets, control)
    ]
    return Sample(tuple(f"c{index}" for index in range(len(targets[0]))), *sides)


def test_a_copy_of_the_originals_fails_every_attack() -> None:
    """Rows that are kept as they are: nearly everybody is singled out, linked, and known."""
    random = Random(1)
    targets, control = _people(random, 1000), _people(random, 1000)
    found = carry_out(_sample(targets, targets, control), random, attacks=500)
    assert all(attack.upper is not None and attack.upper > 0.8 for attack in found.values()), found


def test_independent_rows_pass_every_attack() -> None:
    """Rows drawn anew from the same population say nothing about those of the sample that they do not say about the control set."""
    random = Random(2)
    found = carry_out(_sample(_people(random, 1500), _people(random, 1500), _people(random, 1500)), random, attacks=700)
    assert all(attack.upper is not None and attack.upper < 0.15 for attack in found.values()), found


def test_noise_lies_between(subtests: pytest.Subtests) -> None:
    """The more the values are moved, the less is found out: the order is what matters, not the figures."""
    uppers: dict[str, list[float]] = {"linkability": [], "inference": [], "singling_out": []}
    for moved in (0.0, 3.0, 400.0):
        random = Random(3)
        targets, control = _people(random, 800), _people(random, 800)
        released: list[Row] = [
            (
                float(row[0]) + random.gauss(0, moved / 10),
                row[1] if moved < 100 else f"town{random.randrange(40)}",
                float(row[2]) + random.gauss(0, moved),
            )  # type: ignore[arg-type]
            for row in targets
        ]
        for name, attack in carry_out(_sample(released, targets, control), random, attacks=300).items():
            uppers[name].append(attack.upper if attack.upper is not None else 0.0)
    for name, found in uppers.items():
        with subtests.test(name):
            assert found[0] > found[1] > found[2] - 0.05, found
            assert found[2] < 0.3, found


def test_classes_of_many_cannot_be_singled_out() -> None:
    """No predicate holds for one row only where every class has dozens of people; one person who is alone is found, and said to be."""
    targets: list[Row] = [(float(10 * (index % 4)), "abc"[index % 3]) for index in range(1200)]
    found = attacks.singling_out(_sample(targets, targets, targets), Random(4), 200)
    assert found.upper is None and found.not_applicable
    alone = [*targets[:-1], (100.0, "a")]
    told = attacks.singling_out(_sample(alone, alone, targets), Random(4), 200)
    assert told.upper and not told.not_applicable


def test_too_few_people_measure_nothing() -> None:
    """A figure from twenty people would be chance; the criterion stays open. So does one column: there is nothing to connect it with."""
    random = Random(5)
    few = _people(random, 20)
    assert set(carry_out(_sample(few, few, few), random).values()) == {Attack()}
    single: list[Row] = [(float(index),) for index in range(300)]
    assert attacks.linkability(_sample(single, single, single), random, 100).not_applicable
    assert attacks.worst([{"a": Attack(0.1), "b": Attack(not_applicable="-")}, {"a": Attack(), "b": Attack(0.0)}]) == {
        "a": Attack(),
        "b": Attack(0.0),
    }


def test_the_interval_is_wilsons() -> None:
    """Figures reckoned by hand from Wilson (1927) at 95 %: 10 of 100, and none of 100."""
    assert (round(Rate.of(10, 100).value, 4), round(Rate.of(10, 100).error, 4)) == (0.1148, 0.0596)
    none = Rate.of(0, 100)
    assert none.value == pytest.approx(none.error) and round(2 * none.value, 4) == 0.037
    assert excess(500, 500, 1000).upper == pytest.approx(0.0875, abs=0.001), "no excess, and still what chance leaves open"
    assert excess(1000, 0, 1000).upper == 1.0
    assert excess(99, 0, 99) == Attack()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-5, 5).map(float)), min_size=1, max_size=600), st.integers(-6, 6).map(float))
def test_conditions_mean_what_they_say(values: list[float | None], value: float) -> None:
    """Every condition on a column gives the rows that a plain comparison gives."""
    column = Column(values, ordered=True)
    known = [(row, one) for row, one in enumerate(values) if one is not None]
    assert list(column.where("<=", value)) == [row for row, one in known if one <= value]
    assert list(column.where(">=", value)) == [row for row, one in known if one >= value]
    assert list(column.where("=", value)) == [row for row, one in known if one == value]
    assert list(column.where("=", None)) == [row for row, one in enumerate(values) if one is None]
    near = column.near(value)
    assert near == column.where("=", value) or (value not in values and (near or not known))
