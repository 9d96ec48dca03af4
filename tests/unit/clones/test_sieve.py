"""The first look at much text lets through whatever the second one, cell by cell, would find."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obhut.clones import crew
from obhut.clones.digests import Digests, identifier_forms, tokens
from obhut.clones.errors import CloneWorkerError
from obhut.clones.sieve import SEPARATOR, Identifiers

_SIGNS = " .,;:!?-_/()[]{}<>'\"|=\\@+*~`\n\tä1"
ADDRESSES = st.from_regex(r"[a-zA-Z0-9_.]{1,8}@[a-z0-9-]{2,8}\.(de|org)", fullmatch=True)
NUMBERS = st.from_regex(r"(\+49|0)[ /(-]{0,2}[0-9]{2,4}[ /).-]{0,2}[0-9 ]{3,9}[0-9]", fullmatch=True)
ACCOUNTS = st.from_regex(r"[A-Z]{2}[0-9]{2}( ?[0-9A-Z]{4}){4,5}", fullmatch=True)
USERS = st.from_regex(r"[a-zA-ZäöüÄ0-9_.#-]{6,14}", fullmatch=True)
NAMED = st.from_regex(r"[A-Z][a-z]{2,6}[ \"'][A-ZÄ][a-zß]{2,6}[ 0-9]{0,3}", fullmatch=True)
CARDS = st.from_regex(r"([0-9]{4}[ -]){3}[0-9]{4}", fullmatch=True)
DIGITS = st.from_regex(r"[0-9]{6,13}", fullmatch=True)
WHATEVER = st.text(min_size=6, max_size=20).filter(lambda text: SEPARATOR not in text)
IDENTIFIERS = st.one_of(ADDRESSES, NUMBERS, ACCOUNTS, USERS, NAMED, CARDS, DIGITS, WHATEVER)
AROUND = st.text(st.sampled_from(_SIGNS + "abcdeABC0123456789"), max_size=12)


def _known(values: list[str]) -> Identifiers:
    known = Identifiers()
    known.add(form for value in values for form in identifier_forms(value))
    return known


@settings(deadline=None)
@given(st.lists(IDENTIFIERS, min_size=1, max_size=3), st.lists(st.tuples(AROUND, AROUND), min_size=1, max_size=4), st.data())
def test_nothing_that_is_found_cell_by_cell_is_sifted_out(values: list[str], around: list[tuple[str, str]], data: st.DataObject) -> None:
    """Whatever shape identifiers have and whatever stands around them."""
    known = _known(values)
    written = data.draw(st.sampled_from([str, str.upper, str.lower]))
    inside = data.draw(st.integers(0, len(around) - 1))
    cells = [before + (written(values[0]) if index == inside else "") + after for index, (before, after) in enumerate(around)]
    if any(known.hits(list(tokens(cell))) for cell in cells):
        assert known.may_stand_in(SEPARATOR.join(cells))


@settings(deadline=None)
@given(st.lists(IDENTIFIERS.filter(lambda text: '"' not in text and "\\" not in text), min_size=1, max_size=2), AROUND, st.booleans())
def test_nothing_in_a_document_is_sifted_out(values: list[str], around: str, ascii_only: bool) -> None:
    """Leaves of a document, however JSON writes them."""
    known = _known(values)
    leaves = {"a": [values[0], around], "b": around + values[-1]}
    found = [token for leaf in (*leaves["a"], leaves["b"]) for token in tokens(leaf)]
    if known.hits(found):
        assert known.may_stand_in(json.dumps(leaves, ensure_ascii=ascii_only), document=True)


@pytest.mark.parametrize("text", ["anna", "a1b2c3 " * 50, "x@y.de", "+49 30 1234568", "2026-11-23 10:00", "ä" * 40, ""])
def test_other_texts_are_sifted_out(text: str) -> None:
    """A sieve that lets everything through would pass the tests above."""
    assert not _known(["anna.schmidt@firma.de", "+49 30 1234567", "0171/5510023"]).may_stand_in(SEPARATOR.join([text, "other", text]))


def test_what_forked_workers_gather_is_one_set() -> None:
    """Digests of a fork meet those of its parent; shapes come along; an error tells its kind and no value."""
    known = Identifiers()

    def gather(share: object) -> tuple[tuple[bytes, bytes, int], tuple[bool, bool, bool, bool, bool, int]]:
        known.add(str(value) for value in share)  # type: ignore[attr-defined]
        return known.gathered(), known.shapes()

    values = [f"person{number}@firma.de" for number in range(400)]
    for gathered, shapes in crew.share(gather, values, 3):
        known.merge(gathered)
        known.widen(shapes)
    assert known.count == 400 and known.addresses and not known.words
    assert known.hits([*values, "nobody@firma.de"]) == values
    with pytest.raises(CloneWorkerError, match="ValueError") as caught:
        crew.share(lambda share: int(share[0]), ["anna.schmidt@firma.de", "x"], 2)
    assert "anna" not in str(caught.value)
    assert not Digests().hits(["anything"])
