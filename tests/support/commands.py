"""The command line in a process of its own, as a person or a script runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import obhut
from support.forkserver import ForkServer

SOURCE = Path(obhut.__file__).parent.parent
PATIENCE = 180.0  # seconds for one command; a command that hangs fails its test
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Result:
    """What a command said and how it ended."""

    arguments: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def document(self) -> Any:
        """The JSON document; the command has printed exactly one."""
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The stable code of the error, or "" when there is none."""
        try:
            found = self.document
        except ValueError:
            return ""
        return found["error"]["code"] if isinstance(found, dict) and "error" in found else ""

    @property
    def said(self) -> str:
        """Everything that reached the terminal."""
        return self.stdout + self.stderr

    def __str__(self) -> str:
        return f"obhut {' '.join(self.arguments)} -> {self.status} after {self.seconds:.1f} s\n{self.stdout[-3000:]}\n{self.stderr[-3000:]}"


@dataclass
class Commands:
    """Runs commands with one settings file.

    Attributes:
        config: the settings file.
        log: every result of this installation, for the scan of what was said.
    """

    config: Path
    log: list[Result] = field(default_factory=list)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a command: nothing of the caller's Obhut settings."""
        return {**_bare(), **(extra or {})}

    def line(self, arguments: Sequence[object]) -> list[str]:
        """Return the command line of a command with ``--json``."""
        return [sys.executable, "-m", "obhut.cli.main", "--config", str(self.config), "--json", *map(str, arguments)]

    def run(self, *arguments: object, env: Mapping[str, str] | None = None, patience: float = PATIENCE, stdin: str = "") -> Result:
        """Run a command to its end, whatever that is."""
        begun = time.monotonic()
        # Output goes to files: a server that the command leaves running may inherit a pipe, and reading to its end would wait for it.
        with (
            (self.config.parent / "stdout").open("w+") as out,
            (self.config.parent / "stderr").open("w+") as err,
            tempfile.TemporaryFile("w+") as given,
        ):
            given.write(stdin)
            given.seek(0)
            files = [file.fileno() for file in (given, out, err)]
            status = _server().run(self.line(arguments)[3:], self.environment(env), files, patience)
            out.seek(0)
            err.seek(0)
            result = Result(tuple(map(str, arguments)), status, out.read(), err.read(), time.monotonic() - begun)
        self.log.append(result)
        return result

    def __call__(self, *arguments: object, env: Mapping[str, str] | None = None, patience: float = PATIENCE, stdin: str = "") -> Any:
        """Run a command that has to succeed and return its document."""
        result = self.run(*arguments, env=env, patience=patience, stdin=stdin)
        assert result.status == 0, str(result)
        return result.document

    def refused(self, *arguments: object, code: str | Sequence[str] | None = None, status: int | None = None, **options: Any) -> Result:
        """Run a command that has to fail with a stable code and exit status; nothing of a traceback may show."""
        result = self.run(*arguments, **options)
        assert result.status not in {0, KILLED}, str(result)
        assert "Traceback" not in result.said, str(result)
        assert "unexpected " not in result.document["error"]["fact"], str(result)
        if code is not None:
            assert result.error in ({code} if isinstance(code, str) else set(code)), str(result)
        if status is not None:
            assert result.status == status, str(result)
        return result

    def killed_at(self, name: str, *arguments: object, **options: Any) -> Result:
        """Run a command that dies by SIGKILL at a fault point."""
        result = self.run(*arguments, env={"OBHUT_DIE_AT": name}, **options)
        assert result.status == KILLED, f"the command did not reach {name}: {result}"
        return result

    def begin(self, *arguments: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command and return its process; the caller waits for it."""
        return subprocess.Popen(
            self.line(arguments),
            env=self.environment(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _bare() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OBHUT_", "PG"))}
    return {**kept, "PYTHONPATH": str(SOURCE), "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}


@lru_cache(maxsize=1)
def _server() -> ForkServer:
    return ForkServer(_bare())


def children(pid: int) -> dict[int, str]:
    """Return the living descendants of a process with the base names of their programs."""
    by_parent: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        rest = stat.rpartition(")")[2].split()
        if rest[0] != "Z":
            by_parent.setdefault(int(rest[1]), []).append((int(entry.name), _program(words)))
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        for child, name in by_parent.get(todo.pop(), []):
            found[child] = name
            todo.append(child)
    return found


def _program(words: list[bytes]) -> str:
    names = [Path(word.decode(errors="replace")).name for word in words if word]
    if not names:
        return ""
    # A program that Python runs is known by the script's name.
    return next((name for name in names[1:3] if name and not name.startswith("-")), names[0]) if names[0].startswith("python") else names[0]
