"""What the journal stores: numbers, hashes, identifiers, times and names from catalogues; nothing that could be a person's.

The journal outlives the people in it, is shown in lists and goes into certificates, so a text with a space or an ``@`` does not get in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from obhut.foundation.clock import stamp

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]

_OPAQUE = re.compile(r"[A-Za-z0-9._:/+=,#%~-]{0,1000}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_URL = re.compile(r"postgres(ql)?://([A-Za-z0-9._%-]*@)?[A-Za-z0-9.:,%/?=&_+~-]*")  # a role, never a password


def checked(facts: Mapping[str, object]) -> dict[str, Plain]:
    """Return the facts in JSON's types.

    Raises:
        ValueError: a name or a value that does not belong into the journal; only the name is in the message.
    """
    return {_checked_name(name): _plain(name, value) for name, value in facts.items()}


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a fact has a name that is no lower-case word")
    return name


def _scalar(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.hex() if isinstance(value, bytes) else value


def _plain(name: str, value: object) -> Plain:
    value = _scalar(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)  # configured by the operator, may have spaces
    if isinstance(value, str):
        if _OPAQUE.fullmatch(value) or _URL.fullmatch(value):
            return value
    elif isinstance(value, Mapping):
        return {str(_plain(name, key)): _plain(name, item) for key, item in value.items()}
    elif isinstance(value, Sequence | set | frozenset):
        return [_plain(name, item) for item in value]
    raise ValueError(f"the fact {name} does not belong into the journal: only numbers, hashes, identifiers and times do")
