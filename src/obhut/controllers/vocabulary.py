"""Words of the register: actions, kinds, channels, and how a key is written down."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

REFERENCE = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"  # opaque: an account, ticket or document number; too narrow for an e-mail address
SHA256 = r"^[0-9a-f]{64}$"
NAME = r"^[a-z][a-z0-9_]{0,62}$"
CATEGORY = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$"
DURATION = r"^(term|P(\d+Y)?(\d+M)?(\d+W)?(\d+D)?)$"  # "term": as long as the main contract runs


class Action(StrEnum):
    """What an instruction can permit."""

    ERASE = "erase"
    ANONYMISE = "anonymise"
    RESTORE = "restore"  # a whole database
    RESTORE_CONTROLLER = "restore_controller"
    RESTORE_SUBJECT = "restore_subject"
    EXPORT = "export"
    BACKUP = "backup"
    CANARY = "canary"
    CLONE = "clone"  # masked copies for tests


class InstructionKind(StrEnum):
    """How often an instruction may be used."""

    STANDING = "standing"  # until it expires or is revoked
    SINGLE = "single"  # by one run


class Channel(StrEnum):
    """How an instruction reached the processor."""

    CONTRACT = "contract"
    PORTAL = "portal"
    API = "api"
    TICKET = "ticket"
    EMAIL = "email"
    LETTER = "letter"


class SubjectRef(NamedTuple):
    """A data subject by kind (of the data map) and key values as text. A named tuple, because a batch asks about thousands."""

    kind: str
    key: tuple[str, ...]

    @property
    def canonical(self) -> str:
        """The key as it is compared and stored."""
        return canonical_key(self.key)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def canonical_key(values: Sequence[str]) -> str:
    """Return key values as a JSON array of strings without spaces: the one spelling that is compared."""
    if (
        len(values) == 1 and type(plain := values[0]) is str and plain.isalnum() and plain.isascii()
    ):  # a number, as most keys are: nothing to escape
        return f'["{plain}"]'
    return _encode([str(value) for value in values])


def parse_key(text: str) -> tuple[str, ...]:
    """Return the values of a key given as a JSON array or, for a single column, as plain text.

    Raises:
        ValueError: a JSON array of something else than texts and whole numbers, or nothing.
    """
    if not text.startswith("["):
        if not text:
            raise ValueError("a key cannot be empty")
        return (text,)
    values = json.loads(text)
    if not values or any(isinstance(value, bool) or not isinstance(value, str | int) for value in values):
        raise ValueError("a key is a JSON array of texts and whole numbers")
    return tuple(str(value) for value in values)


def fits(pattern: str, text: str) -> bool:
    """Whether a text is of the form that the database's own check demands, too."""
    return re.fullmatch(pattern, text) is not None
