"""A club with its control database, in this process; each test has a studio of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.club import installed_club
from support.installation import Installation
from support.studio import Club, opened


@pytest.fixture(scope="package")
def installed() -> Iterator[Installation]:
    """Give the club for all tests of this folder."""
    with installed_club(studios={}) as installation:
        yield installation


@pytest.fixture
def club(installed: Installation) -> Iterator[Club]:
    """Give the club with a new studio that has instructed everything and has no rule yet."""
    with opened(installed) as club:
        yield club
