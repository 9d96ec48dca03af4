"""Keys in Obhut's own private directory: wrapped by the master key, which a passphrase or systemd credential may seal."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.keystore.drivers.driver import KeyStatus, Stage, checked_name, checked_plaintext
from obhut.keystore.errors import KeyMissingError, KeyWrapError
from obhut.keystore.local import LocalKeystore
from obhut.keystore.store import KeyState

_NONCE_BYTES: Final = 12
_AAD: Final = b"obhut keystore v1 wrap\n"


class LocalDriver:
    """The driver of one machine. Final at once here; copies of the directory are the operator's (``keystore.copies_kept``)."""

    kind = "local"

    def __init__(self, keystore: LocalKeystore) -> None:
        self._keystore = keystore

    def create(self, name: str) -> None:
        """Make a key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        self._keystore.data_key(checked_name(name))

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt under the key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(name).encrypt(nonce, checked_plaintext(plaintext), _AAD + context)

    def unwrap(self, name: str, blob: bytes, context: bytes) -> bytes:
        """Decrypt; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        try:
            return self._cipher(name).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], _AAD + context)
        except (InvalidTag, ValueError):
            raise KeyWrapError("a wrapped key does not open", "Was it wrapped by this key, in this context?") from None

    def destroy(self, name: str) -> datetime:
        """Destroy the key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        self._keystore.destroy(checked_name(name))
        return self._keystore.destroyed_at(name) or datetime.now(UTC)

    def state(self, name: str) -> KeyStatus:
        """Tell the state; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        state = self._keystore.state(checked_name(name))
        if state is KeyState.NEVER:
            return KeyStatus(Stage.ABSENT)
        if state is KeyState.ACTIVE:
            return KeyStatus(Stage.ACTIVE)
        return KeyStatus(Stage.DESTROYED, self._keystore.destroyed_at(name))

    def check(self) -> None:
        """Opening the key store was the check: permissions, owner and master key."""

    def _cipher(self, name: str) -> AESGCM:
        try:
            return AESGCM(self._keystore.data_key(checked_name(name), create=False))
        except FileNotFoundError:
            raise KeyMissingError(f"there is no key {name}") from None
