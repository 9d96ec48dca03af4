"""When a proof holds."""

from __future__ import annotations

import pytest

from obhut.restores.absence import Absence
from obhut.restores.prove import Proof, Result, Statement, _absence


@pytest.mark.parametrize(
    ("absences", "listed", "result"),
    [
        ([], False, Result.PASSED),
        ([], True, Result.UNCHECKED),
        ([Absence("public.person", "rows of the participant", 0, 0)], True, Result.UNCHECKED),
        ([Absence("public.person", "rows of the participant", 2, 0)], True, Result.PASSED),
        ([Absence("public.person", "rows of the participant", 2, 1)], True, Result.FAILED),
    ],
)
def test_absence_needs_a_question_where_somebody_is_listed(absences, listed, result):
    """Without a question about anybody, the absence of listed people is unchecked, and then the proof does not hold."""
    made = _absence(absences, listed=listed)
    assert made.result is result
    proof = Proof(1, (Statement("figures", Result.PASSED), made), (), (), ())
    assert proof.holds is (result is Result.PASSED)
