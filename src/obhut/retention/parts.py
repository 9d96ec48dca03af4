"""Crowds that a sweep is anonymising right now and did not tell before: one row a part of a sweep, where cases are one a person.

A part lives as long as its people's transaction. Whatever a process that died has left is made into cases before the next sweep looks at
anybody, so that everything else knows cases only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from obhut.foundation.ids import new_id
from obhut.postgres.control import control_safe

# The commit is not waited for. It is safe all the same when it matters: the tombstones of these people are committed later to the same
# database, which flushes what was written before them. Whoever has no tombstone is not touched, and needs no note.
_SOON = "WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))"
_ADD = f"""{_SOON}
INSERT INTO retention_part (id, rule_id, database, subject_kind, keys, made_at) SELECT %s, %s, %s, %s, %s, %s FROM soon
"""  # noqa: S608 - a constant
_REMOVE = f"{_SOON} DELETE FROM retention_part USING soon WHERE database = %s AND subject_kind = %s AND keys = %s"  # noqa: S608 - as above
_LISTED = "SELECT id, rule_id, subject_kind, keys, made_at FROM retention_part WHERE database = %s ORDER BY id"


@dataclass(frozen=True, slots=True)
class Part:
    """People who were taken together; their keys are personal data and stay out of every text.

    Attributes:
        keys: canonical texts.
    """

    id: str
    rule: str
    kind: str
    keys: tuple[str, ...]
    made_at: datetime

    def __repr__(self) -> str:
        """Return a text without the keys."""
        return f"<Part {self.id} of {len(self.keys)}>"


def add(rule: str, database: str, kind: str, keys: Sequence[str], now: datetime) -> None:
    """Note people who are about to be anonymised together."""
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_ADD, [new_id("part"), rule, database, kind, json.dumps(keys), now])


def remove(database: str, kind: str, keys: Sequence[str]) -> bool:
    """Forget a part of exactly these people; false where there is none."""
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_REMOVE, [database, kind, json.dumps(keys)])
        return bool(cursor.rowcount)


def among(database: str, kind: str, keys: Collection[str]) -> dict[str, str]:
    """Return those of the people who stand in a part, each with its rule."""
    return {key: part.rule for part in listed(database) if part.kind == kind for key in part.keys if key in keys}


def listed(database: str) -> list[Part]:
    """Return the parts of a database."""
    with control_safe(), connection.cursor() as cursor:
        cursor.execute(_LISTED, [database])
        return [Part(number, rule, kind, tuple(json.loads(keys)), at) for number, rule, kind, keys, at in cursor.fetchall()]


def left_behind(database: str) -> Iterator[Part]:
    """Yield what a process that died has left; each part goes when the caller comes back for the next, together with what it wrote."""
    for part in listed(database):
        with control_safe(), transaction.atomic(), connection.cursor() as cursor:
            yield part
            cursor.execute("DELETE FROM retention_part WHERE id = %s", [part.id])
