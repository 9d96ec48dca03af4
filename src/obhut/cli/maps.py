"""What the commands of the data map share: which database and file are meant, and reading the file with every fault of form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from obhut.cli.context import context
from obhut.cli.exits import UsageError
from obhut.datamap.findings import DataMapError
from obhut.datamap.load import LoadedMap, load
from obhut.datamap.surroundings import Surroundings, read_surroundings
from obhut.foundation.language import text
from obhut.postgres.catalogue import Catalogue, read_catalogue
from obhut.postgres.connections import Session

Database = Annotated[str | None, Parameter(help="Name of the protected database; not needed when the settings name exactly one.")]
Url = Annotated[str | None, Parameter(help="libpq URL instead of that of the settings, without a password.")]
MapFile = Annotated[Path | None, Parameter(name="--map", help="Data map instead of that of the settings.")]
SnapshotFile = Annotated[
    Path | None, Parameter(name="--snapshot", help="Stored snapshot of the schema; default: NAME.snapshot.json beside the map.")
]
Target = Annotated[Path | None, Parameter(name=["--output", "-o"], help="File to write; never overwritten. Default: standard output.")]


@dataclass(frozen=True)
class Place:
    """Which database, how it is reached, and which file describes it."""

    name: str
    url: str
    map: Path


def place_of(name: str | None, url: str | None, file: Path | None, *, offline: bool = False) -> Place:
    """Return what the arguments mean, filled up from the settings where they leave something out."""
    if file and ((name and url) or offline):
        return Place(name or "", url or "", file)  # nothing is needed of the settings: a vendor's CI may have none
    settings = context().settings.database(name) if name else context().settings.only_database()
    return Place(settings.name, url or settings.url, file or settings.map)


def read_database(place: Place) -> tuple[Catalogue, Surroundings]:
    """Read catalogue and surroundings of a live database."""
    with Session.connect(place.url, application_name="obhut datamap") as session:
        return read_catalogue(session), read_surroundings(session)


def load_map(path: Path) -> LoadedMap:
    """Load, and say every fault of form before the one that is raised."""
    try:
        return load(path)
    except DataMapError as error:
        for finding in error.findings:
            context().output.warn("{fact}. {todo}", fact=_told(finding.fact), todo=text(finding.todo))
        raise


def _told(fact: str) -> str:
    """Return a fact in the language in force; before it stand the line and what it is about, which are no words: ``datamap.yaml:7: ``."""
    parts = fact.split(": ")
    for start in range(1, len(parts)):
        sentence = ": ".join(parts[start:])
        if (said := text(sentence)) != sentence:
            return ": ".join([*parts[:start], said])
    return text(fact)


def only(loaded: LoadedMap) -> str:
    """Return the name of the only database of a map.

    Raises:
        UsageError: it has several.
    """
    names = list(loaded.map.databases)
    if len(names) == 1:
        return names[0]
    raise UsageError("the map describes several databases", f"Name one of them: {', '.join(names)}.")
