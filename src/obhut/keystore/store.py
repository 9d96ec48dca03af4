"""What the rest of Obhut may ask of a key store, whichever driver serves it."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class KeyState(StrEnum):
    """Life of a data key: ``never`` → ``active`` → ``destroying`` → ``destroyed``; no way back."""

    NEVER = "never"  # no key was ever made under the label
    ACTIVE = "active"
    DESTROYING = "destroying"  # a destruction was begun and killed; the key is refused already, the next opening finishes it
    DESTROYED = "destroyed"


class Keystore(Protocol):
    """Keys by purpose and label.

    All keys are 32 bytes. Labels and names are opaque text of 1 to 120 printable ASCII characters; they appear in file names and logs,
    so they never hold a personal value.
    """

    def wrap(self, purpose: str, key: bytes) -> bytes:
        """Return the key encrypted under the master key and bound to its purpose."""
        ...

    def unwrap(self, purpose: str, wrapped: bytes) -> bytes:
        """Return the key that was wrapped for this purpose.

        Raises:
            KeyWrapError: other master key, other purpose, or changed bytes.
        """
        ...

    def signing_key(self, name: str) -> Ed25519PrivateKey:
        """Return the Ed25519 key of this name, made on first use."""
        ...

    def verifying_key(self, name: str) -> Ed25519PublicKey:
        """Return the public half of the signing key; it lies unencrypted beside it, to be handed out.

        Raises:
            KeyMissingError: no signing key of this name was ever made.
        """
        ...

    def mac_key(self, name: str) -> bytes:
        """Return the MAC key of this name, made on first use."""
        ...

    def data_key(self, label: str, *, create: bool = True) -> bytes:
        """Return the data key of this label, made on first use unless ``create`` is false.

        Raises:
            KeyDestroyedError: the key was destroyed; a label is never used again.
            KeyMissingError: there is none and ``create`` is false.
        """
        ...

    def destroy(self, label: str) -> None:
        """Destroy the data key of this label for good; repeating it is harmless.

        Raises:
            KeyMissingError: no data key of this label was ever made.
        """
        ...

    def state(self, label: str) -> KeyState:
        """Tell where the data key of this label is in its life."""
        ...

    def labels(self) -> list[tuple[str, KeyState]]:
        """Return every data key label that ever existed, sorted, with its state."""
        ...
