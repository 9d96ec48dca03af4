"""Mutations of the proof: whatever is wrong with a restored database or its certificate is found, each time by its own finding."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.lost import Lost
from support.sweep import sweep

from obhut.foundation.settings import load
from obhut.keystore import open_keystore
from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session
from obhut.restores import certificate as certificates

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.slow]

EMAIL = "secret5@mail.invalid"  # of patient 5, who was erased
# The very person: same key, same moment of registration.
PERSON = f"INSERT INTO patient (id, clinic_id, first_name, email, created_at) VALUES (5, 1, 'X', '{EMAIL}', timestamptz '2025-06-01' + 5 * interval '1 hour')"

# What is done to the target before the proof, how it is undone, and which statement has to fail.
BEFORE_THE_PROOF: dict[str, tuple[str, str, str]] = {
    "a row of an erased person": (PERSON, "DELETE FROM patient WHERE id = 5", "absence"),
    "a row that names an erased person": (
        "INSERT INTO event (about, about_id, words) VALUES ('patient', 5, 'x')",
        "DELETE FROM event WHERE about = 'patient' AND about_id = 5",
        "absence",
    ),
    "a changed value": ("UPDATE price SET amount = amount + 1 WHERE code = 'p3'", "UPDATE price SET amount = amount - 1 WHERE code = 'p3'", "figures"),
    "two values that changed places": (
        "UPDATE price SET amount = 7 - amount WHERE code IN ('p3', 'p4')",
        "UPDATE price SET amount = 7 - amount WHERE code IN ('p3', 'p4')",
        "figures",
    ),
    "a row too few": ("DELETE FROM price WHERE code = 'p4'", "INSERT INTO price VALUES ('p4', 4)", "figures"),
    "a row twice": ("INSERT INTO price VALUES ('p4b', 4)", "DELETE FROM price WHERE code = 'p4b'", "figures"),
    "an anonymised person with her address": (
        "UPDATE patient SET email = 'secret7@mail.invalid' WHERE id = 7",
        "UPDATE patient SET email = 'former-7@clinic.invalid' WHERE id = 7",
        "figures",
    ),
    "a letter that points to an erased person": (
        "UPDATE letter SET body = 'from secret4 to secret5' WHERE id = 4",
        "UPDATE letter SET body = NULL WHERE id = 4",
        "figures",
    ),
    "an identifier in the predicate of an index": (
        f"CREATE INDEX leak ON patient (id) WHERE email <> '{EMAIL}'", "DROP INDEX leak", "schema-text",
    ),
    "an identifier in a comment": (f"COMMENT ON TABLE price IS 'see {EMAIL}'", "COMMENT ON TABLE price IS NULL", "schema-text"),
    "an identifier in a default": (
        f"ALTER TABLE event ALTER words SET DEFAULT '{EMAIL}'", "ALTER TABLE event ALTER words DROP DEFAULT", "schema-text",
    ),
    "an identifier in a view": (f"CREATE VIEW leak AS SELECT '{EMAIL}'::text AS x", "DROP VIEW leak", "schema-text"),
    "an identifier in a function": (
        f"CREATE FUNCTION leak() RETURNS text LANGUAGE sql AS $f$ SELECT '{EMAIL}'::text $f$", "DROP FUNCTION leak()", "schema-text",
    ),
    "an identifier in a check": (
        f"ALTER TABLE price ADD CONSTRAINT leak CHECK (code <> '{EMAIL}')", "ALTER TABLE price DROP CONSTRAINT leak", "schema-text",
    ),
    "planner statistics that were carried over": (
        ("SELECT pg_restore_attribute_stats('schemaname', 'public', 'relname', 'patient', 'attname', 'email', 'inherited', false,"
        f" 'null_frac', 0::real, 'avg_width', 20, 'n_distinct', -1::real, 'histogram_bounds', '{{a@mail.invalid,{EMAIL}}}'::text)"),
        "ANALYZE patient",
        "planner-statistics",
    ),
}  # fmt: skip


def _target(lost: Lost, run: str) -> Cluster:
    source = lost.installation.cluster
    return Cluster(lost.directory(run) / "target", source.binaries, source.user)


def _sql(lost: Lost, run: str, statement: str) -> None:
    cluster = _target(lost, run)
    cluster.start()
    with Session.connect(cluster.url("clinic")) as session:
        session.execute(statement)


def _failed(lost: Lost, run: str) -> set[str]:
    shown = lost.obhut("restore", "show", run)
    return {statement["name"] for statement in shown["statements"] if statement["result"] == "failed"}


@pytest.fixture(scope="module")
def waiting(lost: Lost) -> Iterator[str]:
    """Give a restore that is loaded and not yet proved."""
    known = set(lost.runs())
    lost.obhut.killed_at("restore.prove.before", "restore", "run", "clinic", "--to", lost.point)
    (run,) = set(lost.runs()) - known
    yield run
    lost.obhut.run("restore", "abandon", run)


def test_the_proof_finds_every_mutation(lost: Lost, waiting: str) -> None:
    """Each mutation of the target fails the proof by its own statement, exit status 5, and the database cannot be opened."""

    def case(name: str) -> None:
        do, undo, statement = BEFORE_THE_PROOF[name]
        _sql(lost, waiting, do)
        try:
            lost.obhut.refused("restore", "resume", waiting, code="restore-not-proved", status=5)
            assert statement in _failed(lost, waiting), f"found otherwise: {_failed(lost, waiting)}"
            lost.obhut.refused("restore", "open", waiting, code="restore-not-proved", status=5)
        finally:
            _sql(lost, waiting, undo)

    sweep(BEFORE_THE_PROOF, case)
    # All is undone and no query finds anything; what was written still lies in the target's WAL, and that alone keeps it closed.
    lost.obhut.refused("restore", "resume", waiting, code="restore-not-proved", status=5)
    assert _failed(lost, waiting) == {"bytes"}


def test_a_table_too_many_is_refused(lost: Lost, waiting: str) -> None:
    """A table that the data map does not know appears in the target: the proof is not even begun."""
    _sql(lost, waiting, "CREATE TABLE extra (x int)")
    try:
        lost.obhut.refused("restore", "resume", waiting, code="restore-refused", status=3)
    finally:
        _sql(lost, waiting, "DROP TABLE extra")


def test_a_resume_mends_sequences(lost: Lost, waiting: str) -> None:
    """A sequence that would give an erased key again is set anew before the proof, which checks it."""
    _sql(lost, waiting, "SELECT setval(pg_get_serial_sequence('patient', 'id'), 4)")
    lost.obhut.run("restore", "resume", waiting)
    cluster = _target(lost, waiting)
    cluster.start()
    with Session.connect(cluster.url("clinic")) as session:
        assert session.value("SELECT nextval(pg_get_serial_sequence('patient', 'id'))") > lost.canary
    assert "sequences" not in _failed(lost, waiting)


def test_bytes_that_no_row_shows_fail_the_proof(lost: Lost) -> None:
    """A value was written and deleted again: no query finds it, its bytes lie in heap and WAL, the search of the files finds them."""
    known = set(lost.runs())
    lost.obhut.killed_at("restore.prove.before", "restore", "run", "clinic", "--to", lost.point)
    (run,) = set(lost.runs()) - known
    _sql(lost, run, f"INSERT INTO price VALUES ('{lost.token}', 1)")
    _sql(lost, run, f"DELETE FROM price WHERE code = '{lost.token}'")
    lost.obhut.refused("restore", "resume", run, code="restore-not-proved", status=5)
    assert _failed(lost, run) <= {"bytes", "canaries"} and "bytes" in _failed(lost, run)
    lost.abandon(run)


# -- a certificate and its database, later ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certified(lost: Lost) -> Iterator[tuple[str, Path, str]]:
    """Give a restore that is proved and open: its run, certificate and URL."""
    done = lost.run()
    opened = lost.obhut("restore", "open", done["run"])
    assert lost.obhut("restore", "verify", done["certificate"])["passed"] is True
    yield done["run"], Path(done["certificate"]), opened["url"]
    _target(lost, done["run"]).remove()


AFTERWARDS = {
    name: BEFORE_THE_PROOF[name]
    for name in ("a row of an erased person", "a row that names an erased person", "a changed value", "two values that changed places",
                 "a row too few", "a row twice", "an anonymised person with her address")
}  # fmt: skip


def test_a_stranger_finds_every_mutation(lost: Lost, certified: tuple[str, Path, str]) -> None:
    """Verification of the certificate by other code finds what changed since; put right, it passes again."""
    _, file, url = certified

    def case(name: str) -> None:
        do, undo, _ = AFTERWARDS[name]
        with Session.connect(url) as session:
            session.execute(do)
        try:
            lost.obhut.refused("restore", "verify", file, code="certificate-differs", status=5)
        finally:
            with Session.connect(url) as session:
                session.execute(undo)

    sweep(AFTERWARDS, case)
    with Session.connect(url) as session:
        session.execute("SELECT setval(pg_get_serial_sequence('patient', 'id'), 100)")
    assert lost.obhut("restore", "verify", file)["passed"] is True


def test_a_changed_certificate_fails(lost: Lost, certified: tuple[str, Path, str]) -> None:
    """A wrong count, a statement made true, another run, a foreign signature, a count signed by the right key: each is refused."""
    _, file, _ = certified
    original = file.read_text(encoding="utf-8")
    settings = load(lost.installation.folder / "obhut.toml")

    def price(document: dict[str, Any]) -> dict[str, Any]:
        return next(table for table in document["certificate"]["tables"] if table["name"] == "price")

    def wrong_count(document: dict[str, Any]) -> None:
        price(document)["target"] += 1

    def wrong_checksum(document: dict[str, Any]) -> None:
        price(document)["checksum"] = "1"

    def another_run(document: dict[str, Any]) -> None:
        document["certificate"]["run"] = "run_other"

    def unchecked_made_true(document: dict[str, Any]) -> None:
        for statement in document["certificate"]["statements"]:
            statement["result"] = "passed"

    def foreign_signature(document: dict[str, Any]) -> None:
        signed = b"obhut restore certificate v1\n" + certificates.canonical(document["certificate"])
        document["signature"]["value"] = base64.b64encode(Ed25519PrivateKey.generate().sign(signed)).decode()

    def honest_signature_of_a_lie(document: dict[str, Any]) -> None:
        wrong_count(document)
        document.update(certificates.sign(document["certificate"], open_keystore(settings)))

    def honest_signature_without_a_table(document: dict[str, Any]) -> None:
        document["certificate"]["tables"] = [table for table in document["certificate"]["tables"] if table["name"] != "price"]
        document.update(certificates.sign(document["certificate"], open_keystore(settings)))

    def of_another_server(document: dict[str, Any]) -> None:
        document["certificate"]["target"]["system_identifier"] = "1"
        document.update(certificates.sign(document["certificate"], open_keystore(settings)))

    def no_signature(document: dict[str, Any]) -> None:
        del document["signature"]

    changes = {
        change.__name__: change
        for change in (wrong_count, wrong_checksum, another_run, unchecked_made_true, foreign_signature, honest_signature_of_a_lie,
                       honest_signature_without_a_table, of_another_server, no_signature)
    }  # fmt: skip

    def case(name: str) -> None:
        document = json.loads(original)
        changes[name](document)
        file.write_text(json.dumps(document), encoding="utf-8")
        lost.obhut.refused("restore", "verify", file, code={"certificate-differs", "certificate-invalid"}, status=5)

    try:
        sweep(changes, case)
    finally:
        file.write_text(original, encoding="utf-8")
    assert lost.obhut("restore", "verify", file)["passed"] is True


def test_a_certificate_proves_nothing_about_another_database(lost: Lost, certified: tuple[str, Path, str]) -> None:
    """Held against production, with every erased person already gone there, the certificate does not pass."""
    _, file, _ = certified
    lost.obhut.refused("restore", "verify", file, "--target", lost.installation.url, code="certificate-differs", status=5)
