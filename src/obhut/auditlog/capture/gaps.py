"""What decoding cannot see, as entries: told by event triggers, found by looks at the catalogue, missed by streams that were cut off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from obhut.auditlog import entries
from obhut.auditlog.capture import plan
from obhut.auditlog.capture.intake import Emptied, Event
from obhut.auditlog.capture.messages import PERSISTENCE
from obhut.auditlog.capture.seals import Server
from obhut.auditlog.capture.write import Writer
from obhut.auditlog.entries import Entry, Position
from obhut.datamap.graph import TableNode
from obhut.foundation.clock import stamp

_PUBLICATION: Final = "publication"
_SHORT: Final = frozenset("ndi")  # identities that keep less than the whole row
_DROPS: Final = {"table": "dropped", "table column": "column-dropped"}


def of(item: Emptied | Event, writer: Writer, server: Server) -> Iterator[Entry]:
    """Return what something in the stream that is no row hides."""
    return emptied(item, writer, server) if isinstance(item, Emptied) else told(item, writer, server)


def emptied(item: Emptied, writer: Writer, server: Server) -> Iterator[Entry]:
    """Yield an entry for each captured table that a TRUNCATE has emptied: nobody can say whose rows they were."""
    for number, relation in enumerate(item.truncated.relations):
        node = writer.node(relation.oid)
        if node is None:
            continue
        yield entries.gap(
            at=item.transaction.at,
            database=writer.database,
            reason="truncate",
            table=node.table.full_name,
            position=server.position(item.transaction, item.ordinal),
            detail={"relation": relation.full_name, "statement": "TRUNCATE", "number": number},
            fact=writer.fact(item.acting),
            capture="wal",
        )


def told(item: Event, writer: Writer, server: Server) -> Iterator[Entry]:
    """Yield an entry for each thing that an event trigger told and that hides changes."""
    message = item.told
    node = writer.node(message.oid) if message.oid else None
    whole_rows = node is not None and plan.whole_rows(writer.graph, node)
    for reason, table in _reasons(item, node, whole_rows=whole_rows):
        yield entries.gap(
            at=item.transaction.at,
            database=writer.database,
            reason=reason,
            table=table,
            position=server.position(item.transaction, item.ordinal),
            detail={"statement": message.tag or message.k.upper()},
            fact=writer.fact(item.acting),
            capture="event",
        )


def _reasons(item: Event, node: TableNode | None, *, whole_rows: bool) -> Iterator[tuple[str, str]]:
    message = item.told
    if message.type.startswith(_PUBLICATION):
        yield _PUBLICATION, ""
    if node is None:
        return
    table = node.table.full_name
    if message.k == "rewrite":
        yield ("unlogged" if message.why & PERSISTENCE else "rewrite"), table
    elif message.k == "drop" and message.type in _DROPS:
        yield _DROPS[message.type], table
    elif message.k == "ddl" and whole_rows and message.type == "table" and message.identity in _SHORT:
        yield "identity", table


def looked(found: Iterable[plan.TableGap], writer: Writer, at: datetime, since: datetime | None) -> list[Entry]:
    """Return an entry for each finding of a look at the catalogue; what happened lies between two looks."""
    made = []
    for gap in found:
        node = writer.node(gap.table)
        detail: dict[str, str | int] = {"until": stamp(at)}
        made.append(
            entries.gap(
                at=since or at,
                database=writer.database,
                reason=gap.reason,
                table=node.table.full_name if node else "",
                detail=detail,
                capture="poll",
            )
        )
    return made


def cut_off(missed: plan.Missed, database: str, server: Server, slot: int, mark: Position | None, since: datetime, now: datetime) -> Entry:
    """Return the entry for what a stream has missed, from the last transaction that was read until now.

    Its place is just before the first position that the slot sends. It has none where the slot begins before the mark of the logs, as a
    standby's copy of a slot may: what is sent again lies before it, what is new behind it, and positions must ascend.
    """
    # One octet lower: a commit record may begin exactly where the slot begins.
    place = server.at(max(slot - 1, 0), 0)
    behind = mark is None or mark.system != place.system or place.order() > mark.order()
    return entries.gap(
        at=since,
        database=database,
        reason=missed.reason,
        position=place if behind else None,
        detail={**missed.detail, "until": stamp(now)},
        capture="poll",
    )


def stopped(database: str, now: datetime) -> Entry:
    """Return the entry that says that capture was switched off."""
    return entries.gap(at=now, database=database, reason="stopped", capture="obhut")


def unassigned(tables: Iterable[tuple[str, int]], database: str, at: datetime) -> Sequence[Entry]:
    """Return what controllers are told about changes of which nobody can say whose they are: they may be theirs."""
    return [
        entries.gap(at=at, database=database, reason="unassigned", table=table, detail={"rows": count}, capture="wal")
        for table, count in tables
    ]
