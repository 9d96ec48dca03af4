"""The verdicts on every column of a database, JSON paths included."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

from obhut.datamap.discovery import names
from obhut.datamap.discovery.looking import Look, Sampled, contained
from obhut.datamap.discovery.roles import Role, Standing, standings
from obhut.datamap.discovery.weighing import PERSONAL, SURE, Verdict, weigh
from obhut.datamap.surroundings import Surroundings
from obhut.postgres.catalogue import Catalogue, Column, Table

_LISTED: Final = ("= ANY (ARRAY[", "= ANY ((ARRAY[")
_SHOWN: Final = 4  # JSON paths that a reason names
_KEY: Final = ("it is a key",)
_ENOUGH: Final = 20  # different values that make a match no accident
_MOST: Final = 0.5
_COPY: Final = 0.75  # confidence in a column that holds the values of another


@dataclass(frozen=True)
class Document:
    """The verdicts on the paths of a JSON column; ``complete`` when every path is decided and no key may be a value."""

    paths: dict[str, Verdict]
    complete: bool

    @property
    def personal(self) -> tuple[str, ...]:
        """Paths that hold personal data."""
        return tuple(path for path, verdict in self.paths.items() if verdict.personal and not verdict.presumed)


@dataclass(frozen=True)
class Discovery:
    """What discovery found, by oid of the topmost table and column."""

    standings: dict[int, Standing]
    verdicts: dict[int, dict[str, Verdict]]
    documents: dict[int, dict[str, Document]] = field(default_factory=dict)
    unseen: tuple[int, ...] = ()  # tables whose values could not be looked at

    def sure(self, oid: int) -> dict[str, str]:
        """Return the columns of a table that are surely personal, with their categories."""
        return {name: verdict.category for name, verdict in self.verdicts[oid].items() if verdict.category and verdict.sure}


def discover(
    catalogue: Catalogue, sampled: Sampled | None = None, surroundings: Surroundings | None = None, *, only: Collection[str] | None = None
) -> Discovery:
    """Judge every column of every topmost table that is no key. Pure.

    Args:
        catalogue: the tables.
        sampled: what their values look like; without it names, types, comments and keys decide alone.
        surroundings: CHECK constraints.
        only: full names of the tables to judge; default: all. What the others are still counts.
    """
    sampled, around = sampled or Sampled(), surroundings or Surroundings()
    roles = standings(catalogue)
    keys = _key_columns(catalogue)
    verdicts: dict[int, dict[str, Verdict]] = {}
    documents: dict[int, dict[str, Document]] = {}
    for table in catalogue.roots:
        if only is not None and table.full_name not in only:
            continue
        looks = sampled.looks.get(table.oid, {})
        called = tuple(column.name for column in table.columns)
        listed = {name for _, name, expression in around.checks.get(table.oid, ()) if any(mark in expression for mark in _LISTED)}
        verdicts[table.oid], documents[table.oid] = {}, {}
        for column in table.columns:
            look, bare = looks.get(column.name), names.bare(column.name, called)
            if column.name in keys[table.oid]:
                verdict = Verdict(None, 0.9, _KEY)
            elif look is not None and (look.paths or look.unruly):
                document = _document(table, column, roles[table.oid], look)
                documents[table.oid][column.name] = document
                verdict = _whole(document, weigh(table, column, roles[table.oid], None, bare))
            else:
                verdict = weigh(table, column, roles[table.oid], look, bare)
            if column.name in listed and verdict.confidence < SURE:
                verdict = Verdict(None, SURE, ("a CHECK constraint lists its values",))
            verdicts[table.oid][column.name] = verdict
    _share(catalogue, sampled, verdicts)
    return Discovery(roles, verdicts, documents, sampled.unseen)


def _share(catalogue: Catalogue, sampled: Sampled, verdicts: dict[int, dict[str, Verdict]]) -> None:
    """Give a column that nothing speaks for the category of one whose values it has: a copy of an address under another name."""
    known = [
        (sampled.looks[oid][name].sketch, verdict.category, f"{catalogue.tables[oid].full_name}.{name}")
        for oid, found in verdicts.items()
        for name, verdict in found.items()
        if verdict.category and verdict.sure and name in sampled.looks.get(oid, {}) and sampled.looks[oid][name].distinct >= _ENOUGH
    ]
    for oid, found in verdicts.items():
        for name, verdict in found.items():
            look = sampled.looks.get(oid, {}).get(name)
            if look is None or verdict.category or verdict.reasons == _KEY or look.distinct < _ENOUGH:
                continue
            best = max(((contained(look.sketch, sketch), category, place) for sketch, category, place in known), default=(0.0, "", ""))
            if best[0] >= _MOST:
                found[name] = Verdict(best[1], _COPY, (f"{best[0]:.0%} of its values stand in {best[2]}, too",))


def _key_columns(catalogue: Catalogue) -> dict[int, set[str]]:
    found = {table.oid: set(table.primary_key) for table in catalogue.roots}
    for key in catalogue.foreign_keys:
        found[catalogue.root(key.table).oid].update(key.columns)
    return found


def _document(table: Table, column: Column, standing: Standing, look: Look) -> Document:
    """Judge the leaves as if each were a text column named like its key."""
    text = replace(column, base_type="text", type="text", modifier=-1, category="S", comment=None, generated="")
    paths = {}
    for path, found in look.paths.items():
        key = path.rsplit(".", 1)[-1].removesuffix("[*]") if "." in path else column.name
        typed = text if found.filled else replace(text, base_type="numeric", type="numeric", category="N")
        paths[path] = weigh(table, replace(typed, name=key), standing, found if found.filled else None)
    return Document(paths, not look.unruly and all(not verdict.open for verdict in paths.values()))


def _whole(document: Document, named: Verdict) -> Verdict:
    """Return the verdict on a column from those on its paths."""
    found = [document.paths[path] for path in document.personal]
    if not found:
        complete = document.complete and not named.personal
        return (
            Verdict(None, 0.75, ("no path of the sampled documents is personal",)) if complete else replace(named, category=None, open=True)
        )
    categories = {verdict.category for verdict in found}
    shown = ", ".join(document.personal[:_SHOWN]) + (" …" if len(document.personal) > _SHOWN else "")
    confidence = max(verdict.confidence for verdict in found)
    reasons = (f"personal inside: {shown}",)
    return Verdict(found[0].category if len(categories) == 1 else "user", max(confidence, PERSONAL), reasons)


def is_about_people(standing: Standing) -> bool:
    """Whether rows are people or belong to them."""
    return standing.role is not Role.THING
