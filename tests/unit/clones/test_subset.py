"""How a part of the people is asked for."""

from __future__ import annotations

import pytest

from obhut.clones.errors import CloneSubsetError
from obhut.clones.subset import Wanted, parse


@pytest.mark.parametrize(
    ("people", "controller", "wanted"),
    [
        ("", (), Wanted()),
        ("500", (), Wanted(number=500)),
        ("5%", (), Wanted(share=0.05)),
        ("0.5%", ("7",), Wanted(("7",), share=0.005)),
        ("100%", (), Wanted(share=1.0)),
        ("", ("7", "eu"), Wanted(("7", "eu"))),
    ],
)
def test_a_part_is_a_number_a_share_or_a_controller(people: str, controller: tuple[str, ...], wanted: Wanted) -> None:
    """Each form is understood; nothing asked for is everybody."""
    assert parse(people, controller) == wanted
    assert bool(parse(people, controller)) == bool(people or controller)


@pytest.mark.parametrize("people", ["0", "-3", "0%", "101%", "five", "5 %", "5.", "%", "1e3"])
def test_anything_else_is_refused(people: str) -> None:
    """What is no number and no share is not guessed at."""
    with pytest.raises(CloneSubsetError):
        parse(people, ())


def test_a_part_is_described_without_the_controller() -> None:
    """The mark says how much was taken and never whose."""
    assert Wanted(("4711",), number=3).describe() == "people=3,controllers=one"
    assert Wanted(share=0.05).describe() == "people=0.05,controllers=all"


def test_people_are_named_once_and_alone() -> None:
    """Named people are a part of their own, told as a number; beside another part nobody knows what is meant."""
    named = parse("", (), [("patient", ("7",)), ("patient", ("7",)), ("doctor", ("1", "eu"))])
    assert named and named.these == (("patient", ("7",)), ("doctor", ("1", "eu")))
    assert named.describe() == "people=named:2,controllers=all"
    for people, controller in (("5%", ()), ("", ("7",))):
        with pytest.raises(CloneSubsetError):
            parse(people, controller, [("patient", ("7",))])
