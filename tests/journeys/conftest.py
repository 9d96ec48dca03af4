"""Journeys: one promise from end to end, through the command line, on real servers."""

from __future__ import annotations

import pytest
from support import samples

_NOT_RUN: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Know the marker of tests on sample data from elsewhere."""
    config.addinivalue_line("markers", "samples: needs sample data that is never committed (OBHUT_SAMPLES)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests on missing sample data out, aloud; where they are required, they stay and fail."""
    if samples.present() or samples.required():
        return
    left_out = [item for item in items if item.get_closest_marker("samples")]
    if left_out:
        _NOT_RUN.extend(item.nodeid for item in left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("samples")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what did not run and where the data comes from."""
    if _NOT_RUN:
        terminalreporter.write_line(samples.absence(len(_NOT_RUN)), yellow=True)
