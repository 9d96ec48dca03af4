"""What the mark of a staging database amounts to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from obhut.clones.mark import Mark
from obhut.promises.model import State
from obhut.promises.staging import judged

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def _mark(label: str, *, database: str = "shop", review_by: str = "") -> Mark:
    return Mark("run_1", database, NOW, "0/1", "map", label, "people=all,controllers=all", (), NOW, "1:2", "acc-1", review_by)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (_mark("anonymised", review_by="2026-11-23"), State.KEPT),
        (_mark("anonymised", review_by="2026-11-22"), State.UNPROVEN),
        (_mark("deidentified"), State.UNPROVEN),
        (_mark("pseudonymised"), State.BROKEN),
        (_mark("anonymised", database="clinic", review_by="2027-01-01"), State.BROKEN),
    ],
)
def test_only_a_word_that_holds_keeps_the_promise(found: Mark, state: State) -> None:
    """Anonymised until a date that has not passed keeps it; less leaves it unproven; a kept key or another's data breaks it."""
    assert judged(found, "shop", "qa", NOW).state is state
