"""The face of the command line: exit status, one JSON document, and no value from an unexpected exception."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from obhut.cli import context as surroundings
from obhut.cli import main as face
from obhut.cli.exits import Exit
from obhut.foundation import language
from obhut.foundation.clock import OffsetClock
from obhut.foundation.errors import MissingComponentError

SECRET = "erika.mustermann@example.org"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """Every test starts in English, in an empty directory, without settings."""
    for variable in ("OBHUT_CONFIG", "OBHUT_CLOCK_OFFSET", "LC_ALL", "LC_MESSAGES", "LANG", "CI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.chdir(tmp_path)
    before = sys.excepthook, sys.unraisablehook
    with language.speaking(language.Language.ENGLISH):
        yield
    sys.excepthook, sys.unraisablehook = before


@pytest.fixture
def command(monkeypatch):
    """Return a function that registers a command for the length of the test."""

    def _command(function):
        monkeypatch.setattr(face.app, "_commands", dict(face.app._commands))
        face.app.command(function, name="probe")

    return _command


def test_help_names_every_available_noun_and_imports_none(capsys):
    """`obhut --help` lists the nouns whose modules exist, without importing them."""
    script = (
        "import sys; from obhut.cli.main import main, available; main(['--help']);"
        "loaded = [n for n in available() if 'obhut.cli.' + n in sys.modules]; print('LOADED', loaded, 'django' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    for noun in face.available():
        assert noun in done.stdout
    assert "LOADED [] False" in done.stdout


def test_help_is_fast():
    """`obhut --help` takes less than two seconds of processor time, which does not depend on how busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "obhut.cli.main", "--help"], capture_output=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_a_noun_without_a_module_is_not_offered():
    """The registry offers exactly the nouns that have a module in the package."""
    package = Path(face.__file__).parent
    for noun in face.NOUNS:
        assert (noun in face.available()) == ((package / f"{noun}.py").exists() or (package / noun).is_dir())


@pytest.mark.parametrize("noun", sorted(face.available()))
def test_every_noun_has_help(noun, capsys):
    """Each noun's help can be shown and has a line of description."""
    assert face.main([noun, "--help"]) == Exit.OK
    shown = capsys.readouterr().out
    assert f"obhut {noun}" in shown
    assert len(shown.splitlines()) > 5


def test_an_error_is_a_fact_and_a_hint(command, capsys):
    """A known error prints its fact and hint on standard error and maps its code to an exit status."""

    def probe():
        raise MissingComponentError("no PostgreSQL 15 on this machine", "Set postgres.binaries.15.")

    command(probe)
    assert face.main(["probe"]) == Exit.REFUSED
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "obhut: no PostgreSQL 15 on this machine\nHINT: Set postgres.binaries.15.\n"


def test_an_error_with_json_is_one_document(command, capsys):
    """With --json the error is the one document on standard output, also after a result was given."""

    def probe():
        surroundings.context().output.say("words for a person")
        surroundings.context().output.result({"erased": 1})
        raise MissingComponentError("no PostgreSQL 15 on this machine")

    command(probe)
    assert face.main(["probe", "--json"]) == Exit.REFUSED
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "error": {"code": "component-missing", "fact": "no PostgreSQL 15 on this machine", "hint": None},
        "result": {"erased": 1},
    }
    assert told.err == ""


def test_a_result_with_json_is_one_document(command, capsys):
    """With --json a success prints exactly one document, an empty one where a command has no result."""

    def probe(*, result: bool = False):
        if result:
            surroundings.context().output.result({"paths": [Path("/x")], "none": None})

    command(probe)
    assert face.main(["--json", "probe", "--result"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"paths": ["/x"], "none": None}
    assert face.main(["--json", "probe"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_unexpected_exception_shows_no_value(command, capsys, options):
    """An unexpected exception shows type and place; its words, which may quote a person, appear nowhere."""

    def probe():
        raise ValueError(SECRET)

    command(probe)
    assert face.main([*options, "probe"]) == Exit.FAILURE
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err
    assert "unexpected ValueError at " in told.out + told.err
    if options:
        assert json.loads(told.out)["error"]["code"] == "internal"


def test_an_exception_in_a_thread_shows_no_value():
    """Threads and destructors that fail print no exception text either."""
    script = f"""
import threading
from obhut.cli import main as face
def probe():
    class Dying:
        def __del__(self):
            raise ValueError("{SECRET}")
    def fail():
        raise KeyError("{SECRET}")
    thread = threading.Thread(target=fail); thread.start(); thread.join()
    Dying()
face.app.command(probe, name="probe")
raise SystemExit(face.main(["probe"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert SECRET not in done.stdout + done.stderr
    assert "unexpected KeyError" in done.stderr
    assert "unexpected ValueError" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [SECRET],
        ["probe", f"--number={SECRET}"],
        ["probe", f"--nonsense={SECRET}"],
        ["probe", "--number", SECRET],
        ["probe", "--number", "1", SECRET],
        ["probe", "--number"],
        ["probe", "--number", "1", "--number", "2"],
        ["probe"],
        ["--lang", SECRET, "probe"],
        ["--as", SECRET, "probe"],
        ["--as", f"nobody:{SECRET}", "probe"],
        ["--clock-offset", SECRET, "probe"],
    ],
)
def test_a_wrong_command_line_is_told_without_its_values(command, capsys, arguments):
    """A command line that cannot be parsed exits with 2 and does not repeat what was typed."""

    def probe(*, number: int):
        pass

    command(probe)
    assert face.main(arguments) == Exit.USAGE
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err
    assert told.err.startswith("obhut: ")
    assert "HINT: " in told.err


def test_a_number_returned_is_the_exit_status(command):
    """A command may return an exit status, such as 5 when a check found something."""

    def probe() -> int:
        return Exit.UNPROVEN

    command(probe)
    assert face.main(["probe"]) == 5


def test_ctrl_c_is_an_exit_status_of_its_own(command, capsys):
    """Ctrl-C exits with 130 and says that nothing half done is shown as done."""

    def probe():
        raise KeyboardInterrupt

    command(probe)
    assert face.main(["probe"]) == 130
    assert capsys.readouterr().err.startswith("obhut: interrupted\n")


def test_global_options_reach_the_command(command, monkeypatch):
    """--as and --clock-offset set actor and clock, wherever they stand on the command line."""
    seen = {}

    def probe():
        entered = surroundings.context()
        seen.update(actor=str(entered.actor), clock=entered.clock, offset=os.environ.get("OBHUT_CLOCK_OFFSET"))

    command(probe)
    monkeypatch.setenv("OBHUT_CLOCK_OFFSET", "")
    assert face.main(["probe", "--as", "controller:acct_17", "--clock-offset", "P36D"]) == Exit.OK
    assert seen["actor"] == "controller:acct_17"
    assert isinstance(seen["clock"], OffsetClock)
    assert seen["offset"] == "P36D"


def test_the_default_actor_is_a_number(command):
    """Without --as the operator is known by the number of the system account, not by its name."""
    assert str(surroundings.default_actor()) == f"operator:uid-{os.getuid()}"


def test_german_is_spoken_on_request_and_by_locale(command, capsys, monkeypatch):
    """Hints and labels are German with --lang de or a German locale; codes are not translated."""

    def probe():
        raise MissingComponentError("x", "Edit it; it is never overwritten.")

    command(probe)
    face.main(["--lang", "de", "probe"])
    assert "HINWEIS: Bearbeiten Sie sie" in capsys.readouterr().err
    language.use(language.Language.ENGLISH)
    monkeypatch.setenv("LC_ALL", "de_AT.UTF-8")
    face.main(["probe", "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "component-missing"
    assert error["hint"].startswith("Bearbeiten")


def test_the_settings_decide_where_the_locale_is_silent(tmp_path, command, capsys):
    """A locale such as C.UTF-8 leaves the choice to [language] default."""

    def probe():
        surroundings.context().settings.database("none")

    command(probe)
    (tmp_path / "obhut.toml").write_text('[language]\ndefault = "de"\n', encoding="utf-8")
    assert face.main(["probe"]) == Exit.USAGE
    assert "HINWEIS" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_crash():
    """A closed pipe ends the command without a traceback."""
    script = (
        "import sys; from obhut.cli import main as f; from obhut.cli.context import context\n"
        "def probe():\n    [context().output.say('line of some length ' * 20) for _ in range(5000)]\n"
        "f.app.command(probe, name='probe'); raise SystemExit(f.main(['probe']))"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" | head -n 1', sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
