"""What else the database does when rows go or change: policies, rules, triggers, views, files outside of tables."""

from __future__ import annotations

from obhut.datamap.checks.context import Context, Where

_LARGE_OBJECTS = {"oid", "lo"}


def check(context: Context) -> None:
    """Report what the reviewer has to look at; none of it stops a run."""
    around = context.surroundings
    for node in context.nodes(context.reached):
        table, where = node.table, ("tables", node.table.full_name)
        if names := around.triggers.get(table.oid):
            context.warn(
                "table-triggers", where, f"triggers of {table.full_name} fire when it is erased: {', '.join(names)}", "Do they copy rows?"
            )
        if names := around.rules.get(table.oid):
            context.warn(
                "table-rules",
                where,
                f"rewrite rules of {table.full_name} change statements: {', '.join(names)}",
                "Do they redirect changes?",
            )
        if table.row_security:
            fact = f"{table.full_name} has row-level security"
            context.warn("table-row-security", where, fact, "The role of Obhut must bypass it (BYPASSRLS or owner), else a run refuses.")
        if table.inherits:
            fact = f"{table.full_name} inherits from another table"
            context.warn("table-inherits", where, fact, "Rows are treated table by table; is each one in the map?")
        _leaves(context, node.table.oid, where)
        for column in table.columns:
            if column.base_type in _LARGE_OBJECTS:
                fact = f"{table.full_name}.{column.name} may name large objects"
                context.info(
                    "table-large-objects", where, fact, "An erasure unlinks those that no row of any such column names afterwards."
                )
    personal = {
        leaf.oid for node in context.resolved.tables.values() if node.rule.columns for leaf in context.catalogue.leaves(node.table.oid)
    }
    personal |= {oid for oid, node in context.resolved.tables.items() if node.rule.columns}
    for view in around.views_over(personal):
        kind = "materialised view" if view.materialised else "view"
        todo = (
            "Every erasure refreshes it; has it a unique index, so that its readers need not wait?"
            if view.materialised
            else "Nothing to do: it holds no rows of its own."
        )
        context.info("view-personal", ("tables",), f"the {kind} {view.name} reads personal tables", todo)


def _leaves(context: Context, oid: int, where: Where) -> None:
    for leaf in context.catalogue.leaves(oid):
        if leaf.persistence == "u":
            fact = f"{leaf.full_name} is unlogged"
            context.warn("table-unlogged", where, fact, "It is in no backup and empty after a restore; is that meant?")
        if leaf.oid != oid and (names := context.surroundings.triggers.get(leaf.oid)):
            context.warn(
                "table-triggers", where, f"triggers of {leaf.full_name} fire when it is erased: {', '.join(names)}", "Do they copy rows?"
            )
