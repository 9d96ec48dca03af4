"""What stands around the tables and can get in an erasure's way: enums, triggers, rules, views, CHECK constraints, partition keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from obhut.datamap.findings import Finding
from obhut.datamap.graph import Graph
from obhut.postgres.catalogue import Column
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier, Literal, load, trusted

_SQL = load("obhut.datamap", "surroundings")


@dataclass(frozen=True, slots=True)
class View:
    """A view over tables or other views."""

    name: str
    materialised: bool
    reads: frozenset[int]


@dataclass(frozen=True)
class Surroundings:
    """By oid of the table, unless said otherwise. The default knows nothing, so that a check can run on a catalogue alone."""

    enums: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by name of the type
    triggers: dict[int, tuple[str, ...]] = field(default_factory=dict)
    rules: dict[int, tuple[str, ...]] = field(default_factory=dict)
    views: dict[int, View] = field(default_factory=dict)  # by oid of the view
    checks: dict[int, tuple[tuple[str, str, str], ...]] = field(default_factory=dict)  # constraint, column, expression
    partition_keys: dict[int, tuple[str, ...]] = field(default_factory=dict)
    index_reads: dict[int, dict[str, tuple[str, ...]]] = field(default_factory=dict)  # columns that a unique index with expressions reads
    domain_limits: dict[str, int] = field(default_factory=dict)  # characters at the most, by name of the domain

    def views_over(self, tables: Iterable[int]) -> list[View]:
        """Return the views that read one of the tables, directly or through other views, by name."""
        reached, found = set(tables), set[int]()
        while new := {oid for oid, view in self.views.items() if oid not in found and view.reads & reached}:
            found |= new
            reached |= new
        return sorted((self.views[oid] for oid in found), key=lambda view: view.name)


def read_surroundings(session: Session) -> Surroundings:
    """Read the surroundings from the session's database.

    Raises:
        DatabaseError: the role may not read the catalogue.
    """
    triggers: dict[int, list[str]] = {}
    rules: dict[int, list[str]] = {}
    for into, name in ((triggers, "triggers"), (rules, "rules")):
        for oid, found in session.rows(_SQL[name]):
            into.setdefault(oid, []).append(found)
    views: dict[int, tuple[str, bool, set[int]]] = {}
    for oid, name, kind, read in session.rows(_SQL["views"]):
        views.setdefault(oid, (name, kind == "m", set()))[2].add(read)
    checks: dict[int, list[tuple[str, str, str]]] = {}
    for oid, name, column, expression in session.rows(_SQL["checks"]):
        checks.setdefault(oid, []).append((name, column, expression))
    index_reads: dict[int, dict[str, tuple[str, ...]]] = {}
    for oid, name, columns in session.rows(_SQL["index_reads"]):
        index_reads.setdefault(oid, {})[name] = tuple(columns)
    return Surroundings(
        enums={name: tuple(labels) for name, labels in session.rows(_SQL["enums"])},
        triggers={oid: tuple(names) for oid, names in triggers.items()},
        rules={oid: tuple(names) for oid, names in rules.items()},
        views={oid: View(name, kind, frozenset(reads)) for oid, (name, kind, reads) in views.items()},
        checks={oid: tuple(found) for oid, found in checks.items()},
        partition_keys={oid: tuple(columns) for oid, columns in session.rows(_SQL["partition_keys"])},
        index_reads=index_reads,
        domain_limits={name: int(limit) for name, limit in session.rows(_SQL["domain_limits"])},
    )


def probe(session: Session, graph: Graph, surroundings: Surroundings) -> list[Finding]:
    """Let the server itself cast every constant to its column's type and judge it by the column's CHECK constraints.

    Reads no row: each value is the map's own.
    """
    findings: list[Finding] = []
    for oid, node in graph.tables.items():
        for name, rule in node.anonymise.items():
            if rule.way not in {"constant", "empty", "default", "null"} or node.table.by_name[name].is_generated:
                continue
            column = node.table.by_name[name]
            value = _value(rule.way, rule.value, column)
            where = (graph.database, "tables", node.table.full_name, "columns", name, "anonymise")
            if not _accepts(session, column, value, None):
                fact = f"the server cannot turn the anonymised value of {node.table.full_name}.{name} into {column.type}"
                findings.append(Finding("anonymise-cast", where, fact, "Choose a value of the column's type (and domain)."))
                continue
            for constraint, checked, expression in surroundings.checks.get(oid, ()):
                if checked == name and not _accepts(session, column, value, expression):
                    fact = f"the CHECK constraint {constraint} refuses the anonymised value of {node.table.full_name}.{name}"
                    findings.append(Finding("anonymise-check", where, fact, "Choose a value that the constraint allows."))
    return findings


def _value(way: str, value: object, column: Column) -> str | None:
    if way == "null":
        return None
    if way == "empty":
        return "{}" if column.category == "A" or column.base_type in {"json", "jsonb"} else ""
    if way == "default":
        return column.default
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _accepts(session: Session, column: Column, value: str | None, expression: str | None) -> bool:
    is_default = value is not None and value == column.default
    if is_default and "nextval" in str(value):
        return True  # asking would use up a number
    written = trusted(f"({value})") if is_default else Literal(value)
    condition = trusted(expression) if expression else SQL("true")
    name = Identifier(column.name)
    # The value is selected too: a cast that nobody looks at is never made.
    query = SQL("SELECT {}, {} FROM (SELECT ({})::{} AS {}) AS probed").format(condition, name, written, trusted(column.type), name)
    try:
        with session.transaction(read_only=True):
            return session.value(query) is not False
    except DatabaseError:
        return False
