"""What a change of the schema asks of the map: an error with the line to write, or a remark where the map already answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from obhut.datamap.discovery.findings import Discovery, discover
from obhut.datamap.discovery.looking import JSON
from obhut.datamap.discovery.treatments import treatment
from obhut.datamap.drift.compare import Change, Kind
from obhut.datamap.drift.state import ColumnState, SchemaState, as_catalogue, linked, paths_of
from obhut.datamap.findings import Finding, Severity
from obhut.datamap.models import DatabaseMap, TableRule, Verb
from obhut.datamap.surroundings import Surroundings
from obhut.datamap.writing import scalar
from obhut.postgres.catalogue import Catalogue

_WHOLE: Final = frozenset({"null", "empty", "constant", "default", "template"})  # rules that leave nothing of a JSON document
_FAMILIES: Final = (
    frozenset({"text", "character varying", "character", "citext"}),
    frozenset({"smallint", "integer", "bigint", "numeric"}),
    frozenset({"real", "double precision"}),
    frozenset({"timestamp without time zone", "timestamp with time zone"}),
    JSON,
)


@dataclass(frozen=True)
class Accepted:
    """What the commit under review says: its map and, if there is one, its stored snapshot."""

    rules: DatabaseMap
    snapshot: SchemaState | None = None


def review(database: str, changes: Iterable[Change], accepted: Accepted, after: SchemaState, catalogue: Catalogue | None) -> list[Finding]:
    """Return a finding for each change.

    Args:
        database: its name in the map.
        changes: from :func:`obhut.datamap.drift.compare.compare`.
        accepted: map and snapshot of the commit.
        after: the state that was compared, the newer one.
        catalogue: the live one, for better proposals; without it the state's names and types have to do.
    """
    listed = list(changes)
    reviewer = _Reviewer(database, accepted, after, catalogue, {change.table for change in listed})
    return [reviewer.finding(change) for change in listed]


class _Reviewer:
    def __init__(self, database: str, accepted: Accepted, after: SchemaState, catalogue: Catalogue | None, changed: set[str]) -> None:
        self.database = database
        self.tables = accepted.rules.tables
        self.rules = accepted.rules
        self.snapshot = accepted.snapshot
        self.after = after
        self._catalogue = catalogue
        self._changed = changed
        self._discovery: Discovery | None = None
        self._say: dict[Kind, Callable[[Change], Finding]] = {
            Kind.TABLE_NEW: self._table_new,
            Kind.TABLE_DROPPED: self._table_dropped,
            Kind.TABLE_RENAMED: self._table_renamed,
            Kind.COLUMN_NEW: self._column_new,
            Kind.COLUMN_DROPPED: self._column_dropped,
            Kind.COLUMN_RENAMED: self._column_renamed,
            Kind.COLUMN_RETYPED: self._column_retyped,
            Kind.PATH_NEW: self._path_new,
        }

    def finding(self, change: Change) -> Finding:
        return self._say[change.kind](change)

    def _make(self, change: Change, severity: Severity, fact: str, todo: str, *rest: str) -> Finding:
        where = (self.database, "tables", *([change.table] if change.table in self.tables else []), *rest)
        return Finding(f"drift-{change.kind}", where, fact, todo, severity)

    def _answered(self, change: Change, fact: str, how: str, *rest: str) -> Finding:
        return self._make(change, Severity.INFO, fact, f"The map answers it: {how}.", *rest)

    # -- tables ---------------------------------------------------------------------------------------------------------------

    def _table_new(self, change: Change) -> Finding:
        fact = f"table {change.table} is new"
        if change.table in self.tables:
            return self._answered(change, fact, "it has an entry")
        return self._make(change, Severity.ERROR, fact, f"Add under tables: {self._entry(change.table)}")

    def _table_dropped(self, change: Change) -> Finding:
        fact = f"table {change.table} is gone"
        if change.table not in self.tables:
            return self._answered(change, fact, "it has no entry any more")
        return self._make(change, Severity.ERROR, fact, f"Remove the entry {scalar(change.table)} and the links that lead to it.")

    def _table_renamed(self, change: Change) -> Finding:
        fact = f"table {change.was} looks renamed to {change.table}"
        if change.table in self.tables and change.was not in self.tables:
            return self._answered(change, fact, "it has the new name")
        where = (self.database, "tables", change.was)
        todo = f"Rename the entry {scalar(change.was)} to {scalar(change.table)}, also in links and subjects."
        return Finding(f"drift-{change.kind}", where, fact, todo)

    # -- columns --------------------------------------------------------------------------------------------------------------

    def _column_new(self, change: Change) -> Finding:
        fact = f"column {change.table}.{change.column} is new{_typed(change.now)}"
        if how := self._classified(change.table, change.column):
            return self._answered(change, fact, how, "columns", change.column)
        if change.table not in self.tables:
            return self._make(change, Severity.ERROR, fact, f"Add under tables: {self._entry(change.table)}")
        return self._make(change, Severity.ERROR, fact, self._line(change.table, change.column))

    def _column_dropped(self, change: Change) -> Finding:
        fact = f"column {change.table}.{change.column} is gone"
        if not self._named(change.table, change.column):
            return self._answered(change, fact, "it is not named any more")
        return self._make(change, Severity.ERROR, fact, f"Remove {scalar(change.column)} from the entry.", "columns", change.column)

    def _column_renamed(self, change: Change) -> Finding:
        fact = f"column {change.table}.{change.was} looks renamed to {change.column}"
        if self._classified(change.table, change.column) and not self._named(change.table, change.was):
            return self._answered(change, fact, "it has the new name", "columns", change.column)
        todo = f"Write {scalar(change.column)} instead of {scalar(change.was)}, also in links, templates and subjects."
        return self._make(change, Severity.ERROR, fact, todo, "columns", change.was)

    def _column_retyped(self, change: Change) -> Finding:
        fact = f"column {change.table}.{change.column} was {change.was} and is {change.now}"
        state = self._stored(change)
        if _family(change.was) == _family(change.now):
            return self._make(change, Severity.INFO, fact, "It holds the same kind of values.", "columns", change.column)
        if state is not None and state.type == change.now:
            return self._make(
                change, Severity.WARNING, fact, "Do category and rule still fit? The snapshot accepts it.", "columns", change.column
            )
        todo = 'Do category and rule still fit? Correct them, then accept the type with "obhut datamap snapshot".'
        return self._make(change, Severity.ERROR, fact, todo, "columns", change.column)

    def _path_new(self, change: Change) -> Finding:
        fact = f"{change.table}.{change.column} has the new JSON path {change.now}"
        rule = self.tables.get(change.table, TableRule())
        state, column = self._stored(change), rule.columns.get(change.column)
        way = column.anonymise.way if column is not None and column.anonymise is not None else None
        if way in _WHOLE:
            return self._answered(change, fact, f"the whole document becomes {way}", "columns", change.column)
        if any(_covers(path, change.now) for path in paths_of(rule, change.column)):
            return self._answered(change, fact, "the path is named", "columns", change.column)
        if state is not None and change.now in state.paths:
            return self._make(change, Severity.INFO, fact, "The snapshot accepts it.", "columns", change.column)
        line = f'"{change.now}" to the json rule of {scalar(change.column)}' if way == "json" else f'{{json: ["{change.now}"]}} as its rule'
        todo = f'If it is personal, add {line}; if not, accept it with "obhut datamap snapshot".'
        return self._make(change, Severity.ERROR, fact, todo, "columns", change.column)

    def _stored(self, change: Change) -> ColumnState | None:
        table = self.snapshot.tables.get(change.table) if self.snapshot else None
        return table.columns.get(change.column) if table else None

    # -- what the map says ----------------------------------------------------------------------------------------------------

    def _classified(self, table: str, column: str) -> str:
        """Return how the map answers for a column, or nothing."""
        rule = self.tables.get(table)
        if rule is None:
            return ""
        if column in rule.columns:
            return rule.columns[column].category
        if not rule.personal or rule.not_personal == "*" or column in rule.not_personal:
            return "not personal"
        return "a link or key" if column in self._keys(table, rule) else ""

    def _named(self, table: str, column: str) -> bool:
        rule = self.tables.get(table)
        if rule is None:
            return False
        listed = () if rule.not_personal == "*" else rule.not_personal
        return column in rule.columns or column in listed or column in self._keys(table, rule)

    def _keys(self, table: str, rule: TableRule) -> set[str]:
        found = {name for link in rule.links for name in linked(link)}
        for subject in self.rules.subjects.values():
            if subject.table == table:
                found |= {*subject.key, *(subject.controller if isinstance(subject.controller, dict) else ())}
        return found

    # -- the line to add ------------------------------------------------------------------------------------------------------

    def _rules(self, table: str) -> dict[str, str | None]:
        """Return by column the rule to write, None where it seems harmless, ``?`` where a person has to look."""
        if self._discovery is None:
            self._catalogue = self._catalogue or as_catalogue(self.after)
            self._discovery = discover(self._catalogue, only=self._changed)
        found = self._catalogue.find(table) if self._catalogue else None
        if found is None:
            return {}
        rules: dict[str, str | None] = {}
        for name, verdict in self._discovery.verdicts[found.oid].items():
            rules[name] = "?" if verdict.open else None
            if verdict.category is not None and not verdict.presumed:
                way = treatment(found, found.by_name[name], verdict.category, None, Surroundings())
                rules[name] = f"{{category: {verdict.category}, anonymise: {way}}}" if way else verdict.category
        return rules

    def _line(self, table: str, column: str) -> str:
        rule = self._rules(table).get(column)
        if rule is None:
            return f"Add {scalar(column)} to not_personal, or give it a category under columns."
        if rule == "?":
            return f"Decide: {scalar(column)}: <category> under columns, or add it to not_personal."
        return f"Add under columns: {scalar(column)}: {rule}; or add it to not_personal."

    def _entry(self, table: str) -> str:
        rules = self._rules(table)
        columns = ", ".join(f"{scalar(name)}: {rule}" for name, rule in rules.items() if rule not in {None, "?"})
        harmless = ", ".join(scalar(name) for name, rule in rules.items() if rule is None)
        asked = ", ".join(scalar(name) for name, rule in rules.items() if rule == "?")
        if not columns and not asked:
            return f"{scalar(table)}: {{personal: false}}"
        parts = [f"columns: {{{columns}}}" if columns else "", f"not_personal: [{harmless}]" if harmless else ""]
        entry = f"{scalar(table)}: {{{', '.join(part for part in [*parts, 'links: […]'] if part)}}}"
        return f"{entry} and decide about {asked}" if asked else entry


def _typed(type_: str) -> str:
    return f" ({type_})" if type_ else ""


def _covers(path: str, inner: str) -> bool:
    """Whether removing a path removes another: the same, or one below it."""
    return inner == path or inner.startswith((f"{path}.", f"{path}["))


def _family(type_: str) -> object:
    base = type_.partition("(")[0].strip()
    return next((family for family in _FAMILIES if base in family), type_)


def reclassified(database: str, before: DatabaseMap, now: DatabaseMap) -> list[Finding]:
    """Return where the map itself says less than at the other commit: personal columns that are none any more, what stays."""
    found = []
    for name, rule in now.tables.items():
        old = before.tables.get(name)
        if old is None:
            continue
        listed = () if rule.not_personal == "*" else rule.not_personal
        for column, former in old.columns.items():
            if column not in rule.columns and (column in listed or rule.not_personal == "*" or not rule.personal):
                fact = f"column {name}.{column} was {former.category} and is not personal now"
                todo = "A person has to have decided that; say why in the commit."
                found.append(Finding("drift-reclassified", (database, "tables", name), fact, todo, Severity.WARNING))
        for column, entry in rule.columns.items():
            former_mask = old.columns[column].mask if column in old.columns else None
            if entry.mask and entry.mask.transformer == "keep" and former_mask != entry.mask:
                fact = f"copies for tests keep {name}.{column} from now on"
                where = (database, "tables", name, "columns", column)
                found.append(Finding("drift-mask", where, fact, "Who may see it there?", Severity.WARNING))
        if old.erase and rule.erase and old.erase.verb is Verb.DELETE and rule.erase.verb is not Verb.DELETE:
            fact = f"rows of {name} were deleted by an erasure and are now: {rule.erase.verb}"
            found.append(
                Finding("drift-erasure", (database, "tables", name, "erase"), fact, "Is that what the contract says?", Severity.WARNING)
            )
    return found
