"""Hashes of the erasure list: the chain and the commitments to private parts (specification, sections 4 and 5). Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from obhut.foundation.ids import new_id

_ORIGIN: Final = b"obhut erasure list v1 origin\n"
ENTRY: Final = b"obhut erasure list v1 entry\n"
PRIVATE: Final = b"obhut erasure list v1 private\n"
ORIGIN_PREFIX: Final = "obhut.erasure-list/"
SALT_BYTES: Final = 32


def new_origin() -> str:
    """Return a name for a new list; unique, and without any meaning that a third party could read from a checkpoint."""
    return ORIGIN_PREFIX + new_id("x").removeprefix("x_")


def start(origin: str) -> bytes:
    """Return the head of the empty list of this name."""
    return sha256(_ORIGIN + origin.encode()).digest()


def extend(head: bytes, entry: str) -> bytes:
    """Return the head after one more entry, given as canonical text."""
    return sha256(ENTRY + head + entry.encode()).digest()


def commit(salt: bytes, private: str) -> bytes:
    """Return the commitment to a private part, given as canonical text."""
    return sha256(PRIVATE + salt + private.encode()).digest()
