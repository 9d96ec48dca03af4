"""Do links hold: comparable types, a treatment for every row, every personal table within reach of a person?"""

from __future__ import annotations

from obhut.datamap.checks.context import Context, Where, verbs
from obhut.datamap.graph import Link, LinkForm, TableNode
from obhut.datamap.models import Verb
from obhut.postgres.catalogue import Column

_INTEGERS = {"smallint", "integer", "bigint", "numeric", "oid"}
_MOMENTS = {"date", "timestamp without time zone", "timestamp with time zone"}
_AS_TEXT = _INTEGERS | {"uuid"}  # kept as text by polymorphic pairs; anything else has more than one spelling


def check(context: Context) -> None:
    """Check every link and every table's way to a person."""
    graph = context.resolved
    for node in context.nodes(graph.tables):
        for index, link in context.written_links(node):
            where: Where = ("tables", node.table.full_name, "links", index)
            _types(context, node, link, where)
            _treatment(context, node, link, where)
            _parent(context, link, where)
        _reach(context, node)


def _types(context: Context, node: TableNode, link: Link, where: Where) -> None:
    parent = context.catalogue.tables[link.parent]
    if link.form is LinkForm.JSON:
        if node.table.by_name[link.columns[0]].base_type not in {"json", "jsonb"}:
            context.error(
                "link-types", where, f"{node.table.full_name}.{link.columns[0]} is no json column", "Use array: or columns: instead."
            )
        return
    if link.form is LinkForm.ARRAY:
        column = node.table.by_name[link.columns[0]]
        element = column.base_type.removesuffix("[]")
        theirs = parent.by_name[link.parent_columns[0]]
        if column.category != "A" or element == column.base_type:
            context.error("link-types", where, f"{node.table.full_name}.{column.name} is no array", "Use columns: {mine: theirs} instead.")
        elif not _same_family(element, theirs.base_type):
            fact = f"elements of {node.table.full_name}.{column.name} are {element}, {parent.full_name}.{theirs.name} is {theirs.base_type}"
            context.error("link-types", where, fact, "Name the column that holds the same values: key: column.")
        return
    for mine, theirs_name in zip(link.columns, link.parent_columns, strict=True):
        left, right = node.table.by_name[mine], parent.by_name[theirs_name]
        fact = f"{node.table.full_name}.{mine} is {left.type}, {parent.full_name}.{theirs_name} is {right.type}"
        if not _comparable(left, right):
            context.error("link-types", where, fact, "Link columns that hold the same values.")
        elif left.category != right.category:
            context.warn("link-as-text", where, f"{fact}: they are compared as text", "No index helps; is the spelling of both the same?")


def _same_family(left: str, right: str) -> bool:
    text = {"text", "character varying", "character", "citext", "name"}
    return left == right or any(left in family and right in family for family in (_INTEGERS, _MOMENTS, text))


def _comparable(left: Column, right: Column) -> bool:
    if left.category == right.category:
        return left.category == "S" or _same_family(left.base_type, right.base_type)
    texts = [column.category in {"S", "E"} for column in (left, right)]
    other = right if texts[0] else left
    return all(texts) or (any(texts) and other.base_type in _AS_TEXT)


def _treatment(context: Context, node: TableNode, link: Link, where: Where) -> None:
    parent = context.catalogue.tables[link.parent].full_name
    if link.erase is None:
        context.error(
            "treatment-missing",
            where,
            f"rows of {node.table.full_name} belong to {parent}, and nothing says what an erasure does to them",
            "Write erase: delete, anonymise, unlink, {keep: ground, for: P10Y} or delete_if_orphaned at the table or the link.",
        )
    elif link.erase.verb is Verb.DELETE_IF_ORPHANED and not node.shared:
        context.error("treatment-orphan-link", where, "delete_if_orphaned is about a table, not a link", "Write it as the table's erase.")
    if Verb.UNLINK in verbs(link.erase) | verbs(link.when_anonymised) and link.form is LinkForm.COLUMNS:
        nulled = link.unlinked_columns(context.catalogue)
        # A key that is null in part names nobody, unless it is MATCH FULL.
        whole = link.foreign_key is not None and link.foreign_key.match_full
        stuck = [node.table.by_name[name] for name in link.columns if name not in nulled]
        if stuck and (whole or not nulled):
            forbidden = "NOT NULL" if stuck[0].not_null else "generated" if stuck[0].is_generated else "not set to NULL by its key"
            context.error(
                "unlink-not-null",
                where,
                f"unlink would set {node.table.full_name}.{stuck[0].name} to NULL, and it is {forbidden}",
                "Use delete or anonymise, or make the column nullable.",
            )
    if verbs(link.erase) == {Verb.UNLINK} and node.anonymise and len(node.links) == 1 and node.table.oid not in context.subject_kinds:
        context.warn(
            "unlink-leaves-personal",
            where,
            f"{node.table.full_name} is only unlinked, and its personal columns stay",
            "Use anonymise when they are about the person who is erased.",
        )


def _parent(context: Context, link: Link, where: Where) -> None:
    parent = context.catalogue.tables[link.parent]
    unique = any(None not in key.columns and key.predicate is None and set(key.columns) <= set(link.parent_columns) for key in parent.keys)
    if not unique and link.foreign_key is None:
        names = ", ".join(link.parent_columns)
        fact = f"{parent.full_name} ({names}) is not unique: one row may belong to several people"
        context.warn("link-parent-not-unique", where, fact, "Link to a unique key where there is one.")


def _reach(context: Context, node: TableNode) -> None:
    if not node.rule.personal or node.table.oid in context.reached:
        return
    where: Where = ("tables", node.table.full_name)
    if node.shared and not any(reference.parent == node.table.oid for reference in context.resolved.references):
        fact = f"{node.table.full_name} is shared by nobody: no foreign key and no shared_by leads to it"
        context.error("shared-unreferenced", where, fact, "Write shared_by: [{table: …, columns: {theirs: mine}}].")
    elif node.rule.columns:
        context.error(
            "table-unreachable",
            where,
            f"{node.table.full_name} has personal columns, and no link leads from it to a data subject",
            "Add links: [{to: schema.table, columns: {mine: theirs}}], or make its rows a subject kind.",
        )
    elif node.links:
        fact = f"the links of {node.table.full_name} do not end at a data subject"
        context.warn("link-nowhere", where, fact, "Do they lead the right way, from the table to the one nearer to the person?")
