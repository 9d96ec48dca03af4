"""The data map against real servers: Pagila and a schema of polymorphic pairs, arrays and JSON, on PostgreSQL 18 and 15."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from obhut.cli.main import main
from obhut.datamap.check import examine
from obhut.datamap.findings import Finding
from obhut.datamap.load import LoadedMap, load, loads
from obhut.datamap.suggest import sample, suggest
from obhut.datamap.surroundings import probe, read_surroundings
from obhut.datamap.writing import write
from obhut.postgres.catalogue import read_catalogue

SAMPLES = Path(os.environ.get("OBHUT_SAMPLES", Path(__file__).parents[2] / "../shared/data"))
PAGILA_MAP = Path(__file__).parents[1] / "data" / "pagila.datamap.yaml"
CANARY = "kanari-7f3a@example.invalid"

CLUB = f"""
CREATE TYPE bearer AS ENUM ('member', 'room');
CREATE TABLE verein (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, titel text NOT NULL);
CREATE TABLE mitglieder (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, verein_id int NOT NULL REFERENCES verein, vorname text NOT NULL,
  nachname text NOT NULL, email text UNIQUE, geburtsdatum date, iban text, erstellt_am timestamptz NOT NULL DEFAULT now(), last_login_at timestamptz);
CREATE TABLE kurse (id int PRIMARY KEY, verein_id int NOT NULL REFERENCES verein, titel text NOT NULL, mitglied_ids int[] NOT NULL DEFAULT '{{}}',
  mitglieder_ids int[]);
CREATE TABLE dateien (id int PRIMARY KEY, owner_type text NOT NULL, mitglieder_id int, mitglieder_type bearer, bemerkung text, kontakt text);
CREATE TABLE buchungen (id int PRIMARY KEY, mitglied_id int NOT NULL REFERENCES mitglieder ON DELETE CASCADE, begleitung int REFERENCES mitglieder,
  betrag numeric NOT NULL, angaben jsonb NOT NULL);
INSERT INTO verein (titel) VALUES ('TSV');
INSERT INTO mitglieder (verein_id, vorname, nachname, email) SELECT 1, 'V' || n, 'N' || n, 'm' || n || '@example.invalid' FROM generate_series(1, 50) n;
INSERT INTO dateien SELECT n, 'x', n, 'member', 'text', '{CANARY}' FROM generate_series(1, 50) n;
ANALYZE;
"""


@pytest.fixture(params=["18", "15"])
def server(request: pytest.FixtureRequest) -> Any:
    """Give an empty database on each major version."""
    return request.getfixturevalue("database" if request.param == "18" else "database15")


def fill_pagila(server: Any) -> None:
    """Load the sample data with psql; a machine without the samples fails."""
    psql = server.cluster.binaries.path("psql")
    for file in ("pagila-schema.sql", "pagila-data.sql"):
        path = SAMPLES / "pagila" / file
        if not path.is_file():
            pytest.fail(f"no Pagila in {SAMPLES}; set OBHUT_SAMPLES to the folder of the sample data")
        subprocess.run([psql, "-qX", "-d", server.url, "-f", path], check=True, capture_output=True, timeout=120)


def inspect(server: Any, loaded: LoadedMap, name: str) -> list[Finding]:
    """Check a map against the live database, the server's own judgement included."""
    with server.session() as session:
        catalogue, around = read_catalogue(session), read_surroundings(session)
        graph, findings = examine(loaded, name, catalogue, around)
        return [*findings, *(probe(session, graph, around) if graph else [])]


def proposed(server: Any, name: str) -> str:
    """Return the text that is suggested for a live database."""
    with server.session() as session:
        catalogue = read_catalogue(session)
        return write(suggest(name, catalogue, sample(session, catalogue), read_surroundings(session)))


def test_pagila_map_is_clean_and_its_suggestion_asks(server: Any) -> None:
    """The hand-written map has no errors; the suggested one loads, and each of its errors stands at a DECIDE remark."""
    fill_pagila(server)
    found = inspect(server, load(PAGILA_MAP), "pagila")
    assert [finding for finding in found if finding.severity == "error"] == []
    assert {"table-rules", "table-triggers", "view-personal"} <= {finding.code for finding in found}
    text = proposed(server, "pagila")
    loaded = loads(text)
    rules = loaded.database("pagila")
    assert (rules.controller.table, set(rules.subjects)) == ("public.store", {"customer", "staff"})
    assert {name: str(rules.tables[f"public.{name}"].erase.verb) for name in ("customer", "rental", "payment", "staff", "address")} == {  # type: ignore[union-attr]
        "customer": "delete", "rental": "delete", "payment": "delete", "staff": "anonymise", "address": "delete_if_orphaned",
    }  # fmt: skip
    errors = [finding.code for finding in inspect(server, loaded, "pagila") if finding.severity == "error"]
    assert sorted(errors) == ["incarnation-missing", "table-unreachable"], "every column of Pagila is classified"
    assert text.count("# DECIDE:") >= len(errors)


def test_a_new_column_is_found(server: Any) -> None:
    """A migration that adds a column makes the check fail at once."""
    fill_pagila(server)
    with server.session() as session:
        session.execute("ALTER TABLE customer ADD nickname text")
    found = inspect(server, load(PAGILA_MAP), "pagila")
    assert [finding.fact for finding in found if finding.severity == "error"] == ["column public.customer.nickname is not classified"]


def test_suggestion_for_pairs_arrays_and_json(server: Any) -> None:
    """German names, arrays of keys, polymorphic pairs and a second person in a row are proposed; values stay on the server."""
    with server.session() as session:
        session.execute(CLUB)
    text = proposed(server, "club")
    rules = loads(text).database("club")
    assert rules.controller.table == "public.verein"
    (kind,) = rules.subjects.values()
    assert (kind.table, kind.incarnation, kind.activity) == ("public.mitglieder", ("erstellt_am",), ("last_login_at",))
    assert rules.tables["public.mitglieder"].columns["iban"].category == "user.financial.bank_account"
    assert {link.array for link in rules.tables["public.kurse"].links} >= {"mitglieder_ids"}
    pair = rules.tables["public.dateien"].links[0]
    assert (pair.columns, set(pair.when)) == ({"mitglieder_id": "id"}, {"mitglieder_type"})
    assert rules.tables["public.dateien"].columns["kontakt"].category == "user.contact.email", "the sample beats the name"
    links = {next(iter(link.columns or {})): link.erase for link in rules.tables["public.buchungen"].links}
    assert links["begleitung"] is not None
    assert links["begleitung"].verb == "unlink"
    assert "angaben" not in rules.tables["public.buchungen"].not_personal
    assert CANARY not in text
    assert "example.invalid" not in text


def test_server_judges_the_values(server: Any) -> None:
    """Domains and CHECK constraints refuse an anonymised value before any row is touched."""
    with server.session() as session:
        session.execute("CREATE DOMAIN postal AS text CHECK (VALUE ~ '^[0-9]{5}$')")
        session.execute("CREATE TABLE shop (id int PRIMARY KEY)")
        session.execute(
            "CREATE TABLE person (id int PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, plz postal, age int CHECK (age > 17), made date)"
        )
    text = """\
obhut: 1
databases:
  d:
    controller: {table: public.shop}
    subjects: {person: {table: public.person, controller: {shop_id: id}, incarnation: [made]}}
    tables:
      public.shop: {personal: false}
      public.person:
        columns:
          plz: {category: user.contact.address.postal_code, anonymise: {constant: none}}
          age: {category: user.demographic, anonymise: {constant: 0}}
        not_personal: [made]
        erase: delete
"""
    found = {finding.code for finding in inspect(server, loads(text), "d") if finding.severity == "error"}
    assert found == {"anonymise-cast", "anonymise-check"}
    better = text.replace("{constant: none}", "{constant: '00000'}").replace("{constant: 0}", "null")
    assert not [finding for finding in inspect(server, loads(better), "d") if finding.severity == "error"]


def test_command_line(database: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The check answers 5 on an error and 0 on a clean map; show writes pictures; nothing is overwritten."""
    fill_pagila(database)
    common = ["pagila", "--url", database.url, "--map", str(PAGILA_MAP)]
    assert main(["--json", "datamap", "check", *common]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["counts"]["error"] == 0
    assert all(finding["line"] > 1 for finding in document["findings"])
    assert main(["datamap", "show", *common, "--svg", str(tmp_path / "way.svg")]) == 0
    assert "public.payment" in capfd.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"way-customer.svg", "way-staff.svg"}
    target = tmp_path / "new.yaml"
    suggestion = ["datamap", "suggest", "pagila", "--url", database.url, "-o", str(target)]
    assert main(suggestion) == 0
    assert main(suggestion) != 0
    asked = ["datamap", "check", "pagila", "--url", database.url, "--map", str(target)]
    assert main(asked) == 5
    said = capfd.readouterr().out
    assert "new.yaml:" in said and "reads personal tables" in said
    assert main(["--lang", "de", *asked]) == 5
    said = capfd.readouterr().out
    assert "liest personenbezogene Tabellen" in said and "reads personal tables" not in said


def test_an_index_that_takes_one_null_only_is_known(server: Any) -> None:
    """NULLS NOT DISTINCT is told from the usual kind, in which NULLs are no duplicates."""
    with server.session() as session:
        session.execute("CREATE TABLE one (a int UNIQUE NULLS NOT DISTINCT, b int UNIQUE)")
        table = next(table for table in read_catalogue(session).tables.values() if table.name == "one")
        assert {key.columns: key.one_null for key in table.keys} == {("a",): True, ("b",): False}
