"""Will the database accept each anonymised value, and does it keep nothing of the person?"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime
from ipaddress import ip_interface
from typing import Any

from obhut.datamap.checks.context import Context, Where
from obhut.datamap.conflicts import Chosen, conflicts
from obhut.datamap.graph import TableNode
from obhut.datamap.kinds import kind_of
from obhut.datamap.models import SHARED, Anonymisation
from obhut.datamap.transformers import CATALOGUE
from obhut.postgres.catalogue import Column

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TEXT = {"text", "character varying", "character", "citext", "name"}
_LIMITED = {"character varying", "character"}
_TEMPORAL = {"date", "timestamp without time zone", "timestamp with time zone"}
_HEADER = 4  # bytes that the type modifier of varchar(n) counts on top of n
_WIDTH = {"smallint": 6, "integer": 11, "bigint": 20, "uuid": 36, "boolean": 5, "date": 10}
_RANGE = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}


def check(context: Context) -> None:
    """Check the rule of every personal column."""
    for node in context.nodes(context.resolved.tables):
        for name, rule in node.anonymise.items():
            where: Where = ("tables", node.table.full_name, "columns", name, "anonymise")
            column = node.table.by_name[name]
            if _untouchable(context, node, column, where):
                continue
            _nullable(context, node, column, rule, where)
            _foreign_key(context, node, column, rule, where)
            _unique(context, node, column, rule, where)
            _typed(context, node, column, rule, where)


def _untouchable(context: Context, node: TableNode, column: Column, where: Where) -> bool:
    table = node.table
    fact = todo = ""
    if column.is_generated:
        fact = f"{table.full_name}.{column.name} is generated and cannot be set"
        todo = "Anonymise the columns that it is computed from; leave out anonymise here."
    elif column.name in table.primary_key:
        fact = f"{table.full_name}.{column.name} is part of the primary key and cannot be anonymised"
        todo = "Delete the row instead, or key the table by something that is not personal."
    elif any(column.name in key.referenced_columns for key in context.keys_to.get(table.oid, ())):
        fact = f"{table.full_name}.{column.name} is referenced by a foreign key and cannot be anonymised"
        todo = "Delete the row instead, or reference its primary key."
    elif column.name in context.surroundings.partition_keys.get(table.oid, ()):
        fact = f"{table.full_name} is partitioned by {column.name}: another value would move the row"
        todo = "Delete the row instead, or write anonymise: {keep: reason}."
    if fact:
        context.error("anonymise-key", where, fact, todo)
    return bool(fact)


def _nullable(context: Context, node: TableNode, column: Column, rule: Anonymisation, where: Where) -> None:
    gives_null = rule.way == "null" or (rule.way == "default" and column.default is None)
    if gives_null and column.not_null:
        kind = f"its domain {column.type} is" if column.type_kind == "d" else "it is"
        context.error(
            "anonymise-not-null",
            where,
            f"{node.table.full_name}.{column.name} would become NULL, and {kind} NOT NULL",
            "Use constant, empty or template.",
        )


def _foreign_key(context: Context, node: TableNode, column: Column, rule: Anonymisation, where: Where) -> None:
    if rule.way == "null":
        return
    for key in context.keys_from.get(node.table.oid, ()):
        if column.name in key.columns:
            fact = f"{node.table.full_name}.{column.name} belongs to the foreign key {key.name}"
            context.error("anonymise-key", where, fact, "Only null is possible, or unlink at a link.")
            return


def _unique(context: Context, node: TableNode, column: Column, rule: Anonymisation, where: Where) -> None:
    keys = [key for key in node.table.keys if rule.way not in {"null", "json"} or (rule.way == "null" and key.one_null)]
    place = f"{node.table.full_name}.{column.name}"
    read = set(_PLACEHOLDER.findall(str(rule.value))) if rule.way == "template" else set()
    distinct = any(None not in key.columns and set(key.columns) <= read for key in node.table.keys)
    for key in keys:
        if column.name in key.columns and not distinct:
            alone = len(key.columns) == 1
            report = context.error if alone else context.warn
            fact = f"{place} stands in the unique index {key.name}, and several people would get the same value"
            own = "{" + (node.table.primary_key or ("id",))[0] + "}"
            which = "Use a template" if key.one_null else "Use null, or a template"
            report("anonymise-not-unique", where, fact, f"{which} with the row's key: {{template: 'erased-{own}'}}.")
        elif None in key.columns and not distinct:
            fact = f"the unique index {key.name} of {node.table.full_name} holds an expression that may read {column.name}"
            context.warn("anonymise-not-unique", where, fact, "Use a template with the row's key if it does.")


def _typed(context: Context, node: TableNode, column: Column, rule: Anonymisation, where: Where) -> None:
    place = f"{node.table.full_name}.{column.name}"
    if rule.way == "json" and column.base_type not in {"json", "jsonb"}:
        context.error("anonymise-type", where, f"{place} is {column.type}, not json", "Use null, empty, constant or template.")
    elif rule.way == "generalise" and column.base_type not in _TEMPORAL:
        context.error(
            "anonymise-type", where, f"{place} is {column.type}; only dates and times can be generalised", "Use null or constant."
        )
    elif rule.way == "empty" and not (
        column.base_type in _TEXT | {"json", "jsonb", "bytea", "hstore", "tsvector"} or column.category == "A"
    ):
        context.error("anonymise-type", where, f"{place} is {column.type}, which has no empty value", "Use null or constant.")
    elif rule.way in SHARED:
        chosen = Chosen(
            CATALOGUE[rule.way], rule.options, column, kind_of(column, context.surroundings.enums, context.surroundings.domain_limits)
        )
        for conflict in conflicts(place, None, chosen):
            context.error(
                "anonymise-type" if conflict.code == "mask-type" else "anonymise-value", where, conflict.fact, "Use null or constant."
            )
    elif rule.way == "template":
        _template(context, node, column, rule, where)
    elif rule.way == "constant":
        problem = constant_problem(column, rule.value, context.surroundings.enums)
        if problem:
            context.error("anonymise-value", where, f"the constant for {place} {problem}", f"Write a value of type {column.type}.")


def _template(context: Context, node: TableNode, column: Column, rule: Anonymisation, where: Where) -> None:
    place = f"{node.table.full_name}.{column.name}"
    if column.base_type not in _TEXT:
        context.error("anonymise-type", where, f"{place} is {column.type}; a template gives text", "Use null or constant.")
    text = str(rule.value)
    width = len(_PLACEHOLDER.sub("", text))
    for name in _PLACEHOLDER.findall(text):
        read = node.table.by_name.get(name)
        if read is None:
            context.error(
                "column-missing",
                where,
                f"the template of {place} reads {name}, which is no column",
                f"Use a column of {node.table.full_name}.",
            )
        elif name in node.rule.columns and name not in node.table.primary_key:
            context.error(
                "template-reads-personal", where, f"the template of {place} reads the personal column {name}", "Read the row's key instead."
            )
        else:
            width += _WIDTH.get(read.base_type, 0)
    limit = _limit(column)
    if limit is not None and len(_PLACEHOLDER.sub("", text)) > limit:
        context.error("anonymise-value", where, f"the template of {place} is longer than {column.type}", "Shorten it.")
    elif limit is not None and width > limit:
        context.warn(
            "anonymise-value",
            where,
            f"the template of {place} may grow longer than {column.type}",
            "Shorten it; what is cut off is not unique.",
        )


def _limit(column: Column) -> int | None:
    return column.modifier - _HEADER if column.base_type in _LIMITED and column.modifier > _HEADER else None


def constant_problem(column: Column, value: Any, enums: dict[str, tuple[str, ...]]) -> str | None:
    """Return why PostgreSQL would refuse a constant, as far as that can be told without the server.

    A domain's own conditions and uncommon types are left to :func:`obhut.datamap.surroundings.probe`.
    """
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    limit = _limit(column)
    if limit is not None and len(text) > limit:
        return f"is longer than {column.type}"
    labels = enums.get(column.type)
    if labels is not None:
        return None if text in labels else f"is no label of {column.type} ({', '.join(labels[:6])})"
    parse = _PARSERS.get(column.base_type)
    if parse is None:
        return None
    try:
        parse(text)
    except ValueError:
        return f"is no {column.base_type}"
    size = _RANGE.get(column.base_type)
    return f"is out of the range of {column.base_type}" if size and not -size <= int(text) < size else None


def _boolean(text: str) -> None:
    if text.lower() not in {"true", "false", "t", "f", "yes", "no", "y", "n", "on", "off", "1", "0"}:
        raise ValueError


_PARSERS: dict[str, Callable[[str], Any]] = {
    "smallint": int,
    "integer": int,
    "bigint": int,
    "numeric": float,
    "real": float,
    "double precision": float,
    "boolean": _boolean,
    "uuid": uuid.UUID,
    "date": date.fromisoformat,
    "timestamp without time zone": datetime.fromisoformat,
    "timestamp with time zone": datetime.fromisoformat,
    "inet": ip_interface,
    "json": json.loads,
    "jsonb": json.loads,
}
