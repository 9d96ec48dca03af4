"""Starts commands as forks of an interpreter that has the libraries loaded already: loading them takes longer than most commands.

A command is a process of its own all the same: own memory, environment, directory and descriptors; it runs ``main``, leaves through the
interpreter's normal end, and dies of a signal alone. Only what the interpreter reads when it starts is the server's. One server serves one
test process and ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

_LIBRARIES = (
    "psycopg", "django.db.models", "django.core.management", "django.db.migrations.executor", "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.asymmetric.ed25519", "cryptography.hazmat.primitives.kdf.scrypt", "yaml", "pydantic", "pyroaring", "rich.table",
    "rich.progress", "structlog", "jsonschema",
)  # fmt: skip
_READY = b"ready\n"


class ForkServer:
    """The side of the tests."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="obhut-fork-")
        self.path = f"{self._folder.name}/s"
        line = [sys.executable, "-m", "support.forkserver", self.path]
        path = os.pathsep.join([environment["PYTHONPATH"], str(Path(__file__).parent.parent)])
        # Its input is never written to: that it closes tells the server that the tests have ended.
        self._process = subprocess.Popen(
            line, env={**environment, "PYTHONPATH": path}, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == _READY, "the fork server did not start"
        atexit.register(self._close)

    def _close(self) -> None:
        self._process.communicate(timeout=10)
        self._folder.cleanup()

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int], patience: float) -> int:
        """Run a command and return its status as :mod:`subprocess` gives it, negative for a signal.

        Args:
            arguments: without the program.
            environment: all of it.
            descriptors: standard input, output and error.
            patience: seconds; then the command is killed.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self.path)
            request = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
            socket.send_fds(line, [len(request).to_bytes(4, "big")], list(descriptors))
            line.sendall(request)
            answers = line.makefile("r")
            number = int(answers.readline())
            line.settimeout(patience)
            try:
                return int(answers.readline())
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), patience) from None


def _serve(path: str) -> None:
    main = import_module("obhut.cli.main")
    nouns = sorted(file.stem for file in Path(str(main.__file__)).parent.glob("[a-z]*.py"))
    for name in (*_LIBRARIES, *(f"obhut.cli.{noun}" for noun in nouns)):
        with contextlib.suppress(ImportError):  # a library that nobody uses any more
            import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the minders
        sys.stdout.buffer.write(_READY)
        sys.stdout.flush()
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                return
            line, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _mind(line)
                return
            line.close()


def _mind(line: socket.socket) -> None:
    """Run one command in a child, and tell its number and then its status."""
    size, descriptors, _, _ = socket.recv_fds(line, 4, 3)
    request = json.loads(line.makefile("rb").read(int.from_bytes(size, "big")))
    number = os.fork()
    if number == 0:
        line.close()
        _become(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    line.sendall(b"%d\n" % number)
    _, status = os.waitpid(number, 0)
    with contextlib.suppress(BrokenPipeError):
        line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: Mapping[str, object], descriptors: Sequence[int]) -> None:
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    arguments, environment = request["arguments"], request["environment"]
    assert isinstance(arguments, list) and isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    faultpoints = import_module("obhut.foundation.faultpoints")  # the one module that reads its variables when it is loaded
    faultpoints._DIE_AT, faultpoints._TRACE = environment.get("OBHUT_DIE_AT"), environment.get("OBHUT_TRACE_FAULTPOINTS")
    sys.argv = ["obhut", *arguments]
    sys.exit(import_module("obhut.cli.main").main())


if __name__ == "__main__":
    _serve(sys.argv[1])
