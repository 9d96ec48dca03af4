"""Which rows an erasure reaches, and what becomes of each: a fixpoint over the map's graph.

Four kinds of propagation, all set-based, all monotone, repeated until nothing is added:

- *reach*: a row belongs to a person when it links to a row that does (the links of the data map);
- *foreign keys*: children of deleted rows follow their ``ON DELETE`` action, as the server would make them, unless the map says that the
  very link is to be unlinked or its row anonymised;
- *unlinking*: rows that stay lose the key that led to a deleted row;
- *orphans*: a shared parent goes when its last referencing row goes, and is anonymised when only anonymised rows still reference it.

Deletion, reach and unlinking are decided for each cohort on its own and then added up (a row that any cohort deletes is deleted), so the
outcome does not depend on the order in which people or links are visited.

The same function serves a live erasure (inside one REPEATABLE READ transaction, so that addresses hold) and the filter of a restore
(a paused quarantine): what production did and what a restore leaves out cannot drift apart. It reads and never writes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from obhut.datamap.graph import Graph, Link, LinkForm, Reference, TableNode
from obhut.datamap.models import Treatment, Verb
from obhut.erasure import changes
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.conflicts import Conflicts
from obhut.erasure.effects import Change, Effects, NamedChange, Relation, Seed, TableEffect, Trace, group_changes, union
from obhut.erasure.entries import Action
from obhut.erasure.plan import Cohort, PlannedEffect
from obhut.erasure.queries import Absent, Leading, Queries
from obhut.erasure.refusals import PlanConflictError
from obhut.postgres.catalogue import Action as OnDelete
from obhut.postgres.catalogue import ForeignKey, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import array_literal

__all__ = ["Change", "Effects", "Seed", "TableEffect", "Trace", "resolve", "select_rows", "traces"]

ORPHAN_CHUNK = 20_000


class Closure:
    """One run of the fixpoint. Use :func:`resolve` or :func:`select_rows`."""

    def __init__(self, session: Session, graph: Graph) -> None:
        self._graph = graph
        self._catalogue = graph.catalogue
        self._queries = Queries(session, graph.catalogue)
        self._relations: dict[int, Relation] = defaultdict(Relation)
        self._queue: deque[Callable[[], None]] = deque()
        self._settings: dict[str, set[str]] = {}
        self._reasons: dict[tuple[str, Verb, str], dict[int, RowAddresses]] = defaultdict(lambda: defaultdict(RowAddresses))
        self._links: dict[int, list[Link]] = defaultdict(list)
        self._numbers: dict[int, int] = {}  # by id of the link, which the graph keeps alive
        self._unlinking: dict[int, NamedChange] = {}
        for node in graph.tables.values():
            for number, link in enumerate(node.links):
                self._links[link.parent].append(link)
                self._numbers[id(link)] = number
        self._foreign_keys: dict[int, list[ForeignKey]] = defaultdict(list)
        for key in self._catalogue.foreign_keys:
            if key.enforced:
                self._foreign_keys[key.references].append(key)
        self._references: dict[int, list[Reference]] = defaultdict(list)
        for reference in graph.references:
            self._references[reference.parent].append(reference)
        self._selecting = False

    # -- entry points ---------------------------------------------------------------------------------------------------------

    def run(self, seeds: Iterable[Seed], traces: Iterable[Trace]) -> Effects:
        """Run the fixpoint from the seeds and return the effects."""
        for seed in seeds:
            subject = seed.subject
            treatment = subject.when_anonymised if seed.cohort.anonymising else subject.erase
            for oid, rows in seed.rows.items():
                self._reach(seed.cohort, oid, rows, treatment, (), f"is the {subject.kind}")
            if seed.missing:
                self._reach_by_key(seed.cohort, seed.missing, deleted=seed.cohort.verb(treatment) is Verb.DELETE)
        for trace in traces:
            self._reach_by_key(trace.cohort, trace.absent, deleted=True)
        self._drain()
        while self._settle_orphans():
            self._drain()
        return self._effects()

    def select(self, rows: Mapping[int, RowAddresses]) -> dict[int, RowAddresses]:
        """Return all rows that belong to the given ones by the links of the map, and the shared parents that they reference."""
        self._selecting = True
        if any(self._catalogue.root(oid).oid == self._graph.controller for oid in rows):
            # Downwards from a controller only: a person must not lead to its controller's other people.
            for subject in self._graph.subjects.values():
                for hop in subject.controller_path:
                    self._links[hop.parent].append(hop)
        for oid, addresses in rows.items():
            self._reach(_SELECT, oid, addresses, _STAY, (), "selected")
        self._drain()
        grew = True
        while grew:
            grew = False
            for references in self._references.values():
                for reference in references:
                    grew |= self._select_parents(reference)
        return {oid: state.reached[_SELECT] for oid, state in self._relations.items() if state.reached.get(_SELECT)}

    def _select_parents(self, reference: Reference) -> bool:
        grew = False
        for leaf in self._catalogue.leaves(reference.child):
            selected = self._relations[leaf.oid].reached.get(_SELECT, _NONE)
            for oid, rows in self._queries.referenced(reference, leaf, selected).items():
                state = self._relations[oid]
                grew |= bool(rows - state.reached.get(_SELECT, _NONE))
                state.reached[_SELECT] = state.reached.get(_SELECT, _NONE) | rows
        return grew

    def _drain(self) -> None:
        while self._queue:
            self._queue.popleft()()

    # -- propagation ----------------------------------------------------------------------------------------------------------

    def _reach(self, cohort: Cohort, oid: int, rows: RowAddresses, treatment: Treatment | None, only: tuple[str, ...], reason: str) -> None:
        verb = cohort.verb(treatment)
        if not rows or verb is None or verb is Verb.UNLINK:
            return
        state = self._relations[oid]
        root = self._catalogue.root(oid)
        if verb is Verb.DELETE:
            self._delete(cohort, oid, rows, reason)
            return
        if verb is Verb.DELETE_IF_ORPHANED:
            state.candidates |= rows  # whether it belongs to the person alone is not known yet
            return
        if verb is Verb.ANONYMISE and not self._selecting:
            if not only:
                state.soft |= rows  # with some columns only, the row still stands for another person
            self._anonymise(root, oid, rows, only, reason)
        elif verb is Verb.KEEP and not self._selecting:
            state.kept |= rows
            ground = treatment.ground if treatment else ""
            period = treatment.period if treatment else ""
            self._note(root, Verb.KEEP, f"{reason}; kept: {ground}, {period}", oid, rows)
        self._spread(cohort, oid, rows)

    def _spread(self, cohort: Cohort, oid: int, rows: RowAddresses) -> None:
        """Follow the links that lead to rows, once for each row and cohort."""
        state = self._relations[oid]
        new = rows - state.reached.get(cohort, _NONE)
        if new:
            state.reached[cohort] = state.reached.get(cohort, _NONE) | new
            self._queue.append(lambda: self._follow_links(cohort, oid, new))

    def _delete(self, cohort: Cohort, oid: int, rows: RowAddresses, reason: str) -> None:
        state = self._relations[oid]
        new = rows - state.deleted_by.get(cohort, _NONE)
        if not new:
            return
        state.deleted_by[cohort] = state.deleted_by.get(cohort, _NONE) | new
        if fresh := new - state.deleted:
            state.deleted |= fresh
            self._note(self._catalogue.root(oid), Verb.DELETE, reason, oid, fresh)
        self._spread(cohort, oid, new)
        self._queue.append(lambda: self._follow_deletion(cohort, oid, new))

    def _anonymise(self, root: Table, oid: int, rows: RowAddresses, only: tuple[str, ...], reason: str) -> None:
        rules = changes.rules(self._graph.tables.get(root.oid), only)
        if rules:
            self._change(oid, changes.anonymising(root, rules), rows)
            self._note(root, Verb.ANONYMISE, reason, oid, rows)

    def _change(self, oid: int, change: NamedChange, rows: RowAddresses) -> None:
        known = self._relations[oid].changes
        known[change] = known.get(change, _NONE) | rows

    def _note(self, root: Table, verb: Verb, reason: str, oid: int, rows: RowAddresses) -> None:
        noted = self._reasons[root.full_name, verb, reason]
        noted[oid] = noted[oid] | rows

    # -- along links ----------------------------------------------------------------------------------------------------------

    def _follow_links(self, cohort: Cohort, oid: int, rows: RowAddresses) -> None:
        parent = self._catalogue.tables[oid]
        for ancestor in self._catalogue.ancestors(oid):
            for link in self._links.get(ancestor, ()):
                treatment = link.treatment(anonymising=cohort.anonymising)
                if self._selecting:
                    if treatment and treatment.verb is Verb.UNLINK:
                        continue  # what a link to be unlinked leads to is another person's row
                    treatment = _STAY
                if cohort.verb(treatment) is not None:
                    self._arrive(cohort, link, treatment, self._queries.linked(link, parent, rows))

    def _arrive(self, cohort: Cohort, link: Link, treatment: Treatment | None, found: Leading) -> None:
        reason = f"belongs to {self._catalogue.root(link.parent).full_name} by {link.name}"
        for oid, rows in found.rows.items():
            if cohort.verb(treatment) is Verb.UNLINK:
                self._unlink(link, oid, rows, found.keys)
            else:
                self._reach(cohort, oid, rows, treatment, link.anonymises, reason)

    def _reach_by_key(self, cohort: Cohort, absent: Absent, *, deleted: bool) -> None:
        """Reach rows that name a row which is gone: only links without a foreign key can do so.

        With ``deleted`` this cohort deletes such rows, so what named them loses the key. Otherwise they are treated as if they were there:
        when the same person is erased by one tombstone and anonymised by another, a second look must see the same.
        """
        for link in self._links.get(absent.table, ()):
            treatment = link.treatment(anonymising=cohort.anonymising)
            if cohort.verb(treatment) is None or _guarded(link) or set(link.parent_columns) != set(absent.columns):
                continue  # part of a composite key names other people too
            found = self._queries.linked_to_absent(link, absent)
            self._arrive(cohort, link, treatment, found)
            if deleted and cohort.verb(treatment) is Verb.ANONYMISE:
                self._drop_key(link, found)

    def _drop_key(self, link: Link, found: Leading) -> None:
        """Take the key of a deleted row away, where that is possible: it is of no use to anybody."""
        if self._unlink_change(link).expressions:
            for oid, rows in found.rows.items():
                self._unlink(link, oid, rows, found.keys)

    def _unlink(self, link: Link, oid: int, rows: RowAddresses, keys: Iterable[str]) -> None:
        change = self._unlink_change(link)
        child = self._catalogue.root(oid)
        parent = self._catalogue.root(link.parent).full_name
        if not change.expressions:
            raise PlanConflictError(
                f"rows of {child.full_name} are to be unlinked from {parent}, and none of the columns of {link.name} can be null",
                "Use delete or anonymise for this link, or make a column nullable.",
            )
        if link.form is not LinkForm.COLUMNS:
            self._settings.setdefault(changes.setting(change), set()).update(keys)
        self._change(oid, change, rows)
        self._note(child, Verb.UNLINK, f"names {parent} by {link.name}", oid, rows)

    def _unlink_change(self, link: Link) -> NamedChange:
        if id(link) not in self._unlinking:
            self._unlinking[id(link)] = changes.unlinking(self._catalogue, link, self._numbers[id(link)])
        return self._unlinking[id(link)]

    # -- along foreign keys ---------------------------------------------------------------------------------------------------

    def _follow_deletion(self, cohort: Cohort, oid: int, rows: RowAddresses) -> None:
        parent = self._catalogue.tables[oid]
        for ancestor in self._catalogue.ancestors(oid):
            for link in self._links.get(ancestor, ()):
                if cohort.verb(link.treatment(anonymising=cohort.anonymising)) is Verb.ANONYMISE:
                    self._drop_key(link, self._queries.linked(link, parent, rows))
            for key in self._foreign_keys.get(ancestor, ()):
                if key.on_delete not in {OnDelete.NO_ACTION, OnDelete.RESTRICT}:
                    self._follow_key(cohort, key, parent, rows)

    def _loses_key(self, cohort: Cohort, link: Link) -> bool:
        """Whether the rows of a link stay and lose its key when their parent is deleted."""
        verb = cohort.verb(link.treatment(anonymising=cohort.anonymising))
        return link.form is LinkForm.COLUMNS and verb in {Verb.UNLINK, Verb.ANONYMISE} and bool(self._unlink_change(link).expressions)

    def _follow_key(self, cohort: Cohort, key: ForeignKey, parent: Table, rows: RowAddresses) -> None:
        # Live, changes are written before deletions: a row that has lost the key no longer follows the foreign key.
        spared = [link for link in self._links_along(key) if self._loses_key(cohort, link)]
        if any(not link.when for link in spared) or self._deletes_along(cohort, key):
            return
        children = self._queries.children(key, parent, rows)
        for link in spared:
            staying = self._queries.linked(link, parent, rows).rows
            children = {child: addresses - staying.get(child, _NONE) for child, addresses in children.items()}
        for child, addresses in children.items():
            if addresses:
                self._follow_action(cohort, key, child, addresses)

    def _deletes_along(self, cohort: Cohort, key: ForeignKey) -> bool:
        """Whether a link on the very columns deletes all rows that a foreign key leads to."""
        return any(
            not link.when and cohort.verb(link.treatment(anonymising=cohort.anonymising)) is Verb.DELETE for link in self._links_along(key)
        )

    def _links_along(self, key: ForeignKey) -> Iterator[Link]:
        """Yield the links on the very columns of a foreign key."""
        pairs = set(zip(key.columns, key.referenced_columns, strict=True))
        child = self._catalogue.root(key.table).oid
        for link in self._links.get(self._catalogue.root(key.references).oid, ()):
            if link.child == child and link.form is LinkForm.COLUMNS and set(zip(link.columns, link.parent_columns, strict=True)) == pairs:
                yield link

    def _follow_action(self, cohort: Cohort, key: ForeignKey, child: int, rows: RowAddresses) -> None:
        reference = f"references {self._catalogue.root(key.references).full_name} by {key.name}"
        if key.on_delete is OnDelete.CASCADE:
            self._delete(cohort, child, rows, f"{reference} (ON DELETE CASCADE)")
            return
        self._change(child, changes.following(key, self._catalogue.tables[child]), rows)
        self._note(self._catalogue.root(child), Verb.UNLINK, f"{reference} (ON DELETE {key.on_delete.name.replace('_', ' ')})", child, rows)

    # -- shared parents -------------------------------------------------------------------------------------------------------

    def _settle_orphans(self) -> bool:
        """Judge shared parents that lost a reference; return whether anything was added, so that the fixpoint goes on."""
        grew = False
        for node in self._graph.tables.values():
            if node.shared:
                grew |= self._settle_shared(node)
        return grew

    def _settle_shared(self, node: TableNode) -> bool:
        grew = False
        for oid, candidates in self._orphan_candidates(node).items():
            state = self._relations[oid]
            for chunk in (candidates - state.deleted).chunks(ORPHAN_CHUNK):
                shared: set[int] = set()
                soft: set[int] = set()
                for reference in self._references[node.table.oid]:
                    self._judge(reference, oid, chunk, shared, soft)
                alone = RowAddresses(packed for packed in chunk if packed not in shared)
                orphans = RowAddresses(packed for packed in alone if packed not in soft)
                softened = alone - orphans - state.soft
                grew |= bool(orphans or softened)
                self._delete(_ORPHANS, oid, orphans, "no remaining row references it")
                state.soft |= softened
                self._anonymise(node.table, oid, softened, (), "referenced by anonymised rows only")
        return grew

    def _orphan_candidates(self, node: TableNode) -> dict[int, RowAddresses]:
        found = {leaf.oid: self._relations[leaf.oid].candidates for leaf in self._catalogue.leaves(node.table.oid)}
        for reference in self._references[node.table.oid]:
            for leaf in self._catalogue.leaves(reference.child):
                state = self._relations[leaf.oid]
                gone = state.deleted | state.nulled(reference.columns) | state.soft
                if gone:
                    for oid, rows in self._queries.referenced(reference, leaf, gone).items():
                        found[oid] = found.get(oid, _NONE) | rows
        return {oid: rows for oid, rows in found.items() if rows}

    def _judge(self, reference: Reference, oid: int, chunk: RowAddresses, shared: set[int], soft: set[int]) -> None:
        """Tell which of the shared parents a remaining row references, and which an anonymised one."""
        lost: dict[int, RowAddresses] = {}
        for parent, child, packed in self._queries.referencing(reference, self._catalogue.tables[oid], chunk):
            state = self._relations[child]
            if child not in lost:
                lost[child] = state.deleted | state.nulled(reference.columns)
            if packed in lost[child] or (child == oid and packed == parent):
                continue  # a row does not keep itself
            (soft if packed in state.soft else shared).add(parent)

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
            grouped = tuple(group_changes(table, state.changes, state.deleted))
            reached = union(state.reached.values())
            if state.deleted or grouped or reached:
                tables[oid] = TableEffect(table, state.deleted, grouped, reached)
        return Effects(tables, {name: array_literal(sorted(keys)) for name, keys in self._settings.items()}, self._planned())

    def _planned(self) -> tuple[PlannedEffect, ...]:
        planned = []
        for (table, verb, reason), relations in self._reasons.items():
            count = 0
            for oid, rows in relations.items():
                count += (rows if verb is Verb.DELETE else rows - self._relations[oid].deleted).count
            if count:
                planned.append(PlannedEffect(table, verb, reason, count))
        return tuple(planned)

    def conflicts(self) -> Conflicts:
        """Return what looks for conflicts in the outcome."""
        return Conflicts(self._catalogue, self._queries, self._relations, self._foreign_keys, self._deletes_along)

    def traces(self) -> list[Trace]:
        """Return the keys of deleted rows by which rows without a foreign key could still name them."""
        found = []
        for oid, state in self._relations.items():
            table = self._catalogue.tables[oid]
            for ancestor in self._catalogue.ancestors(oid):
                parent = self._catalogue.tables[ancestor]
                wanted = {link.parent_columns for link in self._links.get(ancestor, ()) if not _guarded(link)}
                for columns in sorted(wanted):
                    types = tuple(parent.by_name[name].type for name in columns)
                    for cohort, rows in state.deleted_by.items():
                        if pieces := self._queries.keys(table, columns, rows):
                            found.append(Trace(cohort, Absent(ancestor, columns, types, pieces)))
        return found


_NONE = RowAddresses()
_STAY = Treatment(verb=Verb.KEEP, ground="selection", period="P1D", then=Verb.DELETE)
_SELECT = Cohort(Action.ERASE, frozenset({"selection"}))
_ORPHANS = Cohort(Action.ERASE, frozenset({"orphans"}))


def resolve(
    session: Session, graph: Graph, seeds: Iterable[Seed], *, traces: Iterable[Trace] = (), check_conflicts: bool = True
) -> Effects:
    """Return what becomes of every row that the seeds lead to.

    Args:
        session: on a live database inside a REPEATABLE READ transaction, or on a paused quarantine.
        graph: the data map resolved against this database's catalogue.
        seeds: the people, see :func:`obhut.erasure.subjects.find`.
        traces: keys of rows deleted before, see :func:`traces`.
        check_conflicts: refuse when rows that stay would reference rows that go (the server would refuse at the DELETE anyway).

    Raises:
        PlanConflictError: a row would be both kept and deleted, a row cannot be unlinked, or a foreign key forbids a deletion.
    """
    return _resolve(session, graph, seeds, traces, check_conflicts=check_conflicts)[0]


def traces(
    session: Session, graph: Graph, seeds: Iterable[Seed], known: Iterable[Trace], *, check_conflicts: bool = False
) -> tuple[Effects, list[Trace]]:
    """Return the effects as :func:`resolve` does, and the keys by which rows could still name what will be deleted.

    Raises:
        PlanConflictError: as :func:`resolve`.
    """
    effects, closure = _resolve(session, graph, seeds, known, check_conflicts=check_conflicts)
    return effects, closure.traces()


def _resolve(
    session: Session, graph: Graph, seeds: Iterable[Seed], traces: Iterable[Trace], *, check_conflicts: bool
) -> tuple[Effects, Closure]:
    closure = Closure(session, graph)
    effects = closure.run(seeds, traces)
    if check_conflicts and (found := next(closure.conflicts().found(effects), None)):
        raise PlanConflictError(*found)
    return effects, closure


def select_rows(session: Session, graph: Graph, rows: Mapping[int, RowAddresses]) -> dict[int, RowAddresses]:
    """Return all rows, by relation, that belong to the given rows by the links of the map (one controller's, one person's)."""
    return Closure(session, graph).select(rows)


def _guarded(link: Link) -> bool:
    """Whether a foreign key makes sure that the link never names a row that is not there."""
    return link.foreign_key is not None and link.foreign_key.validated and link.foreign_key.enforced
