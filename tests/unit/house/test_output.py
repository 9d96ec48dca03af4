"""What a command prints: tables, one JSON document, progress that is quiet where nobody watches."""

from __future__ import annotations

import enum
import io
import json
import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from obhut.cli.exits import STATUS, Exit, status
from obhut.cli.output import Output, plain, size
from obhut.foundation import language
from obhut.foundation.errors import MissingComponentError, ObhutError, SettingsError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """No CI, no colour settings of the machine; English."""
    for variable in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with language.speaking(language.Language.ENGLISH):
        yield


def _output(**options):
    out, err = options.pop("stdout", io.StringIO()), options.pop("stderr", io.StringIO())
    return Output(stdout=out, stderr=err, **options), out, err


class State(enum.StrEnum):
    """A state."""

    DONE = "done"


class Model(BaseModel):
    """A pydantic value."""

    path: Path
    span: timedelta


@dataclass
class Value:
    """A dataclass value."""

    at: datetime
    states: frozenset[State]


def test_values_have_one_spelling_in_json():
    """Times are RFC 3339 in UTC, spans ISO 8601, enums their value, bytes hexadecimal, sets sorted."""
    value = Value(datetime(2026, 3, 1, 10, tzinfo=UTC), frozenset({State.DONE}))
    assert plain({"value": value, State.DONE: b"\x01", "model": Model(path=Path("/x"), span=timedelta(days=2))}) == {
        "value": {"at": "2026-03-01T10:00:00.000000Z", "states": ["done"]},
        "done": "01",
        "model": {"path": "/x", "span": "P2D"},
    }
    assert plain([date(2026, 3, 1), None, True, 1.5]) == ["2026-03-01", None, True, 1.5]


def test_what_has_no_json_form_is_refused_without_its_repr():
    """A value without a JSON form is an error that names its type only: its repr could quote a person."""

    class Person:
        def __repr__(self) -> str:
            return "erika@example.org"

    with pytest.raises(TypeError, match="no JSON form for Person") as caught:
        plain(Person())
    assert "erika" not in str(caught.value)


def test_json_is_printed_at_the_end_and_words_are_silent():
    """With as_json nothing appears on either stream until the command ends; then one document on standard output."""
    output, out, err = _output(as_json=True)
    output.say("a sentence")
    output.note("a remark")
    output.table(["a"], [[1]])
    output.pairs({"a": 1})
    with output.progress("copying", 10) as bar:
        bar.advance(10)
    output.result({"rows": 3}, lambda: output.say("rows"))
    assert out.getvalue() == ""
    output.finish()
    assert json.loads(out.getvalue()) == {"rows": 3}
    assert err.getvalue() == ""


def test_a_command_has_one_result():
    """A second result is a fault in the command."""
    output, _out, _err = _output()
    output.result([1])
    with pytest.raises(AssertionError, match="one result"):
        output.result([2])


def test_a_table_keeps_every_character_where_no_terminal_cuts_it():
    """Off a terminal a long identifier is not broken or shortened; numbers have thousands separators and stand right."""
    output, out, _err = _output()
    identifier = "run_" + "0" * 26
    output.table(["run", "rows", "ok"], [[identifier, 1234567, True], [identifier, 5, None]], title="Runs")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("Runs")
    assert any(identifier in line and "1,234,567" in line and "yes" in line for line in lines)
    first = next(line for line in lines if "1,234,567" in line)
    second = next(line for line in lines if "–" in line and identifier in line)
    assert first.index("1,234,567") + len("1,234,567") == second.index(" 5 ") + 2


def test_an_empty_table_says_so():
    """Without a row the sentence is printed instead of an empty frame."""
    output, out, _err = _output()
    output.table(["run"], [], empty="There is no run yet.")
    assert out.getvalue() == "There is no run yet.\n"


def test_brackets_are_text():
    """Square brackets are never taken for markup: names of databases may have them."""
    output, out, err = _output()
    output.say("public.[odd] name")
    output.fail(MissingComponentError("no [bold]component[/bold]"))
    assert out.getvalue() == "public.[odd] name\n"
    assert err.getvalue() == "obhut: no [bold]component[/bold]\n"


def test_quiet_keeps_results_warnings_and_errors():
    """--quiet drops remarks and progress, nothing else."""
    output, out, err = _output(quiet=True)
    output.note("a remark")
    output.warn("a warning")
    output.say("a result")
    assert out.getvalue() == "a result\n"
    assert err.getvalue() == "WARNING: a warning\n"


def test_progress_off_a_terminal_prints_no_control_characters(monkeypatch):
    """Where nothing can be redrawn, progress is an occasional line with the count, the share and the rate."""
    moments = iter(range(0, 1000, 11))
    monkeypatch.setattr("obhut.cli.output.time.monotonic", lambda: float(next(moments)))
    output, _out, err = _output()
    with output.progress("public.rental", 100, "rows") as bar:
        bar.advance(25)
    assert "public.rental: 25 rows (25 %)" in err.getvalue()
    assert "\x1b" not in err.getvalue()


def test_progress_on_a_terminal_moves_and_leaves_nothing(monkeypatch):
    """On a terminal several bars run side by side from threads, and the display ends with the last of them."""
    output, _out, err = _output(stderr=Terminal())
    assert output.interactive
    with output.progress("one", 10, "rows") as first, output.progress("two", None, "rows") as second:
        second.resize(5)
        workers = [threading.Thread(target=bar.advance) for bar in (first, second) for _ in range(5)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert output._progress is not None
    assert output._progress is None
    assert "\x1b" in err.getvalue()


def test_ci_is_no_audience(monkeypatch):
    """With CI set nothing is interactive and nothing is coloured, terminal or not."""
    monkeypatch.setenv("CI", "true")
    output, _out, err = _output(stderr=Terminal())
    assert not output.interactive
    output.fail(MissingComponentError("x"))
    assert err.getvalue() == "obhut: x\n"
    assert not output.confirm("Really?")


def test_german_words_for_labels():
    """Headings, yes and no are spoken in the language in force."""
    output, out, _err = _output()
    with language.speaking(language.Language.GERMAN):
        output.table(["state"], [[True]])
    assert "ja" in out.getvalue()


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB"), (2**50, "1,024.0 TiB")]
)
def test_sizes_are_readable(number, text):
    """A number of bytes is shown in the largest binary unit that keeps it above one."""
    assert size(number) == text


def test_a_code_inherits_the_exit_status_of_its_kind():
    """A new subclass exits like its base; what is named nowhere exits with 1."""

    class NarrowerError(SettingsError):
        code = "settings-narrower"

    class UnheardError(ObhutError):
        code = "unheard-of"

    assert status(NarrowerError("x")) == Exit.USAGE
    assert status(UnheardError("x")) == Exit.FAILURE
    assert status(ObhutError("x")) == Exit.FAILURE
    assert "unheard-of" not in STATUS
