"""Faults: kill processes, damage files, fill disks, then look at what is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.lost import Lost, lost_clinic


@pytest.fixture(scope="session")
def lost() -> Iterator[Lost]:
    """Give one backed-up clinic to all fault tests of restores; whoever damages something puts it right again."""
    with lost_clinic() as made:
        yield made
