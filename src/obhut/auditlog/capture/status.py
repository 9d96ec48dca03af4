"""How capture stands, looked up on the server and in the control database; never asks the process that reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from obhut.auditlog.capture import enable, place, plan, state
from obhut.datamap.graph import Graph
from obhut.foundation.clock import Clock
from obhut.foundation.settings import CaptureSettings, Settings
from obhut.postgres.errors import DatabaseError

_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong; ``critical``: changes are lost, about to be, or unattributed."""

    code: str
    fact: str
    todo: str
    critical: bool


@dataclass(frozen=True, slots=True)
class Status:
    """Capture of one database. Sizes are bytes of WAL."""

    database: str
    slot: str
    active: bool
    behind: int | None
    retained: int | None
    heard_at: datetime | None
    changes: int
    gaps: int
    unassigned: int
    findings: tuple[Finding, ...]


def status(settings: Settings, database: str, clock: Clock) -> Status:
    """Return how capture of a database stands.

    Raises:
        NotEnabledError: it is not on.
        DatabaseError: the database does not answer.
        DataMapError: the map does not fit it.
    """
    ours = settings.database(database)
    recorded = state.get(database)
    with place.opened(ours.url) as there:
        slot = there.slot(recorded.slot, recorded.database_oid)
        server = there.server()
        findings = [
            *_slot(slot, recorded, ours.capture, clock.now()),
            *_server(there, server),
            *_tables(there, enable.graph_of(there, ours)),
            *_counts(recorded),
        ]
    return Status(
        database,
        recorded.slot,
        slot.active if slot else False,
        slot.behind if slot else None,
        slot.retained if slot else None,
        recorded.heard_at,
        recorded.changes,
        recorded.gaps,
        recorded.unassigned,
        tuple(findings),
    )


def _slot(slot: plan.Slot | None, recorded: state.State, limits: CaptureSettings, now: datetime) -> Iterator[Finding]:
    start = 'Run "obhut serve" or "obhut audit start"; it writes a gap entry and begins anew.'
    if slot is None or slot.lost:
        yield Finding("slot-lost", f"replication slot {recorded.slot} is {'gone' if slot is None else 'invalid'}", start, critical=True)
        return
    if slot.elsewhere:
        fact = f"the settings name another database; the slot serves {slot.elsewhere}"
        yield Finding("slot-elsewhere", fact, 'Run "obhut serve" or "obhut audit start"; it reads the rest of it first.', critical=True)
    if not slot.active:
        yield Finding("slot-inactive", f"nobody reads replication slot {recorded.slot}", 'Run "obhut serve".', critical=True)
    if slot.confirmed > recorded.acknowledged:
        yield Finding("slot-moved", "the slot is further than Obhut has read: somebody else moved it", start, critical=True)
    if slot.retained is not None and slot.retained > limits.lag_megabytes * _MEGABYTE:
        fact = f"the server keeps {slot.retained} bytes of WAL for the slot"
        yield Finding("wal-retained", fact, "Is the stream read?", critical=True)
    if slot.left is not None and slot.retained and slot.left < slot.retained // 4:
        yield Finding(
            "slot-limit-near", f"the server takes the slot away in {slot.left} bytes of WAL", "Is the stream read?", critical=True
        )
    heard = recorded.heard_at or recorded.enabled_at
    if now - heard > timedelta(seconds=limits.lag_seconds):
        yield Finding("stream-late", f"nothing was read since {heard:%Y-%m-%d %H:%M:%S}Z", "Does its process run?", critical=True)


def _server(there: place.Place, server: plan.Server) -> Iterator[Finding]:
    if server.slot_limit == plan.UNLIMITED:
        yield Finding("slot-unlimited", "max_slot_wal_keep_size is unlimited", "Set what the disk can spare.", critical=False)
    if not there.event_triggers():
        hint = 'Run "obhut audit enable" as a role that may create them.'
        yield Finding("event-triggers-off", "event triggers of Obhut are missing or off", hint, critical=False)
    try:
        forgeable = there.forgeable()
    except DatabaseError:
        forgeable = True
    if forgeable:
        yield Finding("messages-open", "any role may write messages in Obhut's name", 'Run "obhut audit enable".', critical=False)
    if strangers := there.strangers():
        hint = "Move them: ALTER TABLE … SET SCHEMA. A role named obhut makes tables there that it names without a schema."
        yield Finding("schema-shared", f"{strangers} tables that are not Obhut's lie in its schema obhut", hint, critical=False)
    elif there.namesake():
        hint = "ALTER ROLE obhut SET search_path = public; or let nobody who creates tables use it."
        yield Finding("schema-namesake", "a role named obhut creates its tables in the schema obhut", hint, critical=False)
    if server.failover and not server.synchronises_slots:
        hint = "On each standby set sync_replication_slots; on the primary synchronized_standby_slots."
        yield Finding("failover-unset", "no standby keeps the slot: a failover will be a gap", hint, critical=False)


def _tables(there: place.Place, graph: Graph) -> Iterator[Finding]:
    tables = there.tables(enable.leaves(graph))
    enable_again = 'Run "obhut audit enable" again.'
    for node in plan.captured(graph):
        wanted = plan.whole_rows(graph, node)
        for leaf in graph.catalogue.leaves(node.table.oid):
            table = tables.get(leaf.oid)
            if table is None:
                continue
            if not table.published or table.filtered:
                fact = f"{leaf.full_name} is not in the publication" if not table.published else f"{leaf.full_name} is published in part"
                yield Finding("table-unpublished", fact, enable_again, critical=True)
            if wanted and table.identity != plan.FULL:
                yield Finding("identity-short", f"{leaf.full_name} does not keep whole old rows", enable_again, critical=True)
            if table.persistence == "u":
                yield Finding("table-unlogged", f"{leaf.full_name} is unlogged", "ALTER TABLE … SET LOGGED.", critical=True)
            if table.trigger != "A":
                yield Finding("trigger-off", f"{leaf.full_name} does not tell who changes it", enable_again, critical=True)


def _counts(recorded: state.State) -> Iterator[Finding]:
    if recorded.unassigned:
        fact = f"{recorded.unassigned} changes have no known controller"
        yield Finding(
            "unassigned", fact, 'Are all controllers registered, and does the map fit? Run "obhut datamap check".', critical=False
        )
