"""Can the treatments be carried out together, and does the database's own ON DELETE agree with them?"""

from __future__ import annotations

from obhut.datamap.checks.context import Context, Where, verbs
from obhut.datamap.graph import Link, TableNode
from obhut.datamap.models import Verb
from obhut.postgres.catalogue import Action, ForeignKey, Table


def check(context: Context) -> None:
    """Check treatments against each other and against the foreign keys."""
    for node in context.nodes(context.resolved.tables):
        _contradictions(context, node)
        _rules_for_anonymise(context, node)
    for oid in sorted(context.deleted, key=lambda oid: context.catalogue.tables[oid].full_name):
        for key in context.keys_to.get(oid, ()):
            _child_of_deleted(context, key)


def _contradictions(context: Context, node: TableNode) -> None:
    where: Where = ("tables", node.table.full_name)
    erased = [link.erase.verb for link in node.links if link.erase]
    if Verb.KEEP in erased and Verb.DELETE in erased:
        fact = f"one link of {node.table.full_name} keeps its rows and another deletes them"
        context.error("keep-and-delete", (*where, "links"), fact, "Keep on both links, or split the ground of keeping into another table.")
    for kind in context.subject_kinds.get(node.table.oid, ()):
        verb = context.resolved.subjects[kind].erase.verb
        if verb in {Verb.UNLINK, Verb.DELETE_IF_ORPHANED}:
            fact = f"{node.table.full_name} holds data subjects, whose rows cannot be treated by {verb}"
            context.error("subject-treatment", (*where, "erase"), fact, "Use delete or anonymise.")


def _rules_for_anonymise(context: Context, node: TableNode) -> None:
    missing: dict[str, tuple[Where, bool]] = {}
    for where, treatment, only, anonymising in context.treatments(node):
        if not verbs(treatment) & {Verb.ANONYMISE, Verb.DELETE_IF_ORPHANED}:
            continue
        for column in only or node.rule.columns:
            rule = node.rule.columns.get(column)
            generated = node.table.by_name[column].is_generated
            if (rule is None or rule.anonymise is None) and not generated and (missing.get(column) or (None, True))[1] is not False:
                missing[column] = (where, anonymising)
    for column, (_, anonymising) in sorted(missing.items()):
        why = "when a person is anonymised" if anonymising else "by an erasure that anonymises"
        otherwise = ", or when_anonymised: delete at the table" if anonymising and not node.shared else ""
        context.error(
            "anonymise-without-rule",
            ("tables", node.table.full_name, "columns", column),
            f"{node.table.full_name}.{column} would stay readable {why}",
            f"Write {column}: {{category: …, anonymise: null}} (or constant, template, generalise){otherwise}.",
        )


def _child_of_deleted(context: Context, key: ForeignKey) -> None:
    child = context.catalogue.root(key.table)
    parent = context.catalogue.root(key.references)
    link = context.link_along(key)
    if link is not None:
        _linked(context, key, child, parent, link)
    else:
        _unlinked(context, key, child, parent)
    changed = [child.by_name[name] for name in (key.set_columns or key.columns)]
    if key.on_delete is Action.SET_NULL and any(column.not_null for column in changed) and not _settled(context, link):
        fact = f"{key.name} sets columns of {child.full_name} to NULL that are NOT NULL"
        context.error("delete-set-null", _table(context, child), fact, f"Give the link to {parent.full_name} the treatment delete.")


def _table(context: Context, table: Table) -> Where:
    return ("tables", table.full_name) if table.full_name in context.rules.tables else ("tables",)


def _settled(context: Context, link: Link | None) -> bool:
    """Whether the rows go, or lose the key, before the server's own action finds them."""
    if link is None:
        return False
    found = verbs(link.erase)
    return Verb.DELETE in found or (bool(found & {Verb.UNLINK, Verb.ANONYMISE}) and bool(link.unlinked_columns(context.catalogue)))


def _linked(context: Context, key: ForeignKey, child: Table, parent: Table, link: Link) -> None:
    node = context.resolved.tables[child.oid]
    index = node.links.index(link)
    where: Where = ("tables", child.full_name, "links", index)
    found = verbs(link.erase)
    if Verb.KEEP in found:
        outcome = {
            Action.CASCADE: "would delete the kept row",
            Action.SET_NULL: "would change the kept row",
            Action.SET_DEFAULT: "would change the kept row",
        }.get(key.on_delete, "forbids to delete its parent")
        context.error(
            "keep-under-delete",
            where,
            f"{child.full_name} is kept while its parent {parent.full_name} is deleted:"
            f" {key.name} (ON DELETE {_words(key.on_delete)}) {outcome}",
            f"Keep or anonymise {parent.full_name} as well.",
        )
        return
    spared = link.unlinked_columns(context.catalogue) and not key.match_full  # null in part, a key names nobody
    stuck = [] if spared else [name for name in key.columns if child.by_name[name].not_null]
    if Verb.ANONYMISE in found and stuck and Verb.DELETE not in found:
        outcome = "deletes the row" if key.on_delete is Action.CASCADE else "forbids to delete its parent"
        context.error(
            "anonymise-under-delete",
            where,
            f"{child.full_name} is anonymised while its parent {parent.full_name} is deleted,"
            f" {stuck[0]} is NOT NULL, and {key.name} {outcome}",
            f"Anonymise {parent.full_name} too, delete {child.full_name}, or make {stuck[0]} nullable.",
        )


def _unlinked(context: Context, key: ForeignKey, child: Table, parent: Table) -> None:
    node = context.resolved.tables.get(child.oid)
    where = _table(context, child)
    if key.on_delete is Action.CASCADE:
        kept = node is not None and any(link.erase and link.erase.verb is Verb.KEEP for link in node.links)
        fact = f"{key.name} deletes rows of {child.full_name} with their parent {parent.full_name}"
        if kept:
            context.error("keep-under-delete", where, f"{fact}, and another link keeps them", f"Keep {parent.full_name} as well.")
        elif node is None or node.rule.personal:
            context.warn("cascade-without-link", where, fact, f"Say so: links: [{{to: {parent.full_name}, erase: delete}}].")
        else:
            context.info("cascade-without-link", where, fact, "Nothing to do: the rows go with the parent.")
        return
    if key.on_delete in {Action.SET_NULL, Action.SET_DEFAULT}:
        context.info(
            "set-without-link",
            where,
            f"{key.name} changes rows of {child.full_name} when their parent {parent.full_name} goes",
            "Nothing to do.",
        )
        return
    mapping = ", ".join(f"{mine}: {theirs}" for mine, theirs in zip(key.columns, key.referenced_columns, strict=True))
    add = f"Add a link: {{to: {parent.full_name}, columns: {{{mapping}}}, erase: delete}} (or unlink)."
    if child.oid in context.deleted:
        context.warn(
            "delete-may-block",
            where,
            f"{child.full_name} loses rows by another link, but one that stays would block its parent in {parent.full_name} ({key.name})",
            add,
        )
    else:
        context.error(
            "delete-blocked",
            where,
            f"rows of {parent.full_name} are deleted, and {key.name} (ON DELETE {_words(key.on_delete)}) of {child.full_name} forbids it",
            add,
        )


def _words(action: Action) -> str:
    return action.name.replace("_", " ")
