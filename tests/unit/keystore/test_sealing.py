"""Sealing of values and wrapping of subject keys: what the specification says, what a stranger reads, what nobody may change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.controllers.vocabulary import SubjectRef, canonical_key
from obhut.foundation.errors import ObhutError
from obhut.keystore import vectors
from obhut.keystore.errors import CommitmentError, KeyWrapError, SealedValueError
from obhut.keystore.sealing import bucket, committed, key_of, new_key, seal, sealed_size, unseal
from obhut.keystore.wrapping import EpochKey, fingerprint, subject_text

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "spec" / "vectors" / vectors.FILE_NAME


def test_the_published_vectors_are_what_the_code_makes() -> None:
    """A change of the format needs a new version and new vectors, both on purpose."""
    assert PUBLISHED.read_text(encoding="utf-8") == vectors.render()


def test_a_stranger_reads_the_published_vectors() -> None:
    """A reader written from the specification alone opens and refuses the same, isolated from Obhut's code."""
    command = [sys.executable, "-I", str(ROOT / "tests" / "stranger" / "audit_keys.py"), str(PUBLISHED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "accepted 5 refused 9", done.stderr


@pytest.mark.parametrize("item", vectors.document()["refused"], ids=lambda item: item["why"])
def test_forms_that_the_specification_does_not_allow_are_refused(item: dict[str, str]) -> None:
    """A value under the right key is refused all the same when its form is another."""
    key = key_of(bytes(range(16)), bytes([7]) * 32)
    with pytest.raises(SealedValueError):
        unseal(key, bytes.fromhex(item["sealed"]), bytes.fromhex(vectors.document()["context"]))


@given(value=st.binary(max_size=20_000), context=st.binary(max_size=50))
def test_a_sealed_value_opens_where_it_was_sealed(value: bytes, context: bytes) -> None:
    """Any value comes back; its size says its bucket and no more."""
    key = new_key()
    sealed = seal(key, value, context)
    assert unseal(key, sealed, context) == value
    assert len(sealed) == sealed_size(len(value))
    assert len(sealed) - 29 in {64 << step for step in range(9)} | {32_768}


@given(place=st.integers(min_value=0), flip=st.integers(1, 255))
def test_no_changed_byte_is_accepted(place: int, flip: int) -> None:
    """Version, nonce, text and tag are all covered."""
    key = new_key()
    sealed = bytearray(seal(key, b"value", b"here"))
    sealed[place % len(sealed)] ^= flip
    with pytest.raises(SealedValueError):
        unseal(key, bytes(sealed), b"here")


def test_a_value_opens_in_its_place_under_its_key_only() -> None:
    """Moved to another entry, or under another id with the same secret, it does not open."""
    key = new_key()
    sealed = seal(key, b"value", b"here")
    for other, context in ((key, b"there"), (new_key(), b"here"), (key_of(bytes(16), key.secret), b"here")):
        with pytest.raises(SealedValueError):
            unseal(other, sealed, context)


def test_a_key_that_was_not_committed_to_is_refused() -> None:
    """The log binds the commitment: another secret for the same id never gets to decrypt."""
    key = new_key()
    assert committed(key.id, key.secret, key.commitment) == key
    with pytest.raises(CommitmentError):
        committed(key.id, new_key().secret, key.commitment)


def test_a_key_does_not_print_its_secret() -> None:
    """A key in a traceback or a log line shows its id alone."""
    key = new_key()
    assert repr(key.secret) not in repr(key)
    assert key.secret.hex() not in f"{key} {key!r}"


@given(length=st.integers(0, 200_000))
def test_buckets_only_grow(length: int) -> None:
    """A longer value never gets a smaller bucket, and no bucket is larger than needed by more than the rule allows."""
    assert length + 4 <= bucket(length) <= bucket(length + 1)
    assert bucket(length) <= max(64, 2 * (length + 4), length + 4 + 16_384)


@given(kind=st.text(min_size=1, max_size=8), key=st.lists(st.text(max_size=8), min_size=1, max_size=3))
def test_the_short_spelling_of_a_subject_is_the_canonical_one(kind: str, key: list[str]) -> None:
    """The way without escaping gives what the way with it gives."""
    text = f"[{canonical_key((kind,))[1:-1]},{canonical_key(key)}]"
    try:
        expected = text.encode()
    except UnicodeEncodeError:
        return
    assert subject_text(SubjectRef(kind, tuple(key))) == expected


def test_a_fingerprint_needs_the_lookup_key() -> None:
    """Two controllers know the same primary key by different fingerprints, and kinds do not meet."""
    ada = SubjectRef("user", ("42",))
    prints = {fingerprint(b"a" * 32, ada), fingerprint(b"b" * 32, ada), fingerprint(b"a" * 32, SubjectRef("staff", ("42",)))}
    assert len(prints) == 3
    assert {len(one) for one in prints} == {16}


def test_a_row_of_the_key_table_opens_in_its_row_only() -> None:
    """A wrapped key moved to another person, controller, epoch or role does not open."""
    secret, key = b"e" * 32, new_key()
    epoch = EpochKey("ctl_1", 1, secret)
    wrapped = epoch.wrap(key)
    assert epoch.unwrap(key.id, wrapped) == key
    assert epoch.unwrap_lookup(epoch.wrap_lookup(b"l" * 32)) == b"l" * 32
    attempts = [
        lambda: epoch.unwrap(bytes(16), wrapped),
        lambda: EpochKey("ctl_2", 1, secret).unwrap(key.id, wrapped),
        lambda: EpochKey("ctl_1", 2, secret).unwrap(key.id, wrapped),
        lambda: epoch.unwrap_lookup(wrapped),
        lambda: epoch.unwrap(key.id, wrapped[:20]),
        lambda: epoch.unwrap(key.id, b""),
    ]
    for attempt in attempts:
        with pytest.raises(KeyWrapError) as caught:
            attempt()
        assert isinstance(caught.value, ObhutError)
