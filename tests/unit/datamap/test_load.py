"""Reading the file: every fault at once, with its line, and nothing ever executed."""

from __future__ import annotations

from pathlib import Path

import pytest
from datamap_schemas import HEAD, PAGILA, load_map
from ruamel.yaml import YAML

from obhut.datamap import load as load_module
from obhut.datamap import positions
from obhut.datamap.archive import MapVersionError, archive, archived, versions
from obhut.datamap.findings import DataMapError
from obhut.datamap.graph import map_version
from obhut.datamap.load import DataMapFileError, load, loads


def facts(text: str) -> list[str]:
    """Return the facts of a map that does not load."""
    with pytest.raises(DataMapError) as caught:
        loads(text, Path("datamap.yaml"))
    return [f"{finding.fact} | {finding.todo}" for finding in caught.value.findings]


def test_every_fault_of_form_has_its_line() -> None:
    """Several faults come together, each with line, table and what to do."""
    found = facts(HEAD + "      public.x:\n        colums: {a: b}\n        erase: destroy\n        links:\n          - {to: x}\n")
    assert any(
        fact.startswith("datamap.yaml:15: table public.x colums: the word colums is not known here | Did you mean columns?")
        for fact in found
    )
    assert any("datamap.yaml:16: table public.x erase:" in fact and "delete, anonymise" in fact for fact in found)
    assert any("datamap.yaml:18:" in fact and "schema and table" in fact for fact in found)


def test_keys_written_twice() -> None:
    """A table that stands twice would silently lose its first half."""
    assert facts(HEAD + "      public.clinic: {personal: false}\n") == [
        "datamap.yaml:14: public.clinic is written twice | Keep one of the two."
    ]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [id]", "!secret x", "!!binary aGk="])
def test_no_tag_is_ever_obeyed(tag: str) -> None:
    """Tags are refused, not resolved."""
    assert "allowed here" in facts(HEAD + f"      public.x: {{note: {tag}}}\n")[0]


def test_anchors_and_merges() -> None:
    """Anchors, aliases and merge keys work; the written key wins over the merged one."""
    text = "      public.x: &x\n        not_personal: [id]\n        note: one\n      public.y:\n        <<: *x\n        note: two\n      public.z: *x\n"
    tables = load_map(text).database("d").tables
    assert (tables["public.y"].not_personal, tables["public.y"].note, tables["public.z"].note) == (("id",), "two", "one")


def test_aliases_cannot_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laughing billions stop at the limit of values."""
    monkeypatch.setattr("obhut.datamap.positions.MAX_VALUES", 10_000)
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert "more values than a data map can have" in facts(bomb)[0]


def test_size_limit_and_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large, not there and not UTF-8 are refused with their own words."""
    file = tmp_path / "datamap.yaml"
    with pytest.raises(DataMapFileError, match="cannot be read"):
        load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataMapFileError, match="UTF-8"):
        load(file)
    monkeypatch.setattr(load_module.positions, "MAX_BYTES", 1)
    with pytest.raises(DataMapFileError, match="larger"):
        load(file)


def test_what_is_no_yaml() -> None:
    """Broken YAML and an empty file say where, without quoting the file."""
    assert facts("")[0].startswith("datamap.yaml:1: the file is empty")
    assert facts("obhut: 1\n  x: [secretvalue\n")[0].startswith("datamap.yaml:2:")
    assert "secretvalue" not in "".join(facts("obhut: 1\nx: [secretvalue\n"))


def test_unknown_database() -> None:
    """Asking for a database that the map does not describe names those it does."""
    with pytest.raises(DataMapError, match="does not describe the database other"):
        load_map().database("other")


def test_archive_keeps_every_version(tmp_path: Path) -> None:
    """An archived map comes back with the same version; a changed or missing one is refused."""
    rules = load(PAGILA).database("pagila")
    version = archive(rules, tmp_path / "maps")
    assert version == map_version(rules) == archive(rules, tmp_path / "maps")
    assert archived(version, tmp_path / "maps") == rules
    assert versions(tmp_path / "maps") == [version]
    file = tmp_path / "maps" / f"{version}.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("user.contact.email", "user.contact.url"), encoding="utf-8")
    with pytest.raises(MapVersionError, match="was changed"):
        archived(version, tmp_path / "maps")
    with pytest.raises(MapVersionError, match="not in the archive"):
        archived("../" + version, tmp_path / "maps")


@pytest.mark.parametrize("word", ["no", "on", "Yes", "off", "1:30", "0o17", "010", "1_000", "0x1F", ".5", "1e3", "+7", "null", "~", "TRUE", "2026-11-23", "1.", "-", "é", "a#b", "x: y"])  # fmt: skip
def test_plain_words_are_those_of_yaml_1_2(word: str) -> None:
    """A column may be called no, on or 1:30: the values are those that a parser of YAML 1.2 without libyaml finds."""
    text = f"- [{word}]\n" if word not in {"-", "x: y"} else f"- {word}\n"
    value, _, problems = positions.read(text)
    assert problems == []
    expected = YAML(typ="safe", pure=True).load(text)
    if word == "2026-11-23":
        expected = [[word]]  # a map keeps dates as they are written
    assert value == expected
    assert repr(value) == repr(expected)


def test_nesting_without_end_is_refused() -> None:
    """A million brackets are a fault of the file, not the end of the process."""
    assert facts("x: " + "[" * 1_000_000)[0].startswith("datamap.yaml:1: this is not YAML")
    assert "more values than a data map can have" in facts("x: " + "[" * 100 + "]" * 100)[0]


def test_a_byte_order_mark_and_several_documents() -> None:
    """A mark in front of the text is passed over; a second document is refused."""
    assert loads("\ufeff" + HEAD).map == load_map().map
    assert "this is not YAML" in facts(HEAD + "---\nobhut: 1\n")[0]


def test_the_line_of_everything_is_known_in_a_large_map() -> None:
    """Of a thousand tables the last column of the last one is told with its line."""
    table = (
        "      public.t{n}:\n        erase: delete\n        links:\n          - {{to: public.patient, columns: {{patient_id: id}}}}\n"
        "        columns:\n"
        + "".join(f'          c{n}: {{{{category: user.name, anonymise: {{{{constant: "x{n}"}}}}}}}}\n' for n in range(5))
        + "        not_personal: [id, patient_id, created_at, updated_at, status, kind]\n"
    )
    text = HEAD + "".join(table.format(n=n) for n in range(1000))
    read = loads(text)
    line = read.positions.of(("databases", "d", "tables", "public.t999", "columns", "c4")).line
    assert text.splitlines()[line - 1].lstrip().startswith("c4:")
