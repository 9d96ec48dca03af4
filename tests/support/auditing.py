"""Entries for tests of the audit log, sealed as the specification says but under keys that only the test knows."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from obhut.auditlog import entries
from obhut.auditlog.entries import Entry, Position, Sealed

START = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)


def position(number: int, system: str = "7575000000000000001") -> Position:
    """Three rows a transaction, all with the LSN of its commit."""
    return Position(system, 1, f"0/{0x1000 + number // 3 * 16:X}", number % 3)


def subject(number: int) -> bytes:
    return number.to_bytes(16, "big")


def change(number: int, *, person: int = 1, table: str = "public.customer", octets: int = 64, plaintext: bytes | None = None) -> Entry:
    """A change of one row of one person."""
    plaintext = plaintext or entries.plain(os.urandom(16), {"key": {"id": str(person)}, "new": {"email": f"{number}@example.org"}})
    part = Sealed("row", subject(person), b"c" * 32, entries.digest(plaintext), os.urandom(octets))
    return entries.change(
        at=START + timedelta(seconds=number),
        position=position(number),
        database="courses",
        table=table,
        operation="update",
        sealed=[part],
        fact=entries.Fact("app", "web", "10.0.0.7"),
    )


def changes(count: int, *, first: int = 0, people: int = 7) -> list[Entry]:
    return [change(number, person=number % people + 1) for number in range(first, first + count)]
