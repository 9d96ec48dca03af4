"""Streams of rows from the quarantine into the target, the filter inside the reading statement.

Measured on 5 million rows (1 GB, 1 % filtered, two cores): ``ctid <> ALL('{…}'::tid[])`` 1.9 s, which the server turns into one hash
probe a row (PostgreSQL 15 and later), ``NOT EXISTS`` over ``unnest`` 6.5 s, no filter 1.5 s; two psql and a pipe 8.9 s, the same rows
through this process 14.4 s. So large tables flow from psql to psql, small ones through two sessions that are open anyway.

A part is committed together with its record, and only after the source has ended well: ``COPY`` takes a stream that breaks off
between two rows for a complete one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from obhut.erasure.addresses import RowAddresses
from obhut.postgres.catalogue import Table
from obhut.postgres.clusters import Binaries
from obhut.postgres.connections import Session
from obhut.postgres.programs import environment
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, Literal, column_list, qualified, trusted
from obhut.restores.errors import StreamError
from obhut.restores.filter import TableFilter
from obhut.restores.plan import Part, Range

RECORDS = "obhut_restore"
SMALL = 512  # blocks: below 4 MiB starting two programs costs more than it saves
_HASHED_SINCE = 150000
# Types that hold an oid and read and write a name.
_NAMES = frozenset(
    {
        "regclass", "regcollation", "regconfig", "regdatabase", "regdictionary", "regnamespace", "regoper", "regoperator", "regproc",
        "regprocedure", "regrole", "regtype",
    }
)  # fmt: skip
# So that a text means the same on both sides: names with their schema, money without a currency.
AS_TEXT = {"search_path": "", "lc_monetary": "C"}
_STATE = re.compile(r"\b(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5})\b")
_FORMATS = {"DateStyle": "ISO, YMD", "IntervalStyle": "postgres", "TimeZone": "UTC", "client_encoding": "UTF8"}
_READING = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "row_security": "off",
    "client_min_messages": "error",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    **_FORMATS,
}


def as_text(table: Table) -> bool:
    """Whether a table's rows travel as text: the binary form of ``regclass`` and its like is an oid, which means another object there."""
    return any(column.base_type.removesuffix("[]") in _NAMES for column in table.columns if not column.is_generated)


def reading(table: Table, part: Part, rows: TableFilter, version: int, columns: tuple[str, ...]) -> Composed:
    """Return the SELECT of a part: rows that stay as they are, and changed rows with their new values.

    Args:
        table: a leaf.
        part: which blocks.
        rows: what is deleted and changed.
        version: of the source server.
        columns: the stored columns, named on both sides.
    """
    branches: list[Composable] = []
    for span in part.ranges:
        excluded = rows.excluded.in_blocks(span.first, span.last)
        where = [*between(span), *without(excluded, version)]
        branches.append(select(table, column_list(columns), where))
        for change in rows.changes:
            changed = change.rows.in_blocks(span.first, span.last)
            if changed:
                values = SQL(", ").join(change.assignments.get(name, Identifier(name)) for name in columns)
                branches.append(select(table, values, [SQL("ctid = ANY({})").format(changed.literal())]))
    return SQL(" UNION ALL ").join(branches)


def select(table: Table, values: Composable, where: Sequence[Composable]) -> Composed:
    """Return the SELECT of expressions over those rows of a leaf that meet all conditions."""
    condition = SQL(" WHERE ") + SQL(" AND ").join(where) if where else SQL("")
    return SQL("SELECT {} FROM {}{}").format(values, table.relation, condition)


def between(span: Range) -> list[Composable]:
    """Return the conditions that a range of blocks sets."""
    bounds: list[Composable] = []
    if span.first:
        bounds.append(SQL("ctid >= {}::tid").format(Literal(f"({span.first},0)")))
    if span.last is not None:
        bounds.append(SQL("ctid < {}::tid").format(Literal(f"({span.last},0)")))
    return bounds


def without(rows: RowAddresses, version: int) -> list[Composable]:
    """Return the condition that leaves rows out, in the form that a server of this version hashes."""
    if not rows:
        return []
    if version >= _HASHED_SINCE:
        return [SQL("ctid <> ALL({})").format(rows.literal())]
    # PostgreSQL 14 compares with each element in turn, but hashes the result of a sub-select.
    return [SQL("ctid NOT IN (SELECT unnest({}))").format(rows.literal())]


def prepare_records(target: Session) -> None:
    """Make the table in which the target itself keeps what is complete: committed together with what it records."""
    target.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(RECORDS)))
    target.execute(SQL("CREATE TABLE IF NOT EXISTS {}.done (name text PRIMARY KEY, rows bigint)").format(Identifier(RECORDS)))


def finished(target: Session) -> dict[str, int]:
    """Return what is complete, with the number of rows."""
    return {str(name): int(rows or 0) for name, rows in target.rows(SQL("SELECT name, rows FROM {}.done").format(Identifier(RECORDS)))}


def record(target: Session, name: str, rows: int | None = None) -> None:
    """Record something as complete, inside the caller's transaction."""
    target.execute(SQL("INSERT INTO {}.done VALUES (%s, %s)").format(Identifier(RECORDS)), (name, rows))


def forget(target: Session, name: str) -> None:
    """Take back what :func:`record` noted."""
    target.execute(SQL("DELETE FROM {}.done WHERE name = %s").format(Identifier(RECORDS)), (name,))


# Reads everything from the first file and writes it to the second; when it comes to the end of the stream and the first path is there, it
# makes the second before it closes its end. It takes the files over and leaves none open.
Through = Callable[[IO[bytes], IO[bytes], Path, Path], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How the rows of a table travel: the columns as both sides name them, the form, and who works on the stream on its way."""

    columns: tuple[str, ...]
    form: str  # text or binary
    through: Through | None = None


@dataclass(frozen=True, slots=True)
class Pipe:
    """Where rows come from and go to.

    Attributes:
        source: connection string of the quarantine.
        target: connection string of the target.
        settings: run-time parameters of the reading session, which may hold keys: they travel in a private file, never in a query.
        directory: private, for the scripts of running parts.
        programs: with psql.
        snapshot: exported by the source where that is alive.
        path: search path of the reading session for rows that travel as text.
    """

    source: str
    target: str
    settings: Mapping[str, str]
    directory: Path
    programs: Binaries
    application: str
    snapshot: str = ""
    path: str = ""

    def small(self, source: Session, target: Session, table: Table, part: Part, query: Composable, into: Composable) -> int:
        """Carry a part through two open sessions and return its number of rows."""
        with target.transaction():
            frozen = truncate_alone(target, into, part)
            copied = target.copy_in(_copy_in(into, table, frozen=frozen), rows_out(source, target, table, query))
            record(target, part.name, copied)
        return copied

    def large(self, target: Session, table: Table, part: Part, query: Composable, into: Composable, way: Way | None = None) -> int:
        """Carry a part from psql to psql and return its number of rows.

        Raises:
            StreamError: either side failed; nothing was committed.
        """
        way = way or Way(table.stored_columns, _form(table))
        mark = self.directory / f"{os.getpid()}-{abs(hash(part.name)):x}"
        read, done = mark.with_suffix(".read"), mark.with_suffix(".done")
        reader = _private(mark.with_suffix(".read.sql"), self._reader(query, way))
        writer = _private(mark.with_suffix(".write.sql"), self._writer(table, part, into, done, way))
        psql = f"{shlex.quote(str(self.programs.path('psql')))} -XqAt -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate -v SHOW_CONTEXT=never"
        # The mark is set by the shell that still holds the pipe open: whoever reads the end of the stream can see it.
        ended_well = shlex.quote(str(read if way.through else done))
        first = f"{{ {psql} -f {shlex.quote(str(reader))} -d {shlex.quote(self._named(self.source))} && echo 1 > {ended_well}; }}"
        second = f"{psql} -f {shlex.quote(str(writer))} -d {shlex.quote(self._named(self.target))}"
        try:
            status, said = _through(first, second, way.through, read, done) if way.through else _piped(first, second)
        finally:
            for path in (read, done, reader, writer):
                path.unlink(missing_ok=True)
        rows = target.value(SQL("SELECT rows FROM {}.done WHERE name = %s").format(Identifier(RECORDS)), (part.name,))
        if status or rows is None:
            state = _STATE.search(said[-4000:].decode("ascii", "replace"))
            why = f"SQLSTATE {state[1]}" if state else "a program ended early"
            raise StreamError(f"the stream of {table.full_name} broke off: {why}", 'Run "obhut restore resume": finished parts are kept.')
        return int(rows)

    def _named(self, url: str) -> str:
        separator = "&" if "?" in url else "?"
        return f"{url}{separator}application_name={self.application}" if "://" in url else f"{url} application_name={self.application}"

    def _reader(self, query: Composable, way: Way) -> str:
        wanted = {**_READING, **self.settings, **(AS_TEXT if way.form == "text" else {})}
        assignments = "".join(f"SET {_quoted_setting(name)} TO {Literal(value).as_string(None)};\n" for name, value in wanted.items())
        if way.form == "text" and self.path:  # a list of schemas, which SET would take for the name of one
            path = Literal(self.path).as_string(None)
            assignments += f"SELECT pg_catalog.set_config('search_path', {path}, false) AS path \\gset obhut_\n"
        moment = ""
        if self.snapshot:
            taken = Literal(self.snapshot).as_string(None)
            moment = f"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;\nSET TRANSACTION SNAPSHOT {taken};\n"
        return f"{assignments}{moment}COPY ({query.as_string(None)}) TO STDOUT (FORMAT {way.form});\n"

    def _writer(self, table: Table, part: Part, into: Composable, done: Path, way: Way) -> str:
        name = into.as_string(None)
        columns = column_list(way.columns).as_string(None)
        if "\n" in name + columns:
            raise StreamError(f"{table.full_name} has a name with a line break", "psql cannot be told such a name.")
        frozen = ", FREEZE" if part.alone else ""
        wanted = {**_FORMATS, **AS_TEXT} if way.form == "text" else {}
        settings = "".join(f"SET {name} TO '{value}'; " for name, value in wanted.items())
        truncate = f"TRUNCATE ONLY {name};\n" if part.alone else ""
        return (
            "SET synchronous_commit TO off; SET client_min_messages TO error; SET default_transaction_read_only TO off;\n"
            "SET statement_timeout TO 0; SET lock_timeout TO 0; SET idle_in_transaction_session_timeout TO 0;\n"
            f"{settings}\nBEGIN;\n{truncate}"
            f"\\copy {name} ({columns}) FROM pstdin WITH (FORMAT {way.form}{frozen})\n"
            "\\set copied :ROW_COUNT\n"
            f"\\set ended `cat {shlex.quote(str(done))} 2>/dev/null || echo 0`\n"
            "\\if :ended\n"
            f"INSERT INTO {RECORDS}.done VALUES ({Literal(part.name).as_string(None)}, :copied);\nCOMMIT;\n"
            "\\else\nROLLBACK;\n\\endif\n"
        )


def _piped(first: str, second: str) -> tuple[int, bytes]:
    """Run two programs, the second reading what the first writes; return the status of the second and what both say."""
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{first} | {second}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd="/",
        umask=0o077,
        check=False,
    )
    return ended.returncode, ended.stderr


def _through(first: str, second: str, through: Through, read: Path, done: Path) -> tuple[int, bytes]:
    """Run two programs with something in between that reads from the one and writes to the other."""
    with (
        subprocess.Popen(
            ["/bin/sh", "-c", first], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(), cwd="/", umask=0o077,
        ) as reader,
        subprocess.Popen(
            ["/bin/sh", "-c", second], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=environment(), cwd="/", umask=0o077,
        ) as writer,
    ):  # fmt: skip
        if reader.stdout is None or writer.stdin is None or reader.stderr is None or writer.stderr is None:
            raise AssertionError("pipes were asked for")
        try:
            through(reader.stdout, writer.stdin, read, done)
        finally:
            reader.stdout.close()
            writer.stdin.close()
            said = reader.stderr.read() + writer.stderr.read()
        return writer.wait(), said


def truncate_alone(target: Session, into: Composable, part: Part) -> bool:
    """Empty the table of a part that stands for all of it, and return whether its rows may be frozen."""
    if part.alone:
        target.execute(SQL("TRUNCATE ONLY {}").format(into))
    return part.alone


def _copy_in(into: Composable, table: Table, *, frozen: bool) -> Composed:
    return copy_in(into, table, SQL(", FREEZE") if frozen else SQL(""))


def copy_in(into: Composable, table: Table, options: Composable) -> Composed:
    """Return the statement that takes in what :func:`rows_out` yields."""
    return SQL("COPY {} ({}) FROM STDIN (FORMAT {}{})").format(into, column_list(table.stored_columns), trusted(_form(table)), options)


def rows_out(source: Session, target: Session, table: Table, query: Composable) -> Iterator[memoryview]:
    """Return a table's rows in the form in which they travel, for a target that is inside a transaction."""
    if not as_text(table):
        return source.copy_out(SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query))
    _speak_plainly(target)
    return _texts_out(source, query)


def _texts_out(source: Session, query: Composable) -> Iterator[memoryview]:
    with source.transaction():
        _speak_plainly(source)
        yield from source.copy_out(SQL("COPY ({}) TO STDOUT (FORMAT text)").format(query))


def _speak_plainly(session: Session) -> None:
    for name, value in AS_TEXT.items():
        session.execute(SQL("SET LOCAL {} TO {}").format(Identifier(name), Literal(value)))


def _form(table: Table) -> str:
    return "text" if as_text(table) else "binary"


def destination(table: Table, schema: str | None = None) -> Composable:
    """Return the name of a table at the target, in its own schema or in a side schema."""
    return qualified(schema or table.schema, table.name)


def end_sessions(session: Session, application: str) -> int:
    """End what an earlier, killed run of this restore still has running on a server, and return how many sessions that were."""
    ended = session.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid()", (application,)
    )
    return len(ended)


def _private(path: Path, text: str) -> Path:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _quoted_setting(name: str) -> str:
    return ".".join(Identifier(piece).as_string(None) for piece in name.split("."))


def application_name(run: str) -> str:
    """Return the name under which sessions of a run are known to a server."""
    return f"obhut-{run}"[:63]


def total(parts: Iterable[Part]) -> int:
    """Return the blocks of all parts."""
    return sum(part.weight for part in parts)
