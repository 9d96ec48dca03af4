"""Keys in the transit engine of Vault or OpenBao, over HTTP.

The engine forgets a key that it deletes, and makes a new one of the same name when somebody encrypts under it. So a marker, a key of its
own that is never used, is made before the deletion, and every call asks for key and marker first: a destroyed name stays destroyed.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import TransitSettings
from obhut.keystore.drivers.driver import KeyStatus, Stage, checked_name, checked_plaintext
from obhut.keystore.drivers.secrets import read_secret
from obhut.keystore.errors import DriverError, KeyDestroyedError, KeyMissingError, KeyWrapError

CREDENTIAL: Final = "obhut-transit"
_TIMEOUT: Final = 10.0  # seconds
_MARK: Final = ".destroyed-by-obhut"
_TYPE: Final = "aes256-gcm96"


class _Answer(NamedTuple):
    status: int
    data: dict[str, Any]


class TransitDriver:
    """The driver of one transit engine."""

    kind = "transit"

    def __init__(self, settings: TransitSettings) -> None:
        self._settings = settings
        parts = urlsplit(settings.url)
        self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        self._path = parts.path.rstrip("/")
        self._tls = ssl.create_default_context(cafile=settings.ca_file) if self._secure else None

    def create(self, name: str) -> None:
        """Make a key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        if self._require(name, absent=True) is Stage.ABSENT:
            self._make(_path(name))

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt under the key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        self._require(name)
        values = {"plaintext": _text(checked_plaintext(plaintext)), "associated_data": _text(context)}
        return str(self._done("POST", f"encrypt/{_path(name)}", values)["ciphertext"]).encode()

    def unwrap(self, name: str, blob: bytes, context: bytes) -> bytes:
        """Decrypt; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        self._require(name)
        if not re.fullmatch(rb"vault:v[0-9]+:[A-Za-z0-9+/=]+", blob):
            raise KeyWrapError("a wrapped key does not open", "It is none of this engine's.")
        values = {"ciphertext": blob.decode(), "associated_data": _text(context)}
        answer = self._ask("POST", f"decrypt/{_path(name)}", values)
        if answer.status == http.client.BAD_REQUEST:
            raise KeyWrapError("a wrapped key does not open", "Was it wrapped by this key, in this context?")
        return base64.b64decode(_good(answer)["plaintext"])

    def destroy(self, name: str) -> datetime:
        """Destroy the key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        path = _path(name)
        key, mark = self._look(path), self._look(path + _MARK)
        if key is None and mark is None:
            raise KeyMissingError(f"there is no key {name}")
        if mark is None:
            self._make(path + _MARK)
            reach("keystore.transit.marked")
        if key is not None:
            self._done("POST", f"keys/{path}/config", {"deletion_allowed": True})
            self._done("DELETE", f"keys/{path}")
        return self.state(name).final_on or datetime.now(UTC)

    def state(self, name: str) -> KeyStatus:
        """Tell the state; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        path = _path(name)
        mark = self._look(path + _MARK)
        if mark is not None:
            return KeyStatus(Stage.DESTROYED, _made_at(mark))
        key = self._look(path)
        if key is None:
            return KeyStatus(Stage.ABSENT)
        if key.get("exportable") or key.get("allow_plaintext_backup"):
            raise DriverError(
                "the transit engine lets a key out: it is exportable or allows plaintext backups", "Who changed its configuration?"
            )
        return KeyStatus(Stage.ACTIVE)

    def check(self) -> None:
        """Ask whether the engine is unsealed and lets this token in; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        health = self._ask("GET", "/v1/sys/health")
        if health.status not in {http.client.OK, http.client.TOO_MANY_REQUESTS}:  # 429: a standby that forwards
            raise DriverError(f"the transit engine does not serve (HTTP {health.status})", "Is it sealed, or not initialised?")
        self._look("obhut-check")

    def _require(self, name: str, *, absent: bool = False) -> Stage:
        stage = self.state(name).stage
        if stage is Stage.DESTROYED:
            raise KeyDestroyedError(f"the key {name} was destroyed", "What it wrapped cannot be read any more; that was the purpose.")
        if stage is Stage.ABSENT and not absent:
            raise KeyMissingError(f"there is no key {name}")
        return stage

    def _make(self, path: str) -> None:
        self._done("POST", f"keys/{path}", {"type": _TYPE, "exportable": False, "allow_plaintext_backup": False})

    def _look(self, path: str) -> dict[str, Any] | None:
        answer = self._ask("GET", f"keys/{path}")
        return None if answer.status == http.client.NOT_FOUND else _good(answer)

    def _done(self, method: str, path: str, values: Mapping[str, object] | None = None) -> dict[str, Any]:
        return _good(self._ask(method, path, values))

    def _ask(self, method: str, path: str, values: Mapping[str, object] | None = None) -> _Answer:
        token = read_secret(self._settings.token_file, CREDENTIAL, "token")
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._settings.namespace:
            headers["X-Vault-Namespace"] = self._settings.namespace
        place = self._path + (path if path.startswith("/") else f"/v1/{self._settings.mount}/{path}")
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT, context=self._tls)
            if self._secure
            else http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        )
        try:
            connection.request(method, place, None if values is None else json.dumps(values), headers)
            answer = connection.getresponse()
            body = answer.read()
            data = json.loads(body).get("data") if body else None
            return _Answer(answer.status, data or {})
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            # The cause is cut off: a server's text may quote what it was sent.
            raise DriverError("the transit engine does not answer", "Check keystore.transit.url, and that the server runs.") from None
        finally:
            connection.close()


def _good(answer: _Answer) -> dict[str, Any]:
    if answer.status == http.client.FORBIDDEN:
        raise DriverError(
            "the transit engine does not let the token in", "Has it expired? It needs a policy for keys, encrypt and decrypt."
        )
    if answer.status >= http.client.BAD_REQUEST:
        raise DriverError(f"the transit engine refused a call (HTTP {answer.status})", "Its audit log says why.")
    return answer.data


def _path(name: str) -> str:
    """Return the name as the engine takes it: letters, digits, underscores, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: f".{ord(found[0]):02x}", checked_name(name))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _made_at(key: dict[str, Any]) -> datetime:
    made = key.get("keys", {}).get("1")
    moment = made.get("creation_time") if isinstance(made, dict) else made
    if isinstance(moment, int):
        return datetime.fromtimestamp(moment, UTC)
    return datetime.fromisoformat(moment) if isinstance(moment, str) else datetime.now(UTC)
