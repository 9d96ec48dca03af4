"""Refusals are documented: each controller can read in its audit log what was asked for and not permitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from obhut.controllers.errors import NotInstructedError
from obhut.controllers.plan import Refusal
from obhut.controllers.vocabulary import Action
from obhut.foundation.actors import Actor
from obhut.foundation.ids import new_id
from obhut.postgres.control import Deferred, control_safe

if TYPE_CHECKING:
    from obhut.controllers import models
else:
    models = Deferred("obhut.controllers.models")

_QUIET: Final = timedelta(hours=1)  # a loop that asks every minute is refused once an hour


@contextmanager
def documented(action: Action, database: str, actor: Actor, run_id: str | None, now: datetime) -> Iterator[None]:
    """Note the refusal that leaves the block; one that stands in the records already within the hour is not noted again.

    Inside a transaction of the caller's the note shares its fate.
    """
    try:
        yield
    except NotInstructedError as error:
        owners: dict[str, Refusal] = {owner: reason for owner, reason in error.missing if reason is not Refusal.NO_CONTROLLER}
        with control_safe():
            _note(owners, action, database, str(actor), run_id or "", now)
        raise


def _note(owners: dict[str, Refusal], action: Action, database: str, actor: str, run: str, now: datetime) -> None:
    recent = models.Refusal.objects.filter(controller__in=owners, database=database, action=action.value, run=run, actor=actor)
    known = set(recent.filter(at__gt=now - _QUIET, at__lte=now).values_list("controller", "reason"))
    models.Refusal.objects.bulk_create(
        models.Refusal(
            id=new_id("ref"), controller=owner, database=database, action=action.value, reason=reason.value, run=run, actor=actor, at=now
        )
        for owner, reason in sorted(owners.items())
        if (owner, reason.value) not in known
    )
