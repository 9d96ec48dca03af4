"""Observations and objects as they are kept in the control database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import connection
from django.db.models import Sum

from obhut.finality.judge import Known, Seen
from obhut.finality.objects import File, Mark
from obhut.finality.vocabulary import Place
from obhut.foundation.ids import new_id
from obhut.postgres.control import Deferred, control_safe

if TYPE_CHECKING:
    from obhut.finality import models
else:
    models = Deferred("obhut.finality.models")

_CONFIRMED = """
SELECT seq, body FROM erasure_entry WHERE seq > %s AND strpos(body, '"kind":"effective"') > 0 AND strpos(body, %s) > 0 ORDER BY seq
"""
_OF_RUN = "SELECT seq, body FROM erasure_entry WHERE strpos(body, %s) > 0 ORDER BY seq"
_KINDS = """
SELECT t.subject_kind, t.action, count(*) FROM unnest(%s::bigint[], %s::bigint[]) AS span (low, high)
JOIN erasure_tombstone t ON t.seq BETWEEN span.low AND span.high GROUP BY 1, 2 ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A confirmed erasure as the list tells it."""

    entry: int
    run: str
    at: str
    lsn: str
    people: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """An observation with what it covers."""

    seen: Seen
    first_entry: int
    last_entry: int
    runs: int
    people: int
    kinds: tuple[tuple[str, str], ...]
    xid: int


def confirmed(database: str, after: int) -> list[Confirmed]:
    """Return the erasures of a database that the list confirms behind an entry."""
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_CONFIRMED, [after, f'"database":{json.dumps(database)}'])
        rows = cursor.fetchall()
    found = []
    for entry, body in rows:
        content = json.loads(body)
        if content["kind"] != "effective" or content["database"] != database:
            continue
        spans = tuple((span[0], span[-1]) if isinstance(span, list) else (span, span) for span in content["tombstones"])
        people = sum(high - low + 1 for low, high in spans)
        found.append(Confirmed(entry, content["run"], content["at"], content["lsn"], people, spans))
    return found


def observe(database: str, mark: Mark, news: Sequence[Confirmed]) -> None:
    """Record that these erasures were met, at the server's own time."""
    spans = [span for one in news for span in one.spans]
    with control_safe():
        with connection.cursor() as cursor:
            cursor.execute(_KINDS, [[low for low, _ in spans], [high for _, high in spans]])
            kinds = cursor.fetchall()
        models.Observation.objects.get_or_create(
            database=database,
            last_entry=news[-1].entry,
            defaults={
                "id": new_id("obs"),
                "server": mark.server,
                "taken_at": mark.at,
                "first_entry": news[0].entry,
                "runs": len(news),
                "people": sum(number for _, _, number in kinds),
                "kinds": [[kind, action] for kind, action, _ in kinds],
                "xid": mark.xid,
            },
        )


def observations(database: str) -> list[Observation]:
    """Return the observations of a database of which something may be left somewhere, the oldest first."""
    with control_safe():
        return [
            Observation(
                Seen(row.id, row.server, row.taken_at, row.settled_at),
                row.first_entry,
                row.last_entry,
                row.runs,
                row.people,
                tuple((kind, action) for kind, action in row.kinds),
                row.xid,
            )
            for row in models.Observation.objects.filter(database=database, final_at=None).order_by("last_entry")
        ]


def entry_of(database: str, run: str) -> int | None:
    """Return the entry of the erasure list that confirms an erasure, by the id of its run; None when there is none."""
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_OF_RUN, [f'"run":{json.dumps(run)}'])
        for entry, body in cursor.fetchall():
            content = json.loads(body)
            if content["kind"] == "effective" and content["database"] == database and content["run"] == run:
                return int(entry)
    return None


def last_entry(database: str) -> int:
    """Return the entry of the erasure list up to which a database was observed."""
    with control_safe():
        row = models.Observation.objects.filter(database=database).order_by("-last_entry").first()
    return row.last_entry if row else 0


def finished(database: str) -> tuple[int, int]:
    """Return how many erasures, and of how many people, have left nothing anywhere."""
    with control_safe():
        rows = models.Observation.objects.filter(database=database, final_at__isnull=False)
        sums = rows.aggregate(runs=Sum("runs"), people=Sum("people"))
    return int(sums["runs"] or 0), int(sums["people"] or 0)


def finish(ids: Iterable[str], at: datetime) -> None:
    """Note that nothing is left of these observations anywhere."""
    with control_safe():
        models.Observation.objects.filter(id__in=list(ids), final_at=None).update(final_at=at)


def settle(ids: Iterable[str], at: datetime) -> None:
    """Note that no snapshot can see the old rows of these observations any more."""
    with control_safe():
        models.Observation.objects.filter(id__in=list(ids), settled_at=None).update(settled_at=at)


def known(database: str, server: str) -> dict[tuple[Place, str], Known]:
    """Return what is known of each object of a server."""
    with control_safe():
        rows = models.Object.objects.filter(database=database, server=server)
        return {
            (Place(row.place), row.name): Known(row.since, number(row.since_lsn), row.cleaned_at, number(row.cleaned_lsn)) for row in rows
        }


def keep(database: str, mark: Mark, files: Iterable[File]) -> None:
    """Remember each object; one whose file has another number than before counts as built now, at the latest."""
    with control_safe():
        old = {(row.place, row.name): row for row in models.Object.objects.filter(database=database, server=mark.server)}
        for file in files:
            row = old.get((file.place.value, file.name))
            if row is None:
                models.Object.objects.create(
                    database=database,
                    server=mark.server,
                    place=file.place.value,
                    name=file.name,
                    filenode=file.filenode,
                    since=mark.at,
                    since_lsn=mark.lsn,
                )
            elif row.filenode != file.filenode:
                row.filenode, row.since, row.since_lsn = file.filenode, mark.at, mark.lsn
                row.save(update_fields=["filenode", "since", "since_lsn"])


def cleaned(database: str, mark: Mark, place: Place, name: str) -> None:
    """Note that an object was vacuumed or analysed."""
    with control_safe():
        models.Object.objects.filter(database=database, server=mark.server, place=place.value, name=name).update(
            cleaned_at=mark.at, cleaned_lsn=mark.lsn
        )


def number(lsn: str) -> int:
    """Return a position in the WAL as a number; 0 for none."""
    if not lsn:
        return 0
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)
