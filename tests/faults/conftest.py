"""Faults: kill processes, damage files, fill disks, then look at what is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.lost import Lost, lost_clinic


@pytest.fixture(scope="session")
def lost() -> Iterator[Lost]:
    """Give one backed-up clinic to all fault tests of restores; whoever damages something puts it right again.

    Once a test has opened a restored database, the clinic's production is superseded: nobody is erased and no canary is planted there.
    """
    with lost_clinic() as made:
        yield made


@pytest.fixture
def fresh() -> Iterator[Lost]:
    """Give a clinic of its own to a test that needs a production in use and its canary alive."""
    with lost_clinic() as made:
        yield made
