"""Do the transformers that the map writes down fit their columns?"""

from __future__ import annotations

from obhut.datamap.checks.context import Context, Where
from obhut.datamap.conflicts import Chosen, conflicts, unique_conflicts
from obhut.datamap.graph import TableNode
from obhut.datamap.kinds import kind_of
from obhut.datamap.transformers import CATALOGUE, Family
from obhut.postgres.catalogue import Column


def check(context: Context) -> None:
    """Check every written mask and every list of keys to re-issue."""
    for node in context.nodes(context.resolved.tables):
        written = _written(context, node)
        for name, chosen in written.items():
            place = f"{node.table.full_name}.{name}"
            for conflict in conflicts(place, node.rule.columns[name].category, chosen):
                context.error(conflict.code, _where(node, name), conflict.fact, conflict.todo)
        for name, conflict in unique_conflicts(node.table, written, context.surroundings.index_reads.get(node.table.oid, {})):
            context.error(conflict.code, _where(node, name), conflict.fact, conflict.todo)
        _rekeyed(context, node)


def _written(context: Context, node: TableNode) -> dict[str, Chosen]:
    found: dict[str, Chosen] = {}
    for name, rule in node.rule.columns.items():
        if rule.mask is None:
            continue
        column = node.table.by_name[name]
        if column.is_generated:
            fact = f"{node.table.full_name}.{name} is generated: the copy computes it from the masked columns"
            context.error("mask-generated", _where(node, name), fact, "Leave out mask here.")
            continue
        kind = kind_of(column, context.surroundings.enums, context.surroundings.domain_limits)
        found[name] = Chosen(CATALOGUE[rule.mask.transformer], rule.mask.options, column, kind)
        _reads(context, node, name, found[name])
    return found


def _reads(context: Context, node: TableNode, name: str, chosen: Chosen) -> None:
    listed = chosen.options.get("columns", ()) if chosen.transformer.name == "tsvector" else ()
    for read in listed:
        if read not in node.table.by_name:
            fact = f"the mask of {node.table.full_name}.{name} reads {read}, which is no column"
            context.error("column-missing", _where(node, name), fact, f"Use columns of {node.table.full_name}.")


def _rekeyed(context: Context, node: TableNode) -> None:
    names = node.rule.rekey if isinstance(node.rule.rekey, tuple) else ()
    where: Where = ("tables", node.table.full_name, "rekey")
    for name in names:
        column = node.table.by_name.get(name)
        if column is None:
            context.error("column-missing", where, f"{node.table.full_name} has no column {name}", "Name a key column of this table.")
        elif not _can_be_rekeyed(context, column):
            fact = f"{node.table.full_name}.{name} is {column.type}: only numbers and uuids can be re-issued"
            context.error("mask-type", where, fact, "Leave it out.")


def _can_be_rekeyed(context: Context, column: Column) -> bool:
    kind = kind_of(column, context.surroundings.enums)
    return kind.family in {Family.INTEGER, Family.UUID} and not kind.array and not column.is_generated


def _where(node: TableNode, name: str) -> Where:
    return ("tables", node.table.full_name, "columns", name, "mask")
