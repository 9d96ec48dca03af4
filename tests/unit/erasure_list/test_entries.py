"""Canonical text, ranges, notes and frames, without any place."""

from __future__ import annotations

import hmac
import json
import re
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from obhut.erasure import batches, chain, entries, notes
from obhut.erasure.entries import Action, Decision, NewTombstone, canonical, check_ranges, parse, ranges
from obhut.erasure.errors import EntryError, ListSignatureError
from obhut.erasure.fingerprints import Verdict, fingerprint, judge
from obhut.erasure.store import Stored

AT = datetime(2026, 11, 23, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(TEXT | st.integers(0, 2**53 - 1), lambda inner: st.lists(inner, max_size=3), max_leaves=8)


@given(st.dictionaries(st.text("abcdefghij_", min_size=1), VALUES))
def test_canonical_text_is_a_fixed_point(value):
    """Reading canonical text and writing it again gives the same text, whatever the values."""
    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert "\n" not in text


@given(st.lists(TEXT | st.uuids().map(str) | st.integers().map(str), min_size=1), st.sampled_from(["", "ab" * 32]))
def test_the_short_cut_for_plain_keys_is_canonical(key, fingerprint_):
    """The private part is the canonical text whichever way it is made."""
    assert entries.private_of_tombstone(key, fingerprint_) == canonical({"fingerprint": fingerprint_, "key": key})


NEW = st.builds(
    NewTombstone, TEXT, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=2).map(tuple), st.sampled_from(Action), TEXT, TEXT, TEXT,
    st.none() | st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),
)  # fmt: skip


@given(st.lists(NEW, min_size=1, max_size=5), st.integers(0, 2**40))
def test_a_batch_makes_the_entries_that_the_plain_way_makes(tombstones, size):
    """Texts, hashes, private parts and lines of COPY made in one pass are those of one tombstone after the other, whatever the values hold."""
    prepared = batches.prepare(tombstones)
    epochs = {new.database: 3 for new in tombstones}
    batch = batches.place(prepared, Stored("list", size, b"h" * 32), AT, epochs)
    head = b"h" * 32
    for index, (one, made, known) in enumerate(zip(prepared, batch.published, batch.tombstones, strict=True)):
        new, private = one.new, entries.private_of_tombstone(one.new.key, one.new.fingerprint)
        members = entries.tombstone(size + index + 1, AT, one.identity, new, 3, chain.commit(one.salt, private))
        head = chain.extend(head, canonical(members))
        assert made == (members["seq"], canonical(members), head, (members["seq"], one.salt, private))
        assert (known.seq, known.key, known.fingerprint, known.erased_at) == (members["seq"], new.key, new.fingerprint, new.erased_at or AT)
        columns = batch.tombstone_lines[index].removesuffix("\n").split("\t")
        assert len(columns) == 15 and batch.entry_lines[index].count("\t") == 2
        assert [_unescaped(column) for column in columns[:5]] == [
            str(members["seq"]),
            one.identity,
            new.database,
            new.controller,
            new.subject_kind,
        ]
        assert _unescaped(batch.entry_lines[index].split("\t")[1]) == canonical(members)


def _unescaped(field):
    for code, character in (("\\t", "\t"), ("\\n", "\n"), ("\\r", "\r")):
        field = re.sub(r"(?<!\\)((?:\\\\)*)" + re.escape(code), lambda found, c=character: found.group(1) + c, field)
    return field.replace("\\\\", "\\")


@pytest.mark.parametrize("value", [1.5, True, -1, 2**53, b"x", "\ud800", {"\u00e4": 1}, {"a": {"b": 1.0}}, object()])
def test_values_that_other_libraries_would_write_differently_are_refused(value):
    """Floats, booleans, negative or large integers, bytes, lone surrogates and non-ASCII names cannot enter an entry."""
    with pytest.raises(EntryError):
        canonical(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"at":"x", "kind":"epoch","seq":1}',
        '{"seq":1,"kind":"epoch","at":"x"}',
        '{"at":"x","kind":"epoch","seq":1,"seq":1}',
        '{"at":"x","kind":"epoch","seq":1.0}',
        '{"at":"\\u00e4","kind":"epoch","seq":1}',
        '{"at":"x","kind":"epoch"}',
        "[]",
        "{",
    ],
)
def test_text_that_is_not_canonical_is_refused(text):
    """White space, other order, duplicate members, floats, needless escapes and missing members are errors."""
    with pytest.raises(EntryError):
        parse(text)


@given(st.lists(st.integers(1, 60)))
def test_ranges_hold_the_same_numbers(numbers):
    """Ranges are ascending, do not touch, and cover exactly the numbers."""
    found = ranges(numbers)
    assert {number for low, high in found for number in range(low, high + 1)} == set(numbers)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
    assert check_ranges([list(span) for span in found]) == found


@pytest.mark.parametrize("found", [[[2, 1]], [[1, 2], [3, 4]], [[1, 2], [2, 3]], [[1]], [1], "1-2", [[1, True]], [["1", "2"]]])
def test_ranges_of_another_form_are_refused(found):
    """Falling, touching or overlapping ranges, and things that are no ranges, are errors."""
    with pytest.raises(EntryError):
        check_ranges(found)


def test_a_commitment_is_found_without_parsing():
    """Neither the date nor the commitment of an entry can be taken from a value that looks like it."""
    sly = NewTombstone('","at":"1999-01-01', '"commitment":"' + "0" * 64, "user", ("1",), Action.ERASE, "m", "i")
    text = canonical(entries.tombstone(1, AT, "ts_1", sly, 0, b"\xab" * 32))
    assert entries.commitment_of(text) == "ab" * 32
    assert entries.date_of(text) == "2026-11-23"
    assert entries.commitment_of(canonical(entries.lifted(2, AT, sly.controller, [1]))) is None


def test_a_note_verifies_with_its_key_and_with_no_other():
    """A checkpoint is bound to its key, its name and every line."""
    key, other = Ed25519PrivateKey.from_private_bytes(b"k" * 32), Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    checkpoint = notes.Checkpoint("obhut.erasure-list/x", 7, b"h" * 32, AT)
    note = notes.sign(checkpoint, key)
    assert notes.open_note(note, key.public_key()) == checkpoint
    with pytest.raises(ListSignatureError):
        notes.open_note(note, other.public_key())
    lines = note.split("\n")
    for number in range(len(lines)):
        for changed in (lines[number] + "x", lines[number][:-1]):
            if changed != lines[number]:
                with pytest.raises(ListSignatureError):
                    notes.open_note("\n".join([*lines[:number], changed, *lines[number + 1 :]]), key.public_key())


def test_a_fingerprint_binds_database_kind_values_and_their_order():
    """Fingerprints of other databases, kinds, values, orders or of NULL never meet; no columns give none."""
    key = b"m" * 32
    seen = {
        fingerprint(key, database, kind, values)
        for database, kind, values in [
            ("a", "u", ["1", "2"]), ("b", "u", ["1", "2"]), ("a", "v", ["1", "2"]), ("a", "u", ["2", "1"]), ("a", "u", ["12"]), ("a", "u", [None]), ("a", "u", [""]),
        ]
    }  # fmt: skip
    assert len(seen) == 7
    assert fingerprint(key, "a", "u", []) == ""


@given(TEXT, st.lists(st.none() | TEXT | st.datetimes().map(str), min_size=1))
def test_the_short_cut_for_plain_incarnations_is_canonical(database, values):
    """A fingerprint is the keyed hash of the canonical text of the specification, whichever way the text is made."""
    text = b"obhut erasure list v1 incarnation\n" + canonical([database, "u", values]).encode()
    assert fingerprint(b"m" * 32, database, "u", values) == hmac.new(b"m" * 32, text, "sha256").hexdigest()


def test_a_decision_holds_for_the_fingerprint_it_names():
    """A resolution of one row says nothing about another row with the same key."""
    decisions = {"bb": Decision.SAME_PERSON, "cc": Decision.OTHER_PERSON}
    verdicts = [judge("aa", found, erased_at=AT, created_at=None, decisions=decisions) for found in ("aa", "bb", "cc", "dd")]
    assert verdicts == [Verdict.PERSON, Verdict.PERSON, Verdict.LATER, Verdict.CONFLICT]


def test_a_tombstone_does_not_show_its_key():
    """Neither repr nor str of a tombstone holds the key."""
    item = entries.Tombstone(1, "ts_1", "d", "c", "u", ("canary",), "ff", Action.ERASE, "m", "i", 0, AT, entries.State.RECORDED)
    assert "canary" not in f"{item} {item!r}"


@pytest.mark.parametrize("value", ["plain", "", "ä", 'a"b', "a\\b", "a\nb", "a\x7fb", "\u2028", "😀"])
def test_the_short_way_to_a_tombstones_text_is_the_canonical_one(value):
    """Whatever a value holds, an entry has one text."""
    new = NewTombstone("courses", value, "person", ("1",), Action.ERASE, "a" * 64, "ins_1")
    members = entries.tombstone(7, datetime(2026, 1, 2, tzinfo=UTC), "ts_1", new, 3, b"\x01" * 32)
    assert entries.text_of_tombstone(members) == canonical(members)
