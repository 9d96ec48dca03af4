"""Which rows an erasure reaches, and what becomes of each: a fixpoint over the map's graph.

Four kinds of propagation, all set-based, all monotone, repeated until nothing is added:

- *reach*: a row belongs to a person when it links to a row that does (the links of the data map);
- *foreign keys*: children of deleted rows follow their ``ON DELETE`` action, as the server would make them;
- *unlinking*: rows that stay lose the key that led to a deleted row;
- *orphans*: a shared parent goes when its last referencing row goes, and is anonymised when only anonymised rows still reference it.

The same function serves a live erasure (inside one REPEATABLE READ transaction, so that addresses hold) and the filter of a restore
(a paused quarantine): what production did and what a restore leaves out cannot drift apart. It reads and never writes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from obhut.datamap.graph import Graph, Link, LinkForm, Reference, Subject, TableNode
from obhut.datamap.models import Treatment, Verb
from obhut.erasure import expressions
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.entries import Action
from obhut.erasure.plan import Cohort, PlannedEffect
from obhut.erasure.refusals import PlanConflictError
from obhut.postgres.catalogue import Action as OnDelete
from obhut.postgres.catalogue import ForeignKey, Table
from obhut.postgres.connections import Row, Session
from obhut.postgres.sql import SQL, Composable, Composed, Identifier, Literal, trusted

CHUNK = 200_000  # row addresses or keys a query at the most: two megabytes of parameters
ORPHAN_CHUNK = 20_000

Keys = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Change:
    """Rows that stay, and the new value of each changed column."""

    rows: RowAddresses
    assignments: Mapping[str, Composable]


@dataclass(frozen=True, slots=True)
class TableEffect:
    """What becomes of one relation's rows (a plain table or a leaf partition); all other rows stay as they are."""

    table: Table
    deleted: RowAddresses
    changes: tuple[Change, ...]
    reached: RowAddresses

    @property
    def changed(self) -> int:
        """Number of rows that stay with other values."""
        return sum(change.rows.count for change in self.changes)

    @property
    def touched(self) -> RowAddresses:
        """Rows that are deleted or changed."""
        rows = self.deleted
        for change in self.changes:
            rows = rows | change.rows
        return rows


@dataclass(frozen=True)
class Effects:
    """The outcome of the fixpoint.

    Attributes:
        tables: by oid of the relation that holds the rows; relations without effect are left out.
        settings: run-time parameters that the assignments read; to be set in each session that applies them.
        planned: counts with reasons.
    """

    tables: dict[int, TableEffect]
    settings: dict[str, str]
    planned: tuple[PlannedEffect, ...]

    @property
    def deleted(self) -> int:
        """Rows deleted, over all tables."""
        return sum(effect.deleted.count for effect in self.tables.values())

    @property
    def changed(self) -> int:
        """Rows changed, over all tables."""
        return sum(effect.changed for effect in self.tables.values())

    def apply_settings(self, session: Session) -> None:
        """Set the run-time parameters that the assignments read."""
        for name, value in self.settings.items():
            session.set(name, value)


@dataclass(frozen=True)
class Seed:
    """People to start from: rows of the subject table, and keys whose row is not there."""

    cohort: Cohort
    subject: Subject
    rows: dict[int, RowAddresses]
    missing: Keys = field(default_factory=list)


@dataclass
class _Relation:
    """The growing state of one relation."""

    deleted: RowAddresses = field(default_factory=RowAddresses)
    reached: dict[Cohort, RowAddresses] = field(default_factory=dict)
    kept: RowAddresses = field(default_factory=RowAddresses)
    soft: RowAddresses = field(default_factory=RowAddresses)  # anonymised: they stay, but no longer stand for a person
    changes: dict[str, RowAddresses] = field(default_factory=dict)


class Closure:
    """One run of the fixpoint. Use :func:`resolve` or :func:`select_rows`."""

    def __init__(self, session: Session, graph: Graph) -> None:
        self._session = session
        self._graph = graph
        self._catalogue = graph.catalogue
        self._relations: dict[int, _Relation] = defaultdict(_Relation)
        self._queue: deque[Callable[[], None]] = deque()
        self._expressions: dict[str, dict[str, expressions.Expression]] = {}
        self._nulled: dict[str, frozenset[str]] = {}
        self._settings: dict[str, set[str]] = {}
        self._setting_types: dict[str, str] = {}
        self._reasons: dict[tuple[str, Verb, str], dict[int, RowAddresses]] = defaultdict(lambda: defaultdict(RowAddresses))
        self._links: dict[int, list[Link]] = defaultdict(list)
        for node in graph.tables.values():
            for link in node.links:
                self._links[link.parent].append(link)
        self._foreign_keys: dict[int, list[ForeignKey]] = defaultdict(list)
        for key in self._catalogue.foreign_keys:
            if key.enforced:
                self._foreign_keys[key.references].append(key)
        self._references: dict[int, list[Reference]] = defaultdict(list)
        for reference in graph.references:
            self._references[reference.parent].append(reference)
        self._selecting = False

    # -- entry points ---------------------------------------------------------------------------------------------------------

    def run(self, seeds: Iterable[Seed]) -> Effects:
        """Run the fixpoint from the seeds and return the effects."""
        for seed in seeds:
            subject = seed.subject
            treatment = subject.when_anonymised if seed.cohort.anonymising else subject.erase
            for oid, rows in seed.rows.items():
                self._reach(seed.cohort, oid, rows, treatment, (), f"is the {subject.kind}")
            if seed.missing:
                self._reach_by_key(seed.cohort, subject, seed.missing)
        self._drain()
        while self._settle_orphans():
            self._drain()
        return self._effects()

    def select(self, rows: Mapping[int, RowAddresses]) -> dict[int, RowAddresses]:
        """Return all rows that belong to the given ones by the links of the map, and the shared parents that they reference."""
        self._selecting = True
        for subject in self._graph.subjects.values():
            for hop in subject.controller_path:
                self._links[hop.parent].append(hop)
        for oid, addresses in rows.items():
            self._reach(_SELECT, oid, addresses, _STAY, (), "selected")
        self._drain()
        for references in self._references.values():
            for reference in references:
                self._select_parents(reference)
        return {oid: state.reached[_SELECT] for oid, state in self._relations.items() if state.reached.get(_SELECT)}

    def _select_parents(self, reference: Reference) -> None:
        for leaf in self._catalogue.leaves(reference.child):
            selected = self._relations[leaf.oid].reached.get(_SELECT, _NONE)
            for oid, rows in self._referenced(reference, leaf, selected).items():
                state = self._relations[oid]
                state.reached[_SELECT] = state.reached.get(_SELECT, _NONE) | rows

    def _drain(self) -> None:
        while self._queue:
            self._queue.popleft()()

    # -- propagation ----------------------------------------------------------------------------------------------------------

    def _reach(
        self, cohort: Cohort, oid: int, rows: RowAddresses, treatment: Treatment | None, only: tuple[str, ...], reason: str
    ) -> None:
        verb = cohort.verb(treatment)
        if not rows or verb is None or verb is Verb.UNLINK:
            return
        state = self._relations[oid]
        new = rows - state.reached.get(cohort, _NONE)
        root = self._catalogue.root(oid)
        if verb is Verb.DELETE:
            self._delete(cohort, oid, rows, reason)
        elif verb is Verb.ANONYMISE and not self._selecting:
            state.soft |= rows
            self._anonymise(root, oid, rows, only, reason)
        elif verb is Verb.KEEP and not self._selecting:
            state.kept |= rows
            ground = treatment.ground if treatment else ""
            period = treatment.period if treatment else ""
            self._note(root, Verb.KEEP, f"{reason}; kept: {ground}, {period}", oid, rows)
        if new:
            state.reached[cohort] = state.reached.get(cohort, _NONE) | new
            self._queue.append(lambda: self._follow_links(cohort, oid, new))

    def _delete(self, cohort: Cohort, oid: int, rows: RowAddresses, reason: str) -> None:
        state = self._relations[oid]
        new = rows - state.deleted
        if not new:
            return
        state.deleted |= new
        self._note(self._catalogue.root(oid), Verb.DELETE, reason, oid, new)
        fresh = new - state.reached.get(cohort, _NONE)
        if fresh:
            state.reached[cohort] = state.reached.get(cohort, _NONE) | fresh
            self._queue.append(lambda: self._follow_links(cohort, oid, fresh))
        self._queue.append(lambda: self._follow_deletion(cohort, oid, new))

    def _anonymise(self, root: Table, oid: int, rows: RowAddresses, only: tuple[str, ...], reason: str) -> None:
        node = self._graph.tables.get(root.oid)
        rules = {column: rule for column, rule in (node.anonymise if node else {}).items() if not only or column in only}
        if rules:
            name = f"anonymise {root.oid} {','.join(sorted(rules))}"
            made = {column: expressions.anonymised(rule, root, root.by_name[column]) for column, rule in rules.items()}
            self._change(oid, name, made, rows)
            self._note(root, Verb.ANONYMISE, reason, oid, rows)

    def _change(self, oid: int, name: str, made: dict[str, expressions.Expression], rows: RowAddresses, *, nulls: Iterable[str] = ()) -> None:
        changes = self._relations[oid].changes
        changes[name] = changes.get(name, _NONE) | rows
        self._expressions.setdefault(name, made)
        self._nulled.setdefault(name, frozenset(nulls))

    def _note(self, root: Table, verb: Verb, reason: str, oid: int, rows: RowAddresses) -> None:
        noted = self._reasons[root.full_name, verb, reason]
        noted[oid] = noted[oid] | rows

    def _ancestors(self, oid: int) -> Iterator[int]:
        current: int | None = oid
        while current is not None:
            yield current
            current = self._catalogue.tables[current].parent

    def _follow_links(self, cohort: Cohort, oid: int, rows: RowAddresses) -> None:
        parent_table = self._catalogue.tables[oid]
        for ancestor in self._ancestors(oid):
            for link in self._links.get(ancestor, ()):
                treatment = link.treatment(anonymising=cohort.anonymising)
                if self._selecting and not (treatment and treatment.verb is Verb.UNLINK):
                    treatment = _STAY  # what a link to be unlinked leads to is another person's row
                if cohort.verb(treatment) is None or (self._selecting and treatment is not _STAY):
                    continue
                source = SQL("ONLY {}").format(_name(parent_table))
                for chunk in rows.chunks(CHUNK):
                    found = self._linked(link, source, chunk)
                    self._arrive(cohort, link, treatment, found)

    def _arrive(self, cohort: Cohort, link: Link, treatment: Treatment | None, found: list[Row]) -> None:
        reason = f"belongs to {self._catalogue.root(link.parent).full_name} by {link.name}"
        grouped = _group(found)
        for oid, rows in grouped.items():
            if cohort.verb(treatment) is Verb.UNLINK:
                self._unlink(link, oid, rows, found)
            else:
                self._reach(cohort, oid, rows, treatment, link.anonymises, reason)

    def _unlink(self, link: Link, oid: int, rows: RowAddresses, found: list[Row]) -> None:
        child = self._catalogue.root(oid)
        column = child.by_name[link.columns[0]]
        name = f"unlink {link.child} {link.name}"
        if link.form is LinkForm.COLUMNS:
            self._change(oid, name, dict.fromkeys(link.columns, expressions.null), rows, nulls=link.columns)
        else:
            setting = f"obhut.keys_{link.child}_{_safe(link.name)}"
            self._settings.setdefault(setting, set()).update(row[2].decode() if isinstance(row[2], bytes) else row[2] for row in found)
            make = expressions.array_without if link.form is LinkForm.ARRAY else None
            expression = make(setting, column) if make else expressions.json_without(setting, column, link.path)
            self._change(oid, name, {column.name: expression}, rows)
        self._note(child, Verb.UNLINK, f"names {self._catalogue.root(link.parent).full_name} by {link.name}", oid, rows)

    def _follow_deletion(self, cohort: Cohort, oid: int, rows: RowAddresses) -> None:
        parent_table = self._catalogue.tables[oid]
        source = SQL("ONLY {}").format(_name(parent_table))
        for ancestor in self._ancestors(oid):
            for key in self._foreign_keys.get(ancestor, ()):
                if key.on_delete in {OnDelete.NO_ACTION, OnDelete.RESTRICT}:
                    continue
                for chunk in rows.chunks(CHUNK):
                    children = _group(self._children(key, source, chunk))
                    for child, addresses in children.items():
                        self._follow_action(cohort, key, child, addresses)
            for link in self._links.get(ancestor, ()):
                verb = cohort.verb(link.treatment(anonymising=cohort.anonymising))
                if verb is Verb.ANONYMISE and link.form is LinkForm.COLUMNS and self._may_be_null(link):
                    for chunk in rows.chunks(CHUNK):
                        for child, addresses in _group(self._linked(link, source, chunk)).items():
                            # The key of a deleted person is of no use to anybody; where it may be null it goes.
                            self._change(
                                child,
                                f"unlink {link.child} {link.name}",
                                dict.fromkeys(link.columns, expressions.null),
                                addresses,
                                nulls=link.columns,
                            )

    def _follow_action(self, cohort: Cohort, key: ForeignKey, child: int, rows: RowAddresses) -> None:
        reference = f"references {self._catalogue.root(key.references).full_name} by {key.name}"
        if key.on_delete is OnDelete.CASCADE:
            self._delete(cohort, child, rows, f"{reference} (ON DELETE CASCADE)")
            return
        table = self._catalogue.tables[child]
        columns = key.set_columns or key.columns
        if key.on_delete is OnDelete.SET_NULL:
            self._change(child, f"set null {key.oid}", dict.fromkeys(columns, expressions.null), rows, nulls=columns)
        else:
            made = {column: expressions.column_default(table.by_name[column]) for column in columns}
            self._change(child, f"set default {key.oid}", made, rows, nulls=columns)
        self._note(self._catalogue.root(child), Verb.UNLINK, f"{reference} (ON DELETE SET)", child, rows)

    def _may_be_null(self, link: Link) -> bool:
        child = self._catalogue.tables[link.child]
        return all(not child.by_name[name].not_null for name in link.columns)

    # -- queries --------------------------------------------------------------------------------------------------------------

    def _linked(self, link: Link, parent: Composable, rows: RowAddresses) -> list[Row]:
        """Rows of the link's child that lead to rows of the parent relation: ``(tableoid, ctid[, key])``."""
        child = self._catalogue.tables[link.child]
        join = SQL(" AND ").join(self._link_condition(link, child))
        query = SQL(
            "SELECT c.tableoid, c.ctid{key} FROM {child} c{lateral} JOIN {parent} p ON {join} WHERE p.ctid = ANY(%s){when}"
        ).format(
            key=self._link_key(link),
            child=child.relation,
            lateral=self._lateral(link),
            parent=parent,
            join=join,
            when=self._when(link, child),
        )
        return self._session.addresses(query, (rows.parameter(),))

    def _link_condition(self, link: Link, child: Table) -> list[Composed]:
        if link.form is LinkForm.JSON:
            return [SQL("p.{}::text = e.v").format(Identifier(link.parent_columns[0]))]
        if link.form is LinkForm.ARRAY:
            return [SQL("p.{} = e.v").format(Identifier(link.parent_columns[0]))]
        parent = self._catalogue.tables[link.parent]
        pairs = []
        for mine, theirs in zip(link.columns, link.parent_columns, strict=True):
            left, right = child.by_name[mine], parent.by_name[theirs]
            # A polymorphic pair often keeps keys of several types as text.
            same = left.category == right.category
            cast = SQL("") if same else SQL("::text")
            pairs.append(SQL("c.{}{} = p.{}{}").format(Identifier(mine), cast, Identifier(theirs), cast))
        return pairs

    def _lateral(self, link: Link) -> Composable:
        if link.form is LinkForm.ARRAY:
            return SQL(" CROSS JOIN LATERAL unnest(c.{}) AS e(v)").format(Identifier(link.columns[0]))
        if link.form is LinkForm.JSON:
            path = "$" + "".join("[*]" if step is None else '."' + step.replace('"', '\\"') + '"' for step in link.path)
            return SQL(
                " CROSS JOIN LATERAL (SELECT q.j #>> '{{}}' AS v FROM jsonb_path_query(c.{}::jsonb, {}::jsonpath) AS q(j)) AS e"
            ).format(Identifier(link.columns[0]), Literal(path))
        return SQL("")

    def _link_key(self, link: Link) -> Composable:
        return SQL("") if link.form is LinkForm.COLUMNS else SQL(", e.v::text")

    def _when(self, link: Link, child: Table) -> Composable:
        return SQL("").join(
            SQL(" AND c.{} = {}::{}").format(Identifier(column), Literal(value), trusted(child.by_name[column].type)) for column, value in link.when
        )

    def _children(self, key: ForeignKey, parent: Composable, rows: RowAddresses) -> list[Row]:
        join = SQL(" AND ").join(
            SQL("c.{} = p.{}").format(Identifier(mine), Identifier(theirs)) for mine, theirs in zip(key.columns, key.referenced_columns, strict=True)
        )
        query = SQL("SELECT c.tableoid, c.ctid FROM {} c JOIN {} p ON {} WHERE p.ctid = ANY(%s)").format(
            self._catalogue.tables[key.table].relation, parent, join
        )
        return self._session.addresses(query, (rows.parameter(),))

    def _reach_by_key(self, cohort: Cohort, subject: Subject, keys: Keys) -> None:
        """Reach rows that name a person whose own row is gone: only links without a foreign key can do so."""
        for link in self._links.get(subject.table, ()):
            if link.foreign_key is not None and link.foreign_key.validated and link.foreign_key.enforced:
                continue
            treatment = link.treatment(anonymising=cohort.anonymising)
            if cohort.verb(treatment) is None or not set(link.parent_columns) <= set(subject.key):
                continue
            if len(link.parent_columns) != len(subject.key):
                continue  # part of a composite key names other people too
            order = [subject.key.index(name) for name in link.parent_columns]
            for start in range(0, len(keys), CHUNK):
                columns = [[key[position] for key in keys[start : start + CHUNK]] for position in order]
                self._arrive(cohort, link, treatment, self._linked_by_key(link, subject, columns))

    def _linked_by_key(self, link: Link, subject: Subject, columns: Sequence[list[str]]) -> list[Row]:
        child = self._catalogue.tables[link.child]
        types = [trusted(subject.key_types[subject.key.index(name)]) for name in link.parent_columns]
        arrays = SQL(", ").join(SQL("%s::text[]::{}[]").format(kind) for kind in types)
        names = SQL(", ").join(Identifier(name) for name in link.parent_columns)
        parent = SQL("(SELECT * FROM unnest({}) AS k({}))").format(arrays, names)
        query = SQL("SELECT c.tableoid, c.ctid{} FROM {} c{} JOIN {} p ON {} WHERE true{}").format(
            self._link_key(link), child.relation, self._lateral(link), parent, SQL(" AND ").join(self._link_condition(link, child)), self._when(link, child)
        )
        return self._session.addresses(query, columns)

    # -- shared parents -------------------------------------------------------------------------------------------------------

    def _settle_orphans(self) -> bool:
        """Judge shared parents that lost a reference; return whether any row was deleted, so that the fixpoint goes on."""
        if self._selecting:
            return False
        grew = False
        for node in self._graph.tables.values():
            if node.shared:
                grew |= self._settle_shared(node)
        return grew

    def _settle_shared(self, node: TableNode) -> bool:
        cohort = _ORPHANS
        before = sum(self._relations[leaf.oid].deleted.count for leaf in self._catalogue.leaves(node.table.oid))
        for oid, candidates in self._orphan_candidates(node).items():
            for chunk in (candidates - self._relations[oid].deleted).chunks(ORPHAN_CHUNK):
                shared: set[int] = set()
                soft: set[int] = set()
                for reference in self._references[node.table.oid]:
                    self._judge(reference, oid, chunk, shared, soft)
                alone = RowAddresses(packed for packed in chunk if packed not in shared)
                orphans = RowAddresses(packed for packed in alone if packed not in soft)
                self._delete(cohort, oid, orphans, "no remaining row references it")
                self._anonymise(node.table, oid, alone - orphans, (), "referenced by anonymised rows only")
        after = sum(self._relations[leaf.oid].deleted.count for leaf in self._catalogue.leaves(node.table.oid))
        return after > before

    def _orphan_candidates(self, node: TableNode) -> dict[int, RowAddresses]:
        found: dict[int, RowAddresses] = defaultdict(RowAddresses)
        for reference in self._references[node.table.oid]:
            for leaf in self._catalogue.leaves(reference.child):
                state = self._relations.get(leaf.oid)
                if state is not None:
                    gone = state.deleted | self._without_reference(state, reference) | state.soft
                    for oid, rows in self._referenced(reference, leaf, gone).items():
                        found[oid] |= rows
        return found

    def _referenced(self, reference: Reference, child: Table, rows: RowAddresses) -> dict[int, RowAddresses]:
        """Return the shared parents that rows of a child relation reference."""
        found: dict[int, RowAddresses] = defaultdict(RowAddresses)
        query = SQL("SELECT p.tableoid, p.ctid FROM ONLY {} c JOIN {} p ON {} WHERE c.ctid = ANY(%s)").format(
            _name(child), self._catalogue.tables[reference.parent].relation, _reference_join(reference)
        )
        for chunk in rows.chunks(CHUNK):
            for oid, addresses in _group(self._session.addresses(query, (chunk.parameter(),))).items():
                found[oid] |= addresses
        return found

    def _judge(self, reference: Reference, oid: int, chunk: RowAddresses, shared: set[int], soft: set[int]) -> None:
        query = SQL("SELECT p.ctid, c.tableoid, c.ctid FROM {} c JOIN ONLY {} p ON {} WHERE p.ctid = ANY(%s)").format(
            self._catalogue.tables[reference.child].relation, _name(self._catalogue.tables[oid]), _reference_join(reference)
        )
        for parent, child, address in self._session.addresses(query, (chunk.parameter(),)):
            state = self._relations[child]
            packed = int.from_bytes(address, "big")
            if packed in state.deleted or packed in self._without_reference(state, reference):
                continue
            (soft if packed in state.soft else shared).add(int.from_bytes(parent, "big"))

    def _without_reference(self, state: _Relation, reference: Reference) -> RowAddresses:
        rows = RowAddresses()
        for name, changed in state.changes.items():
            if self._nulled.get(name, frozenset()) & set(reference.columns):
                rows = rows | changed
        return rows

    # -- outcome --------------------------------------------------------------------------------------------------------------

    def _effects(self) -> Effects:
        tables: dict[int, TableEffect] = {}
        for oid, state in self._relations.items():
            table = self._catalogue.tables[oid]
            if state.kept & state.deleted:
                raise PlanConflictError(
                    f"rows of {table.full_name} would be both kept on a legal ground and deleted",
                    "Which links or foreign keys of the table lead to both? Correct the treatments in the data map.",
                )
            changes = tuple(self._grouped_changes(table, state))
            reached = RowAddresses()
            for rows in state.reached.values():
                reached = reached | rows
            if state.deleted or changes or reached:
                tables[oid] = TableEffect(table, state.deleted, changes, reached)
        return Effects(tables, {name: _array_text(values) for name, values in self._settings.items()}, self._planned())

    def _grouped_changes(self, table: Table, state: _Relation) -> Iterator[Change]:
        """Split the changed rows by which changes apply, so that each row is written once with all its new values."""
        groups: list[tuple[RowAddresses, tuple[str, ...]]] = []
        for name, rows in sorted(state.changes.items(), key=lambda item: _order(item[0])):
            rest = rows - state.deleted
            split: list[tuple[RowAddresses, tuple[str, ...]]] = []
            for members, names in groups:
                inside = members & rest
                if inside:
                    split.append((inside, (*names, name)))
                if outside := members - rest:
                    split.append((outside, names))
                rest = rest - inside
            if rest:
                split.append((rest, (name,)))
            groups = split
        for members, names in groups:
            values: dict[str, Composable] = {}
            for name in names:
                for column, expression in self._expressions[name].items():
                    values[column] = expression(values.get(column, Identifier(column)))
            yield Change(members, {column: values[column] for column in table.by_name if column in values})

    def _planned(self) -> tuple[PlannedEffect, ...]:
        planned = []
        for (table, verb, reason), relations in self._reasons.items():
            count = 0
            for oid, rows in relations.items():
                count += (rows if verb is Verb.DELETE else rows - self._relations[oid].deleted).count
            if count:
                planned.append(PlannedEffect(table, verb, reason, count))
        return tuple(planned)

    def conflicts(self, effects: Effects) -> list[tuple[ForeignKey, int]]:
        """Return foreign keys under which rows that stay would still reference deleted ones, with their number."""
        found = []
        for oid, effect in effects.tables.items():
            if not effect.deleted:
                continue
            source = SQL("ONLY {}").format(_name(effect.table))
            for ancestor in self._ancestors(oid):
                for key in self._foreign_keys.get(ancestor, ()):
                    remaining = 0
                    for chunk in effect.deleted.chunks(CHUNK):
                        for child, rows in _group(self._children(key, source, chunk)).items():
                            state = self._relations[child]
                            left = rows - state.deleted
                            for name, changed in state.changes.items():
                                if self._nulled.get(name, frozenset()) & set(key.columns):
                                    left = left - changed
                            remaining += left.count
                    if remaining:
                        found.append((key, remaining))
        return found


_NONE = RowAddresses()
_STAY = Treatment(verb=Verb.KEEP, ground="selection", period="P1D", then=Verb.DELETE)
_SELECT = Cohort(Action.ERASE, frozenset({"selection"}))
_ORPHANS = Cohort(Action.ERASE, frozenset({"orphans"}))


def resolve(session: Session, graph: Graph, seeds: Iterable[Seed], *, check_conflicts: bool = True) -> Effects:
    """Return what becomes of every row that the seeds lead to.

    Args:
        session: on a live database inside a REPEATABLE READ transaction, or on a paused quarantine.
        graph: the data map resolved against this database's catalogue.
        seeds: the people, see :func:`obhut.erasure.subjects.find`.
        check_conflicts: refuse when rows that stay would reference rows that go (the server would refuse at the DELETE anyway).

    Raises:
        PlanConflictError: a row would be both kept and deleted, or a foreign key forbids a deletion.
    """
    closure = Closure(session, graph)
    effects = closure.run(seeds)
    if check_conflicts and (found := closure.conflicts(effects)):
        key, count = found[0]
        child = graph.catalogue.tables[key.table].full_name
        raise PlanConflictError(
            f"{count} rows of {child} that stay would still reference deleted rows (foreign key {key.name})",
            f"Give {child} a treatment in the data map (delete, unlink, or keep with the subject anonymised) for this link.",
        )
    return effects


def select_rows(session: Session, graph: Graph, rows: Mapping[int, RowAddresses]) -> dict[int, RowAddresses]:
    """Return all rows, by relation, that belong to the given rows by the links of the map (one controller's, one person's)."""
    return Closure(session, graph).select(rows)


def _group(found: Iterable[Row]) -> dict[int, RowAddresses]:
    grouped: dict[int, list[bytes]] = defaultdict(list)
    for row in found:
        grouped[row[0]].append(row[1])
    return {oid: RowAddresses.from_tids(tids) for oid, tids in grouped.items()}


def _name(table: Table) -> Composable:
    return Identifier(table.schema, table.name)


def _reference_join(reference: Reference) -> Composed:
    return SQL(" AND ").join(
        SQL("c.{} = p.{}").format(Identifier(mine), Identifier(theirs))
        for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True)
    )


def _order(name: str) -> tuple[int, str]:
    """Unlinking first, anonymising last: the later expression wraps the earlier."""
    return ({"set": 0, "unlink": 1, "anonymise": 2}[name.split(" ", 1)[0]], name)


def _safe(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)


def _array_text(values: Iterable[str]) -> str:
    """Return an array literal; keys may hold any character."""
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in sorted(values)) + "}"
