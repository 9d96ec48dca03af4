"""From changes to entries: whose they are, sealed under the keys of those people, into the logs of their controllers.

Plain values live in this module's local variables and nowhere else. An erased person's values are dropped before they are encoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from obhut.auditlog import entries
from obhut.auditlog.capture.intake import Row, Transaction
from obhut.auditlog.capture.messages import Acting
from obhut.auditlog.capture.owners import Claim, Key, Owner, Owners, Record
from obhut.auditlog.capture.parts import Images, images, parts
from obhut.auditlog.capture.pgoutput import Operation, Relation, Values
from obhut.auditlog.entries import Entry, Fact, Part, Position, Sealed
from obhut.controllers.vocabulary import SubjectRef
from obhut.datamap.graph import Graph, TableNode
from obhut.foundation.lsn import lsn_text
from obhut.keystore.sealing import Key as SubjectKey
from obhut.keystore.sealing import seal
from obhut.keystore.subjects import Erased, Held, controller_ref
from obhut.keystore.wrapping import STAFF

_NEVER: Final = bytes(entries.KEY_ID)  # stands for the key of a person who was erased before there was one
_SALT: Final = 16


class Keys(Protocol):
    """Where keys come from (:class:`obhut.keystore.subjects.Keyring`)."""

    def keys(self, wanted: Mapping[str, Iterable[SubjectRef]]) -> dict[str, dict[SubjectRef, Held]]:
        """Return the keys of subjects by controller."""

    def begin(self, controller: str, ref: SubjectRef, committed_at: datetime) -> Held:
        """Give an erased subject that registers again a new life."""


@dataclass(frozen=True, slots=True)
class Server:
    """Who sends the stream; ``history`` holds the ends of timelines before this one."""

    system: str
    timeline: int
    history: Sequence[tuple[int, int]] = ()

    def position(self, transaction: Transaction, ordinal: int) -> Position:
        """Return the place of a change."""
        return self.at(transaction.commit, ordinal)

    def at(self, commit: int, ordinal: int) -> Position:
        """Return a place by the commit's position; changes before a fork belong to the timeline on which they were written."""
        timeline = self.timeline
        for former, end in self.history:
            if commit < end:
                timeline = former
                break
        return Position(self.system, timeline, lsn_text(commit), ordinal)


@dataclass(slots=True)
class Batch:
    """Entries by controller, ready to be appended; ``unassigned`` counts changes without a known controller by table."""

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    unassigned: dict[str, int] = field(default_factory=dict)
    changes: int = 0

    def add(self, controller: str, entry: Entry) -> None:
        """Append an entry to one controller's."""
        self.entries.setdefault(controller, []).append(entry)


@dataclass(slots=True)
class _Job:
    """One change of one controller: what is to be sealed under whose key."""

    controller: str
    row: Row
    table: str
    sealed: dict[SubjectRef, dict[str, Any]]
    born: SubjectRef | None = None  # the person whose own row is inserted


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
        self.controllers = controllers
        self.vendor = vendor
        self._sealed_accounts = frozenset(sealed_accounts)
        self._nodes: dict[int, TableNode | None] = {}
        self._layouts: dict[int, tuple[Relation, list[tuple[int, str]]]] = {}  # by identity: hashing a relation costs more than its use
        self._facts: dict[Acting, Fact] = {}
        self.roots = {**(former or {}), **{oid: graph.catalogue.root(oid).full_name for oid in graph.catalogue.tables}}

    def node(self, oid: int) -> TableNode | None:
        """Return the map's rule for a relation or its partitioned root; None where the map has none, or calls it not personal."""
        if oid not in self._nodes:
            root = self.graph.catalogue.find(self.roots[oid]) if oid in self.roots else None
            node = self.graph.tables.get(root.oid) if root else None
            self._nodes[oid] = node if node and node.rule.personal else None
        return self._nodes[oid]

    def batch(self, rows: Sequence[Row], server: Server, keys: Keys) -> Batch:
        """Return the entries of changes, sealed."""
        made = Batch()
        jobs = self._jobs(rows, made)
        held = keys.keys(self._wanted(jobs))
        for job in jobs:
            made.add(job.controller, self._entry(job, server, held[job.controller], keys))
        return made

    # -- whose ----------------------------------------------------------------------------------------------------------------

    def _jobs(self, rows: Sequence[Row], made: Batch) -> list[_Job]:
        asked: list[tuple[int, Record]] = []
        places: list[tuple[Row, TableNode | None, int, int]] = []  # row, table, number of the old and of the new record
        for row in rows:
            node = self.node(row.change.relation.oid)
            if node is not None:
                places.append((row, node, *self._ask(row, node, asked)))
            elif row.change.relation.oid not in self.roots:
                places.append((row, None, -1, -1))
        made.changes = len(places)
        resolved = self.owners.resolve(asked)
        jobs: list[_Job] = []
        for row, node, before, after in places:
            if node is None:
                jobs.append(self._unknown(row, row.change.relation.full_name, (), made))
                continue
            old = resolved[before] if before >= 0 else ()
            new = resolved[after] if after >= 0 else ()
            jobs.extend(self._of(row, node, old, new, made))
        return jobs

    def _ask(self, row: Row, node: TableNode, asked: list[tuple[int, Record]]) -> tuple[int, int]:
        change, oid = row.change, node.table.oid
        layout = self._layout(change.relation, oid)
        before = after = -1
        old = _record(layout, change.old) if change.old is not None and not change.partial else None
        new = _record(layout, change.new) if change.new is not None else None
        if new is not None:
            after = len(asked)
            asked.append((oid, new))
        if old is not None and old != new:
            before = len(asked)
            asked.append((oid, old))
        elif new is None and change.old is not None:
            before = len(asked)
            asked.append((oid, old if old is not None else _record(layout, change.old)))
        return before, after

    def _layout(self, relation: Relation, table: int) -> list[tuple[int, str]]:
        found = self._layouts.get(id(relation))
        if found is None or found[0] is not relation:
            needed = set(self.owners.columns(table))
            layout = [(number, column.name) for number, column in enumerate(relation.columns) if column.name in needed]
            found = self._layouts[id(relation)] = relation, layout
        return found[1]

    def _of(self, row: Row, node: TableNode, old: tuple[Claim, ...] | None, new: tuple[Claim, ...] | None, made: Batch) -> Iterable[_Job]:
        table, key = node.table.full_name, node.table.primary_key
        if old is None or new is None:
            return [self._unknown(row, table, key, made)]
        shown = images(row.change, key)
        if not (old or new):  # a row that is about nobody, such as one whose links are all null
            return [_Job(self.vendor, row, table, {controller_ref(row.transaction.at): shown.members()})]
        if old and new and old != new:
            whose = _merged(
                parts(node, old, Images(shown.key, shown.old, {}, shown.unchanged)), parts(node, new, Images(shown.key, {}, shown.new))
            )
        else:
            whose = parts(node, new or old, shown)
        return self._shared_out(row, node, table, whose, made)

    def _unknown(self, row: Row, table: str, key: Sequence[str], made: Batch) -> _Job:
        made.unassigned[table] = made.unassigned.get(table, 0) + 1
        return _Job(self.vendor, row, table, {controller_ref(row.transaction.at): images(row.change, key).members()})

    def _shared_out(self, row: Row, node: TableNode, table: str, whose: Mapping[Owner, dict[str, Any]], made: Batch) -> Iterable[_Job]:
        jobs: dict[str, _Job] = {}
        for owner, members in whose.items():
            controller = self.controllers.get(owner.controller)
            if controller is None:
                made.unassigned[table] = made.unassigned.get(table, 0) + 1
                controller = self.vendor
            job = jobs.setdefault(controller, _Job(controller, row, table, {}))
            ref = SubjectRef(owner.kind, owner.key)
            job.sealed[ref] = members
            if row.change.operation is Operation.INSERT and self._own(node, owner):
                job.born = ref
        return jobs.values()

    def _own(self, node: TableNode, owner: Owner) -> bool:
        subject = self.graph.subjects.get(owner.kind)
        return subject is not None and subject.table == node.table.oid

    # -- sealed ---------------------------------------------------------------------------------------------------------------

    def _wanted(self, jobs: Sequence[_Job]) -> dict[str, set[SubjectRef]]:
        wanted: dict[str, set[SubjectRef]] = {}
        for job in jobs:
            refs = wanted.setdefault(job.controller, set())
            refs.update(job.sealed)
            if job.row.acting is not None and self._named(job.row.acting):
                refs.add(SubjectRef(STAFF, (job.row.acting.who,)))
        return wanted

    def _entry(self, job: _Job, server: Server, held: Mapping[SubjectRef, Held], keys: Keys) -> Entry:
        row = job.row
        position = server.position(row.transaction, row.ordinal)
        operation = row.change.operation.value

        def sealed(part: Part, ref: SubjectRef, members: Mapping[str, object]) -> Sealed:
            key = held[ref]
            if isinstance(key, Erased) and ref == job.born:
                key = keys.begin(job.controller, ref, row.transaction.at)
            if isinstance(key, Erased):
                return Sealed(part=part.value, key=key.id or _NEVER, dropped="erased")
            bound = entries.binding(job.controller, self.database, job.table, operation, position, part.value)
            return _sealed(part, key, members, bound)

        made = [sealed(Part.ROW, ref, members) for ref, members in job.sealed.items()]
        if row.acting is not None and self._named(row.acting):
            made.append(sealed(Part.ACTOR, SubjectRef(STAFF, (row.acting.who,)), row.acting.claim()))
        return entries.change(
            at=row.transaction.at,
            position=position,
            database=self.database,
            table=job.table,
            operation=operation,
            sealed=made,
            fact=self.fact(row.acting),
        )

    def _named(self, acting: Acting) -> bool:
        """Whether more is known than stands in clear: a claim, an address, or the account of a single person."""
        return bool(acting.actor or acting.client or acting.reason or acting.request or acting.role) or (
            acting.session_user in self._sealed_accounts
        )

    def fact(self, acting: Acting | None) -> Fact | None:
        """Return what stands in clear about a session; None where the transaction told nothing."""
        if acting is None:
            return None
        found = self._facts.get(acting)
        if found is None:
            if len(self._facts) > 10_000:  # a request id in each claim: what is remembered must not grow for ever
                self._facts.clear()
            shown = "" if acting.session_user in self._sealed_accounts else acting.session_user
            found = self._facts[acting] = Fact(session_user=shown, application=acting.application)
        return found


def _sealed(part: Part, key: SubjectKey, members: Mapping[str, object], bound: bytes) -> Sealed:
    plaintext = entries.plain(os.urandom(_SALT), members)
    return Sealed(
        part=part.value, key=key.id, commitment=key.commitment, digest=entries.digest(plaintext), data=seal(key, plaintext, bound)
    )


def _record(layout: Sequence[tuple[int, str]], values: Values) -> dict[str, str | None]:
    """Return the columns that tell whose a row is; what was not sent is as good as null."""
    found: dict[str, str | None] = {}
    for number, name in layout:
        value = values[number]
        found[name] = value.decode("utf-8", "backslashreplace") if type(value) is bytes else None
    return found


def _merged(old: dict[Owner, dict[str, Any]], new: dict[Owner, dict[str, Any]]) -> dict[Owner, dict[str, Any]]:
    """Return the parts of a row that went from some people to others: each sees its own side."""
    found = {owner: dict(members) for owner, members in old.items()}
    for owner, members in new.items():
        mine = found.setdefault(owner, {})
        for name, value in members.items():
            mine[name] = [*mine[name], *value] if isinstance(value, list) and name in mine else value
    return found
