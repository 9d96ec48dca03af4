"""A club whose server neither vacuums by itself nor keeps WAL files for reuse, so that each test decides what is cleaned when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.club import installed_club
from support.installation import Installation
from support.studio import Club, opened


@pytest.fixture(scope="package")
def installed() -> Iterator[Installation]:
    """Give the club for all tests of this folder."""
    with installed_club(studios={}, prefix="obhut-z") as installation:
        for setting in ("autovacuum = off", "wal_recycle = off"):
            installation.sql(f"ALTER SYSTEM SET {setting}")
        installation.sql("SELECT pg_reload_conf()")
        yield installation


@pytest.fixture
def club(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Club]:
    """Give the club with a new studio; nothing waits for a snapshot of a test for long."""
    monkeypatch.setattr("obhut.finality.clean.CONCURRENT_PATIENCE", "2s")
    with opened(installed) as club:
        yield club
