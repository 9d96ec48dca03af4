"""Data keys of a repository: one for every six hours, so that destroying a key is a second belt for the age limit.

The label of a key names the database and the UTC hour at which its span begins. What counts is when the data was in the database: for
a base backup when it began, for a WAL segment its last write. A day would be too coarse: between the window that must be restorable and
the age limit there may be less than a day to spare.

A process that seals WAL for the engine gets the keys through an anonymous memory file: they
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
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from obhut.backups.errors import KeyGoneError
from obhut.foundation.clock import aware
from obhut.keystore.store import KeyState

VARIABLE = "OBHUT_SEAL_KEYS"  # path of the memory file, for the WAL filter
MAC_NAME = "backup-catalogue"
SPAN: Final = timedelta(hours=6)
_HOURS: Final = 6
_FORM: Final = "%Y-%m-%dT%H"


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


def label(database: str, moment: datetime) -> str:
    """Return the label of the data key for data that was in the database at a moment."""
    return _label(database, span_of(moment))


def span_of(moment: datetime) -> datetime:
    """Return the beginning of the span of six hours that a moment lies in."""
    moment = aware(moment)
    return moment.replace(hour=moment.hour // _HOURS * _HOURS, minute=0, second=0, microsecond=0)


def spans(first: datetime, last: datetime) -> list[datetime]:
    """Return the beginnings of all spans from one moment to another."""
    found = [span_of(first)]
    while found[-1] + SPAN <= aware(last):
        found.append(found[-1] + SPAN)
    return found


def labelled_span(text: str, database: str) -> datetime | None:
    """Return the span of a label of this database; None for any other label."""
    prefix = f"backup-{database}-"
    if not text.startswith(prefix):
        return None
    try:
        return datetime.strptime(text[len(prefix) :], _FORM).replace(tzinfo=UTC)
    except ValueError:
        return None


def _label(database: str, span: datetime) -> str:
    return f"backup-{database}-{span.strftime(_FORM)}"


def mac(keys: DataKeys, content: bytes) -> str:
    """Return the HMAC-SHA256 of a record of the catalogue, in hexadecimal."""
    return hmac.new(keys.mac_key(MAC_NAME), content, hashlib.sha256).hexdigest()


@contextmanager
def lent(keys: DataKeys, database: str, wanted: Iterable[datetime]) -> Iterator[str]:
    """Lend the keys of some spans to child processes; yields the path to pass in :data:`VARIABLE`."""
    labels = {_label(database, span_of(moment)) for moment in wanted}
    content = {name: base64.b64encode(keys.data_key(name)).decode() for name in sorted(labels)}
    descriptor = os.memfd_create("obhut-keys", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, json.dumps({"database": database, "keys": content}).encode())
        # The child opens it through /proc, which only the same user may do.
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def borrowed_for(moment: datetime) -> tuple[str, bytes]:
    """Return label and key for data of a moment, inside a child that got :data:`VARIABLE`.

    Raises:
        KeyGoneError: the key of that span was not lent.
    """
    database = str(_borrowed()["database"])
    name = label(database, moment)
    return name, borrowed(name)


def borrowed(name: str) -> bytes:
    """Return the key of a label, inside a child that got :data:`VARIABLE`.

    Raises:
        KeyGoneError: that key was not lent.
    """
    found = _borrowed()["keys"].get(name)
    if found is None:
        raise KeyGoneError("the key for the segment's time was not lent to the WAL filter", "It is archived at the next run.")
    return base64.b64decode(found)


def _borrowed() -> dict[str, Any]:
    with open(os.environ[VARIABLE], encoding="utf-8") as file:  # noqa: PTH123 - fast start matters here
        return dict(json.load(file))
