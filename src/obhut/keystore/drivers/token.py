"""Keys in a PKCS#11 token, such as a hardware security module: made there, used there, never let out.

A token forgets a key that it destroys. So a public data object of the same name is written before, as a marker: a name that was
destroyed stays destroyed, and a kill between marker and destruction leaves a key that is refused and destroyed by the next call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import TokenSettings
from obhut.keystore.drivers.driver import KeyStatus, Stage, checked_name, checked_plaintext
from obhut.keystore.drivers.libraries import library
from obhut.keystore.drivers.secrets import read_secret
from obhut.keystore.errors import DriverError, KeyDestroyedError, KeyMissingError, KeyWrapError

CREDENTIAL: Final = "obhut-pin"
_APPLICATION: Final = "obhut"
_NONCE_BYTES: Final = 12
_TAG_BITS: Final = 128


class TokenDriver:
    """The driver of one token; a session a call, so that several processes and threads may share it."""

    kind = "pkcs11"
    _lock = threading.Lock()  # a PKCS#11 module is one a process, and so is who is logged in

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._pkcs11: Any = library("pkcs11")

    def create(self, name: str) -> None:
        """Make a key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        attribute = self._pkcs11.Attribute
        with self._session() as session:
            if self._require(session, name, absent=True) is Stage.ACTIVE:
                return
            session.generate_key(
                self._pkcs11.KeyType.AES,
                256,
                label=name,
                store=True,
                template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.ENCRYPT: True, attribute.DECRYPT: True},
            )

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt under the key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        nonce = os.urandom(_NONCE_BYTES)
        with self._session() as session:
            self._require(session, name)
            key = self._keys(session, name)[0]
            return nonce + bytes(
                key.encrypt(checked_plaintext(plaintext), mechanism=self._gcm, mechanism_param=self._bound(nonce, context))
            )

    def unwrap(self, name: str, blob: bytes, context: bytes) -> bytes:
        """Decrypt; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        refused = self._pkcs11.exceptions
        with self._session() as session:
            self._require(session, name)
            bound = self._bound(blob[:_NONCE_BYTES].ljust(_NONCE_BYTES), context)
            for key in self._keys(session, name):
                with suppress(refused.EncryptedDataInvalid, refused.EncryptedDataLenRange, refused.GeneralError, refused.ArgumentsBad):
                    return bytes(key.decrypt(blob[_NONCE_BYTES:], mechanism=self._gcm, mechanism_param=bound))
        raise KeyWrapError("a wrapped key does not open", "Was it wrapped by this key, in this context?")

    def destroy(self, name: str) -> datetime:
        """Destroy the key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        with self._session() as session:
            keys, mark = self._keys(session, name), self._mark(session, name)
            if not keys and mark is None:
                raise KeyMissingError(f"there is no key {name}")
            if mark is None:
                self._set_mark(session, name)
                reach("keystore.pkcs11.marked")
            for key in keys:
                key.destroy()
            return self._mark(session, name) or datetime.now(UTC)

    def state(self, name: str) -> KeyStatus:
        """Tell the state; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        with self._session() as session:
            return self._state(session, name)

    def check(self) -> None:
        """Open the token, log in, and let it make a random number; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        with self._session() as session:
            session.generate_random(64)

    @property
    def _gcm(self) -> Any:
        return self._pkcs11.Mechanism.AES_GCM

    def _bound(self, nonce: bytes, context: bytes) -> Any:
        return self._pkcs11.GCMParams(nonce, context, _TAG_BITS)

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """Give a session that is logged in; errors of the token come without its words, which may name what it was given."""
        pin = read_secret(self._settings.pin_file, CREDENTIAL, "PIN")
        with self._lock:
            try:
                token = self._pkcs11.lib(str(self._settings.module)).get_token(token_label=self._settings.token)
                with token.open(rw=True, user_pin=pin) as session:
                    yield session
            except (self._pkcs11.PKCS11Error, RuntimeError) as error:
                name = type(error).__name__
            else:
                return
        raise DriverError(
            f"the token does not serve ({name})", "Check keystore.pkcs11: the module, the token's label and the file with the PIN."
        )

    def _state(self, session: Any, name: str) -> KeyStatus:
        if (mark := self._mark(session, checked_name(name))) is not None:
            return KeyStatus(Stage.DESTROYED, mark)
        keys = self._keys(session, name)
        if not keys:
            return KeyStatus(Stage.ABSENT)
        if any(key[self._pkcs11.Attribute.EXTRACTABLE] for key in keys):
            raise DriverError("the token lets a key out: it is extractable", "Who put it there? Obhut makes keys that stay.")
        return KeyStatus(Stage.ACTIVE)

    def _require(self, session: Any, name: str, *, absent: bool = False) -> Stage:
        stage = self._state(session, name).stage
        if stage is Stage.DESTROYED:
            raise KeyDestroyedError(f"the key {name} was destroyed", "What it wrapped cannot be read any more; that was the purpose.")
        if stage is Stage.ABSENT and not absent:
            raise KeyMissingError(f"there is no key {name}")
        return stage

    def _keys(self, session: Any, name: str) -> list[Any]:
        """Return the key of this name, or none; two if two processes made it at once, as labels need not be unique."""
        attribute, classes = self._pkcs11.Attribute, self._pkcs11.ObjectClass
        return list(session.get_objects({attribute.CLASS: classes.SECRET_KEY, attribute.LABEL: name}))

    def _mark(self, session: Any, name: str) -> datetime | None:
        attribute, classes = self._pkcs11.Attribute, self._pkcs11.ObjectClass
        wanted = {attribute.CLASS: classes.DATA, attribute.APPLICATION: _APPLICATION, attribute.LABEL: name}
        for found in session.get_objects(wanted):
            return datetime.fromisoformat(bytes(found[attribute.VALUE]).decode())
        return None

    def _set_mark(self, session: Any, name: str) -> None:
        attribute, classes = self._pkcs11.Attribute, self._pkcs11.ObjectClass
        session.create_object(
            {
                attribute.CLASS: classes.DATA,
                attribute.TOKEN: True,
                attribute.PRIVATE: False,
                attribute.APPLICATION: _APPLICATION,
                attribute.LABEL: name,
                attribute.VALUE: datetime.now(UTC).isoformat(timespec="seconds").encode(),
            }
        )
