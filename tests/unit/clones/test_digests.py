"""What counts as a value of the source in a text, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.clones.digests import SHORTEST, Digests, canonical, identifier_forms, tokens

ADDRESS = "anna.schmidt@firma.de"


def _found(identifier: str, text: str) -> bool:
    known = Digests()
    known.add(identifier_forms(identifier))
    return any(token in known for token in tokens(text))


@pytest.mark.parametrize(
    "text",
    [
        ADDRESS,
        ADDRESS.upper(),
        f"Bitte an {ADDRESS}.",
        f"<{ADDRESS}>",
        f'{{"to": "{ADDRESS}"}}',
        f"mailto:{ADDRESS}?",
        f"a,{ADDRESS};b",
        f"'{ADDRESS}'",
        f"({ADDRESS})!",
    ],
)
def test_an_address_is_found_in_whatever_surrounds_it(text: str) -> None:
    """Case, punctuation, brackets and quotes do not hide an address."""
    assert _found(ADDRESS, text)


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        ("+49 171 5510023", "ruf +49 (171) 55 100-23 an"),
        ("0171/5510023", "0171 551 00 23"),
        ("DE89 3704 0044 0532 0130 00", "IBAN: de89370400440532013000."),
        ("DE89370400440532013000", "auf DE89 3704 0044 0532 0130 00 zahlen"),
        ("86 095 742 719", "IdNr 86095742719"),
    ],
)
def test_a_number_is_found_however_it_is_written(identifier: str, text: str) -> None:
    """Blanks, dashes, dots and brackets between digits do not hide a number."""
    assert _found(identifier, text)


@pytest.mark.parametrize("text", ["anna", "schmidt@firma.de", "anna.schmidt@firma.com", "x" + ADDRESS, "Firma", ""])
def test_something_else_is_not_found(text: str) -> None:
    """Parts of an address and other addresses are no finding."""
    assert not _found(ADDRESS, text)


@pytest.mark.parametrize("value", ["Anna", "Schmidt", "12345", "", "   "])
def test_what_many_share_is_no_identifier(value: str) -> None:
    """A short value or a plain word occurs by chance."""
    assert list(identifier_forms(value)) == []


@given(st.text(min_size=SHORTEST, max_size=40).filter(lambda text: len(canonical(text)) >= SHORTEST))
def test_a_whole_cell_is_always_looked_up(text: str) -> None:
    """Whatever a text holds, it is itself among what is looked for."""
    assert canonical(text) in set(tokens(text))


def test_two_sets_share_no_key() -> None:
    """The digests of two runs have nothing in common, so one cannot be tried against the other."""
    first, second = Digests(), Digests()
    values = [f"person{number}@firma.de" for number in range(500)]
    first.add(values)
    second.add(values)
    assert first.count == second.count == 500
    assert len(first._high & second._high) < 5
    assert all(value in first for value in values) and not any(f"nobody{number}@firma.de" in first for number in range(5000))
