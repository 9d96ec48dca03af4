"""What must not be in a copy: the source's identifiers, and the values of every column that the map has invented anew.

Judged by the data map, planned afresh, and never by the plan that the run used: a rule that got lost on the way is what is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache

from obhut.clones import crew
from obhut.clones.digests import SHORTEST, Digests, canonical, identifier_forms
from obhut.clones.sieve import SEPARATOR, Identifiers, Shapes
from obhut.clones.texts import Database, Piece, cells, leaves, pieces, structured, wordy
from obhut.datamap.transformers import Effect
from obhut.masking.model import ColumnPlan, MaskPlan
from obhut.masking.verdict import identifying
from obhut.masking.wordlists import locales, words
from obhut.postgres.catalogue import Catalogue, Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier

# Many people share these, and the word lists hold them too: found elsewhere they prove nothing.
_SHARED = ("user.name", "user.contact.address", "user.contact.organization")
# Invented from few values, some of which the source may hold by chance, test data above all.
FEW = frozenset({"ip", "user_agent", "phone", "choice", "tax_number", "vat_number", "card", "postcode", "city"})
SOME = 0.2  # share of cells of a column of few possible values that may equal one of the source's by chance
_LETTERS = re.compile(r"[^\W\d_]{2,}|\d{4,}")
Gathered = tuple[bytes, bytes, int]
FORKED = 64  # pieces from which on other processes help
_ASKED = 20  # values that are asked for at the source to tell a leak from chance


@dataclass
class Originals:
    """The source's values, as keyed digests.

    Attributes:
        identifiers: looked for in every text of the copy.
        values: of each invented column, by place, looked for in the same column: path and value together.
        places: columns (table, column) that identifiers were taken from.
        invented: columns of the copy, by place, that hold invented values, with their transformer.
        tables: of the source, by name.
        kept: personal columns, by place, that the map keeps for a reason.
    """

    identifiers: Identifiers = field(default_factory=Identifiers)
    values: dict[str, Digests] = field(default_factory=dict)
    places: list[tuple[Table, str]] = field(default_factory=list)
    invented: dict[str, ColumnPlan] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


def gather(
    session: Session, source: Database, plan: MaskPlan, catalogue: Catalogue, workers: int, passing: frozenset[str] = frozenset()
) -> Originals:
    """Read the originals; inside the copy's snapshot, or later at the living source.

    Args:
        session: on the source.
        source: the same for other sessions.
        plan: made afresh from the map, for the source.
        catalogue: of the source.
        workers: processes side by side.
        passing: places whose values will be gathered while their rows pass, and are not read now.
    """
    found = Originals()
    wanted: list[tuple[Table, list[Column]]] = []
    named: set[str] = set()
    for oid, mask in plan.tables.items():
        found.kept |= {f"{mask.name}.{one.name}" for one in mask.columns if one.category is not None and one.transformer == "keep"}
        chosen = [column for column in mask.columns if column.category is not None and column.transformer not in {"keep", "rekey"}]
        telling = {column.name for column in chosen if _telling(plan, oid, column)}
        invented = {column.name: column for column in chosen if _invented(column)}
        for leaf in catalogue.leaves(oid):
            read = telling | {name for name in invented if f"{mask.name}.{name}" not in passing}
            columns = [column for column in wordy(leaf) if column.name in read]
            found.places += [(leaf, column.name) for column in columns if column.name in telling]
            wanted.append((leaf, columns))
        named |= {f"{mask.name}.{name}" for name in telling}
        for name, column in invented.items():
            found.invented[f"{mask.name}.{name}"] = column
            found.values[f"{mask.name}.{name}"] = Digests()
            found.tables[mask.name] = catalogue.tables[oid]
    _read_all(session, source, catalogue, wanted, named, found.values.keys() - passing, found, workers)
    return found


def _read_all(
    session: Session, source: Database, catalogue: Catalogue, wanted: Sequence[tuple[Table, list[Column]]], named: AbstractSet[str],
    valued: AbstractSet[str], found: Originals, workers: int,
) -> None:  # fmt: skip
    cut = pieces(session, [(table, columns) for table, columns in wanted if columns])

    def read(share: Sequence[Piece]) -> tuple[Gathered, Shapes, dict[str, Gathered]]:
        with source.session() as reading:
            for piece in share:
                _read(reading, piece, catalogue.root(piece.table.oid).full_name, named, valued, found)
        return found.identifiers.gathered(), found.identifiers.shapes(), {place: one.gathered() for place, one in found.values.items()}

    if len(cut) < FORKED:
        read(cut)
        return
    for identifiers, shapes, values in crew.share(read, cut, workers):
        found.identifiers.merge(identifiers)
        found.identifiers.widen(shapes)
        for place, one in values.items():
            found.values[place].merge(one)


def again(
    session: Session, source: Database, plan: MaskPlan, catalogue: Catalogue, workers: int, places: AbstractSet[str], found: Originals
) -> None:
    """Read the values of places after all that were to be gathered while their rows passed; arguments as for :func:`gather`."""
    wanted = [
        (leaf, [column for column in wordy(leaf) if f"{mask.name}.{column.name}" in places])
        for oid, mask in plan.tables.items()
        for leaf in catalogue.leaves(oid)
    ]
    _read_all(session, source, catalogue, wanted, set(), places, found, workers)


def _telling(plan: MaskPlan, oid: int, column: ColumnPlan) -> bool:
    return identifying(plan, plan.tables[oid], column) and not (column.category or "").startswith(_SHARED)


def _invented(column: ColumnPlan) -> bool:
    """Whether the copy's values are made up by the client: rules of the server are applied to the copy again instead."""
    return column.expression is None and column.effect in {Effect.INVENTS, Effect.DESTROYS}


def _read(session: Session, piece: Piece, table: str, named: AbstractSet[str], valued: AbstractSet[str], found: Originals) -> None:
    for texts in cells(session, piece):
        for column, text in zip(piece.columns, texts, strict=True):
            place = f"{table}.{column.name}"
            if in_bulk(column):
                values = [value for value in folded(text) if len(value) >= SHORTEST]
                if place in valued:
                    found.values[place].add(values)
                if place in named:
                    found.identifiers.add_values(values)
                continue
            inside = [leaf for cell in set(text.split(SEPARATOR)) for leaf in leaves(column, cell)]
            if place in named:
                found.identifiers.add({form for _, value in inside for form in identifier_forms(value)})
            if place in valued:
                kept = kept_paths(found.invented[place])
                found.values[place].add(placed(path, value) for path, value in inside if judged(path, value, kept))


def in_bulk(column: Column) -> bool:
    """Whether the values of a column are looked for many at a time: its cells are what they say."""
    return not structured(column) and column.base_type != "bytea"


def by_chance(count: int, cells: int) -> bool:
    """Whether so many of so many judged cells of a column of few possible values may equal one of the source's by chance."""
    return count <= 3 or count / max(cells, 1) <= SOME


def folded(text: str) -> set[str]:
    """Return the different cells of a text in their canonical form."""
    return set(map(str.strip, set(text.lower().split(SEPARATOR))))


def placed(path: str, text: str) -> str:
    """Return a value bound to its path inside a document."""
    return f"{path}\0{canonical(text)}" if path else canonical(text)


def judged(path: str, text: str, kept: frozenset[str]) -> bool:
    """Whether to find a value in its own column again says anything: long enough, not kept there, and not of the word lists."""
    return len(text.strip()) >= SHORTEST and path not in kept and not path.endswith(".~") and not _listed(text)


def kept_paths(column: ColumnPlan) -> frozenset[str]:
    """Return the JSON paths that the map keeps, as :func:`~obhut.clones.texts.leaves` writes them."""
    paths = column.options.get("paths") or {}
    return frozenset(str(path) for path, rule in paths.items() if _keeps(rule))


def _keeps(rule: object) -> bool:
    """Whether a path's rule leaves values that the source may hold too: those it keeps, and those it gives to everybody."""
    name = rule if isinstance(rule, str) else next(iter(rule), "") if isinstance(rule, Mapping) else ""
    return name in {"keep", "constant", "redact", "choice", "truncate", "partial"}


def listed(word: str) -> bool:
    """Whether a word in lower case is one that the masking engine itself invents."""
    return word in _vocabulary()


def _listed(text: str) -> bool:
    """Whether a text is made of words that the masking engine itself invents."""
    known = _vocabulary()
    parts = 0
    for parts, found in enumerate(_LETTERS.finditer(canonical(text)), 1):  # noqa: B007 - whether there was any  # most end with the first
        if found[0] not in known:
            return False
    return parts > 0


@cache
def _vocabulary() -> frozenset[str]:
    found: set[str] = set()
    for locale in locales():
        lists = words(locale)
        everything = (
            *lists.first_names, *lists.last_names, *lists.streets, *lists.postcodes, *lists.cities, *lists.company_words,
            *lists.company_forms, *lists.text,
        )  # fmt: skip
        for value in everything:
            found.update(_LETTERS.findall(value.decode().lower()))
    return frozenset(found)


def confirmed(session: Session, places: Sequence[tuple[Table, str]], values: Sequence[str]) -> bool:
    """Whether the source holds one of the values: a digest that meets by chance is no leak.

    The values came from the copy; they travel as parameters, to the database that would hold them anyway.
    """
    bare = [value for value in values if value.strip()][:_ASKED]
    if not bare:
        return False
    return any(_holds(session, table, column, bare) for table, column in places)


def _holds(session: Session, table: Table, column: str, values: Sequence[str]) -> bool:
    text = SQL("lower({}::text)").format(Identifier(column))
    query = SQL(
        "SELECT EXISTS (SELECT FROM {} t, unnest(%s::text[]) v WHERE position(v IN {x}) > 0"
        " OR position(v IN regexp_replace({x}, '[^[:alnum:]]', '', 'g')) > 0)"
    ).format(table.relation, x=text)
    try:
        return bool(session.value(query, (list(values),)))
    except DatabaseError:
        return True  # what cannot be asked counts as found
