"""How rows travel."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from obhut.restores import streams


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["integer", "text", "oid"], False),
        (["integer", "regclass"], True),
        (["regprocedure[]"], True),
    ],
)
def test_types_that_hold_an_oid_and_show_a_name_travel_as_text(types, expected):
    """One such column makes the whole table travel as text: in the binary form its oid would mean another object."""
    columns = [SimpleNamespace(base_type=kind, is_generated=False) for kind in types]
    assert streams.as_text(SimpleNamespace(columns=columns)) is expected
