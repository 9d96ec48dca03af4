"""Can rows that go by themselves be told by a moment, and does something happen to them?"""

from __future__ import annotations

from obhut.datamap.checks.context import Context, Where
from obhut.datamap.models import Verb

_TEMPORAL = {"date", "timestamp without time zone", "timestamp with time zone"}


def check(context: Context) -> None:
    """Check every table with ``retain``."""
    for node in context.resolved.tables.values():
        rule = node.rule.retain
        if rule is None:
            continue
        table = node.table
        where: Where = ("tables", table.full_name, "retain")
        column = table.by_name.get(rule.after)
        if column is None:
            context.error("column-missing", (*where, "after"), f"{table.full_name} has no column {rule.after}", "Correct the name.")
        elif column.base_type not in _TEMPORAL:
            fact = f"{table.full_name}.{rule.after} is {column.type}, no date or time"
            context.error("retain-moment", (*where, "after"), fact, "Name a column with the moment of the event.")
        if rule.then is Verb.ANONYMISE and not node.anonymise:
            fact = f"no column of {table.full_name} changes when its rows are anonymised"
            context.error("retain-nothing", where, fact, "Give its personal columns a rule under anonymise, or write then: delete.")
