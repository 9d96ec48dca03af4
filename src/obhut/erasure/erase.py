"""Erase people, on a controller's instruction: the one use case behind command line, jobs, retention and drills.

Order, and why it survives a crash at any instant: the tombstone is durable in the erasure list, its mirror and its anchor before the first
row goes, so a crash can only hide too much, never resurrect. The rows go in one transaction; where the map is a plain tree they are
deleted while the tombstones are being written, and committed only when those are durable. Only when a look from outside finds nothing
left is the tombstone marked effective; until then the erasure is "recorded", and :mod:`obhut.erasure.finish` carries it to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from obhut.controllers import gate, register
from obhut.controllers.gate import Permission
from obhut.controllers.vocabulary import Action as Permitted
from obhut.controllers.vocabulary import SubjectRef
from obhut.datamap.archive import archive
from obhut.datamap.check import examine, require_clean
from obhut.datamap.graph import Graph
from obhut.datamap.load import load
from obhut.datamap.models import DatabaseMap
from obhut.erasure import known, ledger, reading, views
from obhut.erasure.closure import Seed, resolve
from obhut.erasure.entries import Action, NewTombstone, State, Tombstone
from obhut.erasure.execute import Executed, execute
from obhut.erasure.plan import Calendar, Cohort, ErasurePlan, PlannedEffect, cohort_of, keep_periods
from obhut.erasure.refusals import ErasureIncompleteError, SubjectMissingError, SupersededError, explained
from obhut.erasure.short import UNKNOWN, ShortWay, ShortWays, UsualWayError, executed_directly, forbidden
from obhut.erasure.shred import Shredder
from obhut.erasure.subjects import Found, Person, find, lookup
from obhut.erasure.verify import Answer, Verification, verify
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.ids import InstructionId, Lsn, RunId, TombstoneId, new_id
from obhut.foundation.settings import Settings
from obhut.keystore.destruction import Destroyed
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError, SerializationError

MAPS = "maps"  # archive of map versions, in the state directory
LOCK_TIMEOUT = "10s"
_SCHEMA_STAMP = """
SELECT (SELECT md5(string_agg(oid || ':' || xmin, ',' ORDER BY oid)) FROM pg_class WHERE relkind IN ('r', 'p', 'f') AND oid >= 16384),
       (SELECT md5(string_agg(oid::text, ',' ORDER BY oid)) FROM pg_class WHERE relkind = 'm'),
       (SELECT md5(string_agg(oid || ':' || xmin, ',' ORDER BY oid)) FROM pg_constraint WHERE conrelid >= 16384)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one erasure came to.

    Attributes:
        run: id under which the effect is recorded.
        tombstones: numbers in the erasure list.
        people: rows of people found in the database.
        already: people whose tombstone was effective before.
        large_objects: large objects unlinked.
        keys: what became of the people's keys in the audit log; None where there are none.
    """

    run: RunId
    tombstones: tuple[int, ...]
    people: int
    already: int
    deleted: int
    changed: int
    lsn: Lsn | None
    plan: ErasurePlan | None
    verification: Verification | None
    large_objects: int = 0
    keys: Destroyed | None = None


class Eraser:
    """Erases people from one protected database; opened once, used for many erasures.

    Reads the catalogue once and notices when the schema changes, so that a single erasure costs a handful of statements.
    """

    def __init__(self, settings: Settings, database: str, *, session: Session | None = None) -> None:
        self.database = database
        self._settings = settings
        self.rules: DatabaseMap = load(settings.database(database).map).database(database)
        self.session = session or Session.connect(
            settings.database(database).url, application_name="obhut erase", settings={"lock_timeout": LOCK_TIMEOUT, "jit": "off"}
        )
        self._stamp: object = None
        self._graph: Graph | None = None
        self._periods: frozenset[str] = frozenset()
        ledger.open_ledger(settings)
        self.mac_key = ledger.fingerprint_key()
        self._archived = False
        self._current = False  # whether this is the server that the last restore opened; a session never changes its server
        self._confirmed: Clock | None = None  # the clock of the last confirmation that the mirror may lack
        self._owners: dict[tuple[str, ...], str] = {}
        self._short = ShortWays(self.session)
        self._shredder = Shredder(settings)

    def __enter__(self) -> Self:
        """Return the eraser; leaving the block closes its session."""
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """Close the session, and bring the mirror up to what was confirmed meanwhile; a failure is not covered by another."""
        self._short.close()
        self._shredder.close()
        self.session.close()
        if self._confirmed is not None and failure is None:
            ledger.settle(self._confirmed)

    def change_thread(self) -> None:
        """Let go of what belongs to the thread that used the eraser last; another one may use it then."""
        self._shredder.close()

    def will_settle(self, clock: Clock) -> None:
        """Bring the mirror up to the list at the end, though nothing is confirmed here: a crash may have left what it lacks."""
        self._confirmed = clock

    @property
    def graph(self) -> Graph:
        """The data map resolved against the schema as it was when it was last looked at; see :meth:`checked`."""
        return self._graph or self.checked()

    def checked(self) -> Graph:
        """Return the data map resolved against the schema as it is now; one cheap query when nothing has changed.

        Raises:
            DataMapError: the map does not fit: it names what is not there, does not know a table or column, or asks what cannot be.
            SupersededError: a restore has opened another server in the place of this one.
        """
        self._refuse_superseded()
        stamp = self.session.row(_SCHEMA_STAMP)
        if self._graph is None or stamp != self._stamp:
            graph, findings = examine(self.rules, self.database, read_catalogue(self.session))
            require_clean(findings)
            if graph is None:
                raise AssertionError("a graph is missing only with errors")
            self._graph, self._stamp, self._periods = graph, stamp, keep_periods(graph)
            self._short.forget()
        return self._graph

    def _refuse_superseded(self) -> None:
        """An erasure on the server that a restore has replaced would count as done while the person lives on in the restored one."""
        if self._current:
            return
        opened = known.opened_system(self.database)
        if opened is not None and opened != str(self.session.value("SELECT system_identifier FROM pg_control_system()")):
            raise SupersededError(
                f"the URL of database {self.database} leads to another server than the last restore opened",
                'Point the URL in obhut.toml at the restored server; "obhut restore show" names it.',
            )
        self._current = True

    def plan(self, kind: str, keys: Sequence[Sequence[str]], action: Action, clock: Clock) -> ErasurePlan:
        """Return what an erasure would do, with reasons and row counts; changes nothing and asks no permission.

        Raises:
            SubjectMissingError: one of the people is not in the database.
            PlanConflictError: the data map forbids what would happen.
        """
        graph = self.checked()
        with self.session.transaction("repeatable read", read_only=True):
            people = self._people(kind, keys)
            tombstones = [self._imagined(kind, person, action, clock) for person in people]
            found = find(self.session, graph, [tombstones], self.mac_key, clock.now())
            effects = resolve(self.session, graph, found.seeds)
        return ErasurePlan(self.database, kind, action, len(keys), found.people, effects.planned, graph.version)

    def erase(
        self,
        kind: str,
        keys: Sequence[Sequence[str]],
        action: Action,
        actor: Actor,
        clock: Clock,
        *,
        allow_missing: bool = False,
        permitted: Permitted | None = None,
    ) -> Outcome:
        """Erase or anonymise people on the instruction of their controllers.

        Args:
            kind: subject kind of the data map.
            keys: columns of the subject's primary key as text, in the map's order.
            action: erase or anonymise.
            actor: who asks.
            clock: tells when.
            allow_missing: leave out people who are not in the database instead of refusing.
            permitted: action to ask the gate for; that of the erasure by default.

        Raises:
            NotInstructedError: a controller has not instructed it; nothing was done.
            SubjectMissingError: a person is not in the database and was never erased; nothing was done.
            ErasureIncompleteError: rows remain; the tombstones stay recorded, so no restore brings the person back.
        """
        self.will_settle(clock)
        run = RunId(new_id("run"))
        wanted = list(dict.fromkeys(tuple(key) for key in keys))
        graph = self.checked()
        asked = permitted or (Permitted.ERASE if action is Action.ERASE else Permitted.ANONYMISE)
        together = self._together(kind, wanted, action, lambda people: self.permit(kind, people, asked, actor, clock, run), clock)
        if together is not None:
            tombstones, executed = together
            executed, verification = self.look_again(tombstones, executed, clock)
            return self.conclude(run, kind, action, tombstones, executed, verification, clock, already=0)
        self._short.keep_plans(alike=False)
        people = lookup(self.session, graph, kind, wanted, self.mac_key)
        pending = self._without_row(kind, wanted, people, allow_missing=allow_missing)
        permissions = self.permit(kind, people, asked, actor, clock, run)
        reach("erase.permitted")
        new = self.tombstones_of(kind, action, people, permissions)
        self.archive_map()
        tombstones = ledger.record(new, clock) if new else []
        reach("erase.recorded")
        open_ones = [*tombstones, *pending.recorded]
        if not open_ones:
            return Outcome(run, (), 0, pending.effective, 0, 0, None, None, None)
        executed, verification = self.carry_out(open_ones, clock)
        return self.conclude(run, kind, action, open_ones, executed, verification, clock, already=pending.effective)

    def tombstones_of(self, kind: str, action: Action, people: Sequence[Person], permissions: Sequence[Permission]) -> list[NewTombstone]:
        """Return the tombstones that are to be recorded for people, each under its own permission."""
        version = self.graph.version
        return [
            NewTombstone(self.database, yes.controller_id, kind, person.key, action, version, yes.instruction_id, person.fingerprint)
            for person, yes in zip(people, permissions, strict=True)
        ]

    def _together(
        self, kind: str, keys: Sequence[tuple[str, ...]], action: Action, permit: Callable[[list[Person]], list[Permission]], clock: Clock
    ) -> tuple[list[Tombstone], Executed] | None:
        """Delete the rows while the tombstones are recorded; committed only when those are durable.

        None, with nothing deleted, where the map or the data ask for the usual way; tombstones may be recorded then, which it repeats.
        """
        short = self.short_way(kind, action, clock, len(keys))
        if short is None:
            return None
        try:
            with self.session.transaction("repeatable read"):
                people = lookup(self.session, self.graph, kind, keys, self.mac_key, lock=short.locks)
                if len(people) < len(keys):
                    return None
                new = self.tombstones_of(kind, action, people, permit(people))
                reach("erase.permitted")
                tombstones, planned = self.record_meanwhile(short, people, new, clock)
                reach("erase.recorded")
                if any(tombstone.state is not State.RECORDED for tombstone in tombstones):
                    raise UsualWayError
        except (UsualWayError, SerializationError):
            return None
        except DatabaseError as error:
            if forbidden(error):
                return None  # the long way tells why
            raise
        reach("erase.committed")
        return tombstones, executed_directly(planned, len(people))

    def short_way(self, kind: str, action: Action, clock: Clock, people: int) -> ShortWay | None:
        """Return how so many people of a kind can be erased without going from row to row, if the map allows it."""
        subject, now = self.graph.subject(kind), clock.now()
        seed = Seed(cohort_of(self._periods, action, now, now), subject, {}, None)
        return self._short.way(self.graph, seed, people)

    def record_meanwhile(
        self, short: ShortWay, people: Sequence[Person], new: Sequence[NewTombstone], clock: Clock
    ) -> tuple[list[Tombstone], tuple[PlannedEffect, ...]]:
        """Do to people's rows what is to be done, inside the open transaction, while their tombstones are recorded; afterwards they are.

        Raises:
            UsualWayError: a trigger or rule watches; nothing was done to a row, and the tombstones are recorded.
        """
        self.archive_map()
        return self._short.meanwhile(short, people, lambda: ledger.record(new, clock)) if people else ([], ())

    def carry_out(self, tombstones: Sequence[Tombstone], clock: Clock, *, refresh: bool = True) -> tuple[Executed, Verification]:
        """Delete the rows of recorded people in one transaction, refresh the views that show them, and look again from outside.

        Args:
            tombstones: recorded ones, or effective ones whose kept rows are due.
            clock: tells when.
            refresh: do so also when there was no row, since a process may have been killed after its commit.

        Raises:
            ErasureIncompleteError: rows came back, so nothing was committed.
            IncarnationConflictError: a row bears a tombstone's key but is perhaps another person; nothing was committed.
            StaleViewsError: a materialised view could not be refreshed; the rows are gone.
        """
        decisions = reading.Resolutions(self.database)
        later = 0

        def people() -> Found:
            nonlocal later
            found = find(self.session, self.graph, [tombstones], self.mac_key, clock.now(), decisions)
            later = found.later
            return found

        with explained():
            executed = self._short.executed(self.graph, people) or execute(self.session, self.graph, people)
        reach("erase.committed")
        return self.look_again(tombstones, executed, clock, later=later, refresh=refresh)

    def look_again(
        self, tombstones: Sequence[Tombstone], executed: Executed, clock: Clock, *, later: int = 0, refresh: bool = True
    ) -> tuple[Executed, Verification]:
        """Refresh what shows deleted rows, and ask from outside the transaction what is left of the people."""
        if refresh:
            views.refresh(self.session, self.graph)
        answers: list[Answer] = []
        position = ""
        by_cohort: dict[tuple[Cohort, str], list[Tombstone]] = defaultdict(list)
        calendar = Calendar(self._periods, clock.now())
        for tombstone in tombstones:
            by_cohort[calendar.cohort(tombstone.action, tombstone.erased_at), tombstone.subject_kind].append(tombstone)
        for (cohort, kind), members in by_cohort.items():
            keys = self._ours(kind, members) if later else [tombstone.key for tombstone in members if tombstone.key is not None]
            if keys:
                seen = verify(self.session, self.graph, kind, keys, cohort)
                answers.extend(seen.answers)
                position = seen.position or position
        if executed.lsn == UNKNOWN:
            position = position or str(self.session.value("SELECT pg_current_wal_insert_lsn()"))
            executed = replace(executed, lsn=Lsn(position))
        return executed, Verification(tuple(answers), position)

    # -- steps ----------------------------------------------------------------------------------------------------------------

    def _people(self, kind: str, keys: Sequence[Sequence[str]]) -> list[Person]:
        people = lookup(self.session, self.graph, kind, keys, self.mac_key)
        if len(people) < len(keys):
            raise _missing(kind, len(keys) - len(people))
        return people

    def _without_row(self, kind: str, keys: Sequence[tuple[str, ...]], people: Sequence[Person], *, allow_missing: bool) -> _Pending:
        """Settle people without a row: an erasure that a crash interrupted is finished, one that is effective is done already."""
        here = {person.key for person in people}
        absent = [key for key in keys if key not in here]
        if not absent:
            return _Pending([], 0)
        listed = known.by_keys(self.database, kind, absent)
        recorded = [tombstone for tombstone in listed if tombstone.state is State.RECORDED]
        effective = {tombstone.key for tombstone in listed if tombstone.state is State.EFFECTIVE}
        unknown = [key for key in absent if key not in effective and key not in {tombstone.key for tombstone in recorded}]
        if unknown and not allow_missing:
            raise _missing(kind, len(unknown))
        return _Pending(recorded, len(effective))

    def permit(self, kind: str, people: Sequence[Person], wanted: Permitted, actor: Actor, clock: Clock, run: RunId) -> list[Permission]:
        """Ask the gate for all of them, once a controller; all or none.

        Raises:
            NotInstructedError: a controller has not instructed it.
        """
        by_controller: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, person in enumerate(people):
            by_controller[person.controller_key].append(index)
        granted: dict[int, Permission] = {}
        for key, indexes in by_controller.items():
            subjects = [SubjectRef(kind, people[index].key) for index in indexes]
            owner = self._owner(key)
            permissions = gate.permit_subjects(
                wanted,
                controller_id=owner,
                database=self.database,
                subjects=subjects,
                actor=actor,
                clock=clock,
                run_id=run,
            )
            granted.update(zip(indexes, permissions, strict=True))
        return [granted[index] for index in range(len(people))]

    def _owner(self, key: tuple[str, ...]) -> str:
        """Return the id of a registered controller, which never changes; "" makes the gate refuse."""
        if key not in self._owners:
            found = register.find_controller(self.database, key)
            if found is None:
                return ""
            self._owners[key] = found.id
        return self._owners[key]

    def _ours(self, kind: str, tombstones: Sequence[Tombstone]) -> list[tuple[str, ...]]:
        """Leave out keys that now belong to somebody else: their rows are not to be gone."""
        keys = [tombstone.key for tombstone in tombstones if tombstone.key is not None]
        expected = {tombstone.key: tombstone.fingerprint for tombstone in tombstones}
        others = {
            person.key
            for person in lookup(self.session, self.graph, kind, keys, self.mac_key)
            if expected[person.key] and person.fingerprint != expected[person.key]
        }
        return [key for key in keys if key not in others]

    def conclude(
        self,
        run: RunId,
        kind: str,
        action: Action,
        tombstones: Sequence[Tombstone],
        executed: Executed,
        verification: Verification,
        clock: Clock,
        *,
        already: int,
    ) -> Outcome:
        """Mark the tombstones effective when nothing is left, and return what the erasure came to.

        Raises:
            ErasureIncompleteError: rows remain, or nothing could be asked; the tombstones stay recorded.
        """
        if not verification.answers and executed.people:
            raise ErasureIncompleteError(
                f"nothing could be asked about {len(tombstones)} erased people, so their erasure is not confirmed",
                "Does the data map keep the person's own row and everything linked to it? Then it erases nobody; correct the treatments.",
            )
        if not verification.passed and verification.answers:
            tables = ", ".join(sorted({answer.table for answer in verification.failed}))
            raise ErasureIncompleteError(
                f"rows of {len(tombstones)} erased people remain in {tables}",
                'Who writes there? The tombstones stay recorded; run "obhut erase --finish" when the writer is stopped.',
            )
        keys = self._shredder.shred(tombstones, clock)
        if keys is not None:
            reach("erase.shredded")
        ledger.mark_effective(run, tombstones, executed.lsn, clock)
        self.will_settle(clock)
        reach("erase.effective")
        plan = ErasurePlan(self.database, kind, action, len(tombstones), executed.people, executed.effects.planned, self.graph.version)
        return Outcome(
            run,
            tuple(tombstone.seq for tombstone in tombstones),
            executed.people,
            already,
            executed.deleted,
            executed.changed,
            executed.lsn,
            plan,
            verification,
            executed.large_objects,
            keys,
        )

    def archive_map(self) -> None:
        """Keep this version of the data map, which the tombstones name, for restores to come."""
        if not self._archived:
            archive(self.rules, self._settings.state.directory / MAPS)
            self._archived = True

    def _imagined(self, kind: str, person: Person, action: Action, clock: Clock) -> Tombstone:
        """Return the tombstone that an erasure would record, for planning only."""
        return Tombstone(
            seq=0,
            id=TombstoneId(""),
            database=self.database,
            controller="",
            subject_kind=kind,
            key=person.key,
            fingerprint=person.fingerprint,
            action=action,
            map_version="",
            instruction=InstructionId(""),
            epoch=0,
            erased_at=clock.now(),
            state=State.RECORDED,
        )


@dataclass(frozen=True, slots=True)
class _Pending:
    recorded: list[Tombstone]
    effective: int


def _missing(kind: str, count: int) -> SubjectMissingError:
    noun = "person is" if count == 1 else "people are"
    return SubjectMissingError(
        f"{count} {noun} neither in the database nor in the erasure list (subject kind {kind})",
        "Is the key right, and is it this database? A person who was never there needs no erasure.",
    )
