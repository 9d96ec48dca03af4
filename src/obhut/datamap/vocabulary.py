"""What a name alone gives away, and Fideslang's categories.

A name is a hint, never a proof: :class:`Guess` says how strong it is, and only a person decides.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from typing import Final

from fideslang.default_taxonomy import DEFAULT_TAXONOMY

from obhut.datamap.discovery import names


@dataclass(frozen=True, slots=True)
class Guess:
    """A category for a column; ``strong`` when the name alone hardly means anything else."""

    category: str
    strong: bool
    reason: str


CREATED_NAMES: Final = (
    "created_at",
    "create_date",
    "created",
    "created_on",
    "registered_at",
    "signup_at",
    "angelegt_am",
    "erstellt_am",
    "registriert_am",
    "date_joined",
)
ACTIVITY_NAMES: Final = (
    "last_login_at",
    "last_login",
    "last_seen_at",
    "last_activity_at",
    "last_active_at",
    "letzte_anmeldung",
    "letzter_login",
    "zuletzt_aktiv",
)
_IDENTIFYING: Final = ("user.contact", "user.name", "user.government_id", "user.account.username", "user.financial", "user.biometric")


def words(name: str) -> list[str]:
    """Return the words of a name written in snake_case, camelCase or with dashes, umlauts written out."""
    return list(names.words(name))


@cache
def guess(name: str) -> Guess | None:
    """Return the category that a column's name alone suggests, or None."""
    reading = names.read(name)
    if reading is None or not (reading.strong or reading.alone):
        return None
    return Guess(reading.category, reading.strong and reading.whole, f"its name says {reading.words}")


@cache
def categories() -> frozenset[str]:
    """Return the keys of the installed taxonomy's data categories."""
    return frozenset(str(category.fides_key) for category in DEFAULT_TAXONOMY.data_category)


def nearest(category: str) -> list[str]:
    """Return the categories that a misspelt one probably meant."""
    known = sorted(categories())
    close = difflib.get_close_matches(category, known, n=3, cutoff=0.6)
    last = category.rsplit(".", 1)[-1]
    return close or [key for key in known if key.rsplit(".", 1)[-1] == last] or [key for key in known if last in key][:3]


def identifies(category: str) -> bool:
    """Whether values of the category name a person outside the database: an e-mail address, a name, a number of the state."""
    return category.startswith(_IDENTIFYING)
