"""What is documented exists, and what exists is documented."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from obhut.cli.exits import STATUS
from obhut.cli.main import NOUNS, app, available
from obhut.foundation.settings import DatabaseSettings, Settings, load

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])


def _tool(name: str):
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _tool("reference")
ERRORS = reference.error_classes()
COMMANDS = dict(reference.commands())


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_command_is_documented(words):
    """Each command has a heading in docs/reference/cli.md; `make docs` writes it."""
    assert f"### obhut {words}\n" in (DOCS / "reference/cli.md").read_text(encoding="utf-8"), "run: make docs"


def test_no_documented_command_is_gone():
    """docs/reference/cli.md has no heading for a command that does not exist."""
    headings = set(re.findall(r"^### obhut (.+)$", (DOCS / "reference/cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert headings == set(COMMANDS)


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_command_and_argument_explains_itself(words):
    """Each command has a description and each of its arguments a meaning: help reads like a manual."""
    assert reference._prose(COMMANDS[words]), f"obhut {words} has no description"
    silent = [row for row in reference._parameters(COMMANDS[words]) if row.rstrip(" |").count("|") < 3]
    assert not silent, f"obhut {words}: arguments without a meaning: {silent}"


@pytest.mark.parametrize("code", sorted({error.code for error in ERRORS}))
def test_every_error_code_is_documented(code):
    """Each code has a row in docs/reference/errors.md; `make docs` writes it."""
    assert f"| `{code}` |" in (DOCS / "reference/errors.md").read_text(encoding="utf-8"), "run: make docs"


def test_error_codes_are_kebab_case_and_used_once():
    """A code names one class and is written in lower case with dashes."""
    codes = [error.code for error in ERRORS]
    assert len(codes) == len(set(codes)), [code for code in codes if codes.count(code) > 1]
    assert [code for code in codes if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)] == []


def test_every_error_says_what_it_means():
    """Each class of errors has a docstring, which is its row in the reference."""
    assert [error.code for error in ERRORS if not error.meaning] == []


def test_exit_statuses_name_codes_that_exist():
    """The one mapping from codes to exit statuses has no entry for a code that is gone."""
    assert set(STATUS) - {error.code for error in ERRORS} == set()


def _promises() -> list[list[str]]:
    rows = re.findall(r"^\| (?!id \||---)(.+) \|$", (ROOT / "PROMISES.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


def test_promises_are_the_fourteen_that_are_evaluated():
    """PROMISES.md has the same promises, in the same order and words, as `obhut promises` evaluates."""
    from obhut.promises.model import PROMISES

    assert [(row[0], row[1]) for row in _promises()] == [(promise.id, promise.sentence) for promise in PROMISES]
    assert len(PROMISES) == 14


@pytest.mark.parametrize("row", _promises(), ids=lambda row: row[0])
def test_every_row_of_promises_resolves(row):
    """Package, test and command of a promise exist, or the row says that it is not built and that it is unproven."""
    identifier, _sentence, package, test, command = row
    names = re.findall(r"`([a-z_]+)`", package)
    assert names
    assert f"obhut promises {identifier}" in command
    if "not built" in package:
        assert "unproven" in command
        return
    assert "unproven" not in command
    assert all((ROOT / "src/obhut" / name / "__init__.py").is_file() for name in names)
    path = ROOT / test.strip("`")
    assert path.is_file() or list(path.glob("**/test_*.py")), f"{test} is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page):
    """Each relative link of a page leads to a file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_index():
    """docs/index.md links to every page below docs/, to the formats by their folder."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "spec" not in page.relative_to(DOCS).parts} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def _whole_commands(page: Path) -> list[str]:
    """Return the lines of shell blocks that call obhut."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("obhut ")]


def _shell_commands(page: Path) -> list[str]:
    found = _whole_commands(page)
    found += re.findall(r"`(obhut [^`]+)`", page.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if "spec" not in page.parts], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_pages_exist_with_their_options(page):
    """Each `obhut …` in a page names a command that exists, and options that it or the global ones have."""
    for line in _shell_commands(page):
        words = [word for word in shlex.split(line, comments=True)[1:] if word not in {"…", "NOUN", "VERB"}]
        names = []
        while words and not words[0].startswith("-") and (" ".join([*names, words[0]]) in _prefixes()):
            names.append(words.pop(0))
        if not names:
            assert not words or words[0].startswith("-"), f"{page.name}: {line}"
            continue
        if names[0] not in available():
            pytest.fail(f"{page.name}: obhut {names[0]} does not exist: {line}")
        known = {name for argument in _application(names).assemble_argument_collection() for name in argument.names}
        known |= {"--config", "--json", "--lang", "--as", "--no-colour", "--quiet", "--help", "-o"}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
        assert not unknown, f"{page.name}: {line}: {unknown}"


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in _whole_commands(page)}))
def test_whole_commands_in_pages_parse(line):
    """Each line of a shell block that calls obhut is understood: nothing is missing, every value has the right form."""
    tokens = shlex.split(line, comments=True)[1:]
    app.parse_args([token for token in tokens if token != "--json"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("path", sorted((ROOT / "src/obhut").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT / "src/obhut")))
def test_commands_that_hints_name_exist(path):
    """A hint that says to run `obhut …` names a command that exists."""
    text = path.read_text(encoding="utf-8")
    for found in re.findall(r'(?:Run|run|See|Look at|with|is|:) \\?"(obhut [a-z]+(?: [a-z-]+)*)', text):
        words = found.split()[1:]
        assert words[0] in available(), f"{path.name}: {found}"
        if len(words) > 1 and words[0] not in COMMANDS:
            assert f"{words[0]} {words[1]}" in _prefixes(), f"{path.name}: {found}"


def _prefixes() -> set[str]:
    parts = {" ".join(words.split()[:length]) for words in COMMANDS for length in range(1, len(words.split()) + 1)}
    return parts | set(NOUNS)


def _application(names: list[str]):
    current = app
    for name in names:
        current = current[name]
    return current


def test_every_setting_is_documented_and_every_documented_one_exists():
    """The table in docs/reference/settings.md has exactly the keys that the settings have."""
    page = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z0-9_.<>]+)` \|", page, flags=re.MULTILINE))
    known = set()
    for section, field in Settings.model_fields.items():
        if section in {"path", "databases"}:
            continue
        for key, inside in field.annotation.model_fields.items():
            if isinstance(inside.annotation, type) and issubclass(inside.annotation, BaseModel):
                known |= {f"{section}.{key}.{inner}" for inner in inside.annotation.model_fields}
            else:
                known.add(f"{section}.{key}" + (".<major>" if key == "binaries" else ""))
    for key, field in DatabaseSettings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            known |= {f"databases.<name>.{key}.{inner}" for inner in field.annotation.model_fields}
        elif key != "name":
            known.add(f"databases.<name>.{key}")
    assert documented == known


def test_the_examples_of_settings_can_be_read(tmp_path):
    """The example in the reference and the template of `obhut init` are valid settings."""
    page = (DOCS / "reference/settings.md").read_text(encoding="utf-8")
    example = re.search(r"```toml\n(.*?)```", page, flags=re.DOTALL)[1]
    for text in (example, (ROOT / "src/obhut/cli/obhut.toml").read_text(encoding="utf-8")):
        path = tmp_path / "obhut.toml"
        path.write_text(text, encoding="utf-8")
        assert load(path).language.default in {"en", "de"}


def test_the_default_limits_of_backups_fit_together():
    """A settings file that says nothing about backups keeps both limits."""
    from obhut.backups.plan import Rules, validated
    from obhut.foundation.settings import BackupSettings

    backup = BackupSettings()
    validated(Rules(backup.restorable, backup.gone_after, backup.full_every, backup.incremental_every))


def test_the_example_of_a_data_map_can_be_read():
    """The example in the reference of the data map is a valid map."""
    from ruamel.yaml import YAML

    from obhut.datamap.models import DataMap

    page = (DOCS / "reference/datamap.md").read_text(encoding="utf-8")
    DataMap.model_validate(YAML(typ="safe").load(re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[1]))


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_index():
    """requirements.lock covers pyproject.toml, leaves out the source package psycopg2 and has no address in it."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==", lock, flags=re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"], *project["build-system"]["requires"]]
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-").replace(".", "-") for line in wanted}
    assert names - pinned == set()
    assert "psycopg2" not in pinned
    assert "://" not in lock
    assert "--index-url" not in lock
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z0-9-]+==)", lock)[1:])


def test_the_schema_of_the_data_map_is_the_one_that_is_shipped():
    """`obhut datamap schema` prints what the models say."""
    from obhut.datamap.models import DataMap

    shipped = ROOT / "src/obhut/datamap/datamap.schema.json"
    assert set(json.loads(shipped.read_text(encoding="utf-8"))["properties"]) == set(DataMap.model_fields)
