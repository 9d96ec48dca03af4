"""Sample data from elsewhere: where it lies, and what happens where it is missing."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
VARIABLE = "OBHUT_SAMPLES"
REQUIRED = "OBHUT_SAMPLES_REQUIRED"
WHERE = "github.com/xzilla/pagila, version 17.a: pagila-schema.sql and pagila-data.sql in a folder pagila"


def folder() -> Path:
    """Return the folder of all samples: ``OBHUT_SAMPLES``, by default ``../shared/data`` beside the checkout."""
    return Path(os.environ.get(VARIABLE) or ROOT.parent / "shared" / "data")


def pagila() -> Path:
    """Return the folder of the Pagila sample."""
    return folder() / "pagila"


def present() -> bool:
    """Whether the sample is there."""
    return all((pagila() / name).is_file() for name in ("pagila-schema.sql", "pagila-data.sql"))


def required() -> bool:
    """Whether a run without the sample has to fail: in CI, and wherever it is asked for."""
    return any(os.environ.get(name, "").lower() not in {"", "0", "false", "no"} for name in ("CI", REQUIRED))


def absence(count: int) -> str:
    """Return the one line that says what did not run."""
    return f"{count} tests on sample data did not run: no {pagila()}; it comes from {WHERE}, and {VARIABLE} names the folder above"
