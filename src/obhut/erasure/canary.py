"""Canaries: synthetic people planted in advance, the positive control of every proof.

That a restored database does not hold an erased person proves little unless the same search finds somebody where he should be. So
there is always a living canary in production, hence in every backup; it is erased like any person once a younger one lives, and all
living ones are condemned (tombstoned) when a restore begins. A proof then shows each of them in the quarantine and none in the target.
The token in its rows is random and belongs to nobody.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from obhut.controllers import gate, register
from obhut.controllers.vocabulary import Action as Permitted
from obhut.controllers.vocabulary import SubjectRef
from obhut.datamap.models import CanaryRule
from obhut.erasure import known, ledger
from obhut.erasure.entries import Action, NewTombstone
from obhut.erasure.erase import Eraser, Outcome
from obhut.erasure.refusals import CanaryRuleError
from obhut.erasure.subjects import lookup
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.ids import new_id
from obhut.postgres.connections import Session
from obhut.postgres.control import Deferred, control_safe
from obhut.postgres.sql import SQL, Identifier

if TYPE_CHECKING:
    from obhut.erasure import models
else:
    models = Deferred("obhut.erasure.models")

TOKEN_PREFIX = "obhutcanary"  # noqa: S105 - not a secret; letters and digits only, so that it survives lower-casing and full-text parsing


@dataclass(frozen=True, slots=True)
class Canary:
    """A planted canary; its key and token are synthetic."""

    id: str
    database: str
    subject_kind: str
    key: tuple[str, ...]
    fingerprint: str
    controller_id: str
    token: str
    planted_at: datetime
    tombstone: int | None


def plant(settings_eraser: Eraser, actor: Actor, clock: Clock) -> Canary:
    """Insert a synthetic person by the recipe of the data map and remember it.

    Raises:
        CanaryRuleError: the map has no recipe, or it does not give exactly one person.
        NotInstructedError: the controller whose rows it uses has not instructed it.
    """
    eraser = settings_eraser
    rule = eraser.rules.canary
    if rule is None:
        raise CanaryRuleError(
            "the data map has no recipe for a canary", "Add canary: {subject: …, rows: […]} to the database; see docs/reference/datamap.md."
        )
    token = TOKEN_PREFIX + secrets.token_hex(12)
    subject = eraser.graph.subject(rule.subject)
    with eraser.session.transaction():
        rows = _insert(eraser.session, rule, token)
        table = eraser.graph.catalogue.tables[subject.table].full_name
        if table not in rows:
            raise CanaryRuleError(f"the recipe inserts no row into {table}", "A canary needs a row in the table of its subject kind.")
        key = tuple(str(rows[table][name]) for name in subject.key)
        people = lookup(eraser.session, eraser.graph, rule.subject, [key], eraser.mac_key)
        if len(people) != 1:
            raise CanaryRuleError("the recipe does not give exactly one person", "Correct the rows of the recipe in the data map.")
        owner = register.find_controller(eraser.database, people[0].controller_key)
        gate.permit(
            Permitted.CANARY,
            controller_id=owner.id if owner else "",
            database=eraser.database,
            subject=SubjectRef(rule.subject, key),
            actor=actor,
            clock=clock,
        )
        reach("canary.inserted")
        canary = Canary(
            id=new_id("can"),
            database=eraser.database,
            subject_kind=rule.subject,
            key=key,
            fingerprint=people[0].fingerprint,
            controller_id=owner.id if owner else "",
            token=token,
            planted_at=clock.now(),
            tombstone=None,
        )
        # Remembered before it is committed: a canary that nobody knows would stay for ever, one that never came to be does no harm.
        _remember(canary)
        reach("canary.remembered")
    return canary


def living(database: str) -> list[Canary]:
    """Return the canaries that have no tombstone, oldest first."""
    return _canaries(database=database, tombstone=None)


def all_of(database: str) -> list[Canary]:
    """Return all canaries ever planted and not yet forgotten, oldest first."""
    return _canaries(database=database)


def rotate(eraser: Eraser, actor: Actor, clock: Clock, *, every: timedelta = timedelta(days=1)) -> tuple[Canary | None, Outcome | None]:
    """Plant a canary when the youngest is older than ``every``, then erase the older ones, so that one always lives."""
    alive = living(eraser.database)
    if alive and clock.now() - alive[-1].planted_at < every:
        return None, None
    planted = plant(eraser, actor, clock)
    return planted, erase(eraser, alive, actor, clock) if alive else None


def erase(eraser: Eraser, canaries: Sequence[Canary], actor: Actor, clock: Clock) -> Outcome | None:
    """Erase canaries like any person: tombstone first."""
    outcome = None
    for kind in {canary.subject_kind for canary in canaries}:
        members = [canary for canary in canaries if canary.subject_kind == kind]
        outcome = eraser.erase(
            kind, [canary.key for canary in members], Action.ERASE, actor, clock, allow_missing=True, permitted=Permitted.CANARY
        )
        _mark(members, {t.key: t.seq for t in known.by_keys(eraser.database, kind, [m.key for m in members]) if t.key})
    return outcome


def condemn(database: str, map_version: str, actor: Actor, clock: Clock) -> list[Canary]:
    """Tombstone every living canary without touching the database, as a restore begins; return all that have a tombstone.

    Raises:
        NotInstructedError: a controller whose canary it is has not instructed it.
    """
    alive = living(database)
    new = []
    for canary in alive:
        permission = gate.permit(
            Permitted.CANARY,
            controller_id=canary.controller_id,
            database=database,
            subject=SubjectRef(canary.subject_kind, canary.key),
            actor=actor,
            clock=clock,
        )
        new.append(
            NewTombstone(
                database=database,
                controller=canary.controller_id,
                subject_kind=canary.subject_kind,
                key=canary.key,
                action=Action.ERASE,
                map_version=map_version,
                instruction=permission.instruction_id,
                fingerprint=canary.fingerprint,
            )
        )
    if new:
        recorded = ledger.record(new, clock)
        _mark(alive, {tombstone.key: tombstone.seq for tombstone in recorded if tombstone.key})
    return [canary for canary in all_of(database) if canary.tombstone is not None]


def _insert(session: Session, rule: CanaryRule, token: str) -> dict[str, dict[str, Any]]:
    """Insert the recipe's rows and return, by table, what the database made of them."""
    made: dict[str, dict[str, Any]] = {}
    for row in rule.rows:
        schema, name = row.table.split(".", 1)
        values = {column: _filled(value, token, made) for column, value in row.values.items()}
        statement = SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING row_to_json({}.*)").format(
            Identifier(schema, name),
            SQL(", ").join(Identifier(column) for column in values),
            SQL(", ").join(SQL("%s") for _ in values),
            Identifier(name),
        )
        found = session.value(statement, list(values.values()))
        made[row.table] = dict(found)
    return made


def _filled(value: Any, token: str, made: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(value, list | tuple):
        return [_filled(item, token, made) for item in value]
    if not isinstance(value, str):
        return value
    value = value.replace("{token}", token)
    for table, columns in made.items():
        for column, content in columns.items():
            if value == f"{{{table}.{column}}}":
                return content
            value = value.replace(f"{{{table}.{column}}}", str(content))
    return value


def _remember(canary: Canary) -> None:
    with control_safe():
        models.Canary.objects.create(
            id=canary.id,
            database=canary.database,
            subject_kind=canary.subject_kind,
            key=list(canary.key),
            fingerprint=canary.fingerprint,
            controller=canary.controller_id,
            token=canary.token,
            planted_at=canary.planted_at,
        )


def _mark(canaries: Sequence[Canary], numbers: Mapping[tuple[str, ...], int]) -> None:
    with control_safe():
        for canary in canaries:
            # A canary that was never committed has no tombstone; 0 says that it is out of the way.
            models.Canary.objects.filter(id=canary.id, tombstone=None).update(tombstone=numbers.get(canary.key, 0))


def _canaries(**condition: object) -> list[Canary]:
    with control_safe():
        rows = models.Canary.objects.filter(**condition).order_by("planted_at", "id")
        return [
            Canary(r.id, r.database, r.subject_kind, tuple(r.key), r.fingerprint, r.controller, r.token, r.planted_at, r.tombstone)
            for r in rows
        ]
