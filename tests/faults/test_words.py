"""Known strings in every personal column, and errors that quote values on purpose: none of them gets into anything that Obhut says or stores."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import clinic, scanner
from support.installation import Installation, programs

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.slow]

# Every personal value of patient N begins with "secretN": nine words find them all.
WORDS = [*(f"secret{digit}" for digit in range(1, 10)), "former-15@clinic.invalid"]

# PostgreSQL quotes values: the whole row of a failed check, the value of a broken unique key, the line of a failed COPY, anything in RAISE.
TRAPS = (
    "ALTER TABLE patient ADD CONSTRAINT nobody_is_called_so CHECK (id <> 13 OR first_name <> 'Former')",
    "UPDATE patient SET email = 'former-15@clinic.invalid' WHERE id = 19",
    """
    CREATE FUNCTION fine(body text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN
      IF body LIKE '%boom%' AND current_setting('application_name') LIKE 'obhut%' THEN RAISE EXCEPTION 'bad value %', body; END IF;
      RETURN true;
    END $f$
    """,
    "ALTER TABLE letter ADD CONSTRAINT is_fine CHECK (public.fine(body))",
)


@pytest.fixture(scope="module")
def said() -> Iterator[Installation]:
    """Give an installation in which everything has been done once, and everything has gone wrong once."""
    with clinic.installed_clinic() as installation:
        obhut = installation.obhut
        for statement in TRAPS:
            installation.sql(statement)
        obhut("canary", "plant", "clinic")
        installation.backup()
        point = installation.position()
        installation.commit_something()

        # keys that are no keys: the server would quote them in its message
        obhut.refused("erase", "clinic", "patient", "secret13@mail.invalid")
        obhut.refused("erase", "clinic", "secret13@mail.invalid", "1")
        obhut.refused("erase", "clinic", "patient", '["secret13@mail.invalid", "x"]')
        obhut.refused("restore", "run", "clinic", "--to", "secret13@mail.invalid")
        obhut.refused("restore", "run", "clinic", "--to", point, "--subject", "patient:secret13@mail.invalid")
        obhut.refused("controllers", "add", "--database", "secret13@mail.invalid", "--key", "1", "--name", "x")
        # a failing row is quoted in DETAIL, a duplicate value too
        assert obhut.refused("erase", "clinic", "patient", 13, "--anonymise").status == 3
        assert obhut.refused("erase", "clinic", "patient", 15, "--anonymise").status == 3
        # They stay recorded, and no restore could do what production refuses: the controller takes its word back.
        stuck = [one for one in obhut("erasures", "list", "clinic", "--state", "recorded") if one["action"] == "anonymise"]
        assert len(stuck) == 2
        for tombstone in stuck:
            instruction = obhut("instructions", "list", "--controller", tombstone["controller"])[0]["id"]
            obhut("erasures", "lift", tombstone["id"], "--instruction", instruction)
        # what works
        obhut("erase", "clinic", "patient", 5, "--dry-run")
        obhut("erase", "clinic", "patient", 5, 8)
        obhut("erase", "clinic", "patient", 7, "--anonymise")
        # for a person to read: tables, progress and pages instead of JSON
        for words in (["erase", "clinic", "patient", "9"], ["backup", "list", "clinic"], ["runs", "list"], ["erasures", "list", "clinic"]):
            line = [word for word in obhut.line(words) if word != "--json"]
            done = subprocess.run(line, env=obhut.environment(), cwd="/", capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 0, done.stderr
            (installation.folder / f"said-{words[0]}-{words[1]}").write_text(done.stdout + done.stderr, encoding="utf-8")
        # a restore that works, one that fails on a row, one person's
        with installation.session() as vendor:
            vendor.set("application_name", "vendor")
            vendor.execute("INSERT INTO letter (sender_id, sender_name, body) VALUES (21, 'Secret2first', 'boom of secret2')")
        later = installation.position()
        installation.commit_something()
        installation.flush()
        done = obhut("restore", "run", "clinic", "--to", point)
        obhut("restore", "verify", done["certificate"])
        obhut("restore", "run", "clinic", "--to", point, "--subject", "patient:21")
        failed = obhut.refused("restore", "run", "clinic", "--to", later)
        assert "boom" not in failed.said
        for command in (["runs", "list"], ["restore", "list", "clinic"], ["promises"], ["backup", "check", "clinic"]):
            obhut.run(*command)
        for run in obhut("runs", "list"):
            obhut("runs", "show", run["run"])
        yield installation


def test_nothing_that_was_said(said: Installation) -> None:
    """No word of a person stands in anything a command printed, results and errors, JSON and text."""
    spoken = {str(result.arguments): scanner.in_text(result.said, WORDS) for result in said.obhut.log}
    assert len(spoken) > 20
    # A refusal may not even repeat what was typed: it goes into tickets and logs.
    assert {arguments: found for arguments, found in spoken.items() if found} == {}
    assert [hit for path in said.folder.glob("said-*") for hit in scanner.hits(path, WORDS)] == []


def test_nothing_in_logs_and_files(said: Installation) -> None:
    """No word stands in a file that Obhut keeps: logs, catalogues, mirror, keys, certificates, sealed backups; nor in the vendor's server log."""
    said.sql("CHECKPOINT")
    assert scanner.hits(said.cluster.data / "base", WORDS), "positive control: the words are in the database"
    kept: list[Path] = [said.cluster.log]
    skipped = [said.state / "control" / "data", said.archive / "streaming"]
    for root in (said.state, said.folder / "mirror", said.folder / "keys"):
        for path in root.rglob("*"):
            inside = path.relative_to(said.state).parts if path.is_relative_to(said.state) else ()
            restored = (
                len(inside) > 3 and inside[0] == "restores" and inside[2] in {"quarantine", "target"} and inside[3] in {"data", "wal"}
            )
            if path.is_file() and not restored and not any(path.is_relative_to(place) for place in skipped):
                kept.append(path)
    names = {path.name for path in kept}
    assert {"log", "barman.log", "catalogue.json"} <= names, "the places that would show it are among those looked at"
    assert any(path.suffix == ".html" for path in kept)
    assert [hit for path in kept for hit in scanner.hits(path, WORDS)] == []


def test_nothing_in_the_control_database(said: Installation) -> None:
    """No word stands in any table of the control database: journal, jobs, list, instructions, alarms, certificates."""
    cluster = said.control_cluster()
    with said.control_session() as session:
        database = session.database
        assert session.value("SELECT count(*) FROM journal_run WHERE state = 'failed'") > 0
    done = subprocess.run([programs(18).path("pg_dump"), "--dbname", cluster.url(database)], check=True, capture_output=True, text=True)
    assert "journal_step" in done.stdout and len(done.stdout) > 50_000
    assert scanner.in_text(done.stdout, WORDS) == []


def test_no_words_on_command_lines_or_in_activity(said: Installation) -> None:
    """What the servers show of sessions holds no word: keys travel as parameters."""
    with said.session() as session:
        shown = "\n".join(
            str(row) for row in session.rows("SELECT query, application_name FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
    assert scanner.in_text(shown, WORDS) == []
