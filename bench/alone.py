"""Obhut in a process of its own, with the clock and the look at its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.measure import Stopwatch, watched
from obhut.controllers import register

TIMEOUT = 1_200.0  # seconds that one side may take at the most


def alone(*words: str) -> tuple[str, float, int]:
    """Run :mod:`bench.once`; return what it printed last, seconds from its start to its end, and the peak memory of its largest process.

    Raises:
        RuntimeError: it ended with another status than 0.
    """
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [str(Path(register.__file__).parents[2]), root, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "bench.once", *words]
    with Stopwatch() as watch:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}, cwd=root)
        try:
            with watched(process.pid) as memory:
                said, _ = process.communicate(timeout=TIMEOUT)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
    if process.returncode:
        raise RuntimeError(f"{words[0]} ended with status {process.returncode}")
    return said.strip().splitlines()[-1], watch.seconds, memory.largest
