"""What holds for every tier: a run that tests nothing fails, and each test starts without the caller's Obhut settings."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from obhut.foundation import language

_RAN: list[str] = []
_LONGEST_FIRST = {"faults": 0, "journeys": 1, "properties": 2}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the caller's settings file, moved clock, fault points and language out of the tests."""
    for variable in ("OBHUT_CONFIG", "OBHUT_CLOCK_OFFSET", "OBHUT_DIE_AT", "OBHUT_TRACE_FAULTPOINTS"):
        monkeypatch.delenv(variable, raising=False)
    language.use(language.Language.ENGLISH)  # a command that an earlier test ran in this process may have set it
    return


def pytest_configure(config: pytest.Config) -> None:
    """Speak English whatever the machine speaks; session fixtures and child processes inherit it."""
    os.environ["LC_ALL"] = "C.UTF-8"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes minutes first, so that the workers end together and none waits for the last file of another."""
    items.sort(key=lambda item: _LONGEST_FIRST.get(item.path.parent.name, len(_LONGEST_FIRST)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the tests that were really executed; a skipped one was not."""
    if report.when == "call" and not report.skipped:
        _RAN.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which nothing ran: testing nothing proves nothing."""
    if (
        not _RAN
        and not session.config.option.collectonly
        and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    ):
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            reporter.write_line("no test ran: that is a failure")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
