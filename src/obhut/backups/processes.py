"""Child processes that can be ended as a whole, also after this process was killed.

Every engine program runs in a process group of its own with a random token in its environment, recorded in a file. A later run ends
what is left by the token alone: process ids are reused, tokens are not, so a stranger's process is never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

_TOKEN: Final = "OBHUT_GROUP"  # noqa: S105 - the name of a variable


_detached: list[subprocess.Popen[bytes]] = []


@dataclass(slots=True)
class Child:
    """A running program with everything it started."""

    process: subprocess.Popen[bytes]
    record: Path
    token: str

    @property
    def running(self) -> bool:
        """Whether the program itself still runs."""
        return self.process.poll() is None

    def wait(self, timeout: float | None) -> int:
        """Wait for the program and return its exit status (negative: the signal).

        Raises:
            subprocess.TimeoutExpired: after ``timeout`` seconds.
        """
        return self.process.wait(timeout)

    def detach(self) -> None:
        """Let the program outlive this process; :func:`sweep` ends it."""
        _detached.append(self.process)

    def end(self, grace: float = 5.0) -> None:
        """End the whole group: SIGTERM, after ``grace`` seconds SIGKILL; returns when nothing of it is left."""
        signal_all(self.token, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and (self.running or members(self.token)):
            time.sleep(0.02)
        kill_all(self.token)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.record.unlink(missing_ok=True)


def start(command: Sequence[str], *, env: Mapping[str, str], record: Path, output: IO[bytes] | int = subprocess.DEVNULL) -> Child:
    """Start a program in a process group of its own.

    Args:
        command: program and arguments; visible to every user of the machine, so never a value.
        env: the whole environment.
        record: file that remembers the group for :func:`sweep`.
        output: where its standard output and error go.
    """
    token = secrets.token_hex(16)
    # Recorded before the start: a kill in between leaves a record of nothing, never a group without a record.
    temporary = record.with_name(f".{record.name}.tmp")
    temporary.write_text(json.dumps({"token": token}), encoding="utf-8")
    temporary.rename(record)
    process = subprocess.Popen(
        list(command),
        env={**env, _TOKEN: token},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        start_new_session=True,
        umask=0o077,
    )
    return Child(process, record, token)


def sweep(directory: Path, *, only: str | None = None) -> int:
    """End every recorded group that has outlived its starter; returns how many processes were ended.

    Args:
        directory: where the records lie.
        only: the one record to look at; None: all.
    """
    ended = 0
    for record in directory.glob(only or "*"):
        if record.name.startswith("."):
            record.unlink(missing_ok=True)
            continue
        try:
            token = str(json.loads(record.read_text(encoding="utf-8"))["token"])
        except (OSError, ValueError, KeyError):
            record.unlink(missing_ok=True)
            continue
        ended += kill_all(token)
        record.unlink(missing_ok=True)
    _detached[:] = [process for process in _detached if process.poll() is None]
    return ended


def alive(record: Path) -> bool:
    """Whether anything of a recorded group lives."""
    try:
        return bool(members(str(json.loads(record.read_text(encoding="utf-8"))["token"])))
    except (OSError, ValueError, KeyError):
        return False


def members(token: str) -> list[int]:
    """Return the processes that carry a token."""
    wanted = f"{_TOKEN}={token}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and wanted in _environment(int(entry.name)):
            found.append(int(entry.name))
    return found


def signal_all(token: str, number: signal.Signals) -> int:
    """Send a signal to the processes that carry a token; returns how many there were."""
    sent = 0
    for pid in members(token):
        # A descriptor of the process first, then a second look: between listing and signalling the number may change hands.
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if f"{_TOKEN}={token}".encode() in _environment(pid):
                signal.pidfd_send_signal(descriptor, number)
                sent += 1
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)
    return sent


def kill_all(token: str, patience: float = 10.0) -> int:
    """Kill the processes that carry a token, and those they start meanwhile; returns how many there were."""
    ended = 0
    deadline = time.monotonic() + patience
    while (sent := signal_all(token, signal.SIGKILL)) and time.monotonic() < deadline:
        ended += sent
        time.sleep(0.02)
    return ended


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - a path object for each process is slow
            return file.read().split(b"\0")
    except OSError:
        return []
