"""A small data set for a vendor's unit tests, safe to commit: the rows of a copy that a named person answers for, as a file.

Only a copy that is called anonymised, holds today and whose word has not run out is written: what is committed is published, and nobody
can take it back. The files depend on the copy's rows alone, so writing them again changes nothing. Rows come in the order of foreign keys;
tables that reference each other in a circle are filled by one statement, at whose end the server checks.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final, TextIO

import obhut
from obhut.clones import check, verify
from obhut.clones.check import Checked
from obhut.clones.errors import CloneFixtureError, CloneLeakError, CloneNotAnonymousError
from obhut.clones.mark import Mark
from obhut.foundation.clock import Clock, stamp
from obhut.foundation.settings import Settings
from obhut.masking.verdict import Label
from obhut.postgres.catalogue import Catalogue, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, column_list

MOST: Final = 10_000  # rows; a data set for unit tests is read by people
_OURS: Final = "Fixture of anonymised data, made by Obhut"


class Form(StrEnum):
    """How a fixture is written."""

    SQL = "sql"  # one file
    CSV = "csv"  # a directory with one file a table and a README


@dataclass(frozen=True, slots=True)
class Written:
    """A fixture on disk; ``tables`` by name with their rows, in the order in which they are loaded."""

    path: Path
    form: Form
    tables: tuple[tuple[str, int], ...]
    mark: Mark


def write(settings: Settings, run_id: str, path: Path, form: Form, clock: Clock) -> Written:
    """Write the rows of a copy to a file (SQL) or a directory (CSV).

    Args:
        settings: the installation.
        run_id: the run that made the copy.
        path: new, or a fixture of ours, which is replaced.
        form: SQL or CSV.
        clock: whether the word still holds.

    Raises:
        CloneNotAnonymousError: nobody answers for the copy, or not any more.
        CloneLeakError: the leak check of today fails.
        CloneFixtureError: it has too many rows, or something else lies at the path.
    """
    found = verify.verify(settings, run_id=run_id)
    require_word(found.mark, clock.now().date())
    if not found.holds:
        raise CloneLeakError("the copy does not hold any more", f'"obhut clone verify {run_id}" names the places.', found.statements)
    _require_ours(path, form)
    with (
        Session.connect(found.url, application_name="obhut clone fixture") as session,
        session.transaction("repeatable read", read_only=True),
    ):
        _, catalogue, _ = check.afresh(Checked(settings, found.mark.database), session)
        rows = _counted(session, catalogue)
        ordered = groups(catalogue, rows)
        if form is Form.SQL:
            text = io.StringIO()
            _sql(text, session, catalogue, ordered, found.mark)
            _replace(path, text.getvalue())
        else:
            _csv(path, session, ordered, found.mark)
    return Written(path, form, tuple((table.full_name, rows[table.oid]) for group in ordered for table in group), found.mark)


def require_word(mark: Mark, today: date) -> None:
    """Refuse a copy that nobody calls anonymised today.

    Raises:
        CloneNotAnonymousError: its label is another one, or the word has run out.
    """
    if mark.label != Label.ANONYMISED.value or not mark.signed_by or not mark.review_by:
        raise CloneNotAnonymousError(
            f"the copy is {mark.label}, so its rows stay where they are",
            f'Call it anonymised first: "obhut clone sign {mark.run}" names what is missing.',
        )
    if date.fromisoformat(mark.review_by) < today:
        raise CloneNotAnonymousError(f"the word for the copy ended on {mark.review_by}", f'Review it: "obhut clone sign {mark.run}".')


def groups(catalogue: Catalogue, wanted: Iterable[int]) -> list[tuple[Table, ...]]:
    """Return tables in the order in which foreign keys let them be filled, those of a circle together; the same for the same schema."""
    tables = {oid: catalogue.tables[oid] for oid in wanted}
    parents: dict[int, set[int]] = {oid: set() for oid in tables}
    for key in catalogue.foreign_keys:
        child, parent = catalogue.root(key.table).oid, catalogue.root(key.references).oid
        if child in tables and parent in tables and child != parent:
            parents[child].add(parent)
    above = {oid: _reached(oid, parents) for oid in tables}
    # The first of everything that leads to a table and back stands for the circle.
    circle = {oid: min([oid, *(other for other in above[oid] if oid in above[other])], key=_name(tables)) for oid in tables}
    members: dict[int, list[int]] = {}
    for oid in sorted(tables, key=_name(tables)):
        members.setdefault(circle[oid], []).append(oid)
    needs = {first: {circle[parent] for oid in group for parent in parents[oid]} - {first} for first, group in members.items()}
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ordered: list[tuple[Table, ...]] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=_name(tables))
        ordered += [tuple(tables[oid] for oid in members[first]) for first in ready]
        sorter.done(*ready)
    return ordered


def _name(tables: Mapping[int, Table]) -> Callable[[int], str]:
    return lambda oid: tables[oid].full_name


def _reached(start: int, parents: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    waiting = [start]
    while waiting:
        for parent in parents[waiting.pop()] - found:
            found.add(parent)
            waiting.append(parent)
    return found


def _counted(session: Session, catalogue: Catalogue) -> dict[int, int]:
    """Return the rows of every table that is written.

    Raises:
        CloneFixtureError: too many.
    """
    roots = {catalogue.root(table.oid).oid for table in catalogue.tables.values() if table.kind in {"r", "p"} and table.extension is None}
    rows = {oid: int(session.value(SQL("SELECT count(*) FROM {}").format(catalogue.tables[oid].relation)) or 0) for oid in roots}
    if (total := sum(rows.values())) > MOST:
        raise CloneFixtureError(f"the copy has {total} rows, more than {MOST}", 'Make a smaller one: "obhut clone run --people 20".')
    return rows


def _header(mark: Mark, prefix: str) -> str:
    checked = ", ".join(f"{one['name']} {one['result']}" for one in mark.statements)
    lines = (
        f"{_OURS} {obhut.__version__} from a copy of database {mark.database}.",
        f"Label: {mark.label}. {mark.signed_by} answers for it until {mark.review_by}; make it anew then, or review the copy.",
        f"Rows of {stamp(mark.moment)}, {mark.subset}. Map {mark.map_version[:16]}, run {mark.run}.",
        f"Checked: {checked}.",
    )
    return "".join(f"{prefix}{line}\n" for line in lines)


def _sql(out: TextIO, session: Session, catalogue: Catalogue, ordered: Sequence[Sequence[Table]], mark: Mark) -> None:
    out.write(_header(mark, "-- "))
    out.write("-- Load it into an empty schema of the same version: psql -v ON_ERROR_STOP=1 --single-transaction -f FILE\n\n")
    out.write("SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n")
    out.write("SET datestyle = 'ISO, YMD';\nSET intervalstyle = 'postgres';\n")
    for group in ordered:
        inserts = [text for table in group if (text := _insert(session, table))]
        if len(inserts) > 1:
            named = ",\n".join(f"t{number} AS (\n{text}\n)" for number, text in enumerate(inserts))
            out.write(f"\nWITH {named}\nSELECT;\n")
        elif inserts:
            out.write(f"\n{inserts[0]};\n")
    out.writelines(_sequences(session, catalogue))


def _insert(session: Session, table: Table) -> str:
    names = table.stored_columns
    lines = [
        f"  ({', '.join(row)})" for row in session.rows(SQL("SELECT {} FROM {} ORDER BY {}").format(_literals(names), *_source(table)))
    ]
    if not lines or not names:
        return ""
    always = any(column.identity == "a" for column in table.columns)
    columns = ", ".join(_quoted(name) for name in names)
    over = " OVERRIDING SYSTEM VALUE" if always else ""
    return f"INSERT INTO {_quoted(table.schema)}.{_quoted(table.name)} ({columns}){over} VALUES\n" + ",\n".join(lines)


def _literals(names: Sequence[str]) -> Composable:
    return SQL(", ").join(SQL("quote_nullable({}::text)").format(Identifier(name)) for name in names)


def _source(table: Table) -> tuple[Composable, Composable]:
    """Return where rows come from and their order: the primary key, or else every column as text."""
    if table.primary_key:
        return table.relation, column_list(table.primary_key)
    return table.relation, SQL(", ").join(SQL("{}::text").format(Identifier(name)) for name in table.stored_columns)


def _sequences(session: Session, catalogue: Catalogue) -> Iterator[str]:
    yield "\n"
    for sequence in sorted(catalogue.sequences, key=lambda one: (one.schema, one.name)):
        if sequence.extension is None:
            place = f"{_quoted(sequence.schema)}.{_quoted(sequence.name)}".replace("'", "''")
            value, called = session.row(SQL("SELECT last_value, is_called FROM {}").format(Identifier(sequence.schema, sequence.name))) or (
                1,
                False,
            )
            yield f"SELECT setval('{place}', {value}, {str(called).lower()});\n"


def _csv(directory: Path, session: Session, ordered: Sequence[Sequence[Table]], mark: Mark) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.csv"):
        path.unlink()
    names = []
    for number, table in enumerate((table for group in ordered for table in group), start=1):
        query = SQL("SELECT {} FROM {} ORDER BY {}").format(column_list(table.stored_columns), *_source(table))
        blocks = session.copy_out(SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(query))
        name = f"{number:03}-{table.full_name.replace('/', '_')}.csv"
        (directory / name).write_bytes(b"".join(bytes(block) for block in blocks))
        names.append(name)
    listed = "".join(f"- {name}\n" for name in names)
    text = f"{_header(mark, '')}\nLoad the files in this order; tables in a circle of foreign keys need SQL (--form sql).\n\n{listed}"
    _replace(directory / "README", text)


def _require_ours(path: Path, form: Form) -> None:
    head = path / "README" if form is Form.CSV else path
    if not path.exists() or (form is Form.CSV and path.is_dir() and not any(path.iterdir())):
        return
    with_head = head.is_file() and _OURS in head.read_text(encoding="utf-8", errors="replace")[:200]
    if not with_head:
        raise CloneFixtureError(f"{path} is there and is no fixture", "Give another path, or remove what lies there.")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
