"""Erasures that were recorded after the list that a load applied: carried out at the target, until the list stands still."""

from __future__ import annotations

from datetime import datetime

from obhut.erasure import ledger, reading
from obhut.erasure.closure import Effects
from obhut.erasure.entries import Tombstone
from obhut.erasure.execute import execute
from obhut.erasure.refusals import explained
from obhut.erasure.subjects import Found, find
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, qualified
from obhut.restores import finish, preflight, streams

_LATE = "late"  # recorded at the target while it may hold bytes of rows that were deleted there


def carry_out(target: Session, settings: Settings, database: str, *, after: int, now: datetime) -> int:
    """Erase at the target whoever was recorded since the load's list.

    Args:
        target: a session on the loaded, closed target.
        settings: with the data map.
        database: name of the protected database.
        after: size of the list that the load applied.
        now: when the restore began: what is to be kept for a period is kept as of then.

    Returns:
        The size of the list that the target has applied.
    """
    killed = _LATE in streams.finished(target)  # a killed pass deleted rows, and nobody knows any more in which tables
    touched: set[str] = set()
    unlinked = 0
    applied = after
    while fresh := _recorded(database, size := reading.head().size, applied):
        if _LATE not in streams.finished(target):
            streams.record(target, _LATE)
        effects, objects = _erase(target, settings, database, fresh, now)
        unlinked += objects
        touched |= {effect.table.full_name for effect in effects.tables.values() if effect.deleted or effect.changes}
        applied = size
    _write_anew(target, touched, objects=bool(unlinked), everything=killed)
    streams.forget(target, _LATE)
    return applied


def _recorded(database: str, size: int, after: int) -> list[Tombstone]:
    return [item for chunk in reading.open_list(database, as_of=size, after=after) for item in chunk]


def _erase(target: Session, settings: Settings, database: str, fresh: list[Tombstone], now: datetime) -> tuple[Effects, int]:
    graph = preflight.require_graph(settings, database, target)
    decisions = reading.resolutions(database)

    def looked_up() -> Found:
        return find(target, graph, [fresh], ledger.fingerprint_key(), now, decisions)

    with explained():
        done = execute(target, graph, looked_up)
    return done.effects, done.large_objects


def _write_anew(target: Session, touched: set[str], *, objects: bool, everything: bool) -> None:
    """Write tables anew in which rows were deleted: a deleted row's bytes stay in its page until then."""
    for name in sorted(touched):
        table = read_catalogue(target).find(name)
        if table is not None:
            target.execute(SQL("VACUUM (FULL, ANALYZE) {}").format(qualified(table.schema, table.name)))
    if objects and not everything:
        target.execute("VACUUM (FULL) pg_catalog.pg_largeobject")
    if everything:
        target.execute("VACUUM (FULL, ANALYZE)")
    if touched or everything:
        finish.refresh_again(target)
