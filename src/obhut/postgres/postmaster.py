"""The process behind a data directory: found, signalled and waited for without ever touching somebody else's.

A process id in ``postmaster.pid`` proves nothing: after a crash the number may belong to any process. A postmaster is recognised by
its working directory, which is its data directory, and held by a pid descriptor, so that the number cannot change hands in between.
Linux only: it reads ``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATUS_LINE = 7
_NAMES = {"postgres", "postmaster"}


@dataclass(frozen=True, slots=True)
class Process:
    """A live server process of a data directory, held open until :meth:`close`."""

    pid: int
    descriptor: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that is gone already is no error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def wait(self, timeout: float) -> bool:
        """Return whether the process ended within ``timeout`` seconds."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))

    def close(self) -> None:
        """Let go of the process."""
        os.close(self.descriptor)


def postmaster(data: Path) -> Process | None:
    """Return the running postmaster of a data directory."""
    pid = recorded_pid(data)
    return _hold(pid, data) if pid is not None else None


def recorded_pid(data: Path) -> int | None:
    """Return the process id in ``postmaster.pid``, running or not."""
    lines = _pid_file(data)
    return int(lines[0]) if lines and lines[0].strip().isdigit() and int(lines[0]) > 1 else None


def status(data: Path) -> str:
    """Return the server's word on itself: ``starting``, ``ready``, ``standby``, ``stopping``, or nothing."""
    lines = _pid_file(data)
    return lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else ""


def all_in(data: Path) -> list[Process]:
    """Return every server process that lives in a data directory, the postmaster and backends that outlived one."""
    held = (_hold(int(entry.name), data) for entry in os.scandir(_PROC) if entry.name.isdigit())
    return [process for process in held if process is not None]


def wait_until_gone(data: Path, timeout: float) -> bool:
    """Return whether all server processes of a data directory end within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    gone = True
    for process in all_in(data):
        gone = process.wait(deadline - time.monotonic()) and gone
        process.close()
    return gone


def _hold(pid: int, data: Path) -> Process | None:
    """Open the process if it is a live server process whose working directory is ``data``."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        # The descriptor is taken first: if the checks below still describe the process, they describe the one that is held.
        name = (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        if name in _NAMES and (_PROC / str(pid) / "cwd").samefile(data) and not _ended(descriptor):
            return Process(pid, descriptor)
    except OSError:  # gone, or another account's
        pass
    os.close(descriptor)
    return None


def _ended(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
