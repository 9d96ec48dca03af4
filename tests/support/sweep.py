"""Runs one case for each fault point and tells of all that failed, not of the first only."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def names_of(run: Callable[[dict[str, str]], object]) -> list[str]:
    """Return the fault points that a clean run reaches, in order and each once.

    Args:
        run: carries the clean run out with these additional variables of the environment.
    """
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        run({"OBHUT_TRACE_FAULTPOINTS": str(trace)})
        names = list(dict.fromkeys(trace.read_text(encoding="utf-8").split()))
    assert names, "the run reached no fault point, so nothing would be tested"
    return names


def sweep(names: Iterable[str], case: Callable[[str], None]) -> None:
    """Run the case for each name; an assertion that fails does not keep the others from running."""
    failed: list[str] = []
    tried = 0
    for name in names:
        tried += 1
        try:
            case(name)
        except AssertionError as error:
            failed.append(f"--- {name}\n{error}")
    assert tried, "nothing was tried"
    assert not failed, f"{len(failed)} of {tried} cases failed\n" + "\n".join(failed)
