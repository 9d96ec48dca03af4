"""Instruments: medians, peak memory of a process tree, facts about the machine."""

from __future__ import annotations

import math
import os
import platform
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_INTERVAL = 0.05  # seconds between two looks at the memory of processes


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the result.

    Attributes:
        name: what is compared, stable across versions.
        ratio: Obhut's median by the other side's (for memory: megabytes); not a number where the other side did not run.
        bound: what it must not exceed; None where it is only shown.
        aim: what it should reach.
        ours: seconds of each run of Obhut.
        theirs: seconds of each run of the other side.
        sizes: how much work it was.
        unit: of ``ratio`` and ``bound``.
        curve: what was measured at each size, where the comparison is of sizes.
    """

    name: str
    says: str
    ratio: float
    bound: float | None
    aim: float | None
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    sizes: dict[str, int]
    unit: str = "x"
    curve: tuple[dict[str, float], ...] = ()

    @property
    def missed(self) -> bool:
        """Whether the bound is exceeded."""
        return self.bound is not None and self.ratio > self.bound

    def document(self) -> dict[str, object]:
        """Return the line as it stands in ``build/bench.json``."""
        return {
            "name": self.name,
            "says": self.says,
            "ratio": None if math.isnan(self.ratio) else round(self.ratio, 3),
            "unit": self.unit,
            "bound": self.bound,
            "aim": self.aim,
            "missed": self.missed,
            "sizes": self.sizes,
            "seconds": [round(value, 7) for value in self.ours],
            "seconds_other": [round(value, 7) for value in self.theirs],
            **({"curve": list(self.curve)} if self.curve else {}),
        }


def compare(
    name: str,
    says: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    sizes: dict[str, int],
    *,
    bound: float | None,
    aim: float | None = None,
) -> Comparison:
    """Return the comparison of two series by their medians."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    return Comparison(name, says, ratio, bound, aim, tuple(ours), tuple(theirs), sizes)


def unmeasured(name: str, why: str) -> Comparison:
    """Return the line of a comparison that could not be made: it has no ratio, and misses and keeps nothing."""
    return Comparison(name, why, math.nan, None, None, (), (), {})


class Stopwatch:
    """Seconds of a block; :attr:`seconds` is set when it ends."""

    seconds: float = 0.0

    def __enter__(self) -> Self:
        """Start."""
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self._begun


@dataclass
class Memory:
    """Peak memory, by process, of everything Python that descends from a process."""

    peaks: dict[int, int] = field(default_factory=dict)  # process id: bytes

    @property
    def largest(self) -> int:
        """Peak of the largest process, in bytes."""
        return max(self.peaks.values(), default=0)

    @property
    def together(self) -> int:
        """Highest sum over processes that lived at the same moment, in bytes."""
        return self._together

    _together: int = 0

    def look(self, root: int) -> None:
        """Note what the process and its Python descendants hold now and at most."""
        now = 0
        for pid in _descendants(root):
            peak, current = _resident(pid)
            if peak:
                self.peaks[pid] = max(self.peaks.get(pid, 0), peak)
                now += current
        self._together = max(self._together, now)


def forget_peak() -> None:
    """Let the kernel count this process's peak of memory anew: other parts may have run in it before."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def watched(root: int) -> Iterator[Memory]:
    """Watch the memory of a process and its descendants, servers of PostgreSQL left out, while the block runs."""
    memory, stop = Memory(), threading.Event()

    def watch() -> None:
        while not stop.wait(_INTERVAL):
            memory.look(root)

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        memory.look(root)
        stop.set()
        thread.join(5)


def _descendants(root: int) -> list[int]:
    """Return the process and its descendants as long as they run Python: Obhut's own, and Barman's."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        try:
            program = Path(f"/proc/{pid}/exe").readlink().name
            threads = list(Path(f"/proc/{pid}/task").iterdir())
            children = [(thread / "children").read_text(encoding="ascii") for thread in threads]
        except OSError:
            continue  # it has ended
        if program.startswith("python"):
            found.append(pid)
        waiting.extend(int(child) for line in children for child in line.split())
    return found


def _resident(pid: int) -> tuple[int, int]:
    """Return peak and current resident memory in bytes; zeros when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0, 0
    values = {key: rest for key, _, rest in (line.partition(":") for line in lines)}
    return tuple(int(values[name].split()[0]) * 1024 if name in values else 0 for name in ("VmHWM", "VmRSS"))  # type: ignore[return-value]  # two names


def host() -> dict[str, object]:
    """Return facts about the machine that a reader needs to judge the seconds."""
    memory = next((line for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if line.startswith("MemTotal")), "")
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_mb": int(memory.split()[1]) // 1024 if memory else 0,
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
