"""Decides what is captured, what a server must offer, and what a stream that begins again has missed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from obhut.datamap.graph import Graph, TableNode
from obhut.postgres.timelines import TimelineSwitch

FULL: Final = "f"
UNLIMITED: Final = -1
_LOGICAL: Final = "logical"
FAILOVER_SINCE: Final = 170_000


@dataclass(frozen=True, slots=True)
class Server:
    """What capture must know of a server."""

    wal_level: str
    standby: bool
    version: int  # such as 180006
    slot_limit: int  # megabytes that a slot may hold back; -1: without limit
    free_slots: int
    synchronises_slots: bool
    superuser: bool

    @property
    def failover(self) -> bool:
        """Whether standbys can keep the slot."""
        return self.version >= FAILOVER_SINCE


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason not to capture, with what to do about it."""

    fact: str
    todo: str


@dataclass(frozen=True, slots=True)
class Slot:
    """State of the slot on the server. Positions are bytes."""

    plugin: str
    active: bool
    confirmed: int
    wal_status: str
    retained: int | None  # bytes of WAL that the server keeps for it
    behind: int | None  # bytes of WAL that were not acknowledged
    left: int | None  # bytes until the server's limit takes the slot; None: no limit
    elsewhere: str = ""  # name of the database it serves, where that is another one

    @property
    def lost(self) -> bool:
        """Whether WAL that it needed is gone."""
        return self.wal_status == "lost"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a stream stands: server, timeline, how far it was acknowledged, and the database (oid)."""

    system: str
    timeline: int
    acknowledged: int
    database: int


@dataclass(frozen=True, slots=True)
class Missed:
    """Something that happened while nobody read: reason of the gap, and what is known about it."""

    reason: str
    detail: Mapping[str, str | int]

    @property
    def noted(self) -> str:
        """What is recorded before the slot is made anew: reason and cause, which afterwards cannot be found out."""
        return f"{self.reason}:{self.detail.get('cause', '')}".rstrip(":")


@dataclass(frozen=True, slots=True)
class Table:
    """How a captured leaf table stands."""

    identity: str
    persistence: str
    file: int
    trigger: str
    published: bool
    filtered: bool

    @property
    def partly(self) -> bool:
        """Whether some or all of its changes are not sent."""
        return self.filtered or not self.published

    def packed(self) -> list[object]:
        """Return the values for JSON."""
        return [self.identity, self.persistence, self.file, self.trigger, self.published, self.filtered]


@dataclass(frozen=True, slots=True)
class TableGap:
    """A finding about one table: the reason of the gap."""

    table: int
    reason: str


def incapable(server: Server) -> Iterator[Obstacle]:
    """Yield why a server cannot decode at all."""
    if server.standby:
        yield Obstacle("the server is a standby", "Name the primary in the database URL.")
    if server.wal_level != _LOGICAL:
        yield Obstacle(f"wal_level of the server is {server.wal_level}", "Set wal_level to logical and restart the server.")


def obstacles(server: Server, *, unlimited_accepted: bool) -> Iterator[Obstacle]:
    """Yield why a server's changes cannot be captured, or not safely."""
    yield from incapable(server)
    if server.free_slots < 1:
        yield Obstacle("the server has no replication slot left", "Raise max_replication_slots and restart the server.")
    if server.slot_limit == UNLIMITED and not unlimited_accepted:
        yield Obstacle(
            "max_slot_wal_keep_size of the server is unlimited: a stream that nobody reads fills its disk",
            "Set it to what the disk can spare (such as 50GB; it takes effect by a reload), or accept the danger by --unlimited-wal.",
        )


def captured(graph: Graph) -> list[TableNode]:
    """Return the tables whose changes are captured: those that the map calls personal."""
    return [node for node in graph.tables.values() if node.rule.personal]


def whole_rows(graph: Graph, node: TableNode) -> bool:
    """Whether a table must keep whole old rows (REPLICA IDENTITY FULL).

    The primary key is enough, and cheaper, where all columns that are personal or tell whose the row is belong to it.
    """
    key = set(node.table.primary_key)
    needed = set(node.rule.columns) | {column for link in node.links for column in link.columns}
    needed |= {name for subject in graph.subjects.values() if subject.table == node.table.oid for name in subject.key}
    own = [subject for subject in graph.subjects.values() if subject.table == node.table.oid and subject.controller_path]
    needed |= {column for subject in own for column in subject.controller_path[0].columns}
    return not key or not needed <= key


def set_back(before: Standing, now: Standing) -> bool:
    """Whether a server has less WAL than was read of it, on the same timeline: its next changes would get places that are taken."""
    return (now.system, now.timeline) == (before.system, before.timeline) and now.acknowledged < before.acknowledged


def missed(before: Standing, now: Standing, history: Sequence[TimelineSwitch], slot: Slot | None, pending: str) -> Missed | None:
    """Return what happened since the stream was last read, None when it goes on where it stopped.

    Args:
        before: as recorded.
        now: the server that answers; its ``acknowledged`` is the end of its WAL.
        history: ends of timelines before the server's own.
        slot: as it stands; None: there is none.
        pending: a gap that was recorded and perhaps not written (:attr:`Missed.noted`).
    """
    if now.system != before.system:
        return Missed("system", {"before": before.system})
    forked: dict[str, str | int] = {}
    if now.timeline != before.timeline:
        fork = next((former.switch for former in history if former.timeline == before.timeline), 0)
        # What was logged beyond the fork happened on a server that is no longer the one that counts.
        forked = {"before": before.timeline, "beyond_fork": "yes" if before.acknowledged > fork else "no"}
    if now.database != before.database:
        return Missed("database", {"former": before.database, **forked})
    if slot is None or slot.lost:
        return Missed("slot-lost", {"cause": "dropped" if slot is None else "limit", **forked})
    if pending:
        reason, _, cause = pending.partition(":")
        return Missed(reason, {"cause": cause, **forked} if cause else forked)
    if forked:
        return Missed("timeline", forked)
    if slot.confirmed > before.acknowledged:
        return Missed("slot-moved", {"bytes": slot.confirmed - before.acknowledged})
    return None


def table_gaps(
    before: Mapping[str, Sequence[object]], now: Mapping[int, Table], *, told: bool, wanted: Mapping[int, bool]
) -> list[TableGap]:
    """Return what changed between two looks at the captured tables.

    Args:
        before: packed tables by oid, as stored.
        now: tables by oid.
        told: event triggers are on and tell rewrites themselves; a new file is then no news.
        wanted: for each table, whether whole rows are wanted.
    """
    found: list[TableGap] = []
    for oid, table in now.items():
        packed = before.get(str(oid))
        was = _unpacked(packed) if packed else None
        if was == table:
            continue
        if table.partly and (was is None or not was.partly):
            found.append(TableGap(oid, "publication"))
        if wanted.get(oid) and table.identity != FULL and (was is None or was.identity == FULL):
            found.append(TableGap(oid, "identity"))
        if table.persistence == "u" and (was is None or was.persistence != "u"):
            found.append(TableGap(oid, "unlogged"))
        if table.trigger != "A" and (was is None or was.trigger == "A"):
            found.append(TableGap(oid, "unattributed"))
        if was is not None and was.file != table.file and not told:
            found.append(TableGap(oid, "rewrite"))
    found.extend(TableGap(int(oid), "dropped") for oid in before if int(oid) not in now and not told)
    return found


def _unpacked(packed: Sequence[object]) -> Table:
    identity, persistence, file, trigger, published, filtered = packed
    return Table(str(identity), str(persistence), int(str(file)), str(trigger), bool(published), bool(filtered))
