"""Which process carries out a run, told apart from any other that gets the same number later."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """A process by boot of the machine, process namespace, number and start time."""

    boot_id: str
    pid: int
    pid_started: int

    @property
    def here(self) -> bool:
        """Whether the number means something to this process: same boot, same namespace of process numbers."""
        return self.boot_id == _boot_id()

    @property
    def alive(self) -> bool:
        """Whether the process lives; only meaningful if :attr:`here`."""
        return self.here and _started(self.pid) == self.pid_started


def myself() -> Owner:
    """Return this process."""
    return Owner(_boot_id(), os.getpid(), _started(os.getpid()) or 0)


@cache
def _boot_id() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink().name.removeprefix('pid:')}"


def _started(pid: int) -> int | None:
    """Return the start time of a live process in clock ticks since boot; a zombie does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # After the name in parentheses (which may hold anything): state is the first field, start time the twentieth.
    return None if fields[0] in {"Z", "X"} else int(fields[19])
