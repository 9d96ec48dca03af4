"""Switches capture of a database on and off. Every step can be repeated: what is there already is left, what is missing is made."""

from __future__ import annotations

from dataclasses import dataclass

from obhut.auditlog.capture import place, plan, state
from obhut.auditlog.capture.errors import ServerUnsuitableError
from obhut.datamap.graph import Graph, require
from obhut.datamap.load import load
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import DatabaseSettings, Settings
from obhut.keystore.subjects import Keyring
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.replication import Replication


@dataclass(frozen=True, slots=True)
class Enabled:
    """What was set up.

    Attributes:
        tables: captured tables.
        whole_rows: those of them that keep whole old rows.
        event_triggers: rewrites, DDL and drops tell themselves; otherwise they are looked for once a minute.
        unforgeable: nobody but Obhut's functions can write facts and claims.
        failover: standbys keep the slot, once they are set up to.
    """

    tables: tuple[str, ...]
    whole_rows: int
    slot: str
    event_triggers: bool
    unforgeable: bool
    failover: bool


def enable(settings: Settings, database: str, actor: Actor, clock: Clock, *, unlimited_accepted: bool = False) -> Enabled:
    """Switch capture on: schema, triggers, old values, publication, slot. From then on no change of a captured table is missed.

    Args:
        settings: of the installation; the control database is open.
        database: name in the settings.
        actor: who switches it on.
        clock: the time.
        unlimited_accepted: the server may keep WAL without limit for the slot.

    Raises:
        ServerUnsuitableError: the server lacks a setting, or keeps WAL without limit.
        DataMapError: the map does not fit the database.
        LockTimeoutError: a table is in use; run it again.
    """
    ours = settings.database(database)
    slot = place.slot_name(database)
    with place.opened(ours.url) as there:
        server = there.server()
        here = there.slot(slot)
        found = [o for o in plan.obstacles(server, unlimited_accepted=unlimited_accepted) if here is None or "slot left" not in o.fact]
        if found:
            raise ServerUnsuitableError(found[0].fact, found[0].todo)
        graph = graph_of(there, ours)
        nodes = plan.captured(graph)
        there.install()
        reach("audit-enable.schema")
        # Before anything that is promised by them: from here on a rewrite or a new partition is noticed.
        events = there.install_events()
        unforgeable = there.close_messages()
        whole = 0
        for node in nodes:
            wanted = plan.whole_rows(graph, node)
            there.watch(graph, node, whole_rows=wanted)
            whole += wanted
        reach("audit-enable.watched")
        there.publish(nodes)
        reach("audit-enable.published")
        # From here on erasures leave fences: a change from before an erasure, read after it, must not get a new key.
        with Keyring(settings, clock=clock) as keyring:
            keyring.start()
        # The slot comes last: what it sends was written under the publication and with whole rows.
        if here is None:
            there.create_slot(slot, failover=server.failover)
        reach("audit-enable.slot")
        _record(there, ours, slot, graph, actor, clock)
    return Enabled(tuple(node.table.full_name for node in nodes), whole, slot, events, unforgeable, server.failover)


def _record(there: place.Place, ours: DatabaseSettings, slot: str, graph: Graph, actor: Actor, clock: Clock) -> None:
    made = there.slot(slot)
    with Replication(ours.url) as replication:
        identity = replication.identify()
    state.create(
        ours.name,
        slot=slot,
        publication=place.PUBLICATION,
        system_identifier=str(identity.system_identifier),
        timeline=identity.timeline,
        database_oid=there.identity(),
        acknowledged=made.confirmed if made else 0,
        enabled_at=clock.now(),
        enabled_by=str(actor),
    )
    state.change(ours.name, observed=packed(there.tables(leaves(graph))))


def disable(settings: Settings, database: str) -> None:
    """Take everything away that :func:`enable` has made; the log stays. The caller writes the gap entry first."""
    ours = settings.database(database)
    with place.opened(ours.url) as there:
        there.drop_slot(state.get(database).slot)
        reach("audit-stop.slot")
        there.remove()
    state.forget(database)


def graph_of(there: place.Place, ours: DatabaseSettings) -> Graph:
    """Return the data map resolved against the database as it is now.

    Raises:
        DataMapError: it does not fit.
    """
    return require(ours.name, load(ours.map).database(ours.name), read_catalogue(there.session))


def leaves(graph: Graph) -> list[int]:
    """Return the tables that hold captured rows."""
    return [leaf.oid for node in plan.captured(graph) for leaf in graph.catalogue.leaves(node.table.oid)]


def packed(tables: dict[int, plan.Table]) -> dict[str, list[object]]:
    """Return how tables stand, for JSON."""
    return {str(oid): table.packed() for oid, table in tables.items()}
