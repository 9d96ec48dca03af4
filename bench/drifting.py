"""``obhut datamap check --against main`` on a database of a thousand tables, as a vendor's CI runs it: a process from start to end.

A migration has added a table and a column, renamed and retyped one, and documents have a path that nobody named. The clock only counts
when every one of them is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.measure import Comparison, Stopwatch
from obhut.controllers import register
from obhut.postgres import sql
from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier

DATABASE: Final = "wide"
BOUND: Final = 3.0  # seconds
_AT_ONCE: Final = 50  # tables a transaction, for its locks
_DOCUMENTS: Final = 10  # one table in so many has a JSON column
_TABLE: Final = (
    "  public.t{n}:\n    columns:\n      email: {{category: user.contact.email, anonymise: null}}\n"
    "      note: {{category: user.content, anonymise: null}}\n{document}"
    "    not_personal: [id, person_id, kind, amount, made_at, done, state, size]\n"
    "    links: [{{to: public.person, columns: {{person_id: id}}}}]\n    erase: delete\n"
)
_DOCUMENT: Final = '      data: {category: user.content, anonymise: {json: ["$.name"]}}\n'
_HEAD: Final = """\
obhut: 1
databases:
  wide:
    controller: {table: public.firm}
    subjects: {person: {table: public.person, controller: {firm_id: id}, incarnation: [made_at], identifiers: [email]}}
    tables:
      public.firm: {personal: false}
      public.person:
        columns: {email: {category: user.contact.email, anonymise: null}}
        not_personal: [id, firm_id, made_at]
        erase: delete
"""
TOLD: Final = {"drift-table-new", "drift-column-new", "drift-column-renamed", "drift-column-retyped", "drift-json-path-new"}


def measure(directory: Path, cluster: Cluster, tables: int, rounds: int) -> Iterator[Comparison]:
    """Make the database and the checkout, change the schema, and check it ``rounds`` times.

    Raises:
        RuntimeError: a change is not told, or the command fails in another way.
    """
    directory.mkdir()
    _make(cluster, tables)
    url = cluster.url(DATABASE)
    file = directory / "datamap.yaml"
    file.write_text(_HEAD + "".join(_entry(n) for n in range(tables - 2)), encoding="utf-8")
    common = ["wide", "--url", url, "--map", str(file)]
    _obhut(directory, ["datamap", "snapshot", *common])
    _commit(directory)
    with Session.connect(url) as session:
        session.execute(sql.load("bench", "wide")["migration"])
    found = [_check(directory, common) for _ in range(rounds)]
    sizes = {"tables": tables, "columns": 10 * (tables - 2) + 6, "documents": tables // _DOCUMENTS * 200}
    middle = sorted(found)[len(found) // 2]
    says = "drift of a live database against a commit, from the start of the process to its end"
    yield Comparison("drift", says, middle, BOUND, None, tuple(found), (), sizes, "s")


def _entry(n: int) -> str:
    text = _TABLE.format(n=n, document=_DOCUMENT if n % _DOCUMENTS == 0 else "")
    return "".join(f"    {line}\n" for line in text.splitlines())


def _make(cluster: Cluster, tables: int) -> None:
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("CREATE DATABASE {}").format(Identifier(DATABASE)))
    statements = sql.load("bench", "wide")
    with Session.connect(cluster.url(DATABASE), settings={"synchronous_commit": "off"}) as session:
        session.execute(statements["people"])
        for first in range(0, tables - 2, _AT_ONCE):
            text = statements["tables"].as_string(None)
            last = min(first + _AT_ONCE, tables - 2) - 1
            session.execute(sql.trusted(text.replace("{first}", str(first)).replace("{last}", str(last))))
        session.execute("ANALYZE")


def _commit(directory: Path) -> None:
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-qm", "as it was"]):
        subprocess.run(["git", *words], cwd=directory, check=True, capture_output=True)


def _obhut(directory: Path, words: list[str]) -> tuple[int, str]:
    path = os.pathsep.join(filter(None, [str(Path(register.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    ran = subprocess.run(
        [sys.executable, "-m", "obhut.cli.main", *words],
        cwd=directory, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if ran.returncode not in {0, 5}:
        raise RuntimeError(f"obhut {words[0]} {words[1]} ended with status {ran.returncode}: {ran.stderr[-300:]}")
    return ran.returncode, ran.stdout


def _check(directory: Path, common: list[str]) -> float:
    with Stopwatch() as watch:
        status, said = _obhut(directory, ["--json", "datamap", "check", *common, "--against", "main"])
    codes = {one["code"] for one in json.loads(said)["findings"] if one["severity"] == "error"}
    if status != 5 or not codes >= TOLD:
        raise RuntimeError(f"not told: {sorted(TOLD - codes)}")
    return watch.seconds
