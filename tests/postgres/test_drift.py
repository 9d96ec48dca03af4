"""Drift of a live database against a commit, through the command line, on PostgreSQL 18."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from obhut.cli.main import main

SCHEMA = """
CREATE TABLE verein (id int PRIMARY KEY, titel text NOT NULL);
CREATE TABLE mitglied (id int PRIMARY KEY, verein_id int NOT NULL REFERENCES verein, erstellt_am timestamptz NOT NULL, email text, plz text,
  notiz text, profil jsonb);
CREATE TABLE raum (id int PRIMARY KEY, titel text, groesse int);
INSERT INTO verein VALUES (1, 'TSV');
INSERT INTO mitglied SELECT n, 1, now(), 'm' || n || '@example.invalid', '1234' || n % 10, NULL, jsonb_build_object('name', 'x', 'stufe', n)
  FROM generate_series(1, 30) n;
"""
MAP = """\
obhut: 1
databases:
  verein:
    controller: {table: public.verein}
    subjects: {mitglied: {table: public.mitglied, controller: {verein_id: id}, incarnation: [erstellt_am], identifiers: [email]}}
    tables:
      public.verein: {personal: false}
      public.raum: {personal: false}
      public.mitglied:
        columns:
          email: {category: user.contact.email, anonymise: null}
          plz: {category: user.contact.address.postal_code, anonymise: null}
          notiz: {category: user.content, anonymise: null}
          profil: {category: user.name, anonymise: {json: ["$.name"]}}
        not_personal: [id, erstellt_am]
        erase: delete
"""
MIGRATION = """
ALTER TABLE mitglied RENAME COLUMN plz TO postleitzahl;
ALTER TABLE mitglied ALTER notiz TYPE jsonb USING NULL, ADD handy text;
ALTER TABLE raum RENAME TO saal;
CREATE TABLE gast (id int PRIMARY KEY, mitglied_id int NOT NULL REFERENCES mitglied, vorname text);
UPDATE mitglied SET profil = profil || '{"notfall": {"telefon": "x"}}';
"""


def git(folder: Path, *words: str) -> None:
    """Run git as somebody."""
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.invalid", *words], check=True, capture_output=True
    )


@pytest.fixture
def checkout(database: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """Give a checkout whose main has the map and the snapshot of the database as it was."""
    with database.session() as session:
        session.execute(SCHEMA)
    (tmp_path / "datamap.yaml").write_text(MAP, encoding="utf-8")
    common = ["verein", "--url", database.url, "--map", str(tmp_path / "datamap.yaml")]
    assert main(["datamap", "snapshot", *common]) == 0
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "as it was")
    capfd.readouterr()
    return tmp_path, common


def drifted(common: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[str, str]], dict[str, Any]]:
    """Return status, severity and advice by fact, and the whole document."""
    capfd.readouterr()
    status = main(["--json", "datamap", "check", *common, "--against", "main"])
    document = json.loads(capfd.readouterr().out)
    found = {one["fact"]: (one["severity"], one["todo"]) for one in document["findings"] if one["code"].startswith("drift-")}
    return status, found, document


def test_a_migration_is_told_and_answered(database: Any, checkout: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Each change of a migration is an error with its line; with map and snapshot brought up to date all are answered; values are not told."""
    folder, common = checkout
    assert drifted(common, capfd)[:2] == (0, {})
    with database.session() as session:
        session.execute(MIGRATION)
    status, found, document = drifted(common, capfd)
    assert status == 5
    assert (document["against"]["before"], document["against"]["after"]) == ("snapshot", "database")
    assert {fact: severity for fact, (severity, _) in found.items()} == {
        "column public.mitglied.plz looks renamed to postleitzahl": "error",
        "column public.mitglied.notiz was text and is jsonb": "error",
        "column public.mitglied.handy is new (text)": "error",
        "public.mitglied.profil has the new JSON path $.notfall.telefon": "error",
        "table public.raum looks renamed to public.saal": "error",
        "table public.gast is new": "error",
    }
    assert "handy: {category: user.contact.phone_number" in found["column public.mitglied.handy is new (text)"][1]
    assert "public.gast: {columns: {vorname: {category: user.name.first, anonymise: null}}" in found["table public.gast is new"][1]
    assert "example.invalid" not in json.dumps(document)
    assert "1234" not in json.dumps(document)

    answered = (
        MAP.replace("plz:", "postleitzahl:")
        .replace("public.raum", "public.saal")
        .replace('["$.name"]', '["$.name", "$.notfall"]')
        .replace("          profil:", "          handy: {category: user.contact.phone_number, anonymise: null}\n          profil:")
    )
    answered += "      public.gast:\n        columns: {vorname: {category: user.name.first, anonymise: null}}\n        not_personal: [id]\n"
    answered += "        links: [{to: public.mitglied, columns: {mitglied_id: id}}]\n        erase: delete\n"
    (folder / "datamap.yaml").write_text(answered, encoding="utf-8")
    assert main(["datamap", "snapshot", *common]) == 0
    status, found, document = drifted(common, capfd)
    assert [one["fact"] for one in document["findings"] if one["severity"] == "error"] == []
    assert status == 0
    assert {severity for severity, _ in found.values()} == {"info", "warning"}
    assert found["column public.mitglied.notiz was text and is jsonb"][0] == "warning"


def test_without_a_snapshot_the_map_of_main_is_compared(database: Any, checkout: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A project without snapshots still hears of new, gone and renamed names, and of paths beside those that a rule names."""
    folder, common = checkout
    git(folder, "rm", "-q", "verein.snapshot.json")
    git(folder, "commit", "-qm", "no snapshot")
    with database.session() as session:
        session.execute(MIGRATION)
    status, found, document = drifted(common, capfd)
    assert (status, document["against"]["before"]) == (5, "map")
    assert "column public.mitglied.handy is new (text)" in found
    assert "public.mitglied.profil has the new JSON path $.notfall.telefon" in found
    assert not [fact for fact in found if " was text" in fact], "a map knows no types"
