"""The row of capture in the control database: read and written whole, one statement each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db.models import F

from obhut.auditlog.capture.errors import NotEnabledError
from obhut.postgres.control import Deferred, control_safe

if TYPE_CHECKING:
    from obhut.auditlog.capture import models
else:
    models = Deferred("obhut.auditlog.capture.models")


@dataclass(frozen=True, slots=True)
class State:
    """Capture of one database, as recorded."""

    database: str
    slot: str
    system: str
    timeline: int
    database_oid: int
    acknowledged: int
    pending: str
    observed: Mapping[str, list[object]]
    looking: Mapping[str, Any]
    enabled_at: datetime
    heard_at: datetime | None
    changes: int
    unassigned: int
    gaps: int


def find(database: str) -> State | None:
    """Return the state of a database, None when capture is not on."""
    with control_safe():
        row = models.Capture.objects.filter(database=database).first()
    if row is None:
        return None
    return State(
        row.database, row.slot, row.system_identifier, row.timeline, row.database_oid, row.acknowledged, row.pending, row.observed,
        row.looking, row.enabled_at, row.heard_at, row.changes, row.unassigned, row.gaps,
    )  # fmt: skip


def get(database: str) -> State:
    """Return the state of a database.

    Raises:
        NotEnabledError: capture is not on.
    """
    found = find(database)
    if found is None:
        raise NotEnabledError(f"the audit log is not switched on for {database}", f'Run "obhut audit enable {database}".')
    return found


def create(database: str, **values: Any) -> None:
    """Record that capture of a database is on; leaves a row that is there."""
    with control_safe():
        models.Capture.objects.get_or_create(database=database, defaults=values)


def change(database: str, **values: Any) -> None:
    """Store some members of the row."""
    with control_safe():
        models.Capture.objects.filter(database=database).update(**values)


def count(database: str, *, acknowledged: int | None, heard_at: datetime | None, changes: int, unassigned: int, gaps: int) -> None:
    """Store how far the stream was read, and add to the counts."""
    moved: dict[str, Any] = {} if acknowledged is None else {"acknowledged": acknowledged}
    if heard_at is not None:
        moved["heard_at"] = heard_at
    with control_safe():
        models.Capture.objects.filter(database=database).update(
            **moved, changes=F("changes") + changes, unassigned=F("unassigned") + unassigned, gaps=F("gaps") + gaps
        )


def forget(database: str) -> None:
    """Record that capture of a database is off."""
    with control_safe():
        models.Capture.objects.filter(database=database).delete()
