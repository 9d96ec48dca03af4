"""Data keys of a repository: one for each day, so that destroying a day's key is a second belt for the age limit.

The label of a key names the database and the UTC day on which the data was in the database: for a base backup the day it began, for a
WAL segment the day of its last write. A process that seals WAL for the engine gets the keys through an anonymous memory file: they
are never in its environment, its arguments or on a disk.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Protocol

from obhut.backups.errors import KeyGoneError
from obhut.foundation.clock import aware
from obhut.keystore.store import KeyState

VARIABLE = "OBHUT_SEAL_KEYS"  # path of the memory file, for the WAL filter
MAC_NAME = "backup-catalogue"


class DataKeys(Protocol):
    """What a repository needs of the key store."""

    def data_key(self, label: str, *, create: bool = True) -> bytes:
        """Return the 32-byte key of a label, made on first use unless ``create`` is false."""
        ...

    def destroy(self, label: str) -> None:
        """Destroy the key of a label; what was sealed with it cannot be opened by anybody any more."""
        ...

    def labels(self) -> list[tuple[str, KeyState]]:
        """Return every label that ever existed with its state."""
        ...

    def mac_key(self, name: str) -> bytes:
        """Return a key for authenticating records."""
        ...


def label(database: str, day: date) -> str:
    """Return the label of a day's data key."""
    return f"backup-{database}-{day.isoformat()}"


def day_of(moment: datetime) -> date:
    """Return the UTC day of a moment."""
    return aware(moment).date()


def labelled_day(text: str, database: str) -> date | None:
    """Return the day of a label of this database; None for any other label."""
    prefix = f"backup-{database}-"
    if not text.startswith(prefix):
        return None
    try:
        return date.fromisoformat(text[len(prefix) :])
    except ValueError:
        return None


def mac(keys: DataKeys, content: bytes) -> str:
    """Return the HMAC-SHA256 of a record of the catalogue, in hexadecimal."""
    return hmac.new(keys.mac_key(MAC_NAME), content, hashlib.sha256).hexdigest()


@contextmanager
def lent(keys: DataKeys, database: str, days: Iterable[date]) -> Iterator[str]:
    """Lend the keys of some days to child processes; yields the path to pass in :data:`VARIABLE`."""
    content = {day.isoformat(): base64.b64encode(keys.data_key(label(database, day))).decode() for day in sorted(set(days))}
    descriptor = os.memfd_create("obhut-keys", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, json.dumps({"database": database, "days": content}).encode())
        # The child opens it through /proc, which only the same user may do.
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def borrowed(day: date) -> tuple[str, bytes]:
    """Return label and key of a day inside a child that got :data:`VARIABLE`.

    Raises:
        KeyGoneError: the key of that day was not lent.
    """
    with open(os.environ[VARIABLE], encoding="utf-8") as file:  # noqa: PTH123 - fast start matters here
        content = json.load(file)
    try:
        return label(content["database"], day), base64.b64decode(content["days"][day.isoformat()])
    except KeyError:
        raise KeyGoneError("the key of the segment's day was not lent to the WAL filter", "It is archived at the next run.") from None
