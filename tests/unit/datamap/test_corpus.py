"""Discovery on the labelled columns of public schemas: names alone, against bounds below what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from bench import corpus  # noqa: E402 - the benchmark is no package of the product
from bench.discovery import Score, ours, score  # noqa: E402

from obhut.datamap import vocabulary  # noqa: E402


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    """Give the score on each schema."""
    found = {}
    for name in corpus.names():
        one = corpus.read(name)
        found[name] = score("obhut", name, one.labels, *ours(one.catalogue))
    return found


def test_labels_are_categories_of_the_taxonomy() -> None:
    """Each label is a category that a map may use, and each schema has personal columns and others."""
    for name in corpus.names():
        labels = corpus.read(name).labels.values()
        assert {label.category for label in labels if label.category} <= vocabulary.categories()
        assert any(label.category and not label.open for label in labels)
        assert any(label.category is None for label in labels)


def test_personal_columns_are_told_from_others(scores: dict[str, Score]) -> None:
    """Over all schemas F1 stays above 0.93 and the category is right in nine of ten; few personal columns are called harmless."""
    first, *rest = scores.values()
    total = sum(rest, start=first)
    assert total.f1 > 0.93
    assert total.category / total.right > 0.9
    assert total.silent / (total.right + total.missed) < 0.05


@pytest.mark.parametrize("name", corpus.names())
def test_no_schema_falls_behind(name: str, scores: dict[str, Score]) -> None:
    """On each schema nine of ten proposals are right or nearly so, and hardly any personal column is called harmless."""
    found = scores[name]
    assert found.precision > 0.8
    assert found.silent <= max(3, 0.12 * (found.right + found.missed))
