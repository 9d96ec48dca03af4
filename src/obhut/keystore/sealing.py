"""Sealing of values under the key of one person (docs/spec/audit-log-keys.md, sections 1 and 2). Pure.

AES-GCM alone does not commit to its key, so every key carries a commitment that a reader checks before it decrypts anything; lengths are
padded to buckets, because a length can be a value's shadow.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from hashlib import sha256
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.keystore.errors import CommitmentError, SealedValueError

KEY_BYTES: Final = 32
ID_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
VERSION: Final = b"\x01"
_COMMITMENT: Final = b"obhut audit key v1\n"
_SEAL: Final = b"obhut audit seal v1\n"
_SMALLEST: Final = 64  # octets of the smallest bucket
_STEP: Final = 16_384  # octets; up to here buckets double, beyond they are multiples of it
_LENGTH: Final = 4
_LENGTHS: Final = Struct(">I").pack
_HEAD: Final = len(VERSION) + NONCE_BYTES


@dataclass(frozen=True, slots=True)
class Key:
    """A sealing key as writers and readers of an audit log use it.

    Attributes:
        id: 16 random octets; stands in entries in clear.
        secret: 32 octets; never printed.
        commitment: 32 octets that only this secret and id give.
    """

    id: bytes
    secret: bytes = field(repr=False)
    commitment: bytes


def new_key() -> Key:
    """Return a key from the system's random generator, derived from nothing: what can be derived again cannot be destroyed."""
    drawn = os.urandom(ID_BYTES + KEY_BYTES)
    return key_of(drawn[:ID_BYTES], drawn[ID_BYTES:])


def new_keys(count: int) -> list[Key]:
    """Return many keys, each as :func:`new_key` gives it: what is drawn at once is cut into parts that are used once."""
    size = ID_BYTES + KEY_BYTES
    drawn = os.urandom(size * count)
    return [key_of(drawn[at : at + ID_BYTES], drawn[at + ID_BYTES : at + size]) for at in range(0, len(drawn), size)]


def key_of(key_id: bytes, secret: bytes) -> Key:
    """Return the key with its commitment."""
    return Key(key_id, secret, sha256(_COMMITMENT + key_id + secret).digest())


def committed(key_id: bytes, secret: bytes, commitment: bytes) -> Key:
    """Return the key if its secret is the one that was committed to.

    Raises:
        CommitmentError: it is another one.
    """
    key = key_of(key_id, secret)
    if not hmac.compare_digest(key.commitment, commitment):
        raise CommitmentError(
            "a key does not fit the commitment in the log", "Was the key table or the entry changed? The log binds the commitment."
        )
    return key


def bucket(length: int) -> int:
    """Return the octets that a value of so many octets is padded to, its length field included."""
    needed = length + _LENGTH
    if needed <= _SMALLEST:
        return _SMALLEST
    if needed <= _STEP:
        return 1 << (needed - 1).bit_length()
    return -(-needed // _STEP) * _STEP


def sealed_size(length: int) -> int:
    """Return the octets of a sealed value of so many octets."""
    return _HEAD + bucket(length) + TAG_BYTES


def seal(key: Key, plaintext: bytes, associated: bytes) -> bytes:
    """Return the value encrypted under the key and bound to its place.

    Args:
        key: of the data subject.
        plaintext: shorter than 2^31 octets.
        associated: what the value is bound to; needed again to open it.
    """
    return seal_with(key, plaintext, associated, os.urandom(NONCE_BYTES))


def seal_with(key: Key, plaintext: bytes, associated: bytes, nonce: bytes) -> bytes:
    """Seal under a nonce that is given: for test vectors alone, since a nonce that comes twice gives both values away."""
    return VERSION + nonce + AESGCM(key.secret).encrypt(nonce, _padded(plaintext), _SEAL + key.id + key.commitment + associated)


class Sealer:
    """Seals many values under one key: setting up the cipher takes longer than a short value. Holds the secret as long as it lives."""

    __slots__ = ("_associated", "_encrypt", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self._encrypt = AESGCM(key.secret).encrypt
        self._associated = _SEAL + key.id + key.commitment

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """Return the value encrypted and bound to its place, as :func:`seal` does."""
        return self.seal_with(plaintext, associated, os.urandom(NONCE_BYTES))

    def seal_with(self, plaintext: bytes, associated: bytes, nonce: bytes) -> bytes:
        """Seal under a nonce that is given; it must be random, and never have been given before."""
        return VERSION + nonce + self._encrypt(nonce, _padded(plaintext), self._associated + associated)


def _padded(plaintext: bytes) -> bytes:
    length = len(plaintext)
    return (_LENGTHS(length) + plaintext).ljust(bucket(length), b"\0")


def unseal(key: Key, sealed: bytes, associated: bytes) -> bytes:
    """Return the value.

    Raises:
        SealedValueError: changed bytes, another key, another place, or a form that the specification does not allow.
    """
    if sealed[:1] != VERSION or len(sealed) < sealed_size(0):
        raise SealedValueError("a sealed value is of a form that this version cannot read", "Is it of a later version, or cut off?")
    nonce, text = sealed[len(VERSION) : _HEAD], sealed[_HEAD:]
    try:
        padded = AESGCM(key.secret).decrypt(nonce, text, _SEAL + key.id + key.commitment + associated)
    except InvalidTag:
        raise SealedValueError("a sealed value does not open", "Is it in the entry that it was sealed for, and unchanged?") from None
    length = int.from_bytes(padded[:_LENGTH], "big")
    if bucket(length) != len(padded) or any(padded[_LENGTH + length :]):
        raise SealedValueError(
            "a sealed value is not padded as it must be", "Which program sealed it? docs/spec/audit-log-keys.md, section 2."
        )
    return padded[_LENGTH : _LENGTH + length]
