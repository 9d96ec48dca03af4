"""A commit a minute on the protected database, so that every minute can be restored to, also on an idle one.

A recovery to a time ends with an error when no commit follows it. Each heartbeat is recorded with time and position, which makes the
table an index from time to WAL; with it the sequences' marks, so that a restore never hands out an id twice. Idle databases also get
their WAL segment finished once an hour, because an open segment keeps its oldest bytes from expiring.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.db import connection

from obhut.backups import source
from obhut.backups.source import Beat, Sequence
from obhut.foundation.clock import aware
from obhut.foundation.ids import Lsn, new_id
from obhut.foundation.lsn import lsn_text
from obhut.postgres.control import Deferred, control_safe

if TYPE_CHECKING:
    from obhut.backups import models
else:
    models = Deferred("obhut.backups.models")

SWITCH_AFTER: Final = timedelta(hours=1)

_MARKS = """
INSERT INTO backups_sequencemark AS known (id, database, schema, name, increment, value, seen_at)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (database, schema, name) DO UPDATE
SET increment = excluded.increment, seen_at = excluded.seen_at,
    value = CASE WHEN excluded.increment > 0 THEN greatest(known.value, excluded.value) ELSE least(known.value, excluded.value) END
WHERE known.value <> excluded.value OR known.increment <> excluded.increment
"""


@dataclass(frozen=True, slots=True)
class CommitPoint:
    """A heartbeat in the index: a commit happened at or shortly after ``at``, at or before ``lsn``."""

    at: datetime
    lsn: Lsn
    timeline: int
    system_identifier: int


def beat(database: str, url: str) -> CommitPoint:
    """Commit one heartbeat and record it; finishes the WAL segment when it has been open for an hour.

    Raises:
        DatabaseError: the protected or the control database refused.
    """
    with source.opened(url, application_name="obhut heartbeat") as server:
        done = server.beat()
        marks = server.sequences()
        record(database, done, marks)
        if _open_for(database, done) >= SWITCH_AFTER:
            server.switch_wal()
    return CommitPoint(done.at, lsn_text(done.position), done.timeline, done.system_identifier)


def record(database: str, done: Beat, marks: list[Sequence]) -> None:
    """Store a heartbeat and the marks of the sequences, in one transaction each."""
    with control_safe():
        models.Heartbeat.objects.create(
            id=new_id("hb"),
            database=database,
            system_identifier=str(done.system_identifier),
            timeline=done.timeline,
            at=done.at,
            position=done.position,
        )
        if marks:
            with connection.cursor() as cursor:
                rows = [(new_id("seq"), database, mark.schema, mark.name, mark.increment, mark.value, done.at) for mark in marks]
                cursor.executemany(_MARKS, rows)


def latest(database: str, before: datetime | None = None) -> CommitPoint | None:
    """Return the newest heartbeat (at or before a moment)."""
    with control_safe():
        found = models.Heartbeat.objects.filter(database=database)
        if before is not None:
            found = found.filter(at__lte=aware(before))
        row = found.order_by("-at").first()
    return _point(row) if row else None


def first_after(database: str, moment: datetime) -> CommitPoint | None:
    """Return the first heartbeat after a moment: a recovery to the moment needs WAL up to its position."""
    with control_safe():
        row = models.Heartbeat.objects.filter(database=database, at__gt=aware(moment)).order_by("at").first()
    return _point(row) if row else None


def at_position(database: str, system_identifier: int, position: int) -> CommitPoint | None:
    """Return the newest heartbeat at or before a position of one server: tells the time of a position to the minute."""
    with control_safe():
        row = (
            models.Heartbeat.objects.filter(database=database, system_identifier=str(system_identifier), position__lte=position)
            .order_by("-position")
            .first()
        )
    return _point(row) if row else None


def sequence_marks(database: str) -> list[Sequence]:
    """Return how far each sequence was ever seen handed out."""
    with control_safe():
        rows = models.SequenceMark.objects.filter(database=database).order_by("schema", "name")
        return [Sequence(row.schema, row.name, row.increment, row.value) for row in rows]


def prune(database: str, before: datetime) -> int:
    """Remove the heartbeats before a moment; returns how many."""
    with control_safe():
        return int(models.Heartbeat.objects.filter(database=database, at__lt=aware(before)).delete()[0])


def _open_for(database: str, done: Beat) -> timedelta:
    first = done.position // done.segment_size * done.segment_size
    with control_safe():
        row = (
            models.Heartbeat.objects.filter(
                database=database,
                system_identifier=str(done.system_identifier),
                timeline=done.timeline,
                position__gte=first,
                at__lte=done.at,
            )
            .order_by("at")
            .first()
        )
    return done.at - row.at if row else timedelta()


def _point(row: models.Heartbeat) -> CommitPoint:
    return CommitPoint(row.at, lsn_text(row.position), row.timeline, int(row.system_identifier))
