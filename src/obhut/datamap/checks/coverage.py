"""Does the map know every table and every column, each once, with a category that exists?"""

from __future__ import annotations

from obhut.datamap import vocabulary
from obhut.datamap.checks.context import Context, Where
from obhut.datamap.models import ColumnRule, LinkRule, TableRule
from obhut.postgres.catalogue import Table


def check(context: Context) -> None:
    """Check tables, columns and categories; needs no resolved map."""
    for table in context.catalogue.roots:
        rule = context.rules.tables.get(table.full_name)
        if rule is None:
            context.error(
                "table-unknown",
                ("tables",),
                f"table {table.full_name} is not in the map",
                f"Add it under tables with a category for each personal column, or write {table.full_name}: {{personal: false}}.",
            )
            continue
        _columns(context, table, rule)
        if table.kind == "f":
            context.warn(
                "table-foreign", _at(table), f"{table.full_name} is a foreign table", "Its rows live on another server; map that one, too."
            )
    for name, rule in context.rules.tables.items():
        for column, column_rule in rule.columns.items():
            _category(context, name, column, column_rule)


def _at(table: Table, *rest: str | int) -> Where:
    return ("tables", table.full_name, *rest)


def _columns(context: Context, table: Table, rule: TableRule) -> None:
    if not rule.personal and (rule.columns or rule.links):
        context.error(
            "table-contradiction",
            _at(table, "personal"),
            f"{table.full_name} says personal: false and has personal columns or links",
            "Remove one.",
        )
    harmless = set(table.by_name) if rule.not_personal == "*" or not rule.personal else set(rule.not_personal)
    explained = _explained(context, table, rule)
    for column in table.columns:
        if column.name in rule.columns and rule.not_personal != "*" and column.name in rule.not_personal:
            context.error(
                "column-twice",
                _at(table, "not_personal", column.name),
                f"{table.full_name}.{column.name} is both personal and not",
                "Remove one.",
            )
        elif column.name not in rule.columns and column.name not in harmless and column.name not in explained:
            context.error(
                "column-unclassified",
                _at(table),
                f"column {table.full_name}.{column.name} is not classified",
                f"Give it a category under columns{_hint(column.name)}, or add it to not_personal.",
            )
        elif column.name in harmless and column.name not in rule.columns and column.name not in explained:
            _looks_personal(context, table, rule, column.name)


def _explained(context: Context, table: Table, rule: TableRule) -> set[str]:
    """Return the columns that a link or a subject's key already explains: they hold keys and nothing else."""
    found: set[str] = set()
    for link in rule.links:
        found |= _link_columns(context, table, link)
    for subject in context.rules.subjects.values():
        if subject.table == table.full_name:
            found |= set(subject.key or table.primary_key)
            if isinstance(subject.controller, dict):
                found |= set(subject.controller)
    return found


def _link_columns(context: Context, table: Table, link: LinkRule) -> set[str]:
    found = set(link.columns or ()) | set(link.when) | ({link.array} if link.array else set())
    if not (link.columns or link.array or link.json_column):
        parent = context.catalogue.find(link.to)
        for key in context.catalogue.foreign_keys:
            if (
                parent
                and key.references == parent.oid
                and context.catalogue.root(key.table).oid == table.oid
                and link.by in {None, key.name}
            ):
                found |= set(key.columns)
    return found


def _hint(column: str) -> str:
    found = vocabulary.guess(column)
    return f" (perhaps {found.category})" if found else ""


def _looks_personal(context: Context, table: Table, rule: TableRule, column: str) -> None:
    found = vocabulary.guess(column)
    if found is None or not found.strong:
        return
    place = "not_personal" if rule.personal else "personal"
    context.warn(
        "column-looks-personal",
        _at(table, place, column),
        f"column {table.full_name}.{column} counts as not personal, and {found.reason}",
        f"If it describes people, give it a category such as {found.category}.",
    )


def _category(context: Context, table: str, column: str, rule: ColumnRule) -> None:
    where: Where = ("tables", table, "columns", column)
    if rule.category not in vocabulary.categories():
        near = ", ".join(vocabulary.nearest(rule.category)) or "user"
        context.error("category-unknown", where, f"the taxonomy has no category {rule.category}", f"Nearest: {near}.")
    elif rule.category.split(".")[0] != "user":
        context.error(
            "category-not-personal",
            where,
            f"{rule.category} is no category of personal data",
            "Use a category below user, or move the column to not_personal.",
        )
