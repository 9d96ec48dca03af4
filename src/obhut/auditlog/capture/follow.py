"""Follows the stream of one database: read, resolve, seal, append, record, acknowledge, in this order.

The server is told to forget only what is in the logs, and the control database knows it before the server does: so a slot that is further
than recorded was moved by somebody else, and that is a gap. A kill between any two steps makes the server send again what the logs' mark
then skips.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from obhut.auditlog.capture import enable, gaps, moved, place, plan, state
from obhut.auditlog.capture.errors import CaptureBusyError, ServerUnsuitableError
from obhut.auditlog.capture.intake import Event, Intake, Item, Row
from obhut.auditlog.capture.owners import Key, Owners
from obhut.auditlog.capture.seals import Server
from obhut.auditlog.capture.write import Batch, Writer
from obhut.auditlog.entries import Entry, Position
from obhut.auditlog.log import Log, open_log
from obhut.controllers import register
from obhut.controllers.vocabulary import parse_key
from obhut.datamap.findings import DataMapError
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.lsn import lsn_number, lsn_text
from obhut.foundation.settings import DatabaseSettings, Settings
from obhut.keystore.subjects import Keyring, unassigned
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.replication import Polled, Replication, Stream, Streamed

BATCH: Final = 5_000
_AGE: Final = 1.0  # seconds that a change waits for others
_WAIT: Final = 0.2
_PAUSE: Final = 0.05  # seconds in which messages gather: waking up for each transaction costs more than the transaction
_FEW: Final = 100  # messages; where more wait, the server is ahead and nothing needs to gather
_LOOK: Final = 60.0  # seconds between two looks at the catalogue
_BEAT: Final = 20.0
_IDLE: Final = 10.0  # seconds between two acknowledgements when nothing changes
_GARBAGE: Final = 50_000
_IN_USE: Final = "55006"
_OLDER: Final = "Does the URL name the right server? A copy that takes its place must be promoted, so that it gets a timeline of its own."
_log = structlog.get_logger("obhut.audit")


@dataclass(frozen=True, slots=True)
class Followed:
    """What one run has put into the logs."""

    changes: int
    gaps: int
    unassigned: int

    def after(self, before: Followed) -> Followed:
        """Return this run with the one before it."""
        return Followed(self.changes + before.changes, self.gaps + before.gaps, self.unassigned + before.unassigned)


def follow(settings: Settings, database: str, clock: Clock, stop: Callable[[], bool], *, until_caught_up: bool = False) -> Followed:
    """Put changes into the logs until ``stop`` returns true. Where the settings name another database than before, the rest of that first.

    Args:
        settings: of the installation; the control database is open.
        database: name in the settings.
        clock: the time of gaps and logs; changes have the server's.
        stop: asked a few times a second.
        until_caught_up: end when everything that was committed before the call is in the logs.

    Raises:
        NotEnabledError: capture is not on.
        CaptureBusyError: another process reads the slot.
        ServerUnsuitableError: the server that the database was restored to cannot decode, or is an older copy; or the slot serves a
            database that cannot be read.
        DataMapError: the map does not fit the database; nothing is lost, the server keeps the WAL.
        DatabaseError: a connection is lost.
    """
    ours = settings.database(database)
    former, read = moved.former(ours), Followed(0, 0, 0)
    if former is not None:
        read = _follow(settings, former, clock, stop, until_caught_up=True)
        if stop():
            return read
        moved.release(former)
    done = _follow(settings, ours, clock, stop, until_caught_up=until_caught_up)
    return done.after(read)


def _follow(settings: Settings, ours: DatabaseSettings, clock: Clock, stop: Callable[[], bool], *, until_caught_up: bool) -> Followed:
    recorded = state.get(ours.name)
    with ExitStack() as stack:
        there = stack.enter_context(place.opened(ours.url))
        log = stack.enter_context(open_log(settings, ours.name, clock))
        keyring = stack.enter_context(Keyring(settings, clock=clock))
        follower = _Follower(ours, recorded, there, log, keyring, clock)
        follower.catch_gap()
        until = follower.target() if until_caught_up else None
        # Map, catalogue and modules live to the end; rows live for one batch and hold no cycles, so looking for those often is in vain.
        gc.freeze()
        gc.set_threshold(_GARBAGE, 20, 50)
        stream = _stream(ours, recorded.slot)
        stack.callback(stream.close)
        follower.run(stream, stop, until)
        return follower.done


def _stream(ours: DatabaseSettings, slot: str) -> Stream:
    try:
        if ours.capture.method == "polling":
            return Polled(Session.connect(ours.url, application_name="obhut audit"), slot, place.OPTIONS)
        return Streamed(ours.url, slot, place.OPTIONS)
    except DatabaseError as error:
        if error.sqlstate != _IN_USE:
            raise
    raise CaptureBusyError(f"another process reads slot {slot}", 'Does "obhut serve" run already? It captures, too.')


class _Follower:
    def __init__(self, ours: DatabaseSettings, recorded: state.State, there: place.Place, log: Log, keyring: Keyring, clock: Clock) -> None:
        self._ours = ours
        self._recorded = recorded
        self._there = there
        self._log = log
        self._keyring = keyring
        self._clock = clock
        self._vendor = unassigned(ours.name)
        self._server = self._identify()
        self._graph = enable.graph_of(there, ours)
        self._writer = self._new_writer({})
        self._intake = Intake()
        self._items: list[Item] = []
        self._since = 0.0  # when the oldest item was read
        self._stale = False  # the catalogue has changed
        self._mark = log.position(recorded.slot)
        self._past = False  # the mark is behind
        self._observed = self._seen()
        self._looked_at: datetime | None = recorded.heard_at or recorded.enabled_at
        self._look_due = self._beat_due = self._idle_due = 0.0
        self._acknowledged = recorded.acknowledged
        self.done = Followed(0, 0, 0)

    # -- beginning ------------------------------------------------------------------------------------------------------------

    def _identify(self) -> Server:
        with Replication(self._ours.url) as replication:
            identity = replication.identify()
            return Server(str(identity.system_identifier), identity.timeline, replication.history(identity.timeline))

    def _new_writer(self, former: Mapping[int, str]) -> Writer:
        graph = self._graph
        owners = Owners(graph, lambda table, columns, keys, wanted: self._there.fetch(graph, table, columns, keys, wanted))
        accounts = self._ours.capture.sealed_accounts
        return Writer(self._ours.name, graph, owners, self._controllers(), self._vendor, accounts, former)

    def _controllers(self) -> dict[Key, str]:
        return {parse_key(record.key): record.id for record in register.list_controllers(self._ours.name)}

    def catch_gap(self) -> None:
        """Say what was missed since the stream was last read; make a new slot where the old one is lost."""
        recorded, server = self._recorded, self._server
        slot = self._there.slot(recorded.slot)
        here = self._there.identity()
        before = plan.Standing(recorded.system, recorded.timeline, recorded.acknowledged, recorded.database_oid or here)
        now = plan.Standing(server.system, server.timeline, self._there.end(), here)
        if plan.set_back(before, now):
            raise ServerUnsuitableError("the server has less WAL than was read of it: it is an older copy of itself", _OLDER)
        missed = plan.missed(before, now, server.history, slot, recorded.pending)
        if missed is None:
            if not recorded.database_oid:  # enabled before it was recorded
                state.change(recorded.database, database_oid=here)
            return
        if slot is None or slot.lost:
            # The reason is durable before the slot is made anew: afterwards nothing tells that it was ever gone.
            there = self._there.server()
            for obstacle in plan.incapable(there):
                raise ServerUnsuitableError(obstacle.fact, obstacle.todo)
            state.change(recorded.database, pending=missed.noted)
            reach("audit-follow.gap-pending")
            self._there.drop_slot(recorded.slot)
            self._there.create_slot(recorded.slot, failover=there.failover)
            reach("audit-follow.slot-made")
            slot = self._there.slot(recorded.slot)
        start = slot.confirmed if slot else 0
        self._say(missed, start)
        reach("audit-follow.gap-appended")
        if (server.system, here) != (recorded.system, before.database):
            self._observed = {}  # oids of tables elsewhere
        state.change(
            recorded.database, pending="", system_identifier=server.system, timeline=server.timeline, database_oid=here, acknowledged=start,
            observed=self._observed, looking={},
        )  # fmt: skip
        self._acknowledged = start
        self._mark = self._log.position(recorded.slot)
        self._count(0, 1, 0)
        _log.warning("audit.gap", database=recorded.database, code=missed.reason)

    def _say(self, missed: plan.Missed, start: int) -> None:
        """Log what was missed before the slot's ``start``; after a kill its own mark knows that it was said."""
        recorded, server = self._recorded, self._server
        source = f"{recorded.slot}/gap"
        said = Position(f"g{server.system}", server.timeline, lsn_text(start), 0)
        if self._log.position(source) == said:
            return
        since = recorded.heard_at or recorded.enabled_at
        entry = gaps.cut_off(missed, recorded.database, server, start, self._mark, since, self._clock.now())
        self._log.append_all(self._for_all([entry]), source=source, upto=said)

    def target(self) -> int:
        """Return a position behind all that is committed; a heartbeat makes sure that the stream passes it."""
        position = lsn_number(str(self._there.session.value("SELECT pg_current_wal_insert_lsn()::text")))
        self._there.heartbeat()
        return position

    # -- running --------------------------------------------------------------------------------------------------------------

    def run(self, stream: Stream, stop: Callable[[], bool], until: int | None) -> None:
        """Read and append until the end is asked for or reached; what was read is appended before returning."""
        while not stop():
            payloads = stream.read(_WAIT)
            if payloads:
                if not self._items:
                    self._since = time.monotonic()
                self._intake.take(payloads, self._items)
                reach("audit-follow.read")
                if until is None and len(payloads) < _FEW:
                    time.sleep(_PAUSE)
            now = time.monotonic()
            if self._unsettled and (len(self._items) >= BATCH or now - self._since >= _AGE or not payloads):
                self._flush(stream)
            self._look_after(stream, now)
            if until is not None and self._passed(stream, until):
                break
        if self._unsettled:
            self._flush(stream)

    @property
    def _unsettled(self) -> bool:
        return bool(self._items) or self._intake.end > self._acknowledged

    def _passed(self, stream: Stream, until: int) -> bool:
        idle = self._intake.transaction is None and not self._unsettled
        return idle and (self._intake.end > until or (stream.reached > until and self._intake.end == 0))

    def _flush(self, stream: Stream) -> None:
        items, self._items = self._items, []
        items = self._news(items)
        told = any(type(item) is Event for item in items)
        if self._stale or told:
            self._refresh()
        batch, count = self._batch(items)
        reach("audit-follow.sealed")
        upto = self._upto()
        self._append(batch.entries, upto)
        reach("audit-follow.appended")
        settled = self._settled()
        state.count(
            self._ours.name,
            acknowledged=settled,
            heard_at=self._intake.heard,
            changes=batch.changes,
            unassigned=sum(batch.unassigned.values()),
            gaps=count,
        )
        reach("audit-follow.recorded")
        if settled is not None:
            stream.acknowledge(settled)
            self._acknowledged = settled
        self._count(batch.changes, count, sum(batch.unassigned.values()))
        reach("audit-follow.acknowledged")
        if told:
            self._look()

    def _settled(self) -> int | None:
        """Return the end of the last transaction that is in the logs as a whole, where it is news."""
        return self._intake.end if self._intake.end > self._acknowledged else None

    def _upto(self) -> Position | None:
        return self._server.at(*self._intake.last) if self._intake.last else None

    def _news(self, items: list[Item]) -> list[Item]:
        """Return the items behind the mark. Positions ascend: once one was behind it, all that follow are."""
        if self._past:
            return items
        known = next((number for number, item in enumerate(items) if not self._known(item)), len(items))
        self._past = known < len(items)
        return items[known:]

    def _known(self, item: Item) -> bool:
        """Whether an item is in the logs already: sent again after a kill."""
        if self._mark is None:
            return False
        position = self._server.position(item.transaction, item.ordinal)
        return position.system == self._mark.system and position.order() <= self._mark.order()

    # -- entries --------------------------------------------------------------------------------------------------------------

    def _batch(self, items: Sequence[Item]) -> tuple[Batch, int]:
        """Return the entries of items, in their order, and how many gaps are among them."""
        made, count = Batch(), 0
        rows: list[Row] = []
        for item in items:
            if isinstance(item, Row):
                rows.append(item)
                continue
            found = list(gaps.of(item, self._writer, self._server))
            if found:
                self._add(made, rows)
                rows = []
                count += len(found)
                for controller, entries in self._for_all(found).items():
                    made.entries.setdefault(controller, []).extend(entries)
        self._add(made, rows)
        if made.unassigned:
            at = items[-1].transaction.at
            for controller, entries in self._for_all(gaps.unassigned(sorted(made.unassigned.items()), self._ours.name, at)).items():
                if controller != self._vendor:
                    made.entries.setdefault(controller, []).extend(entries)
        return made, count

    def _add(self, made: Batch, rows: Sequence[Row]) -> None:
        if not rows:
            return
        batch = self._writer.batch(rows, self._server, self._keyring)
        if any(batch.unassigned.values()) and self._refresh_controllers():
            batch = self._writer.batch(rows, self._server, self._keyring)
        made.changes += batch.changes
        for table, number in batch.unassigned.items():
            made.unassigned[table] = made.unassigned.get(table, 0) + number
        for controller, entries in batch.entries.items():
            made.entries.setdefault(controller, []).extend(entries)

    def _for_all(self, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
        """Return entries for every controller of the database, and for the vendor."""
        return {controller: list(entries) for controller in (*dict.fromkeys(self._writer.controllers.values()), self._vendor)}

    def _append(self, batch: dict[str, list[Entry]], upto: Position | None) -> None:
        self._log.append_all(batch, source=self._recorded.slot, upto=upto)

    # -- beside the stream ----------------------------------------------------------------------------------------------------

    def _refresh_controllers(self) -> bool:
        found = self._controllers()
        changed = found != dict(self._writer.controllers)
        self._writer.controllers = found
        return changed

    def _refresh(self) -> None:
        """Read catalogue and map anew: a table was changed."""
        self._stale = False
        try:
            self._graph = enable.graph_of(self._there, self._ours)
        except DataMapError:
            # Nothing is lost: the old map stays, and rows that it cannot place are logged as unassigned.
            _log.error("audit.map-stale", database=self._ours.name)
            return
        self._writer = self._new_writer(self._writer.roots)

    def _look_after(self, stream: Stream, now: float) -> None:
        self._keyring.keys({})  # an erasure waits until every holder of keys has forgotten them; one that is idle says so here
        if now >= self._beat_due:
            self._there.heartbeat()
            self._beat_due = now + _BEAT
        if now >= self._look_due:
            self._look()
            self._look_due = now + _LOOK
        if now >= self._idle_due and self._intake.transaction is None and not self._unsettled:
            self._idle_due = now + _IDLE
            if stream.reached > self._acknowledged:
                # Recorded before the server is told, as in _flush.
                self._acknowledged = stream.reached
                state.change(self._ours.name, acknowledged=self._acknowledged)
                stream.acknowledge(self._acknowledged)

    def _look(self) -> None:
        """Compare how the captured tables stand with the last look; say as gaps what may have hidden changes."""
        now = self._there.tables(enable.leaves(self._graph))
        wanted = {
            leaf.oid: plan.whole_rows(self._graph, node) for node in plan.captured(self._graph)
            for leaf in self._graph.catalogue.leaves(node.table.oid)
        }  # fmt: skip
        found = plan.table_gaps(self._observed, now, told=self._there.event_triggers(), wanted=wanted)
        at, packed = self._clock.now(), enable.packed(now)
        if found:
            self._tell(found, packed, at)
        if packed != self._observed:
            state.change(self._ours.name, observed=packed, looking={})
            self._observed = packed
        self._looked_at = at

    def _tell(self, found: Sequence[plan.TableGap], packed: dict[str, list[object]], at: datetime) -> None:
        """Log what a look has found. Its number becomes durable with the entries: after a kill it is known whether they were said."""
        number = self._told() + 1
        state.change(self._ours.name, looking={"number": number, "observed": packed})
        reach("audit-follow.look-noted")
        mark = Position("look", 1, lsn_text(number), 0)
        self._log.append_all(self._for_all(gaps.looked(found, self._writer, at, self._looked_at)), source=self._look_source, upto=mark)
        reach("audit-follow.look-appended")
        state.count(self._ours.name, acknowledged=None, heard_at=None, changes=0, unassigned=0, gaps=len(found))
        self._count(0, len(found), 0)

    @property
    def _look_source(self) -> str:
        return f"{self._recorded.slot}/look"

    def _told(self) -> int:
        """Return the number of the last look whose findings are in the logs."""
        mark = self._log.position(self._look_source)
        return lsn_number(mark.lsn) if mark else 0

    def _seen(self) -> dict[str, list[object]]:
        """Return how the tables stood at the last look; one that was killed counts when its findings are in the logs."""
        looking = self._recorded.looking
        killed_late = bool(looking) and looking["number"] == self._told()
        return dict(looking["observed"] if killed_late else self._recorded.observed)

    def _count(self, changes: int, found: int, nobody: int) -> None:
        done = self.done
        self.done = Followed(done.changes + changes, done.gaps + found, done.unassigned + nobody)
