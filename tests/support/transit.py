"""A transit engine for tests, written from Vault's and OpenBao's API documentation: what Obhut's driver calls, with the states that matter.

Documented behaviour that is kept, because a driver could trip over it:

- `POST keys/:name` makes a key; on one that exists it changes nothing. `exportable` and `allow_plaintext_backup` cannot be taken back.
- `POST encrypt/:name` makes the key when there is none (an upsert, for a token that may create).
- `DELETE keys/:name` is refused until `keys/:name/config` has set `deletion_allowed`.
- A deleted key is forgotten: `GET` gives 404, and its ciphertexts do not open under a new key of the same name.
- A wrong token gives 403, a sealed server 503, a ciphertext that does not open 400.
- A path holds letters, digits, underscores, dots and hyphens only; anything else is 404.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.test-token"
_NAME = re.compile(r"\w(?:[\w.-]*\w)?")


@dataclass
class Transit:
    """The engine's state.

    Attributes:
        url: where it listens.
        sealed: whether it serves.
        keys: by name.
        calls: method and path of every call.
    """

    url: str = ""
    sealed: bool = False
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str, values: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        """Return status and data."""
        self.calls.append(f"{method} {path}")
        if path == "/v1/sys/health":
            return (503 if self.sealed else 200), None
        if self.sealed:
            return 503, None
        if token != TOKEN:
            return 403, None
        match path.removeprefix("/v1/transit/").split("/"):
            case ["keys", name] if _NAME.fullmatch(name):
                return self._key(method, name, values)
            case ["keys", name, "config"] if method == "POST" and name in self.keys:
                self.keys[name].update(values)
                return 200, None
            case ["encrypt", name] if method == "POST" and _NAME.fullmatch(name):
                self._make(name, values)
                return 200, {"ciphertext": self._encrypt(name, values)}
            case ["decrypt", name] if method == "POST" and name in self.keys:
                return self._decrypt(name, values)
            case _:
                return 404, None

    def _key(self, method: str, name: str, values: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        if method == "POST":
            self._make(name, values)
            return 200, None
        if name not in self.keys:
            return 404, None
        if method == "DELETE":
            if not self.keys[name].get("deletion_allowed"):
                return 400, None
            del self.keys[name]
            return 204, None
        return 200, {key: value for key, value in self.keys[name].items() if key != "secret"}

    def _make(self, name: str, values: dict[str, Any]) -> None:
        given = {key: bool(values.get(key)) for key in ("exportable", "allow_plaintext_backup")}
        made = {"type": "aes256-gcm96", "deletion_allowed": False, "keys": {"1": int(time.time())}, "secret": os.urandom(32), **given}
        self.keys.setdefault(name, made)

    def _encrypt(self, name: str, values: dict[str, Any]) -> str:
        nonce = os.urandom(12)
        text = AESGCM(self.keys[name]["secret"]).encrypt(nonce, base64.b64decode(values["plaintext"]), _bound(values))
        return "vault:v1:" + base64.b64encode(nonce + text).decode()

    def _decrypt(self, name: str, values: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        try:
            content = base64.b64decode(values["ciphertext"].removeprefix("vault:v1:"), validate=True)
            plain = AESGCM(self.keys[name]["secret"]).decrypt(content[:12], content[12:], _bound(values))
        except (InvalidTag, ValueError):
            return 400, None
        return 200, {"plaintext": base64.b64encode(plain).decode()}


def _bound(values: dict[str, Any]) -> bytes:
    return base64.b64decode(values.get("associated_data", ""))


@contextmanager
def serving() -> Iterator[Transit]:
    """Give an engine that listens on this machine."""
    engine = Transit()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            values = json.loads(self.rfile.read(length) or b"{}")
            status, data = engine.answer(self.command, self.path, self.headers.get("X-Vault-Token", ""), values)
            body = b"" if data is None else json.dumps({"data": data}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - names of the standard library

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    engine.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
