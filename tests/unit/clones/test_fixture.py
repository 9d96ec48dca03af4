"""The order in which a fixture fills tables, and whose word lets it be written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from obhut.clones.errors import CloneNotAnonymousError
from obhut.clones.fixture import groups, require_word
from obhut.clones.mark import Mark

SIGNED = Mark(
    "run_1", "shop", datetime(2026, 1, 1, tzinfo=UTC), "0/1", "abc", "anonymised", "people=all", (), datetime(2026, 1, 1, tzinfo=UTC), "1:2", "acc-1",
    "2026-06-30",
)  # fmt: skip


def _catalogue(keys: str) -> Any:
    """Give tables named by letters; ``ab`` says that a references b."""
    names = sorted({letter for key in keys.split() for letter in key})
    tables = {number: SimpleNamespace(oid=number, full_name=f"public.{name}") for number, name in enumerate(names)}
    oid = {name: number for number, name in enumerate(names)}
    pairs = [SimpleNamespace(table=oid[key[0]], references=oid[key[-1]]) for key in keys.split()]
    return SimpleNamespace(tables=tables, foreign_keys=pairs, root=lambda number: tables[number])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("ba ca cb", ["a", "b", "c"]),
        ("ab bc", ["c", "b", "a"]),
        ("aa ba", ["a", "b"]),
        ("ab ba ca dc", ["ab", "c", "d"]),
        ("ab bc ca dd xa", ["d", "abc", "x"]),
        ("ab cd dc ca", ["b", "a", "cd"]),
    ],
)
def test_parents_come_first_and_circles_together(keys: str, expected: list[str]) -> None:
    """A table follows what it references; those that reference each other are one group; equal ranks go by name."""
    catalogue = _catalogue(keys)
    found = ["".join(table.full_name[-1] for table in group) for group in groups(catalogue, catalogue.tables)]
    place = {letter: index for index, group in enumerate(found) for letter in group}
    assert sorted(found) == sorted(expected)
    assert all(place[key[-1]] <= place[key[0]] for key in keys.split())
    assert found == ["".join(table.full_name[-1] for table in group) for group in groups(catalogue, reversed(catalogue.tables))]


def test_only_a_word_that_holds_lets_rows_out() -> None:
    """Deidentified, unsigned, or past its review: refused. On the day of the review it still holds."""
    require_word(SIGNED, date(2026, 6, 30))
    for bad, day in (
        (SIGNED, date(2026, 7, 1)),
        (replace(SIGNED, label="deidentified"), date(2026, 1, 1)),
        (replace(SIGNED, signed_by=""), date(2026, 1, 1)),
        (replace(SIGNED, review_by=""), date(2026, 1, 1)),
    ):
        with pytest.raises(CloneNotAnonymousError):
            require_word(bad, day)
