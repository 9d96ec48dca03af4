"""Cases: who was told, and who is being anonymised right now. A case goes when it is closed.

Whoever is taken without having been told stands in a part (:mod:`obhut.retention.parts`) as long as the process lives, and gets a case when
it has died.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import connection
from django.db.models import Count, F, Q

from obhut.controllers.vocabulary import canonical_key
from obhut.foundation.ids import new_id, new_ids
from obhut.postgres.control import Deferred, control_safe
from obhut.retention import parts
from obhut.retention.rules import Rule
from obhut.retention.vocabulary import CaseState

if TYPE_CHECKING:
    from obhut.retention import models
else:
    models = Deferred("obhut.retention.models")

Key = tuple[str, ...]
CHUNK = 5_000
# A sweep moves thousands of cases at a time: plain SQL with arrays, since the ORM would take longer than the rows themselves.
_TAKE = """
INSERT INTO retention_case (id, rule_id, database, subject_kind, key, state, attempts, made_at, reached)
SELECT id, %s, %s, %s, key, 'taken', 0, %s, false
FROM ROWS FROM (json_array_elements_text(%s::json), json_array_elements_text(%s::json)) AS given (id, key)
ON CONFLICT (database, subject_kind, key) DO UPDATE SET state = 'taken', rule_id = excluded.rule_id
"""
_AMONG = "database = %s AND subject_kind = %s AND key = ANY(ARRAY(SELECT json_array_elements_text(%s::json)))"
_RETAKE = f"UPDATE retention_case SET state = 'taken', rule_id = %s WHERE {_AMONG} RETURNING key"  # noqa: S608 - a constant
_CLOSE = f"DELETE FROM retention_case WHERE {_AMONG} RETURNING key"  # noqa: S608 - a constant
_TAKEN = f"SELECT rule_id, json_agg(key)::text FROM retention_case WHERE {_AMONG} AND state = 'taken' GROUP BY rule_id"  # noqa: S608 - as above
GIVE_UP = 5  # attempts after which an address counts as unreachable


@dataclass(frozen=True, slots=True)
class Case:
    """A case; the key is personal data and stays out of every text."""

    id: str
    rule: str
    key: Key
    state: CaseState
    attempts: int
    told_at: datetime | None

    def __repr__(self) -> str:
        """Return a text without the key."""
        return f"<Case {self.id} {self.state}>"


def open_cases(rule: Rule, keys: Sequence[Key], now: datetime) -> None:
    """Open a case for each person who is to be told; one that is open stays as it is."""
    with control_safe():
        for chunk in chunks(keys, CHUNK):
            models.Case.objects.bulk_create([_new(rule, key, CaseState.WAITING, now) for key in chunk], ignore_conflicts=True)


def take(rule: Rule, keys: Sequence[Key], now: datetime) -> None:
    """Note that these people are about to be anonymised, before it is done: a crash leaves who has to be looked at again."""
    texts = [canonical_key(key) for key in keys]
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_RETAKE, [rule.id, rule.database, rule.subject_kind, json.dumps(texts)])
        told = {text for (text,) in cursor.fetchall()}
    if untold := [text for text in texts if text not in told]:
        parts.add(rule.id, rule.database, rule.subject_kind, untold, now)


def unfold(database: str) -> int:
    """Make cases of what a process that died had taken, and return how many people that were."""
    number = 0
    for part in parts.left_behind(database):
        ids, number = json.dumps(new_ids("case", len(part.keys))), number + len(part.keys)
        with connection.cursor() as cursor:
            cursor.execute(_TAKE, [part.rule, database, part.kind, part.made_at, ids, json.dumps(part.keys)])
    return number


def close(database: str, kind: str, keys: Iterable[Key]) -> int:
    """Forget the cases of people who were anonymised, are active again or are gone; return how many there were."""
    texts = [canonical_key(key) for key in keys]
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_CLOSE, [database, kind, json.dumps(texts)])
        told = {text for (text,) in cursor.fetchall()}
    untold = [text for text in texts if text not in told]
    return len(told) + (len(untold) if parts.remove(database, kind, untold) else 0)


def of_rule(rule: Rule, state: CaseState, *, limit: int | None = None) -> list[Case]:
    """Return the cases of a rule in a state, those told first first."""
    with control_safe():
        rows = models.Case.objects.filter(rule_id=rule.id, state=state.value).order_by("told_at", "made_at", "id")
        return [_case(row) for row in (rows if limit is None else rows[:limit])]


def ripe(rule: Rule, before: datetime) -> list[Case]:
    """Return the cases of a rule that were told before a moment, and those over which a process died; the oldest first."""
    with control_safe():
        rows = models.Case.objects.filter(rule_id=rule.id).filter(
            Q(state=CaseState.TOLD.value, told_at__lt=before) | Q(state=CaseState.TAKEN.value)
        )
        return [_case(row) for row in rows.order_by("told_at", "made_at", "id")]


def taken(database: str, kind: str, keys: Sequence[Key]) -> dict[Key, str]:
    """Return those of the people whom retention has taken, each with the rule."""
    by_text = {canonical_key(key): key for key in keys}
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_TAKEN, [database, kind, json.dumps(list(by_text))])
        told = {by_text[text]: rule for rule, texts in cursor.fetchall() for text in json.loads(texts)}
    return {by_text[text]: rule for text, rule in parts.among(database, kind, by_text).items()} | told


def in_state(database: str, kind: str, state: CaseState) -> list[Key]:
    """Return the keys of everybody of a kind whose case is in a state."""
    with control_safe():
        rows = models.Case.objects.filter(database=database, subject_kind=kind, state=state.value).order_by("made_at", "id")
        return [tuple(json.loads(text)) for text in rows.values_list("key", flat=True)]


def keys_with_cases(database: str, kind: str) -> Iterator[Key]:
    """Yield the keys of everybody of a kind who has a case."""
    with control_safe():
        for text in models.Case.objects.filter(database=database, subject_kind=kind).values_list("key", flat=True).iterator(CHUNK):
            yield tuple(json.loads(text))


def told(ids: Sequence[str], now: datetime, *, reached: bool) -> None:
    """Note that people were told now, or that there is no way to."""
    with control_safe():
        models.Case.objects.filter(id__in=ids).update(state=CaseState.TOLD.value, told_at=now, reached=reached)


def failed(ids: Sequence[str], now: datetime) -> int:
    """Count a failed attempt; who could not be reached so often counts as told without an address. Return how many those are."""
    with control_safe():
        models.Case.objects.filter(id__in=ids).update(attempts=F("attempts") + 1)
        given_up = models.Case.objects.filter(id__in=ids, attempts__gte=GIVE_UP)
        return given_up.update(state=CaseState.TOLD.value, told_at=now, reached=False)


def counts(rule: Rule) -> dict[CaseState, int]:
    """Return how many people of a rule there are in each state."""
    with control_safe():
        rows = models.Case.objects.filter(rule_id=rule.id).values_list("state").annotate(Count("id"))
        found = {CaseState(state): number for state, number in rows}
    if untold := sum(len(part.keys) for part in parts.listed(rule.database) if part.rule == rule.id):
        found[CaseState.TAKEN] = found.get(CaseState.TAKEN, 0) + untold
    return found


def _new(rule: Rule, key: Key, state: CaseState, now: datetime) -> models.Case:
    return models.Case(
        id=new_id("case"),
        rule_id=rule.id,
        database=rule.database,
        subject_kind=rule.subject_kind,
        key=canonical_key(key),
        state=state.value,
        made_at=now,
    )


def _case(row: models.Case) -> Case:
    return Case(row.id, row.rule_id, tuple(json.loads(row.key)), CaseState(row.state), row.attempts, row.told_at)


def chunks(keys: Sequence[Key], size: int) -> Iterator[Sequence[Key]]:
    """Yield keys in pieces."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
