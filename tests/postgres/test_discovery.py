"""Discovery on live values: columns whose names say nothing, JSON, arrays, free text, and no value in anything that is returned."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from obhut.cli.main import main
from obhut.datamap.discovery.findings import discover
from obhut.datamap.discovery.looking import sample
from obhut.datamap.load import loads
from obhut.datamap.suggest import suggest
from obhut.datamap.surroundings import read_surroundings
from obhut.datamap.writing import write
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier

FIRST = ("Anna", "Mehmet", "Jürgen", "Katharina", "Mary", "Xaveria")
LAST = ("Müller", "Yılmaz", "Schäfer", "Huber", "Johnson", "Zzyzx")
CANARY = "kanarienvogel"

SCHEMA = """
CREATE TABLE verein (id int PRIMARY KEY, titel text NOT NULL);
CREATE TABLE mitglied (
  id int PRIMARY KEY, verein_id int NOT NULL REFERENCES verein, erstellt_am timestamptz NOT NULL DEFAULT now(), nachname text NOT NULL,
  email text NOT NULL, c1 text, c2 text, c3 text, c4 text, c5 text, c6 text, c7 text, c8 text, c9 date, c10 text[], c11 text, c12 text,
  c13 text CHECK (c13 IN ('a', 'b')), c14 text);
CREATE TABLE akte (
  id int PRIMARY KEY, mitglied_id int NOT NULL REFERENCES mitglied, profil jsonb NOT NULL, zahlen jsonb NOT NULL, wirr jsonb, liste jsonb,
  frei text);
CREATE TABLE vorrat (id int PRIMARY KEY, artikel text NOT NULL, c1 text);
"""


def rows(count: int = 60) -> list[tuple[Any, ...]]:
    """Return people whose telling values stand in columns that are called c1 to c14."""
    made = []
    for n in range(count):
        first, last = FIRST[n % len(FIRST)], LAST[(n // 2) % len(LAST)]
        made.append(
            (
                n, 1, last, f"{CANARY}{n}@example.invalid",
                f"{first.lower()}.{n}@example.invalid", f"+49 30 {901820 + n}", "DE89370400440532013000", f"10.{n}.3.7", f"Lindenstraße {n + 1}",
                first, last, "$2b$12$" + "abcdefghijklmnopqrstuv0123456789ABCDEFGHIJKLMNOPQRSTU"[: 53], f"{1950 + n % 50}-03-01",
                [f"{CANARY}-{n}@example.invalid"], "4111 1111 1111 1111", f"{first} {last}", "a", f"{n * 7919 % 100003}-{n}",
            )
        )  # fmt: skip
    return made


@pytest.fixture
def club(database: Any) -> Any:
    """Give the filled database."""
    with database.session() as session:
        session.execute(SCHEMA)
        session.execute("INSERT INTO verein VALUES (1, 'TSV')")
        for row in rows():
            session.execute(
                SQL(
                    "INSERT INTO mitglied (id, verein_id, nachname, email, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14) "
                    "VALUES ({})"
                ).format(SQL(", ").join(SQL("%s") for _ in row)),
                row,
            )
            n = row[0]
            profile = {"kontakt": {"email": row[4], "sprache": "de"}, "gaeste": [{"vorname": row[9], "platz": n}], "stufe": n}
            unruly = {f"{CANARY}{n}@example.invalid": 1, f"key{n:06d}": "x"}
            note = f"Bitte {row[9]} {row[10]} zurückrufen, es geht um die Rechnung von gestern"
            session.execute(
                "INSERT INTO akte VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (n, n, json.dumps(profile), json.dumps({"stufe": n, "an": True}), json.dumps(unruly), json.dumps([row[4]]), note),
            )
            session.execute("INSERT INTO vorrat VALUES (%s, %s, %s)", (n, f"Schraube M{n}", f"A-{n}"))
        session.execute("ANALYZE")
    return database


EXPECTED = {
    "c1": "user.contact.email", "c2": "user.contact.phone_number", "c3": "user.financial.bank_account", "c4": "user.device.ip_address",
    "c5": "user.contact.address.street", "c6": "user.name.first", "c7": "user.name.last", "c8": "user.authorization.password",
    "c9": "user.demographic.date_of_birth", "c10": "user.contact.email", "c11": "user.financial.credit_card", "c12": "user.name", "c13": None,
}  # fmt: skip


def test_values_tell_what_names_do_not(club: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of value is recognised without a telling name; what nothing speaks for stays open; no value is told or logged."""
    caplog.set_level(logging.DEBUG)
    with club.session() as session:
        catalogue = read_catalogue(session)
        seen = sample(session, catalogue)
        around = read_surroundings(session)
    found = discover(catalogue, seen, around)
    oid = {table.name: table.oid for table in catalogue.roots}
    verdicts = found.verdicts[oid["mitglied"]]
    assert {name: verdicts[name].category for name in EXPECTED} == EXPECTED
    assert (verdicts["c13"].open, verdicts["c14"].open) == (False, True), "listed values are harmless, unknown ones a question"
    assert all(verdict.category is None and not verdict.open for verdict in found.verdicts[oid["vorrat"]].values())
    akte = found.verdicts[oid["akte"]]
    assert (akte["profil"].category, akte["zahlen"].category, akte["liste"].category) == ("user", None, "user.contact.email")
    assert akte["wirr"].open, "keys that may be values are a question"
    assert akte["frei"].category == "user.content"
    assert found.documents[oid["akte"]]["profil"].personal == ("$.gaeste[*].vorname", "$.kontakt.email", "$.kontakt.sprache")
    told = repr(seen) + repr(found) + write(suggest("club", catalogue, seen, around)) + caplog.text
    for word in (CANARY, "example.invalid", "Lindenstr", "key0000", "2b$12", "zurückrufen"):
        assert word not in told


def test_proposal_carries_confidence_reasons_and_questions(club: Any) -> None:
    """The text loads; JSON gets its paths, each column its confidence and reason, doubts a DECIDE remark."""
    with club.session() as session:
        catalogue = read_catalogue(session)
        text = write(suggest("club", catalogue, sample(session, catalogue), read_surroundings(session)))
    rules = loads(text).database("club")
    profile = rules.tables["public.akte"].columns["profil"].anonymise
    assert profile is not None
    assert [rule.path for rule in profile.paths] == ["$.gaeste[*].vorname", "$.kontakt.email", "$.kontakt.sprache"]
    line = next(line for line in text.splitlines() if line.strip().startswith("c1:"))
    assert line.endswith("# 0.97, 100% of 60 sampled values are e-mail addresses")
    assert "# DECIDE: personal by its place, or not? c14" in text
    assert "DECIDE: personal or not? wirr" in text


def test_a_table_that_cannot_be_read_is_named(club: Any) -> None:
    """A role without SELECT on a table gets a proposal that says which table names alone decided."""
    with club.session() as session:
        session.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(f"reader_{club.name}")))
        session.execute(SQL("GRANT SELECT ON verein, mitglied, vorrat TO {}").format(Identifier(f"reader_{club.name}")))
    try:
        with Session.connect(club.url) as session:
            session.execute(SQL("SET ROLE {}").format(Identifier(f"reader_{club.name}")))
            catalogue = read_catalogue(session)
            seen = sample(session, catalogue)
            assert [catalogue.tables[oid].name for oid in seen.unseen] == ["akte"]
            assert "DECIDE: no value of public.akte could be looked at" in write(suggest("club", catalogue, seen))
    finally:
        with club.session() as session:
            session.execute(SQL("DROP OWNED BY {}").format(Identifier(f"reader_{club.name}")))
            session.execute(SQL("DROP ROLE {}").format(Identifier(f"reader_{club.name}")))


def test_looking_writes_nothing_and_leaves_the_session_as_it_was(club: Any) -> None:
    """A policy that writes when a table is read cannot: the table is named as unseen; afterwards the session has the limits that it had."""
    role = Identifier(f"looker_{club.name}")
    with club.session() as session:
        session.execute("CREATE TABLE gesehen (n int)")
        session.execute(
            "CREATE FUNCTION merke() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO gesehen VALUES (1); RETURN true; END$$"
        )
        session.execute("ALTER TABLE vorrat ENABLE ROW LEVEL SECURITY")
        session.execute("CREATE POLICY alle ON vorrat USING (merke())")
        session.execute(SQL("CREATE ROLE {}").format(role))
        session.execute(SQL("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {}").format(role))
        session.set("row_security", "on")
        session.set("statement_timeout", "77s")
        session.execute(SQL("SET ROLE {}").format(role))
        catalogue = read_catalogue(session)
        seen = sample(session, catalogue)
        assert [catalogue.tables[oid].name for oid in seen.unseen] == ["vorrat"]
        assert [session.value(f"SHOW {name}") for name in ("statement_timeout", "default_transaction_read_only")] == ["77s", "off"]
        session.execute("SELECT count(*) FROM vorrat")
        session.execute("RESET ROLE")
        assert session.value("SELECT count(*) FROM gesehen") > 0, "the policy writes where it may"
        session.execute(SQL("DROP OWNED BY {}").format(role))
        session.execute(SQL("DROP ROLE {}").format(role))


def test_documents_that_nobody_can_read(club: Any) -> None:
    """A document nested a thousandfold, one with a NUL and one of half a megabyte stop nothing; the column stays a question."""
    with club.session() as session:
        session.execute("CREATE TABLE ablage (id int PRIMARY KEY, mitglied_id int NOT NULL REFERENCES mitglied, x json, y jsonb)")
        session.execute("INSERT INTO ablage VALUES (1, 1, (repeat('[', 3000) || repeat(']', 3000))::json, NULL)")
        session.execute("INSERT INTO ablage VALUES (2, 1, '{\"a\": \"\\u0000\"}', jsonb_build_object('a', repeat('x', 500000)))")
        catalogue = read_catalogue(session)
        seen = sample(session, catalogue)
        (oid,) = [table.oid for table in catalogue.roots if table.name == "ablage"]
    assert oid not in seen.unseen
    assert discover(catalogue, seen).verdicts[oid]["x"].open


def test_machines_get_reasons_too(club: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """With --json each personal or open column comes with category, confidence, reasons and question."""
    assert main(["--json", "datamap", "suggest", "club", "--url", club.url]) == 0
    document = json.loads(capfd.readouterr().out)
    found = {(one["table"], one["column"]): one for one in document["columns"]}
    assert found["public.mitglied", "c3"]["category"] == "user.financial.bank_account"
    assert found["public.mitglied", "c3"]["confidence"] > 0.9
    assert found["public.mitglied", "c3"]["reasons"] == ["100% of 60 sampled values are IBANs with right check digits"]
    assert found["public.mitglied", "c14"]["question"] == "personal or not?"


def test_names_only_reads_no_value(club: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """With --names-only nothing that only values tell is in the proposal."""
    assert main(["datamap", "suggest", "club", "--url", club.url, "--names-only"]) == 0
    text = capfd.readouterr().out
    rules = loads(text).database("club")
    assert set(rules.tables["public.mitglied"].columns) == {"nachname", "email"}
    assert "sampled" not in text
