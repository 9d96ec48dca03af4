"""From changes to entries: whose they are, sealed under the keys of those people, into the logs of their controllers.

Plain values live in this module's local variables and nowhere else; what forms and owners remember are keys of rows and of people. An
erased person's values are dropped before they are encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from obhut.auditlog import entries
from obhut.auditlog.capture.forms import PEOPLE, Form, Whose
from obhut.auditlog.capture.intake import Row
from obhut.auditlog.capture.messages import Acting
from obhut.auditlog.capture.owners import Claim, Key, Owner, Owners, Shown
from obhut.auditlog.capture.parts import Images, images, parts
from obhut.auditlog.capture.pgoutput import Change, Operation, Relation
from obhut.auditlog.capture.seals import Keys, Places, Seals, Server
from obhut.auditlog.capture.sessions import Sessions
from obhut.auditlog.capture.standing import Standing
from obhut.auditlog.entries import Entry, Fact, Part
from obhut.controllers.vocabulary import SubjectRef
from obhut.datamap.graph import Graph, TableNode
from obhut.keystore.subjects import controller_ref
from obhut.keystore.wrapping import STAFF

_WORDS: Final = {operation: operation.value for operation in Operation}
_INSERT: Final = Operation.INSERT
_ROW: Final = Part.ROW.value
_ACTOR: Final = Part.ACTOR.value


@dataclass(slots=True)
class Batch:
    """Entries by controller, ready to be appended; ``unassigned`` counts changes without a known controller by table."""

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    unassigned: dict[str, int] = field(default_factory=dict)
    changes: int = 0

    def add(self, controller: str, entry: Entry) -> None:
        """Append an entry to one controller's."""
        self.entries.setdefault(controller, []).append(entry)


class _Job(msgspec.Struct, gc=False, eq=False):
    """One change of one controller: what is to be sealed under whose key."""

    controller: str
    row: Row
    table: str
    sealed: dict[Whose, dict[str, Any]]
    born: Whose | None = None  # the person whose own row is inserted


class Writer:
    """Makes entries of the changes of one database.

    Args:
        database: name in the settings.
        graph: the data map resolved against the database.
        owners: resolves whose rows they are.
        controllers: id by the controller's key.
        vendor: name of the log for what has no known controller.
        sealed_accounts: database accounts whose names are sealed.
        former: name of the partitioned root by relation, of relations that were there once: a dropped partition's rows may still come.
    """

    def __init__(
        self,
        database: str,
        graph: Graph,
        owners: Owners,
        controllers: Mapping[Key, str],
        vendor: str,
        sealed_accounts: Iterable[str] = (),
        former: Mapping[int, str] | None = None,
    ) -> None:
        self.database = database
        self.graph = graph
        self.owners = owners
        self._controllers = controllers
        self.vendor = vendor
        self._sessions = Sessions(sealed_accounts)
        self._nodes: dict[int, TableNode | None] = {}
        self._forms: dict[int, tuple[Relation, Form | None]] = {}  # by identity
        self._people: dict[tuple[str, SubjectRef], Whose] = {}
        self._standing = Standing()
        self.roots = {**(former or {}), **{oid: graph.catalogue.root(oid).full_name for oid in graph.catalogue.tables}}

    @property
    def controllers(self) -> Mapping[Key, str]:
        """Id by the controller's key."""
        return self._controllers

    @controllers.setter
    def controllers(self, controllers: Mapping[Key, str]) -> None:
        self._controllers = controllers
        self._forget_people()

    def node(self, oid: int) -> TableNode | None:
        """Return the map's rule for a relation or its partitioned root; None where the map has none, or calls it not personal."""
        if oid not in self._nodes:
            root = self.graph.catalogue.find(self.roots[oid]) if oid in self.roots else None
            node = self.graph.tables.get(root.oid) if root else None
            self._nodes[oid] = node if node and node.rule.personal else None
        return self._nodes[oid]

    def batch(self, rows: Sequence[Row], server: Server, keys: Keys) -> Batch:
        """Return the entries of changes, sealed."""
        seen = (len(form.seen) for _, form in self._forms.values() if form is not None)
        if max(len(self._people), len(self._standing), *seen) > PEOPLE:
            self._forget_people()
        made = Batch()
        jobs = self._jobs(rows, made)
        self._seal(jobs, Places(server), Seals(self._everybody(jobs), keys), made)
        return made

    # -- whose ----------------------------------------------------------------------------------------------------------------

    def _jobs(self, rows: Sequence[Row], made: Batch) -> list[_Job]:
        shown: list[Shown] = []
        places: list[tuple[Row, Form | None, Whose | None, int, int]] = []  # person, or number of the old and of the new record
        for row in rows:
            form = self._form(row.change.relation)
            if form is not None:
                whose = self._at_once(form, row.change, shown)
                places.append((row, form, whose, -1, -1) if whose else (row, form, None, *_ask(row.change, form, shown)))
            elif row.change.relation.oid not in self.roots:
                places.append((row, None, None, -1, -1))
        made.changes = len(places)
        resolved = self.owners.resolve(shown) if shown else []
        jobs: list[_Job] = []
        for row, form, whose, before, after in places:
            if form is None:
                jobs.append(self._unknown(row, row.change.relation.full_name, (), made))
            elif whose is not None:
                born = whose if form.alone and row.change.operation is _INSERT else None
                jobs.append(_Job(whose.controller, row, form.table, {whose: images(row.change, form.key).members()}, born))
            else:
                old = resolved[before] if before >= 0 else ()
                new = resolved[after] if after >= 0 else ()
                jobs.extend(self._of(row, form, old, new, made))
        return jobs

    def _form(self, relation: Relation) -> Form | None:
        """Return what is known of a relation; None where the map has no rule for it, or calls it not personal."""
        found = self._forms.get(id(relation))  # hashing a relation costs more than its use
        if found is None or found[0] is not relation:
            node = self.node(relation.oid)
            found = self._forms[id(relation)] = relation, Form(relation, node, self.owners) if node else None
        return found[1]

    def _at_once(self, form: Form, change: Change, shown: list[Shown]) -> Whose | None:
        """Return the one person of a row that needs no other rows, or only one that the stream has shown; None for every other row."""
        if not form.alone:
            return self._standing.of(form, change)
        whose = self._known(form, change, shown)
        if form.person is not None:
            self._standing.note(form, change, whose)
        return whose

    def _known(self, form: Form, change: Change, shown: list[Shown]) -> Whose | None:
        """Return the one person whom a row names by itself, in the log of a known controller; None for every other row."""
        raw = form.raw(change)
        if raw is None:
            return None
        found = form.seen.get(raw)
        if found is None:
            record = form.record(change.new if change.new is not None else change.old or [])
            claims = self.owners.claims(form.oid, record)
            if claims is None or len(claims) != 1:
                return None
            owner = claims[0].owner
            controller = self._controllers.get(owner.controller)
            if controller is None:
                return None
            found = form.seen[raw] = self._person(controller, SubjectRef(owner.kind, owner.key)), record
        if form.named:
            shown.append((form.oid, found[1], False))
        return found[0]

    def _person(self, controller: str, ref: SubjectRef) -> Whose:
        found = self._people.get((controller, ref))
        if found is None:
            found = self._people[controller, ref] = Whose(controller, ref)
        return found

    def _forget_people(self) -> None:
        self._people.clear()
        self._standing.clear()
        self._forms.clear()

    def _of(self, row: Row, form: Form, old: tuple[Claim, ...] | None, new: tuple[Claim, ...] | None, made: Batch) -> Iterable[_Job]:
        node = form.node
        if old is None or new is None:
            return [self._unknown(row, form.table, form.key, made)]
        shown = images(row.change, form.key)
        if not (old or new):  # a row that is about nobody, such as one whose links are all null
            return [_Job(self.vendor, row, form.table, {self._vendors(row): shown.members()})]
        if old and new and old != new:
            whose = _merged(
                parts(node, old, Images(shown.key, shown.old, {}, shown.unchanged)), parts(node, new, Images(shown.key, {}, shown.new))
            )
        else:
            whose = parts(node, new or old, shown)
        return self._shared_out(row, form, whose, made)

    def _unknown(self, row: Row, table: str, key: Sequence[str], made: Batch) -> _Job:
        made.unassigned[table] = made.unassigned.get(table, 0) + 1
        return _Job(self.vendor, row, table, {self._vendors(row): images(row.change, key).members()})

    def _vendors(self, row: Row) -> Whose:
        return self._person(self.vendor, controller_ref(row.transaction.at))

    def _shared_out(self, row: Row, form: Form, whose: Mapping[Owner, dict[str, Any]], made: Batch) -> Iterable[_Job]:
        jobs: dict[str, _Job] = {}
        for owner, members in whose.items():
            controller = self._controllers.get(owner.controller)
            if controller is None:
                made.unassigned[form.table] = made.unassigned.get(form.table, 0) + 1
                controller = self.vendor
            job = jobs.get(controller)
            if job is None:
                job = jobs[controller] = _Job(controller, row, form.table, {})
            person = self._person(controller, SubjectRef(owner.kind, owner.key))
            job.sealed[person] = members
            if row.change.operation is _INSERT and self._own(form.node, owner):
                job.born = person
        return jobs.values()

    def _own(self, node: TableNode, owner: Owner) -> bool:
        subject = self.graph.subjects.get(owner.kind)
        return subject is not None and subject.table == node.table.oid

    # -- sealed ---------------------------------------------------------------------------------------------------------------

    def _actor(self, job: _Job) -> Whose | None:
        """Return under whose key it is sealed who acted; None where nothing is known that does not stand in clear."""
        acting = job.row.acting
        if acting is None or not self._sessions.named(acting):
            return None
        return self._person(job.controller, SubjectRef(STAFF, (acting.who,)))

    def _everybody(self, jobs: Sequence[_Job]) -> Iterable[Whose]:
        found: dict[Whose, None] = {}
        for job in jobs:
            for whose in job.sealed:
                found[whose] = None
            if job.row.acting is not None and (actor := self._actor(job)):
                found[actor] = None
        return found

    def _seal(self, jobs: Sequence[_Job], places: Places, seals: Seals, made: Batch) -> None:
        database, of = self.database, made.entries
        for job in jobs:
            row, controller, table = job.row, job.controller, job.table
            position = places.of(row.transaction, row.ordinal)
            operation = _WORDS[row.change.operation]
            bound = partial(entries.binding, controller, database, table, operation, position)
            born, at = job.born, row.transaction.at
            sealed = [seals.part(_ROW, whose, members, bound, at if whose is born else None) for whose, members in job.sealed.items()]
            if row.acting is not None and (actor := self._actor(job)):
                sealed.append(seals.part(_ACTOR, actor, row.acting.claim(), bound))
            entry = entries.change(
                at=at, position=position, database=database, table=table, operation=operation, sealed=sealed,
                fact=self.fact(row.acting),
            )  # fmt: skip
            if controller in of:
                of[controller].append(entry)
            else:
                of[controller] = [entry]

    def fact(self, acting: Acting | None) -> Fact | None:
        """Return what stands in clear about a session; None where the transaction told nothing."""
        return None if acting is None else self._sessions.fact(acting)


def _ask(change: Change, form: Form, shown: list[Shown]) -> tuple[int, int]:
    """Ask for the people of a row before and after; returns the numbers of both questions, -1 for none."""
    old = form.record(change.old) if change.old is not None and not change.partial else None
    new = form.record(change.new) if change.new is not None else None
    if new is None and change.old is not None and old is None:
        old = form.record(change.old)  # the key's columns are all that is left of it
    before = after = -1
    if old is not None and old != new:
        before = len(shown)
        shown.append((form.oid, old, True))
    if new is not None:
        after = len(shown)
        shown.append((form.oid, new, True))
    return before, after


def _merged(old: dict[Owner, dict[str, Any]], new: dict[Owner, dict[str, Any]]) -> dict[Owner, dict[str, Any]]:
    """Return the parts of a row that went from some people to others: each sees its own side."""
    found = {owner: dict(members) for owner, members in old.items()}
    for owner, members in new.items():
        mine = found.setdefault(owner, {})
        for name, value in members.items():
            mine[name] = [*mine[name], *value] if isinstance(value, list) and name in mine else value
    return found
