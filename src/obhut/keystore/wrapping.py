"""How the key table finds and wraps sealing keys (docs/spec/audit-log-keys.md, sections 3 and 4). Pure."""

from __future__ import annotations

import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.controllers.vocabulary import SubjectRef, canonical_key
from obhut.keystore.errors import KeyWrapError
from obhut.keystore.sealing import KEY_BYTES, NONCE_BYTES, Key, key_of

FINGERPRINT_BYTES: Final = 16
# The names of a data map hold no colon, so no kind of its own is meant.
STAFF: Final = ":staff"
CONTROLLER: Final = ":controller"
_SUBJECT: Final = b"obhut audit subject v1\n"
_WRAP: Final = b"obhut audit wrap v1\n"
_EPOCH: Final = "obhut audit epoch v1\n"


def subject_text(ref: SubjectRef) -> bytes:
    """Return the canonical text of a subject."""
    if len(ref.key) == 1 and ref.key[0].isalnum() and ref.kind.isidentifier():  # no escaping, as for nearly every key
        return f'["{ref.kind}",["{ref.key[0]}"]]'.encode()
    return f"[{canonical_key((ref.kind,))[1:-1]},{canonical_key(ref.key)}]".encode()


def fingerprint(lookup: bytes, ref: SubjectRef) -> bytes:
    """Return what the key table knows a subject by.

    Args:
        lookup: the controller's lookup key; a plain hash of a primary key could be guessed.
        ref: kind and key.
    """
    return hmac.digest(lookup, _SUBJECT + subject_text(ref), "sha256")[:FINGERPRINT_BYTES]


def key_name(controller: str, epoch: int) -> str:
    """Return the name of an epoch's key in the key store."""
    return f"audit/{controller}/{epoch}"


def epoch_context(controller: str, epoch: int) -> bytes:
    """Return the context under which the key store wraps an epoch key."""
    return f"{_EPOCH}{controller}\n{epoch}".encode()


class EpochKey:
    """The key of a controller's epoch, which wraps its lookup key and its sealing keys."""

    __slots__ = ("_cipher", "_lookup", "_subject", "number")

    def __init__(self, controller: str, number: int, secret: bytes) -> None:
        self.number = number
        self._cipher = AESGCM(secret)
        tail = f"{controller}\n{number}\n".encode()
        self._subject, self._lookup = _WRAP + b"subject\n" + tail, _WRAP + b"lookup\n" + tail

    def wrap(self, key: Key) -> bytes:
        """Return a sealing key wrapped."""
        return self.wrap_with(key, os.urandom(NONCE_BYTES))

    def wrap_with(self, key: Key, nonce: bytes) -> bytes:
        """Wrap under a nonce that is given; it must be random, and never have been given before."""
        return nonce + self._cipher.encrypt(nonce, key.secret, self._subject + key.id)

    def unwrap(self, key_id: bytes, wrapped: bytes) -> Key:
        """Return the sealing key.

        Raises:
            KeyWrapError: another epoch, another key id, or changed bytes.
        """
        return key_of(key_id, self._open(wrapped, self._subject + key_id))

    def wrap_lookup(self, lookup: bytes) -> bytes:
        """Return the lookup key wrapped."""
        return self.wrap_lookup_with(lookup, os.urandom(NONCE_BYTES))

    def wrap_lookup_with(self, lookup: bytes, nonce: bytes) -> bytes:
        """Wrap under a nonce that is given: for test vectors alone."""
        return nonce + self._cipher.encrypt(nonce, lookup, self._lookup)

    def unwrap_lookup(self, wrapped: bytes) -> bytes:
        """Return the lookup key.

        Raises:
            KeyWrapError: another epoch, or changed bytes.
        """
        return self._open(wrapped, self._lookup)

    def _open(self, wrapped: bytes, associated: bytes) -> bytes:
        try:
            secret = self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], associated)
        except (InvalidTag, ValueError):
            raise KeyWrapError("a row of the key table does not open", "Was the table changed, or restored beside another epoch?") from None
        if len(secret) != KEY_BYTES:
            raise KeyWrapError("a row of the key table holds no key")
        return secret
