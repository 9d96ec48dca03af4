"""What the controllers' logs hold, read as a reader has to: entries from the tiles, values with the keys that are left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from obhut.auditlog import entries
from obhut.auditlog.entries import Entry, Sealed
from obhut.auditlog.files import LogFiles
from obhut.auditlog.store import open_store
from obhut.foundation.settings import load
from obhut.keystore.sealing import Key, unseal
from obhut.keystore.subjects import Keyring
from obhut.postgres import control
from support.installation import Installation

SERVER = {"wal_level": "logical", "max_slot_wal_keep_size": "2GB"}
SETTING = '[databases.{name}.capture]\nmethod = "{method}"\n'


@dataclass(frozen=True)
class Read:
    """An entry with what could be opened of it."""

    controller: str
    entry: Entry
    values: tuple[dict[str, Any] | None, ...]

    @property
    def row(self) -> dict[str, Any]:
        """The first part about a row that opens; empty when none does."""
        return next((v for v, part in zip(self.values, self.entry.sealed, strict=True) if part.part == "row" and v), {})

    @property
    def actor(self) -> dict[str, Any] | None:
        """Who is said to have done it."""
        return next((v for v, part in zip(self.values, self.entry.sealed, strict=True) if part.part == "actor"), None)

    @property
    def brief(self) -> tuple[str, str, str]:
        """Kind, table and operation."""
        return (self.entry.kind.value, self.entry.table, self.entry.operation)


class Logs:
    """The logs of one installation; the control database is open in this process."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.settings = load(installation.folder / "obhut.toml")
        self.store = open_store(self.settings)

    def all(self) -> list[Read]:
        """Return every entry but openings, log by log, with its plaintexts."""
        with control.control_session() as session, Keyring(self.settings) as keyring:
            found: list[Read] = []
            for controller, period, size in session.rows("SELECT controller, period, size FROM auditlog_log ORDER BY controller, period"):
                for _, bundle in LogFiles.of(self.store, controller, period).scan(size):
                    found += [self._read(controller, entries.decode(octets), keyring) for octets in bundle]
        return [read for read in found if read.entry.kind != "opening"]

    def changes(self) -> list[Read]:
        """Return the changes, server by server, in the order of their positions."""
        found = [(read, read.entry.position) for read in self.all() if read.entry.kind == "change" and read.entry.position]
        begun: dict[str, datetime] = {}
        for read, position in found:
            begun[position.system] = min(read.entry.at, begun.get(position.system, read.entry.at))
        return [read for read, _ in sorted(found, key=lambda one: (begun[one[1].system], one[1].order()))]

    def gaps(self) -> list[Read]:
        """Return the gaps of the vendor's own log: each gap is in every log."""
        return [read for read in self.all() if read.entry.kind == "gap" and read.controller.startswith("unassigned")]

    def places(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Return controller and position of each change: none may come twice."""
        return [(read.controller, read.entry.position.order()) for read in self.changes() if read.entry.position]

    def _read(self, controller: str, entry: Entry, keyring: Keyring) -> Read:
        keys = keyring.by_id([part.key for part in entry.sealed])
        return Read(controller, entry, tuple(self._open(controller, entry, part, keys.get(part.key)) for part in entry.sealed))

    def _open(self, controller: str, entry: Entry, part: Sealed, key: object) -> dict[str, Any] | None:
        if not isinstance(key, Key) or part.dropped:
            return None
        data = part.data
        if part.blob:
            data = self.store.read(f"{controller}/{entry.at:%Y-%m}/blob/{part.blob[:2]}/{part.blob}") or b""
        bound = entries.binding(controller, entry.database, entry.table, entry.operation, entry.position, part.part)
        plaintext = unseal(key, data, bound)
        assert entries.digest(plaintext) == part.digest
        found: dict[str, Any] = msgspec.json.decode(plaintext)
        return found


@contextmanager
def logs_of(installation: Installation) -> Iterator[Logs]:
    """Open the control database in this process and give the logs."""
    settings = load(installation.folder / "obhut.toml")
    control.open_control(settings)
    try:
        yield Logs(installation)
    finally:
        control.close_control(settings)
