"""What must not be in a copy: the source's identifiers, and the values of every column that the map has invented anew.

Judged by the data map, planned afresh, and never by the plan that the run used: a rule that got lost on the way is what is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from obhut.clones.digests import SHORTEST, Digests, canonical, identifier_forms
from obhut.clones.texts import cells, leaves, wordy
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
_LETTERS = re.compile(r"[^\W\d_]{2,}|\d{4,}")
_ASKED = 20  # values that are asked for at the source to tell a leak from chance


@dataclass
class Originals:
    """The source's values, as keyed digests.

    Attributes:
        identifiers: looked for in every text of the copy.
        values: of each invented column, looked for in the same column: place, path and value together.
        places: columns (table, column) that identifiers were taken from.
        invented: columns of the copy, by place, that hold invented values, with their transformer.
        tables: of the source, by name.
        kept: personal columns, by place, that the map keeps for a reason.
    """

    identifiers: Digests = field(default_factory=Digests)
    values: Digests = field(default_factory=Digests)
    places: list[tuple[Table, str]] = field(default_factory=list)
    invented: dict[str, ColumnPlan] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


def gather(session: Session, plan: MaskPlan, catalogue: Catalogue) -> Originals:
    """Read the originals; inside the copy's snapshot, or later at the living source.

    Args:
        session: on the source.
        plan: made afresh from the map, for the source.
        catalogue: of the source.
    """
    found = Originals()
    for oid, mask in plan.tables.items():
        found.kept |= {f"{mask.name}.{one.name}" for one in mask.columns if one.category is not None and one.transformer == "keep"}
        chosen = {
            column.name: column for column in mask.columns if column.category is not None and column.transformer not in {"keep", "rekey"}
        }
        named = {name for name, column in chosen.items() if _telling(plan, oid, column)}
        whole = {name for name, column in chosen.items() if _invented(column)}
        for leaf in catalogue.leaves(oid):
            columns = [column for column in wordy(leaf) if column.name in named | whole]
            found.places += [(leaf, column.name) for column in columns if column.name in named]
            if columns:
                _read(session, leaf, columns, mask.name, named, whole, chosen, found)
        for name in whole:
            found.invented[f"{mask.name}.{name}"] = chosen[name]
            found.tables[mask.name] = catalogue.tables[oid]
    return found


def _telling(plan: MaskPlan, oid: int, column: ColumnPlan) -> bool:
    return identifying(plan, plan.tables[oid], column) and not (column.category or "").startswith(_SHARED)


def _invented(column: ColumnPlan) -> bool:
    """Whether the copy's values are made up by the client: rules of the server are applied to the copy again instead."""
    return column.expression is None and column.effect in {Effect.INVENTS, Effect.DESTROYS}


def _read(
    session: Session, table: Table, columns: Sequence[Column], name: str, named: set[str], whole: set[str],
    chosen: Mapping[str, ColumnPlan], found: Originals,
) -> None:  # fmt: skip
    for chunk in cells(session, table, columns):
        for column, values in zip(columns, chunk, strict=True):
            texts = [leaf for cell in set(values) for leaf in leaves(column, cell)]
            if column.name in named:
                found.identifiers.add(form for _, text in texts for form in identifier_forms(text))
            if column.name in whole:
                kept = kept_paths(chosen[column.name])
                found.values.add(placed(name, column.name, path, text) for path, text in texts if judged(path, text, kept))


def placed(table: str, column: str, path: str, text: str) -> str:
    """Return a value bound to its place."""
    return f"{table}.{column}{path}\0{canonical(text)}"


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


def _listed(text: str) -> bool:
    """Whether a text is made of words that the masking engine itself invents."""
    parts = _LETTERS.findall(canonical(text))
    return bool(parts) and all(part in _vocabulary() for part in parts)


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
