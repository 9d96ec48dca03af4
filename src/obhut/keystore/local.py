"""A key store in a private directory.

Layout: ``master.key``; ``sign/<name>.key`` and ``.pub``; ``mac/<name>.key``; ``data/<label>.key``, and ``data/<label>.destroyed`` where
the key has gone. Every key file holds a random key wrapped by AES-256-GCM under the master key, with kind and label as
associated data, so a file renamed to another label does not open.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.foundation import faultpoints
from obhut.foundation.settings import Settings
from obhut.keystore import master
from obhut.keystore.errors import KeyDestroyedError, KeyMissingError, KeystoreError, KeyWrapError
from obhut.keystore.files import overwrite, private_directory, read_private, sync_directory, write_once
from obhut.keystore.store import KeyState

KEY_BYTES = 32
_NONCE_BYTES = 12
_AAD = b"obhut keystore v1 key\n"
_MAX_LABEL = 120


def open_keystore(settings: Settings) -> LocalKeystore:
    """Open the key store that the settings name, with the passphrase of this process if there is one."""
    return LocalKeystore(settings.keystore.directory, passphrase=master.find_passphrase())


class LocalKeystore:
    """Keys in files below one directory; the driver of :class:`~obhut.keystore.store.Keystore` for one machine.

    Safe to use from several processes at once: the first writer of a label wins and the others read its key.
    """

    def __init__(self, directory: Path, *, passphrase: bytes | None = None) -> None:
        """Open the directory, making it and a master key when empty, and finish destructions that were killed.

        Raises:
            KeystorePermissionsError: others may read it.
            MasterKeyError: the master key is missing, damaged, or sealed under another passphrase.
        """
        private_directory(directory)
        self._directory = directory
        self._master = AESGCM(master.load_or_create(directory, passphrase))
        self._cache: dict[tuple[str, str], bytes] = {}
        for kind in ("sign", "mac", "data"):
            private_directory(directory / kind)
        for pending in (directory / "data").glob("*.destroying"):
            self._finish_destruction(pending)

    def wrap(self, purpose: str, key: bytes) -> bytes:
        """Return nonce, ciphertext and tag of the key, bound to its purpose."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._master.encrypt(nonce, key, _AAD + purpose.encode())

    def unwrap(self, purpose: str, wrapped: bytes) -> bytes:
        """Return the key that was wrapped for this purpose.

        Raises:
            KeyWrapError: other master key, other purpose, or changed bytes.
        """
        try:
            return self._master.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _AAD + purpose.encode())
        except (InvalidTag, ValueError):
            raise KeyWrapError(
                "a wrapped key does not open", "Is this the master key that wrapped it, and are its bytes as they were written?"
            ) from None

    def signing_key(self, name: str) -> Ed25519PrivateKey:
        """Return the Ed25519 key of this name, made on first use."""
        key = Ed25519PrivateKey.from_private_bytes(self._key("sign", name))
        public = self._path("sign", name, "pub")
        if not public.exists():
            write_once(public, key.public_key().public_bytes_raw())
        return key

    def verifying_key(self, name: str) -> Ed25519PublicKey:
        """Return the public half of the signing key.

        It is derived from the wrapped private key and not read from the ``.pub`` file, which is there to be handed out only: whoever
        can replace an unencrypted file must not be able to replace the key that signatures are checked with.

        Raises:
            KeyMissingError: no signing key of this name was ever made.
        """
        return Ed25519PrivateKey.from_private_bytes(self._key("sign", name, create=False)).public_key()

    def mac_key(self, name: str) -> bytes:
        """Return the MAC key of this name, made on first use."""
        return self._key("mac", name)

    def data_key(self, label: str, *, create: bool = True) -> bytes:
        """Return the data key of this label, made on first use unless ``create`` is false.

        Raises:
            KeyDestroyedError: the key was destroyed; a label is never used again.
            KeyMissingError: there is none and ``create`` is false.
        """
        # Asked each time, before the cache: another process may have destroyed the key since.
        if self.state(label) in {KeyState.DESTROYED, KeyState.DESTROYING}:
            self._cache.pop(("data", label), None)
            raise KeyDestroyedError(f"the data key {label} was destroyed", "What it sealed cannot be read any more; that was the purpose.")
        return self._key("data", label, create=create)

    def destroy(self, label: str) -> None:
        """Destroy the data key of this label for good; repeating it is harmless.

        Raises:
            KeyMissingError: no data key of this label was ever made.
        """
        state = self.state(label)
        if state is KeyState.DESTROYED:
            return
        if state is KeyState.NEVER:
            raise KeyMissingError(f"there is no data key {label}")
        pending = self._path("data", label, "destroying")
        if state is KeyState.ACTIVE:
            # The rename comes first: from here on the key is refused, and a crash leaves a destruction to finish, never a
            # label that looks unused and would get a fresh key.
            self._path("data", label, "key").replace(pending)
            sync_directory(pending.parent)
            faultpoints.reach("keystore.destroy.renamed")
        self._cache.pop(("data", label), None)
        self._finish_destruction(pending)

    def state(self, label: str) -> KeyState:
        """Tell where the data key of this label is in its life."""
        if self._path("data", label, "destroyed").exists():
            return KeyState.DESTROYING if self._path("data", label, "destroying").exists() else KeyState.DESTROYED
        if self._path("data", label, "destroying").exists():
            return KeyState.DESTROYING
        return KeyState.ACTIVE if self._path("data", label, "key").exists() else KeyState.NEVER

    def destroyed_at(self, label: str) -> datetime | None:
        """Return when the data key of this label was destroyed, to the second; None unless that is finished."""
        try:
            text = self._path("data", label, "destroyed").read_text(encoding="ascii")
            return datetime.strptime(text.strip(), "destroyed %Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except (FileNotFoundError, ValueError):
            return None

    def labels(self) -> list[tuple[str, KeyState]]:
        """Return every data key label that ever existed, sorted, with its state."""
        files = (self._directory / "data").iterdir()
        names = {unquote(path.name.rpartition(".")[0]) for path in files if path.suffix in {".key", ".destroying", ".destroyed"}}
        return [(name, self.state(name)) for name in sorted(names)]

    def _finish_destruction(self, pending: Path) -> None:
        """Overwrite the key, leave the marker, then unlink: each step may be repeated."""
        try:
            overwrite(pending)
            faultpoints.reach("keystore.destroy.overwritten")
            write_once(pending.with_suffix(".destroyed"), f"destroyed {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode())
            faultpoints.reach("keystore.destroy.marked")
            pending.unlink()
        except FileNotFoundError:
            return  # another process finished it first
        sync_directory(pending.parent)

    def _path(self, kind: str, label: str, suffix: str) -> Path:
        if not 0 < len(label) <= _MAX_LABEL or not label.isascii() or not label.isprintable():
            raise KeystoreError(f"a key label needs 1 to {_MAX_LABEL} printable ASCII characters")
        return self._directory / kind / f"{quote(label, safe='')}.{suffix}"

    def _key(self, kind: str, label: str, *, create: bool = True) -> bytes:
        if cached := self._cache.get((kind, label)):
            return cached
        path = self._path(kind, label, "key")
        purpose = f"{kind}:{label}"
        if not path.exists():
            if not create:
                raise KeyMissingError(f"there is no key {label}", "Is this the key store that sealed it?")
            write_once(path, self.wrap(purpose, os.urandom(KEY_BYTES)))
        key = self.unwrap(purpose, read_private(path))
        self._cache[(kind, label)] = key
        return key
