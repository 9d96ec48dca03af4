"""``obhut datamap``: suggest, check, store a snapshot, show, and carry over from and to Fideslang."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli import datamap_check
from obhut.cli.context import context
from obhut.cli.exits import UsageError
from obhut.cli.maps import Database, MapFile, Target, Url, load_map, place_of, read_database
from obhut.datamap import fides, schema
from obhut.datamap.graph import require
from obhut.datamap.models import DatabaseMap
from obhut.datamap.picture import svg
from obhut.datamap.proposal import Proposal
from obhut.datamap.show import Outline, outline, tree
from obhut.datamap.suggest import sample, suggest
from obhut.datamap.surroundings import read_surroundings
from obhut.datamap.writing import write
from obhut.foundation.errors import ObhutError
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session

app = App(name="datamap")
app.command(datamap_check.check)
app.command(datamap_check.snapshot)


class FileExistsAlreadyError(ObhutError):
    """A file that people write is never overwritten."""

    code = "file-exists"


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
    place = place_of(database, url, Path("datamap.yaml"))
    with Session.connect(place.url, application_name="obhut datamap") as session:
        catalogue, around = read_catalogue(session), read_surroundings(session)
        seen = None if names_only else sample(session, catalogue)
    proposal = suggest(place.name, catalogue, seen, around)
    facts = {"database": place.name, "tables": len(proposal.tables), "decisions": proposal.decisions, "columns": _columns(proposal)}
    _deliver(write(proposal), output, facts)


def _columns(proposal: Proposal) -> list[dict[str, object]]:
    """Return what is known of each column that is personal or a question, for machines."""
    found: list[dict[str, object]] = []
    for table in proposal.tables:
        for column in table.columns:
            found.append(
                {
                    "table": table.name,
                    "column": column.name,
                    "category": column.category,
                    "anonymise": column.anonymise,
                    "confidence": column.confidence,
                    "reasons": column.reasons,
                    "question": column.decide,
                }
            )
        asked = [(name, "user") for name in table.presumed] + [(name, None) for name in table.unknown]
        found += [{"table": table.name, "column": name, "category": category, "question": "personal or not?"} for name, category in asked]
    return found


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
    place = place_of(database, url, map_file)
    rules = load_map(place.map).database(place.name)
    catalogue, _ = read_database(place)
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
    text, losses = fides.to_fides(name, load_map(path).database(name))
    _say_losses(losses)
    _deliver(text, output, {"database": name, "losses": losses})


def _say_losses(losses: list[fides.Loss]) -> None:
    out = context().output
    if losses:
        out.note("Not carried over:")
    for loss in losses:
        out.note("  {where}: {what}", where=loss.where, what=loss.what)
