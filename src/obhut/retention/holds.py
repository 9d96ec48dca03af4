"""Holds: people who must not be anonymised for now, each with a reason and a reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db.models import Q

from obhut.controllers import register
from obhut.controllers.vocabulary import REFERENCE, canonical_key, fits
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.ids import new_id
from obhut.postgres.control import Deferred, control_safe
from obhut.retention.errors import HoldInvalidError
from obhut.retention.vocabulary import HoldReason

if TYPE_CHECKING:
    from obhut.retention import models
else:
    models = Deferred("obhut.retention.models")


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold, without the key: that somebody is held is for lists, who it is is for the sweep."""

    id: str
    database: str
    controller: str
    subject_kind: str
    everybody: bool
    reason: str
    reference: str
    until: datetime | None
    placed_at: datetime
    lifted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """Who is held now, of one kind in one database.

    Attributes:
        controllers: all of whose people are held.
        people: keys, each with the controller.
    """

    controllers: frozenset[str]
    people: dict[tuple[str, ...], str]

    def of(self, controller: str) -> list[tuple[str, ...]]:
        """Return the keys of a controller's people who are held one by one."""
        return [key for key, owner in self.people.items() if owner == controller]


def place(
    controller_id: str,
    kind: str,
    key: Sequence[str] | None,
    *,
    reason: HoldReason,
    reference: str,
    until: datetime | None,
    actor: Actor,
    clock: Clock,
) -> Hold:
    """Hold one person, or with ``key=None`` all of a controller's people of a kind.

    Raises:
        HoldInvalidError: the reference could be a name or an address, or the end has passed.
    """
    owner = register.get_controller(controller_id)
    if not fits(REFERENCE, reference) or (until is not None and until <= clock.now()):
        raise HoldInvalidError("the hold cannot be recorded", "Give an opaque reference such as ticket-4711, and an end to come.")
    with control_safe():
        row = models.Hold.objects.create(
            id=new_id("hold"),
            database=owner.database,
            controller=owner.id,
            subject_kind=kind,
            key=None if key is None else canonical_key(key),
            reason=reason.value,
            reference=reference,
            until=until,
            placed_by=str(actor),
            placed_at=clock.now(),
        )
    return _hold(row, everybody=key is None)


def lift(hold_id: str, *, actor: Actor, clock: Clock) -> Hold:
    """End a hold now and forget whom it was about.

    Raises:
        HoldInvalidError: there is no such hold in force.
    """
    with control_safe():
        row = models.Hold.objects.filter(id=hold_id, lifted_at=None).first()
        if row is None:
            raise HoldInvalidError("there is no hold in force with that id", 'Look at "obhut retention holds list".')
        everybody = row.key is None
        row.lifted_at, row.lifted_by, row.key = clock.now(), str(actor), None
        row.save(update_fields=["lifted_at", "lifted_by", "key"])
    return _hold(row, everybody=everybody)


def list_holds(database: str | None = None) -> list[Hold]:
    """Return the holds that were not lifted, the oldest first."""
    wanted = {"database": database} if database else {}
    with control_safe():
        rows = models.Hold.objects.filter(lifted_at=None, **wanted).order_by("placed_at", "id")
        return [_hold(row, everybody=row.key is None) for row in rows]


def held(database: str, kind: str, now: datetime) -> Held:
    """Return who of a kind is held at a moment."""
    with control_safe():
        rows = models.Hold.objects.filter(database=database, subject_kind=kind, lifted_at=None).filter(Q(until=None) | Q(until__gt=now))
        found = list(rows.values_list("controller", "key"))
    return Held(
        frozenset(controller for controller, key in found if key is None),
        {tuple(json.loads(key)): controller for controller, key in found if key is not None},
    )


def _hold(row: models.Hold, *, everybody: bool) -> Hold:
    return Hold(
        row.id,
        row.database,
        row.controller,
        row.subject_kind,
        everybody,
        row.reason,
        row.reference,
        row.until,
        row.placed_at,
        row.lifted_at,
    )
