"""Promise *staging*: test and staging databases hold nobody of production; a copy that leaks is dropped, and says where it leaked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import scanner
from support.clinic import installed_clinic
from support.installation import Installation
from support.oracle import differences, rows
from support.pagila import installed_pagila

from obhut.clones import mark
from obhut.foundation.settings import load
from obhut.keystore import open_keystore
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError

pytestmark = [pytest.mark.journey, pytest.mark.postgres]

PEOPLE = 60
COUNTED = ("patient", "visit", "letter", "invoice", "event", "price", "address")
# Runs several commands in one process, each with one rule of the run's plan taken away; what the check compares with stays whole. With a
# third word every table counts as large: it is masked by other processes, carried by psql, and searched by other processes.
MUTANT = """
import dataclasses, json, sys
from obhut.cli import main
from obhut.clones import leaks, originals, prepare
from obhut.restores import streams
from obhut.masking.model import MaskPlan
honest = prepare.plan_masks
wanted = {}

def mutated(graph, surroundings, *, locale="de"):
    plan = honest(graph, surroundings, locale=locale)
    tables = {oid: dataclasses.replace(table, columns=tuple(changed(table.name, column) for column in table.columns))
              for oid, table in plan.tables.items()}
    return dataclasses.replace(plan, tables=tables)

def changed(table, column):
    if wanted["table"] != table or wanted["column"] != column.name:
        return column
    if wanted["rest"]:
        return dataclasses.replace(column, options={**column.options, "rest": "keep"})
    return dataclasses.replace(column, transformer="keep", expression=None, person=None, reads=(), key=())

prepare.plan_masks = mutated
if sys.argv[3:]:
    streams.SMALL = leaks.FORKED = originals.FORKED = 0
for case in json.loads(sys.argv[2]):
    wanted = case
    print("STATUS", main.main(["--config", sys.argv[1], "--json", "clone", "run"]), flush=True)
"""


@pytest.fixture(scope="module")
def clinic() -> Iterator[Installation]:
    """Give an installation with a canary, somebody whose erasure was recorded and killed, and an empty staging database."""
    with installed_clinic(people=PEOPLE) as installation:
        installation.obhut("canary", "plant", "clinic")
        installation.obhut.killed_at("erase.recorded", "erase", "clinic", "patient", "7")
        with Session.connect(installation.cluster.url()) as session:
            session.execute("CREATE DATABASE staging")
        yield installation


@pytest.fixture(scope="module")
def copy(clinic: Installation) -> dict[str, Any]:
    """Give the document of a copy in a cluster of its own."""
    document: dict[str, Any] = clinic.obhut("clone", "run")
    return document


def _copies(clinic: Installation) -> list[Path]:
    return sorted(path for path in (clinic.state / "clones").iterdir() if path.is_dir())


def _row_counts(session: Session) -> dict[str, int]:
    return {name: session.value(f"SELECT count(*) FROM {name}") for name in COUNTED}


def test_a_copy_holds_no_byte_of_anybody(clinic: Installation, copy: dict[str, Any]) -> None:
    """Heap, indexes, statistics, WAL and logs of the copy's server hold no word of a patient; the same search finds them at the source."""
    words = [f"secret{digit}" for digit in range(1, 10)]  # every personal value holds one
    cluster = clinic.state / "clones" / copy["run"]
    clinic.sql("CHECKPOINT")
    assert scanner.hits(clinic.cluster.data / "base", words), "the search finds nothing where everything is"
    assert scanner.hits(cluster, words) == []
    assert {one["name"]: one["result"] for one in copy["statements"]} == dict.fromkeys(
        ("definitions", "identifiers", "values", "canaries", "rules", "statistics", "stream"), "passed"
    )
    assert copy["label"] == "deidentified"


def test_the_application_finds_its_shapes(clinic: Installation, copy: dict[str, Any]) -> None:
    """Counts for each group, joins and shares of NULL are those of the source without the person on the list; sequences go on above."""
    groups = (
        "SELECT clinic_id, count(*), count(referred_by), count(photo) FROM patient WHERE id <> 7 GROUP BY 1 ORDER BY 1",
        "SELECT count(*) FROM visit v JOIN patient p ON p.id = v.patient_id WHERE p.id <> 7",
        "SELECT c.name, count(*) FROM clinic c JOIN patient p ON p.clinic_id = c.id WHERE p.id <> 7 GROUP BY 1 ORDER BY 1",
        "SELECT count(*) FROM event WHERE about = 'price'",
    )
    with clinic.session() as source, Session.connect(copy["url"]) as there:
        for query in groups[1:]:
            assert there.rows(query.replace("p.id <> 7", "true")) == source.rows(query), query
        theirs = there.rows(groups[0].replace("id <> 7", "true"))
        assert [row[:2] for row in theirs] == [row[:2] for row in source.rows(groups[0])]
        assert there.value("SELECT count(*) FROM patient") == source.value("SELECT count(*) - 1 FROM patient")
        assert there.value("SELECT count(*) FROM patient p JOIN event e ON e.about_id = p.id WHERE about = 'patient'") == source.value(
            "SELECT count(*) FROM patient p JOIN event e ON e.about_id = p.id WHERE about = 'patient' AND p.id <> 7"
        )
        assert there.value("SELECT bool_and(date_trunc('year', born_on) = born_on) FROM patient")
        added = there.value("INSERT INTO patient (clinic_id, first_name, email) VALUES (1, 'x', 'x@example.org') RETURNING id")
        assert added > there.value("SELECT max(id) FROM patient WHERE id <> %s", (added,))
        there.execute("DELETE FROM patient WHERE id = %s", (added,))


def test_a_copy_says_what_it_is(clinic: Installation, copy: dict[str, Any]) -> None:
    """The mark holds up to a check; in another database, without signature, or when a value of the source came in later, it does not."""
    verified = clinic.obhut("clone", "verify", copy["run"])
    assert verified["holds"] and verified["label"] == "deidentified" and verified["run"] == copy["run"]
    said = clinic.obhut.refused(
        "clone", "sign", copy["run"], "--person", "acc-1", "--review-by", "2099-01-01", code="clone-not-anonymous", status=5
    )
    assert "anonymised" in said.document["error"]["fact"], "years of birth and times of visits are left"
    with Session.connect(copy["url"]) as there:
        there.execute("INSERT INTO status (word) VALUES ('ask secret9@mail.invalid for it')")
        found = clinic.obhut.refused("clone", "verify", copy["run"], code="clone-leak", status=5)
        assert "public.status.word" in found.document["error"]["fact"]
        there.execute("TRUNCATE status")
        marked = there.row("SELECT label, database, moment, map_version, run, document FROM obhut.copy")
        there.execute("UPDATE obhut.copy SET document = replace(document, 'deidentified', 'anonymised')")
        clinic.obhut.refused("clone", "verify", copy["run"], code="clone-mark-invalid", status=5)
        there.execute("UPDATE obhut.copy SET document = %s", (marked[-1],))
    with Session.connect(clinic.cluster.url("staging")) as elsewhere:
        clinic.obhut.refused("clone", "verify", "--url", clinic.cluster.url("staging"), code="clone-mark-invalid", status=5)
        elsewhere.execute("CREATE SCHEMA obhut; CREATE TABLE obhut.copy (document text)")
        elsewhere.execute("INSERT INTO obhut.copy VALUES (%s)", (marked[-1],))
        told = clinic.obhut.refused("clone", "verify", "--url", clinic.cluster.url("staging"), code="clone-mark-invalid", status=5)
        assert "another database" in told.document["error"]["fact"]
        elsewhere.execute("DROP SCHEMA obhut CASCADE")


def test_a_rule_that_is_lost_is_named(clinic: Installation, copy: dict[str, Any]) -> None:
    """With any one rule of the run taken away the check fails, names the column, and nothing of the copy is left."""
    before = _copies(clinic)
    cases = [
        ("public.patient", "email", False, "public.patient.email"),
        ("public.patient", "first_name", False, "public.patient.first_name"),
        ("public.patient", "tags", False, "public.patient.tags[*]"),
        ("public.patient", "profile", True, "public.patient.profile$.nick"),
        ("public.patient", "born_on", False, "public.patient.born_on"),
    ]
    said = _mutants(clinic, cases)
    for (_, _, _, place), text in zip(cases, said, strict=False):
        error = json.loads(text[text.index("{") :])["error"]
        assert error["code"] == "clone-leak", text
        # Every patient's value, counted in the copy itself: not only the run's own counts tell.
        assert int(error["fact"].split(f"{place} (")[1].split(")")[0]) >= PEOPLE - 1, (place, error["fact"])
    assert [status.split()[0] for status in said[1:]] == ["5"] * len(cases)
    assert _copies(clinic) == before, "a copy that leaks is dropped with its directory"


def test_large_tables_are_carried_by_others_and_alike(clinic: Installation, copy: dict[str, Any]) -> None:
    """Through masking processes and psql a lost rule is named, too; the whole rules make a copy of as many rows that passes and verifies."""
    cases = [("public.patient", "email", False, ""), ("public.patient", "profile", True, ""), ("", "", False, "")]
    lost, forgotten, whole = _mutants(clinic, cases, "large")[:-1]
    assert "public.patient.email (" in lost and "clone-leak" in lost
    assert "public.patient.profile$.nick (" in forgotten and "clone-leak" in forgotten
    made = json.loads(whole[whole.index("{") :])
    assert {one["name"]: one["result"] for one in made["statements"]} == dict.fromkeys(
        ("definitions", "identifiers", "values", "canaries", "rules", "statistics", "stream"), "passed"
    )
    assert made["rows"] == copy["rows"]
    with Session.connect(made["url"]) as here, Session.connect(copy["url"]) as there:
        assert _row_counts(here) == _row_counts(there)
        shape = "SELECT count(*), count(email), count(DISTINCT email), sum(length(email)) > 0 FROM patient"
        assert here.rows(shape) == there.rows(shape)
    assert scanner.hits(clinic.state / "clones" / made["run"], [f"secret{digit}" for digit in range(1, 10)]) == []
    clinic.obhut("clone", "drop", made["run"])


def _mutants(clinic: Installation, cases: list[tuple[str, str, bool, str]], *more: str) -> list[str]:
    """Return what was said before each status, and the last status."""
    given = json.dumps([{"table": table, "column": column, "rest": rest} for table, column, rest, _ in cases])
    done = subprocess.run(
        [sys.executable, "-c", MUTANT, str(clinic.folder / "obhut.toml"), given, *more],
        env=clinic.obhut.environment(), cwd="/", capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    said = done.stdout.split("STATUS ")
    assert len(said) == len(cases) + 1, done.stdout + done.stderr
    return said


def test_what_the_vendor_wrote_elsewhere_is_found(clinic: Installation) -> None:
    """An address or a canary in a table called not personal, an address in a comment or a default: each is named, the database empty again."""
    staging = clinic.cluster.url("staging")
    hidden = {
        f"""INSERT INTO status (word) VALUES ('call SECRET11@mail.invalid, please');
        CREATE FUNCTION hidden() RETURNS text LANGUAGE sql AS $$ SELECT convert_from('\\x{b"secret12@mail.invalid".hex()}', 'utf8') $$;
        CREATE MATERIALIZED VIEW shown AS SELECT public.hidden() AS words, min(email) AS email FROM patient""": (
            "public.shown.words (1), public.status.word (1)",
            "TRUNCATE status; DROP MATERIALIZED VIEW shown; DROP FUNCTION hidden()",
        ),
        "INSERT INTO status (word) SELECT 'about ' || first_name FROM patient WHERE first_name LIKE 'obhutcanary%'": (
            "public.status.word",
            "TRUNCATE status",
        ),
        "COMMENT ON COLUMN patient.email IS 'such as secret12@mail.invalid'": ("COMMENT", "COMMENT ON COLUMN patient.email IS NULL"),
        "ALTER TABLE price ALTER code SET DEFAULT 'secret13@mail.invalid'": ("public.price", "ALTER TABLE price ALTER code DROP DEFAULT"),
    }
    for statement, (place, undo) in hidden.items():
        clinic.sql(statement)
        result = clinic.obhut.refused("clone", "run", "--target", staging, code="clone-leak", status=5)
        assert place in result.document["error"]["fact"], str(result)
        assert "secret1" not in result.said.lower()
        clinic.sql(undo)
        with Session.connect(staging) as there:
            assert there.value("SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relnamespace = 'public'::regnamespace") == 0
            assert there.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'obhut%%'") == 0


def test_the_promise_reads_the_mark(clinic: Installation) -> None:
    """Undeclared: unproven. Declared and not a copy: broken. A checked copy that nobody called anonymous: unproven, and it says why."""
    settings, staging = clinic.folder / "obhut.toml", clinic.cluster.url("staging")

    def state() -> tuple[str, str]:
        verdict = next(one for one in clinic.obhut.run("promises", "staging").document["promises"] if one["id"] == "staging")
        return verdict["state"], verdict["evidence"][0]["fact"]

    assert state() == ("unproven", "no test or staging database is declared")
    honest = settings.read_text()
    settings.write_text(honest + f'[databases.clinic.staging]\nqa = "{staging}"\n')
    assert state()[0] == "broken" and "no mark" in state()[1]
    made = clinic.obhut("clone", "run", "--target", staging, "--people", "10%")
    assert made["rows"] < 400
    assert state()[0] == "unproven" and "anonymous" in state()[1]
    clinic.obhut("clone", "drop", made["run"])
    assert state()[0] == "broken"
    settings.write_text(honest)


def test_a_part_is_closed_under_foreign_keys(clinic: Installation) -> None:
    """The plan tells the sizes that the copy then has: five people of one clinic, with whoever referred them and their addresses."""
    planned = clinic.obhut("clone", "plan", "--people", "5", "--controller", "2")
    wanted = {one["table"]: one["wanted"] - one["erased"] for one in planned["tables"]}
    made = clinic.obhut("clone", "run", "--people", "5", "--controller", "2")
    with Session.connect(made["url"]) as there:
        assert {f"public.{name}": count for name, count in _row_counts(there).items()} == {
            f"public.{name}": wanted[f"public.{name}"] for name in COUNTED
        }
        assert there.value("SELECT count(*) FROM visit v LEFT JOIN patient p ON p.id = v.patient_id WHERE p.id IS NULL") == 0
        assert 5 <= there.value("SELECT count(*) FROM patient") < 25
        assert there.value("SELECT count(*) FROM price") == 20
    clinic.obhut("clone", "drop", made["run"])
    clinic.obhut.refused("clone", "plan", "--people", "none", code="clone-subset-invalid", status=2)
    named = clinic.obhut("clone", "plan", "--these", "patient:10", "--these", "patient:20")
    # Each of the two was referred by the patient before, has a letter from that one, and has written to the next.
    assert {one["table"]: one["wanted"] for one in named["tables"]}["public.patient"] == 6
    for wrong in ("nobody:1", "patient:1,2", "patient:0"):
        clinic.obhut.refused("clone", "plan", "--these", wrong, code="clone-subset-invalid", status=2)


def test_a_fixture_is_safe_to_commit(clinic: Installation, tmp_path: Path) -> None:
    """Nothing of a copy that nobody answers for is written. With a word, its rows fill an empty schema again, and twice gives one file."""
    made = clinic.obhut("clone", "run", "--people", "8")
    sql = tmp_path / "fixtures" / "clinic.sql"
    clinic.obhut.refused("clone", "fixture", made["run"], "--out", sql, code="clone-not-anonymous", status=5)
    assert not sql.parent.exists()
    settings = load(clinic.folder / "obhut.toml")
    with Session.connect(made["url"]) as copy:
        # What "clone sign" writes when every criterion is met: this clinic's years of birth never let it.
        unsigned = mark.read(copy, open_keystore(settings))
        word = replace(unsigned, label="anonymised", signed_by="acc-1", review_by="2099-01-01")
        mark.write(copy, word, open_keystore(settings))
        before = rows(copy)
    written = clinic.obhut("clone", "fixture", made["run"], "--out", sql)
    text = sql.read_text(encoding="utf-8")
    assert text.splitlines()[1].startswith("-- Label: anonymised. acc-1 answers for it until 2099-01-01")
    assert {one["table"]: one["rows"] for one in written["tables"]}["public.patient"] >= 8
    clinic.obhut("clone", "fixture", made["run"], "--out", sql)
    assert sql.read_text(encoding="utf-8") == text
    with Session.connect(made["url"].replace("/clinic?", "/postgres?")) as session:
        session.execute("CREATE DATABASE again TEMPLATE clinic")
    with Session.connect(made["url"].replace("/clinic?", "/again?")) as again:
        tables = [name for name in before if not name.startswith("obhut.") and name != "public.busy"]
        again.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
        again.execute(text)
        again.execute("REFRESH MATERIALIZED VIEW public.busy")
        again.execute("DROP SCHEMA obhut CASCADE")
        assert differences({name: before[name] for name in (*tables, "public.busy")}, rows(again)) == {}
        assert again.value("SELECT nextval(pg_get_serial_sequence('public.patient', 'id')) > (SELECT max(id) FROM public.patient)")
    csv = tmp_path / "csv"
    clinic.obhut("clone", "fixture", made["run"], "--out", csv, "--form", "csv")
    assert "anonymised" in (csv / "README").read_text(encoding="utf-8") and len(list(csv.glob("*.csv"))) == len(written["tables"])
    (tmp_path / "mine.sql").write_text("SELECT 1", encoding="utf-8")
    clinic.obhut.refused("clone", "fixture", made["run"], "--out", tmp_path / "mine.sql", code="clone-fixture-refused", status=3)
    clinic.obhut("clone", "drop", made["run"])


def test_a_killed_copy_leaves_nothing_that_counts(clinic: Installation, copy: dict[str, Any]) -> None:
    """Killed while rows flow, into a given database and into its own: the next run drops what is there and makes a whole copy."""
    staging = clinic.cluster.url("staging")
    clinic.obhut.killed_at("restore.part.after", "clone", "run", "--target", staging)
    clinic.obhut.killed_at("clone.check.before", "clone", "run")
    made = clinic.obhut("clone", "run", "--target", staging)
    assert [path.name for path in _copies(clinic) if path.name not in {copy["run"], made["run"]}] == []
    assert clinic.obhut("clone", "verify", made["run"])["holds"]
    states = [one["state"] for one in clinic.obhut("clone", "list")]
    assert states.count("cancelled") == 2 or sum("cancelled" in state for state in states) == 2
    clinic.obhut.refused("clone", "run", "--target", staging, code="restore-target-not-empty", status=3)
    assert clinic.obhut("clone", "verify", made["run"])["holds"], "a refusal touches nothing"
    clinic.obhut("clone", "drop", made["run"])


def test_without_class_or_instruction_nothing_is_made(clinic: Installation) -> None:
    """A new column stops the run until the map says what it is; so does a controller that has not instructed copies."""
    clinic.sql("ALTER TABLE patient ADD remark text")
    before = _copies(clinic)
    result = clinic.obhut.refused("clone", "run", status=2)
    assert "remark" in result.said
    clinic.sql("ALTER TABLE patient DROP remark")
    clinic.sql("INSERT INTO clinic VALUES (3, 'Clinic East')")
    clinic.obhut.refused("clone", "run", code="not-instructed", status=4)
    clinic.sql("DELETE FROM clinic WHERE id = 3")
    assert _copies(clinic) == before
    with pytest.raises(DatabaseError), clinic.session() as session:
        session.execute("SELECT 1 FROM obhut.copy")  # nothing was ever written to the source


def test_the_same_on_postgresql_15() -> None:
    """Debian's PostgreSQL 15 on both sides: nobody in rows, indexes, statistics, WAL; the check finds what its own search finds at the source."""
    with installed_clinic(people=20, major=15) as clinic:
        made = clinic.obhut("clone", "run")
        assert scanner.hits(clinic.state / "clones" / made["run"], [f"secret{digit}" for digit in range(1, 10)]) == []
        assert {one["result"] for one in made["statements"] if one["name"] != "canaries"} == {"passed"}
        with clinic.session() as source, Session.connect(made["url"]) as there:
            assert there.server_version // 10_000 == 15
            assert _row_counts(there) == _row_counts(source)
        assert clinic.obhut("clone", "verify", made["run"])["holds"]


@pytest.mark.samples
def test_pagila_keeps_the_shape_of_its_queries() -> None:
    """Without a word about masks in its map: partitions, views, sequences; customers with so many rentals and payments, but nobody known."""
    shapes = (
        "SELECT n, count(*) FROM (SELECT count(*) AS n FROM rental GROUP BY customer_id) c GROUP BY 1 ORDER BY 1",
        "SELECT s, count(*) FROM (SELECT sum(amount) AS s FROM payment GROUP BY customer_id) c GROUP BY 1 ORDER BY 1",
        "SELECT tableoid::regclass::text, count(*) FROM payment GROUP BY 1 ORDER BY 1",
        "SELECT store_id, activebool, count(*), count(email), count(first_name) FROM customer GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT count(*) FROM customer_list",
        (
            "SELECT country, count(*) FROM country JOIN city USING (country_id) JOIN address USING (city_id) JOIN customer USING (address_id)"
            " GROUP BY 1 ORDER BY 1"
        ),
    )
    with installed_pagila() as pagila:
        made = pagila.obhut("clone", "run")
        with pagila.session() as source, Session.connect(made["url"]) as there:
            for query in shapes:
                found = there.rows(query)
                assert found == source.rows(query), query
                assert found
            known = {row[0] for row in source.rows("SELECT email FROM customer UNION SELECT first_name || last_name FROM customer")}
            theirs = {row[0] for row in there.rows("SELECT email FROM customer UNION SELECT first_name || last_name FROM customer")}
            assert len(known & theirs) < 5, "a name of the lists may meet a customer's"
            assert not any(name and "@" in name for name in known & theirs)
        part = pagila.obhut("clone", "run", "--people", "20")
        assert part["rows"] < made["rows"] / 2
        assert pagila.obhut("clone", "verify", part["run"])["holds"]
