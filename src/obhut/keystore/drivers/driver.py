"""What every driver keeps; one contract test asks all of them (``tests/postgres/keystore/test_drivers.py``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from obhut.keystore.errors import KeystoreError

MAX_PLAINTEXT: Final = 4096  # octets; what AWS KMS encrypts in one call
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:/_.-]{0,119}")


class Stage(StrEnum):
    """Life of a key in the store."""

    ABSENT = "absent"
    ACTIVE = "active"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """Where a key is in its life.

    Attributes:
        stage: absent, active or destroyed.
        final_on: from when on a destruction cannot be taken back by anybody; None unless destroyed.
    """

    stage: Stage
    final_on: datetime | None = None


class Driver(Protocol):
    """A store of wrapping keys by name.

    Names are opaque ASCII text such as ``audit/ctl_01m8/3``; they appear in the store's own log. Every method may raise
    :class:`~obhut.keystore.errors.DriverError` when the store fails, and none ever says which plaintext it was given.
    """

    kind: str

    def create(self, name: str) -> None:
        """Make a key; harmless when it is active.

        Raises:
            KeyDestroyedError: a key of this name was destroyed; a name is never used again.
        """
        ...

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """Return up to 4,096 octets encrypted under the key and bound to a context.

        Raises:
            KeyMissingError, KeyDestroyedError: the key is not active.
        """
        ...

    def unwrap(self, name: str, blob: bytes, context: bytes) -> bytes:
        """Return what was wrapped.

        Raises:
            KeyMissingError, KeyDestroyedError: the key is not active, whether or not the store would still use it.
            KeyWrapError: another key, another context, or changed bytes.
        """
        ...

    def destroy(self, name: str) -> datetime:
        """Destroy the key, and return from when on that is final; repeating it is harmless.

        Raises:
            KeyMissingError: there never was one.
        """
        ...

    def state(self, name: str) -> KeyStatus:
        """Tell where the key is in its life."""
        ...

    def check(self) -> None:
        """Ask the store whether it serves, and whether its settings let no key out.

        Raises:
            DriverError: it does not.
        """
        ...


def checked_name(name: str) -> str:
    """Return the name.

    Raises:
        KeystoreError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise KeystoreError("a key name needs 1 to 120 letters, digits and :/_.-")
    return name


def checked_plaintext(plaintext: bytes) -> bytes:
    """Return the plaintext.

    Raises:
        KeystoreError: it is too long.
    """
    if not 0 < len(plaintext) <= MAX_PLAINTEXT:
        raise KeystoreError(f"a key store wraps 1 to {MAX_PLAINTEXT} octets")
    return plaintext
