"""``obhut datamap check --against``: the schema and map of this checkout against those of another commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from obhut.datamap.discovery.looking import Sampled
from obhut.datamap.drift import reference, snapshot
from obhut.datamap.drift.compare import Change, Kind, compare
from obhut.datamap.drift.review import Accepted, reclassified, review
from obhut.datamap.drift.state import SchemaState, of_catalogue, of_map
from obhut.datamap.findings import Finding, Severity
from obhut.datamap.load import LoadedMap, loads
from obhut.datamap.models import DatabaseMap
from obhut.postgres.catalogue import Catalogue

MAP: Final = "map"
SNAPSHOT: Final = "snapshot"
DATABASE: Final = "database"
NOTHING: Final = "nothing"


@dataclass(frozen=True)
class Live:
    """A live database: its catalogue and, for JSON paths, the look at its documents."""

    catalogue: Catalogue
    sampled: Sampled | None = None


@dataclass(frozen=True)
class Drift:
    """What changed since a commit.

    Attributes:
        commit: its hash.
        before: what told about it: ``snapshot``, ``map`` or ``nothing``.
        after: what told about this checkout: ``database``, ``snapshot`` or ``map``.
        changes: the differences.
        findings: one for each, and for what the map itself changed.
    """

    commit: str
    before: str
    after: str
    changes: tuple[Change, ...]
    findings: list[Finding]


@dataclass(frozen=True)
class _Told:
    by: str
    state: SchemaState


def drift(name: str, loaded: LoadedMap, text: str, against: str, stored: Path, live: Live | None) -> Drift:
    """Compare.

    Args:
        name: the database in the map.
        loaded: the map of this checkout.
        text: its text, to see that the other commit has the same one.
        against: branch, tag or other reference of git.
        stored: the snapshot of this checkout; it need not exist.
        live: the database; without it the snapshot tells, without that the map.

    Raises:
        GitReferenceError: the commit cannot be read.
        SnapshotError: a snapshot cannot be read.
        DataMapError: the map of the commit has another form.
    """
    other = reference.commit(against, loaded.path.resolve().parent)
    rules = loaded.database(name)
    accepted = Accepted(rules, _stored(stored, name))
    former = _former_map(name, loaded, text, other)
    before, after = _before(name, other, stored, former), _after(accepted, live)
    changes = [change for change in compare(before.state, after.state) if _tells(change, before)] if before.by != NOTHING else []
    findings = review(name, changes, accepted, after.state, live.catalogue if live else None)
    if former is not None and former is not rules:
        findings += reclassified(name, former, rules)
    if before.by == NOTHING:
        fact = f"the commit {other[:12]} has neither a map nor a snapshot of {name}"
        findings.append(
            Finding("drift-nothing", (name,), fact, "From the next commit on there is something to compare with.", Severity.INFO)
        )
    return Drift(other, before.by, after.by, tuple(changes), findings)


def _former_map(name: str, loaded: LoadedMap, text: str, other: str) -> DatabaseMap | None:
    former = reference.file_at(other, loaded.path)
    if former is None:
        return None
    if former == text:
        return loaded.database(name)
    found = loads(former, Path(f"{loaded.path.name} at {other[:12]}"))
    return found.map.databases.get(name)


def _stored(path: Path, name: str) -> SchemaState | None:
    return snapshot.read(path.read_text(encoding="utf-8"), name, path.name) if path.is_file() else None


def _before(name: str, other: str, stored: Path, former: DatabaseMap | None) -> _Told:
    text = reference.file_at(other, stored)
    if text is not None:
        return _Told(SNAPSHOT, snapshot.read(text, name, f"{stored.name} at {other[:12]}"))
    return _Told(MAP, of_map(former)) if former is not None else _Told(NOTHING, SchemaState())


def _after(accepted: Accepted, live: Live | None) -> _Told:
    if live is not None:
        return _Told(DATABASE, of_catalogue(live.catalogue, live.sampled))
    if accepted.snapshot is not None:
        return _Told(SNAPSHOT, accepted.snapshot)
    return _Told(MAP, of_map(accepted.rules))


def _tells(change: Change, before: _Told) -> bool:
    """Whether a change is one: a map names no paths but those of its rules, so only beside those is another path new."""
    if change.kind is not Kind.PATH_NEW or before.by != MAP:
        return True
    table = before.state.tables.get(change.table)
    column = table.columns.get(change.column) if table else None
    return bool(column and column.paths)
