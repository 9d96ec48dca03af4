"""The settings file: what is read, and how a mistake in it is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from obhut.foundation.errors import SettingsError
from obhut.foundation.settings import find, load

FULL = """
[state]
directory = "var"
[control]
url = "embedded"
[postgres]
run_as = "postgres"
[postgres.binaries]
15 = "/usr/lib/postgresql/15/bin"
[erasure_list]
mirror = "/srv/mirror"
[keystore]
directory = "var/keys"
[databases.courses]
url = "postgresql:///courses?host=/run/courses"
map = "maps/courses.yaml"
[databases.courses.backup]
engine = "barman"
full_every = "P7D"
incremental_every = "PT12H"
restorable = "P33D"
gone_after = "P35D"
heartbeat = 30
[language]
default = "de"
"""


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a settings file and returns its path."""

    def _write(text: str) -> Path:
        path = tmp_path / "obhut.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_a_full_file_is_read_with_its_types(write, tmp_path):
    """Every key of the documented example arrives typed: durations as spans, paths as absolute paths."""
    settings = load(write(FULL))
    courses = settings.database("courses")
    assert settings.state.directory == tmp_path / "var"
    assert settings.postgres.directory(15) == Path("/usr/lib/postgresql/15/bin")
    assert settings.postgres.directory(14) is None
    assert settings.erasure_list.mirror == Path("/srv/mirror")
    assert courses.name == "courses"
    assert courses.map == tmp_path / "maps/courses.yaml"
    assert courses.backup.incremental_every == timedelta(hours=12)
    assert courses.backup.gone_after == timedelta(days=35)
    assert courses.backup.heartbeat == 30
    assert settings.language.default == "de"
    assert settings.control.embedded


def test_an_empty_file_is_the_embedded_default(write, tmp_path):
    """Nothing has to be written: everything lies under the folder of the file, the control database is embedded."""
    settings = load(write(""))
    assert settings.control.embedded
    assert settings.keystore.directory == tmp_path / "var/keys"
    assert settings.erasure_list.mirror == tmp_path / "var/mirror"
    assert settings.databases == {}


def test_relative_paths_belong_to_the_file_not_to_the_working_directory(write, tmp_path, monkeypatch):
    """The same file means the same folders from every working directory, also when it is named relatively."""
    write('[state]\ndirectory = "../state"\n')
    monkeypatch.chdir(tmp_path)
    assert load(Path("obhut.toml")).state.directory == tmp_path.parent / "state"


def test_the_order_is_argument_then_variable_then_working_directory(write, tmp_path, monkeypatch):
    """--config wins over OBHUT_CONFIG, which wins over ./obhut.toml."""
    here = write("")
    other = tmp_path / "other.toml"
    other.write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBHUT_CONFIG", raising=False)
    assert find() == here
    monkeypatch.setenv("OBHUT_CONFIG", str(other))
    assert find() == other
    assert find(here) == here


@pytest.mark.parametrize(
    ("text", "fact", "hint"),
    [
        ("[state]\ndirectroy = 'var'", "state.directroy: unknown key", "directory"),
        ("[nonsense]\nx = 1", "nonsense: unknown key", "control"),
        (
            "[databases.courses]\nurl = 'a'\n[databases.courses.backup]\nfull_evry = 'P1D'",
            "databases.courses.backup.full_evry",
            "full_every",
        ),
        ("[databases.courses]\nmap = 'x'", "databases.courses.url: missing", "settings.md"),
        (
            "[databases.courses]\nurl = 'a'\n[databases.courses.backup]\nfull_every = '7 days'",
            "backup.full_every: not an ISO 8601",
            "settings.md",
        ),
        ("[databases.courses]\nurl = 'a'\n[databases.courses.backup]\nrestorable = 'P40D'", "restorable must be shorter", "settings.md"),
        (
            "[databases.courses]\nurl = 'a'\n[databases.courses.backup]\nheartbeat = '60'",
            "heartbeat: input should be a valid integer",
            "settings.md",
        ),
        ("[databases.'Kurse!']\nurl = 'a'", "[databases.Kurse!]: not a usable name", "lower-case"),
        ("[postgres.binaries]\nfifteen = '/x'", "major version", "settings.md"),
        ("[state]\ndirectory = ''", "state.directory: must not be empty", "settings.md"),
        ("[state\n", "not valid TOML", "quotation mark"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(write, text, fact, hint):
    """The fact starts with the file, names the key, and the hint says what to do."""
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert caught.value.fact.startswith(f"{path}: ")
    assert fact in caught.value.fact
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://obhut:s3cret-word@db.example/courses",
        "postgresql://db.example/courses?password=s3cret-word",
        "host=db.example password=s3cret-word",
        "postgresql://obhut:s3cret-word@[db.example/courses",
    ],
)
def test_a_password_in_the_file_is_refused_and_not_repeated(write, url):
    """A URL with a password is refused, and the message does not repeat it."""
    with pytest.raises(SettingsError) as caught:
        load(write(f"[databases.courses]\nurl = '{url}'"))
    assert "databases.courses.url: holds a password" in caught.value.fact
    assert "PGPASSFILE" in (caught.value.hint or "")
    assert "s3cret-word" not in str(caught.value)


def test_values_are_not_repeated(write):
    """A wrong value is not quoted in the message: it may be anything."""
    with pytest.raises(SettingsError) as caught:
        load(write("[language]\ndefault = 's3cret-word'"))
    assert "s3cret-word" not in str(caught.value)
    assert "language.default" in caught.value.fact


def test_an_unknown_database_lists_the_known_ones(write):
    """Asking for a database that the file does not name lists those that it names."""
    settings = load(write("[databases.courses]\nurl='a'\n[databases.clinic]\nurl='b'"))
    with pytest.raises(SettingsError) as caught:
        settings.database("kurse")
    assert caught.value.hint == "The file names these: clinic, courses."


def test_a_single_database_need_not_be_named(write):
    """With one database in the file it is the one meant; with two it has to be named."""
    assert load(write("[databases.courses]\nurl='a'")).only_database().name == "courses"
    with pytest.raises(SettingsError, match="not clear"):
        load(write("[databases.courses]\nurl='a'\n[databases.clinic]\nurl='b'")).only_database()


def test_a_missing_file_says_how_to_make_one(tmp_path, monkeypatch):
    """Without a file the hint is the command that writes one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBHUT_CONFIG", raising=False)
    with pytest.raises(SettingsError) as caught:
        load()
    assert "obhut init" in (caught.value.hint or "")


def test_settings_are_frozen(write):
    """Nothing can change the settings after they are read."""
    settings = load(write(""))
    with pytest.raises(Exception, match="frozen"):
        settings.state.directory = Path("/elsewhere")
