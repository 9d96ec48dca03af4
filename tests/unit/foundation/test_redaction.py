"""Logs let through what is on the allow-list, and nothing else."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

import pytest
import structlog

from obhut.foundation import redaction
from obhut.foundation.redaction import REDACTED, redact

SECRET = "erika.mustermann@example.org"


@pytest.fixture
def lines():
    """Give a function that returns the lines logged so far as objects."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    redaction.configure(stream=stream, json=True, level=logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    root.handlers, root.level = before, level
    logging.raiseExceptions = True


class Colour(StrEnum):
    """A fixed word."""

    RED = "red"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("run", "run_01jh", "run_01jh"),
        ("table", "public.rental", "public.rental"),
        ("state", Colour.RED, "red"),
        ("rows", 17, 17),
        ("seconds", 1.5, 1.5),
        ("full", True, True),
        ("nothing", None, None),
        ("took", timedelta(hours=1), "PT1H"),
        ("day", date(2026, 3, 1), "2026-03-01"),
        ("at", datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00:00:00.000000Z"),
        ("at", datetime(2026, 3, 1), REDACTED),
        ("name", "Erika", REDACTED),  # a string under a name that is not on the list
        ("anything", "x", REDACTED),
        ("table", SECRET, REDACTED),  # an address under a name that is
        ("table", "line\nbreak", REDACTED),
        ("table", "x" * 201, REDACTED),
        ("key", 4711, REDACTED),  # a subject's key is a number all the same
        ("subject", 4711, REDACTED),
        ("rows", [4711, 4712], REDACTED),  # numbers in a list may be keys
        ("row", {"a": 1}, REDACTED),
        ("rows", b"x", REDACTED),
    ],
)
def test_values_pass_by_name_and_type(key, value, shown):
    """Strings pass under listed names only, numbers under all but names of keys, containers never."""
    assert redact(value, key) == shown


def test_a_record_keeps_its_name_and_allowed_values(lines):
    """An event has a dotted name; sentences in its place are redacted, because sentences get values formatted in."""
    log = structlog.get_logger()
    log.info("restore.streamed", table="public.rental", rows=3, email=SECRET)
    sentence = f"restored {SECRET}"
    log.info(sentence)
    first, second = lines()
    assert (first["event"], first["table"], first["rows"], first["email"], first["level"]) == (
        "restore.streamed",
        "public.rental",
        3,
        REDACTED,
        "info",
    )
    assert second["event"] == REDACTED


def test_an_exception_keeps_type_and_place_only(lines):
    """exc_info leaves the exception's type and the place, not its words."""
    try:
        raise ValueError(SECRET)
    except ValueError:
        structlog.get_logger().error("erase.failed", exc_info=True)
    (line,) = lines()
    assert line["exception"] == "ValueError"
    assert line["place"].startswith("test_redaction.py:")
    assert SECRET not in json.dumps(line)


def test_records_of_other_libraries_lose_their_words(lines):
    """A library's warning keeps level, logger and place; message, arguments and exception text are gone."""
    library = logging.getLogger("procrastinate.worker")
    library.info("starting job with %s", SECRET)
    library.warning("job %s failed", SECRET)
    try:
        raise KeyError(SECRET)
    except KeyError:
        library.exception(f"crashed on {SECRET}")
    library.warning("%d", SECRET)  # a broken format must not print its arguments either
    found = lines()
    assert [line["level"] for line in found] == ["warning", "error", "warning"]
    assert found[0]["logger"] == "procrastinate.worker"
    assert found[1]["exception"] == "KeyError"
    assert SECRET not in json.dumps(found)


def test_the_place_is_where_our_own_code_was():
    """The place names the innermost frame of the package, also when a library raised, at the root of the chain."""
    from obhut.foundation.clock import aware

    with pytest.raises(AttributeError) as own:
        aware(None)  # type: ignore[arg-type]
    assert redaction.place(own.value).startswith("obhut/foundation/clock.py:")
    chained = RuntimeError(SECRET)
    chained.__cause__ = own.value
    assert redaction.place(chained).startswith("obhut/foundation/clock.py:")
    assert redaction.place(RuntimeError(SECRET)) == "unknown"
