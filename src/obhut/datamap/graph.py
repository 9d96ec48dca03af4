"""The data map resolved against a catalogue: tables, links and treatments with every name looked up.

Everything downstream (erasure, restore filter, checks, pictures) reads this value and nothing else, so that they can never disagree.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from obhut.datamap.findings import DataMapError, Finding, Severity
from obhut.datamap.models import (
    ActivityRule,
    Anonymisation,
    ControllerRule,
    DatabaseMap,
    LinkRule,
    NoticeRule,
    SubjectRule,
    TableRule,
    Treatment,
    Verb,
)
from obhut.postgres.catalogue import Action, Catalogue, ForeignKey, Table

_SEGMENT = re.compile(r"\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\.\"(?P<quoted>[^\"]+)\"|(?P<star>\[\*\])")


EXACT_TYPES = frozenset({"smallint", "integer", "bigint", "uuid"})  # equality is the same for all of them, everywhere


class LinkForm(StrEnum):
    """Where a row keeps the key of the row it belongs to."""

    COLUMNS = "columns"
    ARRAY = "array"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Link:
    """Rows of ``child`` belong to the rows of ``parent`` that they name.

    ``columns`` and ``parent_columns`` pair up for :attr:`LinkForm.COLUMNS`; for an array or a JSON path they hold one name each. ``when``
    limits the link to rows with these column values (polymorphic pairs). ``erase`` and ``when_anonymised`` are the treatments of the rows
    reached; None leaves them alone.
    """

    name: str
    child: int
    parent: int
    form: LinkForm
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    when: tuple[tuple[str, str], ...]
    path: tuple[str | None, ...]  # None stands for [*]
    foreign_key: ForeignKey | None
    erase: Treatment | None
    when_anonymised: Treatment | None
    anonymises: tuple[str, ...]

    def treatment(self, *, anonymising: bool) -> Treatment | None:
        """Return what happens to the rows reached, for an anonymisation or for an erasure."""
        return self.when_anonymised if anonymising else self.erase

    def unlinked_columns(self, catalogue: Catalogue) -> tuple[str, ...]:
        """Return the columns that unlinking sets to null: those of the foreign key's own list, or all that may be null.

        One null is enough for a row to name nobody, so a tenant's column in a composite key may well be NOT NULL.
        """
        child = catalogue.tables[self.child]
        listed = self.foreign_key.set_columns if self.foreign_key and self.foreign_key.on_delete is Action.SET_NULL else ()
        columns = (child.by_name[name] for name in listed or self.columns)
        return tuple(column.name for column in columns if not column.not_null and not column.is_generated)


@dataclass(frozen=True, slots=True)
class Reference:
    """Columns of ``child`` that name a row of a shared parent."""

    child: int
    parent: int
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of data subject with its key types and the hops that lead to its controller."""

    kind: str
    table: int
    key: tuple[str, ...]
    key_types: tuple[str, ...]
    controller_path: tuple[Link, ...]
    incarnation: tuple[str, ...]
    created: str | None
    identifiers: tuple[str, ...]
    activity: tuple[str | ActivityRule, ...]
    notice: NoticeRule | None
    erase: Treatment
    when_anonymised: Treatment | None

    def is_keyed_by(self, table: Table, columns: Sequence[str], named: Sequence[str]) -> bool:
        """Whether one column of a table holds the people's keys, both of types whose equality is the same everywhere.

        Args:
            table: the people's own, or one that names them.
            columns: of that table.
            named: the columns of the people's table that they stand for.
        """
        return len(columns) == 1 and tuple(named) == self.key and {table.by_name[columns[0]].type, *self.key_types} <= EXACT_TYPES


@dataclass(frozen=True)
class TableNode:
    """A table with its rule, its links towards the person and the anonymisation of its personal columns."""

    table: Table
    rule: TableRule
    links: tuple[Link, ...]
    anonymise: dict[str, Anonymisation]

    @property
    def shared(self) -> bool:
        """Whether the table holds shared parents."""
        return self.rule.erase is not None and self.rule.erase.verb is Verb.DELETE_IF_ORPHANED


@dataclass(frozen=True)
class Graph:
    """One database's map, resolved. ``version`` is the SHA-256 (hex) of the map's canonical JSON; ``made`` keeps statements."""

    database: str
    catalogue: Catalogue
    controller: int
    controller_key: tuple[str, ...]
    subjects: dict[str, Subject]
    tables: dict[int, TableNode]
    references: tuple[Reference, ...]
    version: str
    made: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    def links_to(self, parent: int) -> Iterable[Link]:
        """Return the links whose parent is this table."""
        return (link for node in self.tables.values() for link in node.links if link.parent == parent)

    def subject(self, kind: str) -> Subject:
        """Return a subject kind.

        Raises:
            DataMapError: the map has no such kind.
        """
        if kind not in self.subjects:
            known = ", ".join(self.subjects)
            raise DataMapError(
                [Finding("subject-unknown", (self.database, "subjects"), "there is no subject kind of that name", f"Use one of: {known}.")]
            )
        return self.subjects[kind]


def map_version(rules: DatabaseMap) -> str:
    """Return the SHA-256 (hex) of the map's canonical JSON, the version written into every tombstone."""
    content = rules.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def parse_path(path: str) -> tuple[str | None, ...]:
    """Return the steps of a JSON path; None stands for ``[*]``."""
    return tuple(m["name"] or m["quoted"] or None for m in _SEGMENT.finditer(path))


def resolve(database: str, rules: DatabaseMap, catalogue: Catalogue) -> tuple[Graph | None, list[Finding]]:
    """Look every name of the map up in the catalogue.

    Returns:
        The graph, or None when a name could not be resolved, and the findings (all of severity error).
    """
    resolver = _Resolver(database, rules, catalogue)
    graph = resolver.run()
    return (None if any(f.severity is Severity.ERROR for f in resolver.findings) else graph), resolver.findings


def require(database: str, rules: DatabaseMap, catalogue: Catalogue) -> Graph:
    """Return the graph or refuse.

    Raises:
        DataMapError: a name of the map is not in the database.
    """
    graph, findings = resolve(database, rules, catalogue)
    if graph is None:
        raise DataMapError(findings)
    return graph


class _Resolver:
    def __init__(self, database: str, rules: DatabaseMap, catalogue: Catalogue) -> None:
        self.database = database
        self.rules = rules
        self.catalogue = catalogue
        self.findings: list[Finding] = []

    def fail(self, code: str, where: tuple[str | int, ...], fact: str, todo: str) -> None:
        self.findings.append(Finding(code, (self.database, *where), fact, todo))

    def run(self) -> Graph:
        tables = self._tables()
        controller, controller_key = self._controller()
        subjects = {kind: subject for kind, rule in self.rules.subjects.items() if (subject := self._subject(kind, rule))}
        return Graph(
            database=self.database,
            catalogue=self.catalogue,
            controller=controller,
            controller_key=controller_key,
            subjects=subjects,
            tables=tables,
            references=tuple(self._references(tables)),
            version=map_version(self.rules),
        )

    def _table(self, name: str, where: tuple[str | int, ...]) -> Table | None:
        table = self.catalogue.find(name)
        if table is None:
            self.fail("table-missing", where, f"the database has no table {name}", "Remove the entry, or correct schema and name.")
        elif table.is_partition:
            root = self.catalogue.root(table.oid).full_name
            self.fail("table-is-partition", where, f"{name} is a partition", f"Write the rules at its partitioned table {root}.")
            return None
        return table

    def _has(self, table: Table, columns: Iterable[str], where: tuple[str | int, ...]) -> bool:
        missing = [name for name in columns if name not in table.by_name]
        for name in missing:
            self.fail(
                "column-missing", (*where, name), f"{table.full_name} has no column {name}", "Correct the name, or remove it from the map."
            )
        return not missing

    def _controller(self) -> tuple[int, tuple[str, ...]]:
        rule: ControllerRule = self.rules.controller
        table = self._table(rule.table, ("controller", "table"))
        if table is None:
            return 0, ()
        key = rule.key or table.primary_key
        if not key:
            self.fail("key-missing", ("controller",), f"{table.full_name} has no primary key", "Name the key columns: key: [id].")
        self._has(table, key, ("controller", "key"))
        return table.oid, key

    def _tables(self) -> dict[int, TableNode]:
        nodes: dict[int, TableNode] = {}
        for name, rule in self.rules.tables.items():
            where = ("tables", name)
            table = self._table(name, where)
            if table is None:
                continue
            self._has(table, rule.columns, (*where, "columns"))
            if isinstance(rule.not_personal, tuple):
                self._has(table, rule.not_personal, (*where, "not_personal"))
            links = tuple(
                link
                for index, link_rule in enumerate(rule.links)
                if (link := self._link(table, link_rule, (*where, "links", index), rule)) is not None
            )
            anonymise = {column: r.anonymise for column, r in rule.columns.items() if r.anonymise and r.anonymise.way != "keep"}
            nodes[table.oid] = TableNode(table, rule, links, anonymise)
        return nodes

    def _link(self, table: Table, rule: LinkRule, where: tuple[str | int, ...], owner: TableRule | None) -> Link | None:
        parent = self._table(rule.to, (*where, "to"))
        if parent is None:
            return None
        resolved = self._link_columns(table, parent, rule, where)
        if resolved is None:
            return None
        form, columns, parent_columns, key = resolved
        if not self._has(table, (*columns, *rule.when, *rule.anonymises), where) or not self._has(parent, parent_columns, where):
            return None
        erase = rule.erase or (owner.erase if owner else None)
        return Link(
            name=rule.name or "_".join((*columns, *rule.when)),
            child=table.oid,
            parent=parent.oid,
            form=form,
            columns=columns,
            parent_columns=parent_columns,
            when=tuple((column, _text(value)) for column, value in rule.when.items()),
            path=parse_path(rule.path) if rule.path else (),
            foreign_key=key,
            erase=erase,
            when_anonymised=rule.when_anonymised or (owner.when_anonymised if owner else None) or _default_when_anonymised(erase),
            anonymises=rule.anonymises,
        )

    def _link_columns(
        self, table: Table, parent: Table, rule: LinkRule, where: tuple[str | int, ...]
    ) -> tuple[LinkForm, tuple[str, ...], tuple[str, ...], ForeignKey | None] | None:
        keys = [key for key in self.catalogue.foreign_keys if key.table == table.oid and key.references == parent.oid]
        if rule.array or rule.json_column:
            target = rule.key or (parent.primary_key[0] if len(parent.primary_key) == 1 else None)
            if target is None:
                self.fail("key-missing", where, f"{parent.full_name} has no single-column primary key", "Name the column: key: id.")
                return None
            if rule.array:
                return LinkForm.ARRAY, (rule.array,), (target,), None
            return LinkForm.JSON, (str(rule.json_column),), (target,), None
        if rule.by is not None:
            found = next((key for key in keys if key.name == rule.by), None)
            if found is None:
                names = ", ".join(key.name for key in keys) or "none"
                self.fail(
                    "link-foreign-key-missing",
                    where,
                    f"{table.full_name} has no foreign key {rule.by} to {parent.full_name}",
                    f"There is: {names}. Without a foreign key, write columns: {{mine: theirs}}.",
                )
                return None
            return LinkForm.COLUMNS, found.columns, found.referenced_columns, found
        if rule.columns is not None:
            mine, theirs = tuple(rule.columns), tuple(rule.columns.values())
            pairs = set(zip(mine, theirs, strict=True))
            match = next((k for k in keys if set(zip(k.columns, k.referenced_columns, strict=True)) == pairs), None)
            return LinkForm.COLUMNS, mine, theirs, match
        if len(keys) == 1:
            return LinkForm.COLUMNS, keys[0].columns, keys[0].referenced_columns, keys[0]
        fact = f"{table.full_name} has {len(keys) or 'no'} foreign keys to {parent.full_name}"
        self.fail("link-ambiguous", where, fact, "Say which columns: columns: {mine: theirs}, or by: constraint_name.")
        return None

    def _subject(self, kind: str, rule: SubjectRule) -> Subject | None:
        where = ("subjects", kind)
        table = self._table(rule.table, (*where, "table"))
        if table is None:
            return None
        key = rule.key or table.primary_key
        if not key:
            self.fail("key-missing", where, f"{table.full_name} has no primary key", "Name the key columns: key: [id].")
            return None
        moments = [name for name in (rule.created, *rule.activity) if isinstance(name, str)]
        told = [name for name in (rule.notice.address, rule.notice.language) if name] if rule.notice else []
        named = (*key, *rule.incarnation, *rule.identifiers, *moments, *told)
        if not self._has(table, named, where):
            return None
        own = self.rules.tables.get(rule.table)
        if own is None or own.erase is None:
            self.fail(
                "treatment-missing",
                ("tables", rule.table),
                f"{rule.table} holds data subjects and has no treatment",
                "Write erase: delete (or anonymise) at the table.",
            )
            return None
        return Subject(
            kind=kind,
            table=table.oid,
            key=key,
            key_types=tuple(table.by_name[name].type for name in key),
            controller_path=tuple(self._controller_path(table, rule, where)),
            incarnation=rule.incarnation,
            created=rule.created,
            identifiers=rule.identifiers,
            activity=rule.activity,
            notice=rule.notice,
            erase=own.erase,
            when_anonymised=own.when_anonymised or _default_when_anonymised(own.erase),
        )

    def _controller_path(self, table: Table, rule: SubjectRule, where: tuple[str | int, ...]) -> list[Link]:
        hops: tuple[LinkRule, ...]
        if isinstance(rule.controller, dict):
            hops = (LinkRule(to=self.rules.controller.table, columns=rule.controller),)
        else:
            hops = rule.controller
        if not hops and table.full_name != self.rules.controller.table:
            self.fail(
                "controller-missing",
                where,
                f"the path from {rule.table} to its controller is missing",
                "Write controller: {my_column: key}.",
            )
        path: list[Link] = []
        for index, hop in enumerate(hops):
            link = self._link(table, hop, (*where, "controller", index), None)
            if link is None:
                return path
            path.append(link)
            table = self.catalogue.tables[link.parent]
        if path and table.full_name != self.rules.controller.table:
            self.fail(
                "controller-missing", where, f"the path ends at {table.full_name}", f"Its last hop leads to {self.rules.controller.table}."
            )
        return path

    def _references(self, nodes: dict[int, TableNode]) -> Iterable[Reference]:
        for node in nodes.values():
            if not node.shared:
                continue
            for key in self.catalogue.foreign_keys:
                if key.references == node.table.oid and key.enforced:
                    yield Reference(key.table, node.table.oid, key.columns, key.referenced_columns)
            for index, shared in enumerate(node.rule.shared_by):
                where = ("tables", node.table.full_name, "shared_by", index)
                child = self._table(shared.table, where)
                if child and self._has(child, shared.columns, where) and self._has(node.table, shared.columns.values(), where):
                    yield Reference(child.oid, node.table.oid, tuple(shared.columns), tuple(shared.columns.values()))


def _default_when_anonymised(erase: Treatment | None) -> Treatment | None:
    """An anonymised person's rows stay and lose their personal values, unless the law keeps them or they are another's."""
    if erase is None or erase.verb is Verb.UNLINK:
        return None
    if erase.verb in {Verb.KEEP, Verb.DELETE_IF_ORPHANED}:
        return erase
    return Treatment(verb=Verb.ANONYMISE)


def _text(value: str | int | bool) -> str:  # noqa: FBT001 - a YAML scalar
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
