"""What a table is: people, rows of people, or things. The same column name means different things in each."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from obhut.datamap.discovery import names
from obhut.datamap.discovery.lexicon import Phrase, fold
from obhut.postgres.catalogue import Catalogue, Column, Table


class Role(StrEnum):
    """Whose rows a table has."""

    PERSON = "a row is a person"
    OF_PEOPLE = "rows belong to people"
    THING = "rows are about things"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a table is, and which fields of life its columns are about."""

    role: Role
    health: bool = False
    bank: bool = False
    catalogue: bool = False
    address: bool = False  # several columns make up an address
    named: bool = False  # beside a name there is more of somebody: an address, a telephone number, an account, a second name
    towns: frozenset[Phrase] = frozenset()  # what stands before the columns of towns and postal codes: (), ("billing",)
    prose: bool = False  # the schema writes short texts as character varying, so that text means long ones


# Two of these families make a row a person, whatever the table is called.
_FAMILIES: Final = (
    "user.name.first", "user.name.last", "user.contact.email", "user.contact.phone_number", "user.demographic.date_of_birth",
    "user.account.username", "user.authorization.password", "user.government_id", "user.demographic.gender", "user.name",
)  # fmt: skip
# What only people have: without them a table of clubs is about clubs, though it holds their addresses.
_HUMAN: Final = frozenset({"user.name.first", "user.name.last", "user.demographic.date_of_birth", "user.authorization.password"})
_ABOUT_SOMEBODY: Final = ("user.contact", "user.name", "user.financial", "user.demographic")
_SEVERAL: Final = 2
_ADDRESSED: Final = frozenset({"user.contact.address.street", "user.contact.address.postal_code"})
_TOWNS: Final = ("user.contact.address.city", "user.contact.address.postal_code")
_ID: Final = frozenset({"id", "nr", "no", "uuid"})
_FAR: Final = 3  # steps along keys after which rows hardly belong to a person


def standings(catalogue: Catalogue) -> dict[int, Standing]:
    """Return the standing of every topmost table, by oid. Pure."""
    tables = catalogue.roots
    people = {table.oid for table in tables if _is_people(table)}
    belonging = {table.oid for table in tables if _speaks_of_somebody(table)}
    reached = _reached(tables, _owners(catalogue, tables), people, belonging)
    prose = _tells_texts_apart(tables)
    return {table.oid: replace(_standing(table, table.oid in people, reached), prose=prose) for table in tables}


def _tells_texts_apart(tables: Iterable[Table]) -> bool:
    types = [column.base_type for table in tables for column in table.columns]
    return types.count("character varying") > types.count("text")


def _standing(table: Table, is_people: bool, reached: set[int]) -> Standing:  # noqa: FBT001 - one of three facts
    about = names.about(table.name)
    catalogue = "catalogue" in about and not is_people and _tail(table, "catalogue")
    health = "health" in about or sum(1 for column in table.columns if _health(column.name)) >= _SEVERAL
    located = not {"catalogue", "place"} & about and _lives_somewhere(table)
    somebody = located or ((table.oid in reached or "part" in about) and not _is_firm(table))
    of_people = somebody and not catalogue
    role = Role.PERSON if is_people else Role.OF_PEOPLE if of_people else Role.THING
    bank = "bank" in about or sum(1 for column in table.columns if _bank(column.name)) >= _SEVERAL
    address = sum(1 for column in table.columns if _address(column.name)) >= _SEVERAL
    named = bool({"person", "figure"} & about) or any(_reaches(column.name) for column in table.columns)
    return Standing(role, health and role is not Role.THING, bank, catalogue, address, named, frozenset(_towns(table)))


def _towns(table: Table) -> Iterable[Phrase]:
    called = tuple(column.name for column in table.columns)
    for name in called:
        bare = names.bare(name, called)
        reading = names.read(bare)
        if reading is not None and reading.category.startswith(_TOWNS):
            found, told = names.parts(bare), tuple(reading.words.split("_"))
            yield next((found[:start] for start in range(len(found)) if found[start : start + len(told)] == told), ())


def _speaks_of_somebody(table: Table) -> bool:
    """Whether rows must belong to people, whoever they are: bank accounts, or findings about health that have no name of their own."""
    if sum(1 for column in table.columns if _bank(column.name)) >= _SEVERAL or any("iban" in names.parts(name) for name in table.by_name):
        return True
    if any(_owner_word(column.name) for column in table.columns):
        return True
    nameless = not {"name", "title", "bezeichnung"} & {fold(column.name) for column in table.columns}
    return nameless and bool({"health"} & names.about(table.name)) and "catalogue" not in names.about(table.name)


def _owner_word(name: str) -> bool:
    """Whether a column names an owner by a word for people: ``author_id``, ``recipientId``; the table behind it may be called anything."""
    found = names.words(name)
    return len(found) > 1 and found[-1] in _ID and not names.bookkeeping(name) and bool({"person", "figure"} & names.about(found[-2]))


def _tail(table: Table, kind: str) -> bool:
    """Whether the last word of a table's name is of a kind: ``user_settings`` are settings, ``setting_users`` are users."""
    last = names.words(table.name)[-1:]
    return bool(last) and kind in names.about(last[0])


def _health(name: str) -> bool:
    reading = names.read(name)
    return reading is not None and reading.strong and reading.category.startswith("user.health")


def _address(name: str) -> bool:
    reading = names.read(name)
    return reading is not None and reading.category.startswith("user.contact.address")


def _reaches(name: str) -> bool:
    reading = names.read(name)
    return reading is not None and reading.strong and reading.category.startswith(_ABOUT_SOMEBODY)


def _bank(name: str) -> bool:
    reading = names.read(name)
    return reading is not None and reading.strong and reading.category.startswith("user.financial")


def _is_people(table: Table) -> bool:
    about = names.about(table.name)
    families = {family for column in table.columns if (family := _family(column.name))}
    if "event" in about or (_is_firm(table) and not families & _HUMAN):
        return False
    if "person" in about and (_tail(table, "person") or _tail(table, "details")) and not _only_keys(table):
        return True
    return len(families) >= 2 + ("catalogue" in about)


def _is_firm(table: Table) -> bool:
    """Whether a row is a firm, a club or a group by the table's name: what it says about itself is about nobody."""
    return any(_tail(table, kind) for kind in ("controller", "firm")) and not _tail(table, "person") and not _tail(table, "part")


def _lives_somewhere(table: Table) -> bool:
    """Whether a row has a name, a street and a postal code: a person or a firm, unless the table is about places."""
    found = [reading for column in table.columns if (reading := names.read(column.name)) is not None]
    strong = {reading.category for reading in found if reading.strong}
    named = any(reading.category.startswith("user.name") and reading.alone for reading in found)
    return named and strong >= _ADDRESSED


def _family(name: str) -> str | None:
    reading = names.read(name)
    if reading is None or not reading.strong or not reading.whole:
        return None
    return next((family for family in _FAMILIES if reading.category.startswith(family)), None)


def _only_keys(table: Table) -> bool:
    """Whether a table has little but numbers: it joins people to something, and is nobody itself."""
    return not any(column.category in {"S", "U", "D", "E"} for column in table.columns)


def _owners(catalogue: Catalogue, tables: Iterable[Table]) -> dict[int, set[int]]:
    """Return by child the tables its rows belong to, by foreign keys and by names; who only touched a row does not own it."""
    found: dict[int, set[int]] = defaultdict(set)
    bound: dict[int, set[str]] = defaultdict(set)
    for key in catalogue.foreign_keys:
        child = catalogue.root(key.table).oid
        bound[child].update(key.columns)
        if not all(names.bookkeeping(column) for column in key.columns):
            found[child].add(catalogue.root(key.references).oid)
    singular = _by_singular(tables)
    for table in tables:
        for column in table.columns:
            if column.name not in bound[table.oid] and (owner := _named_owner(column, singular)) and owner != table.oid:
                found[table.oid].add(owner)
    return found


def _by_singular(tables: Iterable[Table]) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in tables:
        name = fold(table.name)
        for form in (name, name.removesuffix("s"), name.removesuffix("es"), name.removesuffix("n"), name.removesuffix("en")):
            found.setdefault(form, table.oid)
    return found


def _named_owner(column: Column, singular: Mapping[str, int]) -> int | None:
    """Return the table that ``customer_id``, ``userId`` or an integer ``mitglied`` names without a foreign key."""
    found = names.words(column.name)
    if names.bookkeeping(column.name):
        return None
    if len(found) == 1:
        return singular.get(found[0]) if column.base_type in {"integer", "bigint"} else None
    if found[-1:] and found[-1] not in _ID:
        return None
    stem = found[:-1]
    return singular.get("_".join(stem)) or singular.get("".join(stem)) or (singular.get(stem[-1]) if stem else None)


def _reached(tables: Iterable[Table], owners: Mapping[int, set[int]], people: set[int], belonging: set[int]) -> set[int]:
    children: dict[int, set[int]] = defaultdict(set)
    for child, parents in owners.items():
        for parent in parents:
            children[parent].add(child)
    # A person's address is named by the person instead of naming it.
    shared = {parent for child in people for parent in owners.get(child, ()) if "part" in _about(tables, parent)}
    steps = dict.fromkeys([*people, *shared, *belonging], 0)
    waiting = deque(steps)
    while waiting:
        oid = waiting.popleft()
        for child in children[oid]:
            if child not in steps and steps[oid] < _FAR:
                steps[child] = steps[oid] + 1
                waiting.append(child)
    return set(steps)


def _about(tables: Iterable[Table], oid: int) -> frozenset[str]:
    return next((names.about(table.name) for table in tables if table.oid == oid), frozenset())
