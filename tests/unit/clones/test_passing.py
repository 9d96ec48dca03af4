"""Looking at rows while they pass is as good as the search of cells: it may suspect too much and never too little."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from obhut.clones.digests import canonical, common, identifier_forms, tokens
from obhut.clones.originals import Originals
from obhut.clones.passing import Looking, Watch
from obhut.masking.fields import NULL, escape
from obhut.masking.model import ColumnPlan

TABLE, PLACE = 1, "public.t.it"
_SIGNS = " .,;:!?-_/()[]{}<>'\"|=\\@+*~`\n\tä1"
ADDRESSES = st.from_regex(r"[a-zA-Z0-9_.]{1,8}@[a-z0-9-]{2,8}\.(de|org)", fullmatch=True)
NUMBERS = st.from_regex(r"(\+49|0)[ /(-]{0,2}[0-9]{2,4}[ /).-]{0,2}[0-9 ]{3,9}[0-9]", fullmatch=True)
DIGITS = st.from_regex(r"[0-9]{6,13}", fullmatch=True)
OTHERS = st.one_of(
    st.from_regex(r"[a-zA-ZäöüÄ0-9_.#-]{6,14}", fullmatch=True), st.from_regex(r"[A-Z][a-z]{3,6} [A-Z][a-z]{3,6}", fullmatch=True)
)
AROUND = st.text(st.sampled_from(_SIGNS + "abcdeABC0123456789"), max_size=12)
CELLS = st.lists(st.tuples(AROUND, AROUND, st.integers(0, 2**63 - 1), st.sampled_from([0, 40, 200, 300, 12_600])), min_size=1, max_size=4)


def _watch(values: Sequence[str], *, binary: bool, documents: bool = False) -> Watch:
    found = Originals()
    found.identifiers.add(form for value in values for form in identifier_forms(value))
    return Watch(found, {TABLE: Looking("public.t", frozenset({"it"}), documents, binary, frozenset())})


def _as_text(rows: Sequence[tuple[int, str | None, str]]) -> bytes:
    return b"".join(
        b"%d\t2026-11-23 10:00:00+00\t%b\t%b\n" % (number, NULL if first is None else escape(first.encode()), escape(cell.encode()))
        for number, first, cell in rows
    )


def _as_binary(rows: Sequence[tuple[int, str | None, str]]) -> bytes:
    def value(written: bytes | None) -> bytes:
        return struct.pack("!i", -1) if written is None else struct.pack("!i", len(written)) + written

    lines = [
        b"\x00\x03" + value(struct.pack("!q", number)) + value(first.encode() if first is not None else None) + value(cell.encode())
        for number, first, cell in rows
    ]
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"".join(lines) + b"\xff\xff"


def _suspected(watch: Watch, rows: Sequence[tuple[int, str | None, str]], *, binary: bool, cut: int) -> bool:
    if binary:
        stream = _as_binary(rows)
        blocks = [stream[start : start + cut] for start in range(0, len(stream), cut)]
        assert b"".join(watch.binary(TABLE, blocks)) == stream
    else:
        watch.text(TABLE, _as_text(rows))
    return TABLE in watch.told.suspects


@settings(deadline=None)
@given(st.lists(st.one_of(ADDRESSES, NUMBERS, DIGITS), min_size=1, max_size=3), CELLS, st.booleans(), st.integers(1, 90), st.data())
@example(["0301234567"], [("", "", 0x3131313131313131, 0)], True, 7, None)
def test_what_is_found_cell_by_cell_is_suspected(
    values: list[str], around: list[tuple[str, str, int, int]], binary: bool, cut: int, data: st.DataObject | None
) -> None:
    """Addresses and numbers in both forms of COPY, whatever stands around them, however long the value is and wherever the stream is cut."""
    written = data.draw(st.sampled_from([str, str.upper, str.lower])) if data else str
    rows = [
        (number, None if number % 3 else before, before + (written(values[0]) if index == 0 else "") + after + " " * filled)
        for index, (before, after, number, filled) in enumerate(around)
    ]
    watch = _watch(values, binary=binary)
    binary = binary and not watch._found.identifiers.odd  # as tables are chosen
    if any(watch._found.identifiers.hits(list(tokens(cell))) for _, _, cell in rows):
        assert _suspected(watch, rows, binary=binary, cut=cut)


@settings(deadline=None)
@given(st.lists(OTHERS, min_size=1, max_size=2), CELLS)
def test_other_identifiers_are_suspected_in_lines(values: list[str], around: list[tuple[str, str, int, int]]) -> None:
    """Words and names, which are looked for in text only."""
    rows = [(number, None, before + (values[0] if index == 0 else "") + after) for index, (before, after, number, _) in enumerate(around)]
    watch = _watch(values, binary=False)
    if any(watch._found.identifiers.hits(list(tokens(cell))) for _, _, cell in rows):
        assert _suspected(watch, rows, binary=False, cut=1)


@settings(deadline=None, max_examples=50)
@given(st.one_of(ADDRESSES, NUMBERS), AROUND, st.booleans(), st.booleans())
def test_documents_are_read_as_they_are_meant(value: str, around: str, binary: bool, ascii_only: bool) -> None:
    """JSON writes signs otherwise; what a document says counts."""
    cell = json.dumps({"a": [value, around], "b": "\n" + value}, ensure_ascii=ascii_only).replace("@", "\\u0040")
    watch = _watch([value], binary=binary, documents=True)
    binary = binary and not watch._found.identifiers.odd
    if watch._found.identifiers.hits(list(tokens(value))):
        assert _suspected(watch, [(1, None, cell)], binary=binary, cut=50)


@pytest.mark.parametrize("binary", [False, True])
def test_other_rows_are_not_suspected(binary: bool) -> None:
    """A watch that suspects everything would pass the tests above. A canary is suspected, however it is written."""
    chance = Random(3)
    rows = [
        (chance.getrandbits(62), None, f"x{number}@y.de +49 30 {chance.randrange(10**6, 10**7)} {'ab1' * 20}") for number in range(2000)
    ]
    watch = _watch(["anna.schmidt@firma.de", "+49 30 12345678", "0171/55100234"], binary=binary)
    assert not _suspected(watch, rows, binary=binary, cut=4096)
    assert _suspected(watch, [(1, None, "an ObhutCanary00ff")], binary=binary, cut=5)


def test_a_value_too_long_to_wait_for_is_left_to_the_copy() -> None:
    """Memory does not grow with a value of a gigabyte."""
    watch = _watch(["anna.schmidt@firma.de"], binary=True)
    assert not _suspected(watch, [(1, None, "x" * 100_000)], binary=True, cut=1 << 16)
    assert _suspected(watch, [(1, None, "x" * (1 << 23))], binary=True, cut=1 << 20)


@given(st.lists(st.text(min_size=6, max_size=12), min_size=1, max_size=4), st.sampled_from([str, str.upper, str.lower, " {}\n".format]))
def test_a_value_that_comes_out_again_is_met(values: list[str], written: type[str]) -> None:
    """In whatever case and with whatever blanks around it, in whichever row, and among others."""
    found = Originals(invented={PLACE: ColumnPlan("it", "text", False, "email", category="user.contact.email")})  # type: ignore[arg-type]
    watch = Watch(found, {TABLE: Looking("public.t", frozenset({"it"}), False, False, frozenset({"it"}))})
    compare = watch.columns(TABLE)
    compare("it", [escape(value.encode()) for value in values], [b"someone", NULL])
    compare("it", [NULL, b"somebody.else"], [escape(written(values[-1]).encode())])
    met = common(watch.told.before[PLACE], watch.told.after[PLACE])
    if canonical(written(values[-1])) == canonical(values[-1]) and len(canonical(values[-1])) >= 6:
        assert met >= 1


@given(
    st.text(st.sampled_from(" \n\t\\äKſ\x1fabcdeXYZ .,"), min_size=30, max_size=200),
    st.text(st.sampled_from(" \nä\x1f"), max_size=120),
    st.sampled_from([str, str.upper, " {}\n".format]),
    st.sampled_from([" ", "\n"]),
)
@example("a", "", str, " ")
@example("abcde", " " * 110, str, " ")
def test_a_long_text_that_comes_out_again_is_met(value: str, before: str, written: type[str], blank: str) -> None:
    """Only its first bytes are compared: blanks, escapes and letters beyond ASCII in front of them, or at its end, change nothing."""
    text = before + value * (1 + 130 // len(value)) + blank * 150
    found = Originals(invented={PLACE: ColumnPlan("it", "text", False, "text", category="user.content")})  # type: ignore[arg-type]
    watch = Watch(found, {TABLE: Looking("public.t", frozenset({"it"}), False, False, frozenset({"it"}))})
    compare = watch.columns(TABLE)
    compare("it", [b"short", escape(text.encode()), NULL], [b"someone", NULL])
    compare("it", [b"other"], [b"somebody.else", escape(written(text.strip()).encode())])
    if canonical(written(text.strip())) == canonical(text):
        assert common(watch.told.before[PLACE], watch.told.after[PLACE]) >= 1


def test_what_was_invented_is_not_met() -> None:
    """Digests of two sides with nothing in common have nothing in common; every share is asked."""
    before = array("q", range(300_000))
    after = array("q", range(1_000_000, 1_003_000))
    assert common(before, after) == 0 and common(before, after + before[-5:] + before[:2]) == 7
    assert common(array("q"), after) == 0
