"""Is a data subject known by a key that is safe to remember, and told from the next bearer of the same key?"""

from __future__ import annotations

from obhut.datamap import vocabulary
from obhut.datamap.activity import way
from obhut.datamap.checks.context import Context, Where
from obhut.datamap.graph import Subject
from obhut.datamap.models import ActivityRule
from obhut.postgres.catalogue import Column, Table

_INTEGERS = {"smallint", "integer", "bigint", "numeric"}
_TEMPORAL = {"date", "timestamp without time zone", "timestamp with time zone"}
_CHANGING = {"updated", "modified", "changed", "geaendert", "geändert", "update"}


def check(context: Context) -> None:
    """Check every subject kind, and the canary that stands for one."""
    for kind, subject in context.resolved.subjects.items():
        table = context.catalogue.tables[subject.table]
        where: Where = ("subjects", kind)
        _key(context, subject, table, where)
        _incarnation(context, subject, table, where)
        _identifiers(context, subject, table, where)
        _moments(context, subject, table, where)
        for link in subject.controller_path:
            child = context.catalogue.tables[link.child]
            empty = [name for name in link.columns if not child.by_name[name].not_null]
            if empty:
                fact = f"a {kind} may have no controller: {child.full_name}.{empty[0]} is nullable"
                context.warn(
                    "controller-nullable",
                    (*where, "controller"),
                    fact,
                    "Nobody can instruct the erasure of such a person; make it NOT NULL.",
                )
    _canary(context)


def _key(context: Context, subject: Subject, table: Table, where: Where) -> None:
    rules = context.rules.tables[table.full_name].columns
    for name in subject.key:
        category = rules[name].category if name in rules else None
        found = vocabulary.guess(name)
        strong = found.category if found and found.strong else None
        if (category and vocabulary.identifies(category)) or (category is None and strong and vocabulary.identifies(strong)):
            context.error(
                "subject-key-identifies",
                (*where, "key"),
                f"the key {table.full_name}.{name} is a direct identifier ({category or strong})",
                "The erasure list keeps keys until every backup is gone, so a key must tell nothing: use a number or a random id.",
            )
    if not any(None not in key.columns and key.predicate is None and set(key.columns) <= set(subject.key) for key in table.keys):
        names = ", ".join(subject.key)
        context.error(
            "subject-key-not-unique",
            (*where, "key"),
            f"{table.full_name} ({names}) is not unique",
            "Key the kind by a primary key or unique index.",
        )


def _incarnation(context: Context, subject: Subject, table: Table, where: Where) -> None:
    rule = context.rules.subjects[subject.kind]
    node = context.resolved.tables[subject.table]
    for name in subject.incarnation:
        if name in node.anonymise or table.by_name[name].is_generated:
            fact = f"the incarnation column {table.full_name}.{name} changes when the person is anonymised"
            context.error("incarnation-changes", (*where, "incarnation"), fact, "Use a column that never changes, such as created_at.")
        elif set(vocabulary.words(name)) & _CHANGING:
            fact = f"the incarnation column {table.full_name}.{name} seems to change with every update"
            context.warn("incarnation-changes", (*where, "incarnation"), fact, "Use the moment of registration, such as created_at.")
    if subject.incarnation:
        return
    types = {table.by_name[name].base_type for name in subject.key}
    candidates = [name for name in vocabulary.CREATED_NAMES if name in table.by_name]
    fact = f"nothing tells one {subject.kind} from the next with the same key"
    todo = f"After a restore a key may be given out again: write incarnation: [{candidates[0] if candidates else 'created_at'}]"
    if rule.never_reused or types == {"uuid"}:
        context.warn("incarnation-missing", where, fact, f"{todo}, if there is such a column.")
    else:
        context.error("incarnation-missing", where, fact, f"{todo}, or never_reused: reason.")


def _identifiers(context: Context, subject: Subject, table: Table, where: Where) -> None:
    rules = context.rules.tables[table.full_name].columns
    if not subject.identifiers:
        named = [name for name, rule in rules.items() if vocabulary.identifies(rule.category)]
        todo = f"Write identifiers: [{', '.join(named[:3]) or 'email'}]."
        context.warn("identifiers-missing", where, f"no leak check can look for a {subject.kind}: identifiers is empty", todo)
    for name in subject.identifiers:
        if name not in rules:
            fact = f"the identifier {table.full_name}.{name} has no category"
            context.error("identifier-not-personal", (*where, "identifiers"), fact, "Give it a category under columns.")


def _moments(context: Context, subject: Subject, table: Table, where: Where) -> None:
    named = [("created", subject.created), *(("activity", name) for name in subject.activity if isinstance(name, str))]
    for word, name in named:
        if name:
            _moment(context, table, name, (*where, word))
    for index, rule in enumerate(subject.activity):
        if not isinstance(rule, str) and rule.table:
            _activity_of(context, subject, rule, (*where, "activity", index))
    _notice(context, subject, table, where)


def _moment(context: Context, table: Table, name: str, where: Where) -> None:
    column: Column = table.by_name[name]
    if column.base_type not in _TEMPORAL:
        fact = f"{table.full_name}.{name} is {column.type}, no date or time"
        context.error("moment-type", where, fact, "Name a column with a moment.")


def _activity_of(context: Context, subject: Subject, rule: ActivityRule, where: Where) -> None:
    child = context.catalogue.find(str(rule.table))
    if child is None:
        context.error("table-missing", where, f"the database has no table {rule.table}", "Correct schema and name.")
    elif str(rule.column) not in child.by_name:
        context.error("column-missing", where, f"{rule.table} has no column {rule.column}", "Correct the name.")
    elif way(context.resolved, subject, child.oid) is None:
        fact = f"no link by columns leads from {rule.table} to a {subject.kind}"
        context.error("activity-unlinked", where, fact, "Add the link to the table, or write the activity as {sql: …}.")
    else:
        _moment(context, child, str(rule.column), where)


def _notice(context: Context, subject: Subject, table: Table, where: Where) -> None:
    rules = context.rules.tables[table.full_name].columns
    if subject.notice and subject.notice.address not in rules:
        fact = f"the address {table.full_name}.{subject.notice.address} has no category"
        context.error("identifier-not-personal", (*where, "notice"), fact, "Give it a category under columns.")


def _canary(context: Context) -> None:
    rule = context.rules.canary
    if rule is None:
        return
    if rule.subject not in context.rules.subjects:
        known = ", ".join(context.rules.subjects)
        context.error("subject-unknown", ("canary", "subject"), f"there is no subject kind {rule.subject}", f"Use one of: {known}.")
    for index, row in enumerate(rule.rows):
        where: Where = ("canary", "rows", index)
        table = context.catalogue.find(row.table)
        if table is None:
            context.error("table-missing", where, f"the database has no table {row.table}", "Correct schema and name.")
            continue
        for name in row.values:
            if name not in table.by_name:
                context.error("column-missing", (*where, "values", name), f"{row.table} has no column {name}", "Correct the name.")
        for column in table.columns:
            needed = column.not_null and column.default is None and not column.identity and not column.is_generated
            if needed and column.name not in row.values:
                context.error(
                    "canary-incomplete", where, f"a canary row of {row.table} lacks {column.name}, which is NOT NULL", "Add a value."
                )
