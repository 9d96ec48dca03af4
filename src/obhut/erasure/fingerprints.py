"""Which bearer of a key is meant (specification, section 7). Pure.

A primary key alone is no person: after a restore sequences hand out the same numbers again, and people come back. So a
tombstone also knows a keyed hash of values that a second bearer of the key would not share.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Final, cast

from obhut.erasure.entries import Decision, canonical, is_plain
from obhut.foundation.clock import aware

MAC_KEY_NAME: Final = "erasure-list-incarnation"
_DOMAIN: Final = b"obhut erasure list v1 incarnation\n"


class Verdict(Enum):
    """Whether a row with the tombstone's key is the erased person."""

    PERSON = auto()
    LATER = auto()  # another incarnation, created after the erasure or declared another person: left alone
    CONFLICT = auto()  # stops the run until a resolution names this fingerprint


@dataclass(frozen=True, slots=True)
class Resolution:
    """A settled conflict: what the row with this fingerprint is."""

    tombstone: int
    found: str
    decision: Decision


def fingerprint(mac_key: bytes, database: str, subject_kind: str, values: Sequence[str | None]) -> str:
    """Return the fingerprint of an incarnation in hexadecimal, or nothing when the map declares no columns for it.

    Args:
        mac_key: the key store's MAC key :data:`MAC_KEY_NAME`.
        database: name of the protected database.
        subject_kind: kind of data subject.
        values: the incarnation columns as PostgreSQL's text under the fixed output formats of a session, in the map's order.
    """
    if not values:
        return ""
    return hmac.digest(mac_key, _DOMAIN + _canonical(database, subject_kind, values).encode(), "sha256").hex()


def _canonical(database: str, subject_kind: str, values: Sequence[str | None]) -> str:
    """Return the canonical text: at once where no value needs escaping, as in nearly all of a crowd."""
    if None not in values:
        texts = cast("Sequence[str]", values)
        if is_plain("".join(texts)):
            return _beginning(database, subject_kind) + '["' + '","'.join(texts) + '"]]'
    return canonical([database, subject_kind, list(values)])


@lru_cache(maxsize=16)
def _beginning(database: str, subject_kind: str) -> str:
    return canonical([database, subject_kind]).removesuffix("]") + ","


def judge(
    expected: str,
    found: str,
    *,
    erased_at: datetime,
    created_at: datetime | None,
    decisions: Mapping[str, Decision] | None = None,
) -> Verdict:
    """Tell whether a row with the tombstone's key is the erased person.

    Args:
        expected: fingerprint of the tombstone.
        found: fingerprint of the row.
        erased_at: when the tombstone says the person was erased.
        created_at: when the row was created, if the map names such a column.
        decisions: resolutions of this tombstone, by the fingerprint they name.
    """
    if not expected or hmac.compare_digest(expected, found):
        return Verdict.PERSON
    decision = (decisions or {}).get(found)
    if decision is not None:
        return Verdict.PERSON if decision is Decision.SAME_PERSON else Verdict.LATER
    if created_at is not None and aware(created_at) > aware(erased_at):
        return Verdict.LATER
    return Verdict.CONFLICT
