"""``obhut datamap``: suggest, check, show, and carry over from and to Fideslang."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import context
from obhut.cli.exits import Exit, UsageError
from obhut.datamap import fides, schema
from obhut.datamap.archive import archive
from obhut.datamap.check import examine
from obhut.datamap.findings import DataMapError, Severity
from obhut.datamap.graph import map_version, require
from obhut.datamap.load import LoadedMap, Located, load
from obhut.datamap.models import DatabaseMap
from obhut.datamap.picture import svg
from obhut.datamap.show import Outline, outline, tree
from obhut.datamap.suggest import sample, suggest
from obhut.datamap.surroundings import Surroundings, probe, read_surroundings
from obhut.datamap.writing import write
from obhut.foundation.errors import ObhutError
from obhut.postgres.catalogue import Catalogue, read_catalogue
from obhut.postgres.connections import Session

app = App(name="datamap")

Database = Annotated[str | None, Parameter(help="Name of the protected database; not needed when the settings name exactly one.")]
Url = Annotated[str | None, Parameter(help="libpq URL instead of that of the settings, without a password.")]
MapFile = Annotated[Path | None, Parameter(name="--map", help="Data map instead of that of the settings.")]
Target = Annotated[Path | None, Parameter(name=["--output", "-o"], help="File to write; never overwritten. Default: standard output.")]


class FileExistsAlreadyError(ObhutError):
    """A file that people write is never overwritten."""

    code = "file-exists"


@dataclass(frozen=True)
class _Place:
    """Which database, how it is reached, and which file describes it."""

    name: str
    url: str
    map: Path


def _place(name: str | None, url: str | None, file: Path | None) -> _Place:
    if name and url and file:
        return _Place(name, url, file)  # nothing is needed of the settings: a vendor's CI may have none
    settings = context().settings.database(name) if name else context().settings.only_database()
    return _Place(settings.name, url or settings.url, file or settings.map)


def _read(place: _Place) -> tuple[Catalogue, Surroundings]:
    with Session.connect(place.url, application_name="obhut datamap") as session:
        return read_catalogue(session), read_surroundings(session)


def _load(path: Path) -> LoadedMap:
    """Load, and say every fault of form before the one that is raised."""
    try:
        return load(path)
    except DataMapError as error:
        for finding in error.findings:
            context().output.warn("{fact}. {todo}", fact=finding.fact, todo=finding.todo)
        raise


@app.command(name="suggest")
def suggest_(
    database: Database = None,
    *,
    url: Url = None,
    output: Target = None,
    names_only: Annotated[bool, Parameter(help="Do not look at any value: names, types, comments and keys alone decide.")] = False,
) -> None:
    """Propose a data map from a live database.

    Names in English and German, types, comments, constraints, keys and a bounded sample of values decide: e-mail addresses, telephone
    numbers, IBANs, card and tax numbers, IP addresses, streets, names, free text, also inside JSON and arrays. The sample is judged in
    memory: no value is kept, written or logged. Behind each personal column stand the confidence and the reasons; remarks "DECIDE:" mark
    what only you can know. Nothing is written to the database.
    """
    place = _place(database, url, Path("datamap.yaml"))
    with Session.connect(place.url, application_name="obhut datamap") as session:
        catalogue, around = read_catalogue(session), read_surroundings(session)
        seen = None if names_only else sample(session, catalogue)
    proposal = suggest(place.name, catalogue, seen, around)
    _deliver(write(proposal), output, {"database": place.name, "tables": len(proposal.tables), "decisions": proposal.decisions})


def _deliver(text: str, target: Path | None, facts: dict[str, object]) -> None:
    out = context().output
    if target is None:
        out.result({**facts, "text": text}, lambda: print(text, end=""))  # noqa: T201 - a file for a pipe, unwrapped
        return
    _create(target, text)
    out.result({**facts, "file": target}, lambda: out.say("Written: {file}", file=target))


def _create(target: Path, text: str) -> None:
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FileExistsAlreadyError(f"{target} is there already", "Name another file; none is overwritten.") from None
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({os.strerror(error.errno or 0)})", "Name a file in a directory that you may write to."
        ) from None


@app.command
def check(
    database: Database = None,
    *,
    url: Url = None,
    map_file: MapFile = None,
    keep_version: Annotated[bool, Parameter(name="--archive", help="Keep this version of the map in the state directory.")] = False,
) -> int:
    """Check the data map against the live catalogue.

    Exit status 5 when there is an error: an unclassified column, an unknown table, a table that no person leads to, a treatment that
    the database forbids. Run it in the CI of the schema: a new column without a category then fails the build.
    """
    place = _place(database, url, map_file)
    loaded = _load(place.map)
    with Session.connect(place.url, application_name="obhut datamap") as session:
        catalogue, around = read_catalogue(session), read_surroundings(session)
        graph, findings = examine(loaded, place.name, catalogue, around)
        if graph is not None:
            findings = [*findings, *probe(session, graph, around)]
    located = loaded.locate(findings)
    counts = {severity.value: sum(1 for item in located if item.finding.severity is severity) for severity in Severity}
    version = map_version(loaded.database(place.name))
    if keep_version and not counts["error"]:
        archive(loaded.database(place.name), context().settings.state.directory / "maps")
    document = {
        "database": place.name,
        "map": place.map,
        "version": version,
        "counts": counts,
        "findings": [
            {
                "severity": item.finding.severity,
                "code": item.finding.code,
                "file": item.file,
                "line": item.position.line,
                "fact": item.finding.fact,
                "todo": item.finding.todo,
            }
            for item in located
        ],
    }
    context().output.result(document, lambda: _show_findings(located, counts, catalogue))
    return Exit.UNPROVEN if counts["error"] else Exit.OK


def _show_findings(located: list[Located], counts: dict[str, int], catalogue: Catalogue) -> None:
    out = context().output
    styles = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "dim"}
    for item in located:
        severity = item.finding.severity
        out.say(
            "{place}: {severity}: {fact}",
            place=f"{item.file}:{item.position.line}",
            severity=severity,
            fact=item.finding.fact,
            style=styles[severity],
        )
        out.say("    {todo}", todo=item.finding.todo)
    columns = sum(len(table.columns) for table in catalogue.roots)
    sentence = "{tables} tables, {columns} columns: {errors} errors, {warnings} warnings."
    out.say(sentence, tables=len(catalogue.roots), columns=columns, errors=counts["error"], warnings=counts["warning"])


@app.command
def show(
    database: Database = None,
    *,
    subject: Annotated[str | None, Parameter(help="One kind of data subject; default: all.")] = None,
    anonymise: Annotated[bool, Parameter(help="Show what an anonymisation does instead of an erasure.")] = False,
    picture: Annotated[
        Path | None, Parameter(name="--svg", help="Write the graph as SVG; with several kinds, one file each (name-kind.svg).")
    ] = None,
    url: Url = None,
    map_file: MapFile = None,
) -> None:
    """Show the way from a person to every table, and what an erasure does there."""
    place = _place(database, url, map_file)
    rules = _load(place.map).database(place.name)
    catalogue, _ = _read(place)
    graph = require(place.name, rules, catalogue)
    shown = [outline(graph, kind, anonymising=anonymise) for kind in ([subject] if subject else graph.subjects)]
    files: list[Path] = []
    if picture is not None:
        for one in shown:
            file = picture if len(shown) == 1 else picture.with_name(f"{picture.stem}-{one.kind}{picture.suffix}")
            file.write_text(svg(one), encoding="utf-8")
            files.append(file)
    context().output.result({"database": place.name, "subjects": shown, "pictures": files}, lambda: _show_trees(shown, files))


def _show_trees(shown: list[Outline], files: list[Path]) -> None:
    out = context().output
    for one in shown:
        out.show(tree(one))
    for file in files:
        out.say("Picture: {file}", file=file)


@app.command(name="schema")
def schema_(*, output: Target = None) -> None:
    """Print the JSON Schema of the data map for your editor."""
    _deliver(schema.text(), output, {"id": schema.ID})


@app.command(name="import")
def import_(file: Annotated[Path, Parameter(help="Fideslang dataset YAML.")], *, output: Target = None) -> None:
    """Turn a Fideslang dataset into a data map, naming what could not be carried over.

    A dataset that was exported here comes back whole; one from elsewhere becomes a proposal with DECIDE remarks.
    """
    try:
        found = fides.from_fides(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{file} cannot be read", "Does it exist, and is it text in UTF-8?") from None
    parts: list[str] = []
    losses: list[fides.Loss] = []
    for name, content, lost in found:
        text = fides.written(name, content) if isinstance(content, DatabaseMap) else write(content)
        parts.append(text if not parts else text.split("databases:\n", 1)[1])
        losses += lost
    _say_losses(losses)
    _deliver("".join(parts), output, {"datasets": [name for name, _, _ in found], "losses": losses})


@app.command
def export(database: Database = None, *, map_file: MapFile = None, output: Target = None) -> None:
    """Turn the data map into a Fideslang dataset, naming what a reader of it will not see."""
    if map_file is not None and database is not None:
        name, path = database, map_file
    else:
        settings = context().settings.database(database) if database else context().settings.only_database()
        name, path = settings.name, map_file or settings.map
    text, losses = fides.to_fides(name, _load(path).database(name))
    _say_losses(losses)
    _deliver(text, output, {"database": name, "losses": losses})


def _say_losses(losses: list[fides.Loss]) -> None:
    out = context().output
    if losses:
        out.note("Not carried over:")
    for loss in losses:
        out.note("  {where}: {what}", where=loss.where, what=loss.what)
