"""What a schema looks like, as far as drift is concerned: tables, columns in their order, types, and the paths of JSON documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from obhut.datamap.discovery.looking import Sampled
from obhut.datamap.models import DatabaseMap, LinkRule, TableRule
from obhut.postgres.catalogue import Catalogue, Column, Key, Table

UNKNOWN: Final = ""  # the type of a column that only a map names
_CATEGORIES: Final = {
    "N": ("smallint", "integer", "bigint", "numeric", "real", "double precision"),
    "B": ("boolean",),
    "D": ("date", "timestamp", "time"),
    "S": ("text", "character", "citext", "name"),
    "I": ("inet", "cidr"),
}


@dataclass(frozen=True, slots=True)
class ColumnState:
    """A column: its type as PostgreSQL writes it, whether it is NOT NULL, and the paths seen in its JSON documents."""

    type: str = UNKNOWN
    required: bool = False
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableState:
    """A table; ``partial`` when only a map that does not list every column tells of it."""

    columns: Mapping[str, ColumnState] = field(default_factory=dict)
    partial: bool = False


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Tables by ``schema.name``."""

    tables: Mapping[str, TableState] = field(default_factory=dict)

    @property
    def typed(self) -> bool:
        """Whether types are known."""
        return any(column.type for table in self.tables.values() for column in table.columns.values())


def of_catalogue(catalogue: Catalogue, sampled: Sampled | None = None) -> SchemaState:
    """Return the state of a live database, with JSON paths where its values were looked at."""
    looks = (sampled or Sampled()).looks
    found = {}
    for table in sorted(catalogue.roots, key=lambda table: table.full_name):
        seen = looks.get(table.oid, {})
        columns = {
            column.name: ColumnState(column.type, column.not_null, tuple(seen[column.name].paths) if column.name in seen else ())
            for column in table.columns
        }
        found[table.full_name] = TableState(columns)
    return SchemaState(found)


def of_map(rules: DatabaseMap) -> SchemaState:
    """Return what a map alone tells: names, and paths that it names; no types."""
    return SchemaState({name: _of_rule(rules, name, rule) for name, rule in rules.tables.items()})


def _of_rule(rules: DatabaseMap, name: str, rule: TableRule) -> TableState:
    listed = () if rule.not_personal == "*" else rule.not_personal
    names = dict.fromkeys([*rule.columns, *listed, *(column for link in rule.links for column in linked(link))])
    for subject in rules.subjects.values():
        if subject.table == name:
            names |= dict.fromkeys([*subject.key, *(subject.controller if isinstance(subject.controller, dict) else ())])
    partial = rule.not_personal == "*" or not rule.personal or any(not linked(link) for link in rule.links)
    return TableState({column: ColumnState(paths=paths_of(rule, column)) for column in names}, partial)


def linked(link: LinkRule) -> list[str]:
    """Return the columns that a link names; none where it stands for a foreign key."""
    return [*(link.columns or ()), *link.when, *([link.array] if link.array else []), *([link.json_column] if link.json_column else [])]


def paths_of(rule: TableRule, column: str) -> tuple[str, ...]:
    """Return the JSON paths that a map names of a column."""
    found = rule.columns.get(column)
    named = [path.path for path in found.anonymise.paths] if found is not None and found.anonymise is not None else []
    return tuple(dict.fromkeys([*named, *(link.path for link in rule.links if link.json_column == column and link.path)]))


def as_catalogue(state: SchemaState) -> Catalogue:
    """Return a catalogue of names and types, for discovery without a database."""
    tables, names = {}, {}
    for oid, (full_name, table) in enumerate(state.tables.items(), 1):
        schema, _, name = full_name.partition(".")
        columns = tuple(_column(number, called, column) for number, (called, column) in enumerate(table.columns.items(), 1))
        keys = (Key("pkey", True, ("id",), None),) if "id" in table.columns else ()
        tables[oid] = Table(oid, schema, name, "r", "p", False, None, False, 0, 0, 0, 0, None, False, None, False, columns, keys)
        names[full_name] = oid
    return Catalogue(0, tables, (), (), {}, (), names)


def _column(number: int, name: str, state: ColumnState) -> Column:
    written = state.type or "text"
    base, _, limit = written.partition("(")
    rest = limit.partition(")")
    modifier = int(rest[0]) + 4 if rest[0].isdigit() and base.startswith("character") else -1
    base = (base + rest[2]).strip()
    category = "A" if base.endswith("[]") else next((letter for letter, starts in _CATEGORIES.items() if base.startswith(starts)), "U")
    return Column(name, written, base, state.required, None, "", "", category, "b", None, number, modifier)
