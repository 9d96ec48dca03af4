"""The same masked copy by tools that people install from PyPI: pg_anon, pynonymizer, pganonymize.

They run in environments of their own on a slice of the sample, on Debian's PostgreSQL 15 (pg_anon needs pgcrypto), each with rules for the
same ten columns, and each with everything that it takes from the source to a masked database with indexes and keys. Obhut copies the same
slice of the same server. Nothing of what Obhut looks at is looked at, and pynonymizer and pganonymize first put the people into the copy as
they are. A peer that cannot be installed or run says so, and is not counted as beaten.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bench import cloning, house, shop
from bench.alone import TIMEOUT
from bench.measure import Comparison, Stopwatch, compare, unmeasured
from bench.peers import DEBIAN
from obhut.foundation.settings import Settings, load
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier

PINNED: Final = {"pg_anon": "pg_anon==1.12.0", "pynonymizer": "pynonymizer==2.5.0", "pganonymize": "pganonymize==0.13.0"}
_BINARIES: Final = f'[postgres.binaries]\n15 = "{DEBIAN}"\n'
_COPY: Final = "masked"
_SALT: Final = "bench"  # pg_anon takes one salt for a rule; it stands in a file

# Functions that pg_anon brings; equal values stay equal by a salted digest.
_PG_ANON: Final = {
    "users": {
        "name": "anon_funcs.random_string(14)",
        "email": f"anon_funcs.digest(\"email\", '{_SALT}', 'sha256') || '@example.org'",
        "phone": "anon_funcs.random_phone('+49')",
        "born_on": "date_trunc('year', \"born_on\")::date",
    },
    "addresses": {"street": "anon_funcs.random_string(20)", "city": "anon_funcs.random_string(10)"},
    "payments": {"payer": "anon_funcs.random_string(14)"},
    "messages": {"body": "anon_funcs.random_string(320)"},
    "sessions": {"ip": "('192.0.2.' || anon_funcs.random_int_between(1, 254))::inet", "agent": "anon_funcs.random_string(30)"},
}
_PYNONYMIZER: Final = """
tables:
  users: {columns: {name: name, email: unique_email, phone: phone_number, born_on: date_of_birth}}
  addresses: {columns: {street: street_address, city: city}}
  payments: {columns: {payer: name}}
  messages: {columns: {body: paragraph}}
  sessions: {columns: {ip: {type: fake_update, fake_type: ipv4, sql_type: INET}, agent: user_agent}}
"""
# It knows no column of type inet, so the address of a session stays.
_PGANONYMIZE: Final = """
tables:
  - users: {fields: [{name: {provider: {name: fake.name}}}, {email: {provider: {name: md5}}},
                     {phone: {provider: {name: fake.phone_number}}}, {born_on: {provider: {name: fake.date_of_birth}}}]}
  - addresses: {fields: [{street: {provider: {name: fake.street_address}}}, {city: {provider: {name: fake.city}}}]}
  - payments: {fields: [{payer: {provider: {name: fake.name}}}]}
  - messages: {fields: [{body: {provider: {name: fake.paragraph}}}]}
  - sessions: {fields: [{agent: {provider: {name: fake.user_agent}}}]}
"""


class RivalError(Exception):
    """A peer did not run, or did not do what was asked."""


def measure(place: Path, people: int) -> Iterator[Comparison]:
    """Yield a comparison with each peer, once each; those that did not run say why."""
    if not DEBIAN.is_dir():
        yield from (_missing(name, f"it is compared on Debian's PostgreSQL 15, which is not in {DEBIAN}") for name in PINNED)
        return
    with _server(place / "slice") as cluster:
        shop.make(cluster, people)
        settings = house.found(place / "slice-clone", cluster.url(shop.DATABASE), map_text=cloning.map_text(rekeyed=False), more=_BINARIES)
        try:
            ours = [cloning.cloned(settings, cluster)[0]]
        finally:
            house.leave([settings])
        rows, size = shop.size(cluster.url(shop.DATABASE))
        for name, run in _RUNS.items():
            sizes = {"people": people, "rows": rows, "bytes": size, "masked_columns": cloning.MASKED}
            try:
                programs = _installed(place, name)
                theirs = [_taken(run, programs, place, cluster)]
            except (RivalError, DatabaseError, subprocess.TimeoutExpired) as error:
                yield _missing(name, str(error) or type(error).__name__)
                continue
            columns = "nine of the columns (it knows no inet)" if name == "pganonymize" else "the same ten columns"
            says = f"masked copy of {people:,} people ({rows:,} rows) / {name} with {columns}"
            yield compare(f"clone-{name}", says, ours, theirs, sizes, bound=None, aim=0.5 if name == "pg_anon" else None)


def _missing(name: str, why: str) -> Comparison:
    return unmeasured(f"clone-{name}", f"{name} did not run: {why}"[:160])


def _taken(run: Callable[[Path, Path, Cluster], None], programs: Path, place: Path, cluster: Cluster) -> float:
    """Return the seconds that a peer takes to a masked database, which is looked at and dropped."""
    _drop(cluster)
    with Stopwatch() as watch:
        run(programs, place, cluster)
    with Session.connect(cluster.url(shop.DATABASE)) as source, Session.connect(cluster.url(_COPY)) as copy:
        for table in ("users", "items", "sessions"):
            counted = SQL("SELECT count(*) FROM {}").format(Identifier(table))
            if copy.value(counted) != source.value(counted):
                raise RivalError(f"rows of {table} are missing in its copy")
        if copy.value("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'") < 20:
            raise RivalError("indexes are missing in its copy")
        left = "SELECT EXISTS (SELECT FROM users WHERE email LIKE 'person.%%@example.com' OR name LIKE 'Person %%')"
        if copy.value(left, []):
            raise RivalError("people are left in its copy")
    _drop(cluster)
    return watch.seconds


def _pg_anon(programs: Path, place: Path, cluster: Cluster) -> None:
    rules, dump = place / "sens_dict.py", place / "pg_anon_dump"
    entries = [{"schema": "public", "table": table, "fields": fields} for table, fields in _PG_ANON.items()]
    rules.write_text(repr({"dictionary": entries}), encoding="utf-8")
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("CREATE DATABASE {}").format(Identifier(_COPY)))
    shared = [f"--db-host={cluster.socket_directory}", "--db-user=obhut", "--db-user-password=none"]
    width = f"--db-connections-per-process={cloning.WORKERS}"
    program, source = programs / "pg_anon", f"--db-name={shop.DATABASE}"
    _run([program, "init", *shared, source], place)
    tool = f"--pg-dump={DEBIAN / 'pg_dump'}"
    _run(
        [program, "dump", *shared, source, width, f"--prepared-sens-dict-file={rules}", f"--output-dir={dump}", "--clear-output-dir", tool],
        place,
    )
    _run([program, "restore", *shared, f"--db-name={_COPY}", width, f"--input-dir={dump}", f"--pg-restore={DEBIAN / 'pg_restore'}"], place)


def _pynonymizer(programs: Path, place: Path, cluster: Cluster) -> None:
    rules, dump = place / "strategy.yml", place / "plain.sql"
    rules.write_text(_PYNONYMIZER, encoding="utf-8")
    _run([DEBIAN / "pg_dump", "--no-owner", "-f", dump, cluster.url(shop.DATABASE)], place)
    words = ["-t", "postgres", "-d", cluster.socket_directory, "-u", "obhut", "-p", "none", "-n", _COPY, "-w", cloning.WORKERS]
    _run([programs / "pynonymizer", "-i", dump, "-s", rules, "-o", place / "unused.sql", *words, "--stop-at", "ANONYMIZE_DB"], place)
    dump.unlink()


def _pganonymize(programs: Path, place: Path, cluster: Cluster) -> None:
    rules, dump = place / "schema.yml", place / "plain"
    rules.write_text(_PGANONYMIZE, encoding="utf-8")
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("CREATE DATABASE {}").format(Identifier(_COPY)))
    _run([DEBIAN / "pg_dump", "-Fd", "-j2", "--compress=0", "-f", dump, cluster.url(shop.DATABASE)], place)
    _run([DEBIAN / "pg_restore", "-j2", "-d", cluster.url(_COPY), dump], place)
    server = ["--dbname", _COPY, "--user", "obhut", "--password", "none", "--host", cluster.socket_directory, "--port", "5432"]
    _run([programs / "pganonymize", "--schema", rules, *server, "--parallel"], place)


_RUNS: Final[Mapping[str, Callable[[Path, Path, Cluster], None]]] = {
    "pg_anon": _pg_anon,
    "pynonymizer": _pynonymizer,
    "pganonymize": _pganonymize,
}


def _installed(place: Path, name: str) -> Path:
    """Install a peer into an environment of its own and return its programs."""
    home = place / f"peer-{name}"
    _run([sys.executable, "-m", "venv", home], place)
    _run([home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", PINNED[name]], place)
    return home / "bin"


def _drop(cluster: Cluster) -> None:
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(_COPY)))
        session.execute("CHECKPOINT")


@contextmanager
def _server(place: Path) -> Iterator[Cluster]:
    cluster = Cluster(place, binaries(_settings(place), 15), server_user(_settings(place)))
    try:
        cluster.init(durable=False)
        cluster.configure(shop.SERVER)
        cluster.start()
        yield cluster
    finally:
        with suppress(OSError):
            cluster.remove()


def _settings(place: Path) -> Settings:
    file = place.with_suffix(".toml")
    file.write_text(f'[state]\ndirectory = "."\n{_BINARIES}', encoding="utf-8")
    return load(file)


def _run(command: list[object], place: Path) -> None:
    """Run a program in a folder of its own, with Debian's programs first in its path."""
    words = [str(word) for word in command]
    environment = {**os.environ, "PATH": f"{DEBIAN}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONPATH": "", "PGDATABASE": "postgres"}
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=place, env=environment)
    if ran.returncode:
        said = [line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        found = [line for line in said if "rror" in line] or said
        raise RivalError(found[-1] if found else f"{Path(words[0]).name} ended with status {ran.returncode}")
