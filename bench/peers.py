"""The other side of the discovery benchmark: tools that people use today, in an environment of their own that is thrown away.

dbslice judges by its GDPR profile and built-in patterns. pg_anon brings no rules; it gets those of the kind that its guide shows, as
patterns anywhere in a name, which is more than the guide gives it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.corpus import Corpus
from obhut.datamap.discovery.looking import Sampled, sample
from obhut.foundation.settings import load
from obhut.postgres.catalogue import Catalogue, read_catalogue
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier, trusted

PINNED: Final = ("dbslice==1.0.1", "pg_anon==1.12.0")
DEBIAN: Final = Path("/usr/lib/postgresql/15/bin")
_WORDS: Final = (
    "name",
    "email",
    "phone",
    "ssn",
    "card_number",
    "birth",
    "salary",
    "address",
    "city",
    "login",
    "password",
    "passport",
    "iban",
)
_DBSLICE: Final = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from dbslice.compliance.profiles import get_profile
from dbslice.utils.anonymizer import DeterministicAnonymizer
profile = get_profile("gdpr")
judge = DeterministicAnonymizer(seed="bench")
judge.configure([], fallback_patterns={f"*.{pattern}*": how for pattern, how in profile.required_column_patterns.items()},
                security_null_fields=[f"*.{pattern}*" for pattern in profile.required_null_patterns])
free = profile.warn_freetext_columns
wanted = lambda table, column: (judge.should_anonymize(table, column) or judge.should_null(table, column)
                                or any(word in column.lower() for word in free))
print(json.dumps([[t, c] for t, c in json.load(sys.stdin) if wanted(t, c)]))
"""


class PeerError(Exception):
    """A peer did not run."""


def install(place: Path) -> tuple[Path | None, str]:
    """Install the peers into an environment below the place; return its programs, or why there are none."""
    home = place / "peers"
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PINNED],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if ran.returncode:
            return None, ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else f"status {ran.returncode}"
    return home / "bin", ""


def dbslice(programs: Path, schemas: list[Corpus]) -> dict[str, dict[tuple[str, str], str]]:
    """Return the columns that dbslice's GDPR profile masks, nulls or warns about."""
    answers = {}
    for one in schemas:
        asked = json.dumps([list(at) for at in one.labels])
        listed = json.loads(_run([programs / "python", "-c", _DBSLICE], asked))
        answers[one.name] = dict.fromkeys(((table, column) for table, column in listed), "")
    return answers


def pg_anon(programs: Path, place: Path, schemas: list[Corpus]) -> dict[str, dict[tuple[str, str], str]]:
    """Return the columns that pg_anon's scan calls sensitive: the real program on empty tables, a schema each."""
    rules, result = place / "meta_dict.py", place / "sens_dict.py"
    types = [
        "text",
        "varchar",
        "bpchar",
        "date",
        "numeric",
        "int4",
        "int8",
        "int2",
        "timestamp",
        "timestamptz",
        "json",
        "jsonb",
        "inet",
        "bytea",
    ]
    rules.write_text(
        repr({"field": {"rules": [f"(?i){word}" for word in _WORDS]}, "sens_pg_types": types, "funcs": {"default": "NULL"}}),
        encoding="utf-8",
    )
    if not DEBIAN.is_dir():
        raise PeerError(f"it needs pgcrypto, so Debian's PostgreSQL, which is not in {DEBIAN}")
    with _server(place / "server", 15) as cluster:
        with Session.connect(cluster.url()) as session:
            for one in schemas:
                _create(session, one)
        server = [f"--db-host={cluster.socket_directory}", "--db-user=obhut", "--db-name=postgres", "--db-user-password=none"]
        _run([programs / "pg_anon", "init", *server], "", place)
        files = [f"--meta-dict-file={rules}", f"--output-sens-dict-file={result}"]
        _run([programs / "pg_anon", "create-dict", *server, *files, "--scan-mode=partial"], "", place)
    found: dict[str, dict[tuple[str, str], str]] = {}
    for one in schemas:
        found[one.name] = {}
    for entry in ast.literal_eval(result.read_text(encoding="utf-8"))["dictionary"]:
        for column in entry["fields"]:
            found[entry["schema"]][entry["table"], column] = ""
    return found


def _create(session: Session, one: Corpus) -> None:
    """Create the tables without constraints; a type of an extension or an enum becomes text."""
    known = (
        "text",
        "character",
        "integer",
        "bigint",
        "smallint",
        "numeric",
        "real",
        "double",
        "date",
        "time",
        "boolean",
        "json",
        "inet",
        "bytea",
    )
    session.execute(SQL("CREATE SCHEMA {}").format(Identifier(one.name)))
    for table in one.catalogue.tables.values():
        columns = [
            SQL("{} {}").format(Identifier(column.name), trusted(column.type if column.type.startswith(known) else "text"))
            for column in table.columns
        ]
        session.execute(SQL("CREATE TABLE {}.{} ({})").format(Identifier(one.name), Identifier(table.name), SQL(", ").join(columns)))


def pagila(place: Path, samples: Path) -> tuple[Catalogue, Sampled] | None:
    """Load Pagila and look at it; None where the sample data is missing."""
    files = [samples / "pagila" / name for name in ("pagila-schema.sql", "pagila-data.sql")]
    if not all(file.is_file() for file in files):
        return None
    with _server(place / "pagila") as cluster:
        for file in files:
            _run([cluster.binaries.path("psql"), "-qX", "-d", cluster.url(), "-f", file], "")
        with Session.connect(cluster.url()) as session:
            session.execute("ANALYZE")
            catalogue = read_catalogue(session)
            return catalogue, sample(session, catalogue)


@contextmanager
def _server(place: Path, major: int = 18) -> Iterator[Cluster]:
    settings_file = place.with_suffix(".toml")
    settings_file.write_text(f'[state]\ndirectory = "."\n[postgres.binaries]\n15 = "{DEBIAN}"\n', encoding="utf-8")
    settings = load(settings_file)
    cluster = Cluster(place, binaries(settings, major), server_user(settings))
    try:
        cluster.init(durable=False)
        cluster.configure({"fsync": False, "synchronous_commit": False})
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def _run(command: list[Any], told: str, place: Path | None = None) -> str:
    """Run a program, in a folder of its own where it writes files wherever it is started."""
    words = [str(word) for word in command]
    ran = subprocess.run(words, input=told, capture_output=True, text=True, check=False, timeout=600, cwd=place)
    if ran.returncode:
        said = [line for line in (ran.stdout + ran.stderr).splitlines() if "Error" in line]
        raise PeerError(said[-1] if said else f"status {ran.returncode}")
    return ran.stdout
