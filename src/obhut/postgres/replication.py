"""The replication protocol: one logical slot read as a stream of messages, or polled by SQL where streaming is not allowed.

The only place that imports psycopg2: psycopg 3 does not speak the protocol (decision 20). Both ways give the same payloads of the output
plug-in, in the same order, so whoever reads them cannot tell one from the other.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import psycopg2
from psycopg2.extras import LogicalReplicationConnection

from obhut.foundation.lsn import lsn_number, lsn_text
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError, for_state, without_state
from obhut.postgres.timelines import TimelineSwitch, parse_history

STREAMED: Final = 2000  # messages taken from the socket at a time
_STATUS: Final = 10  # seconds between answers that psycopg2 gives by itself
_PEEK: Final = "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, %s::pg_lsn, %s, VARIADIC %s::text[])"


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Who answers: ``IDENTIFY_SYSTEM`` of the replication protocol."""

    system_identifier: int
    timeline: int


class Stream(Protocol):
    """Messages of a logical slot, in the order of commits."""

    def read(self, wait: float) -> list[bytes]:
        """Return the next messages; none when ``wait`` seconds have passed without one.

        Raises:
            DatabaseError: the connection or the slot is lost.
        """

    @property
    def reached(self) -> int:
        """Position up to which the server has looked for messages that were read; to be believed outside a transaction only."""

    def acknowledge(self, position: int) -> None:
        """Tell the server that nothing before ``position`` is ever asked for again."""

    def close(self) -> None:
        """End the stream; the slot stays."""


class Streamed:
    """The slot by the replication protocol.

    Args:
        url: of the protected database.
        slot: name of the slot.
        options: of the output plug-in, as name and value.
        start: position to begin at; the slot's own when it is further.

    Raises:
        DatabaseError: the server refused; 55000 says that the slot is invalid, 42704 that there is none, 55006 that somebody reads it.
    """

    def __init__(self, url: str, slot: str, options: Sequence[tuple[str, str]], start: int = 0) -> None:
        words = ", ".join(f"{name} {_quoted(value)}" for name, value in options)
        self._connection = _connect(url)
        try:
            with _safe():
                self._cursor = self._connection.cursor()
                command = f'START_REPLICATION SLOT "{_slot(slot)}" LOGICAL {lsn_text(start)} ({words})'
                self._cursor.start_replication_expert(command, decode=False, status_interval=_STATUS)
        except BaseException:
            self._connection.close()
            raise

    def read(self, wait: float) -> list[bytes]:
        """As :meth:`Stream.read`."""
        found: list[bytes] = []
        read = self._cursor.read_message
        with _safe():
            message = read()
            if message is None and select.select([self._cursor], [], [], wait)[0]:
                message = read()
            while message is not None:
                found.append(message.payload)
                if len(found) >= STREAMED:
                    break
                message = read()
        return found

    @property
    def reached(self) -> int:
        """As :attr:`Stream.reached`."""
        return int(self._cursor.wal_end)

    def acknowledge(self, position: int) -> None:
        """As :meth:`Stream.acknowledge`."""
        with _safe():
            self._cursor.send_feedback(write_lsn=position, flush_lsn=position, apply_lsn=position, reply=False, force=True)

    def close(self) -> None:
        """As :meth:`Stream.close`."""
        self._connection.close()


class Polled:
    """The slot by SQL: ``pg_logical_slot_peek_binary_changes``, for servers behind a proxy that does not pass the protocol on.

    The server decodes again from the start of the slot at each call, and a call returns whole transactions: a very large one needs
    its size in memory.

    Args:
        session: on the protected database, of its own.
        slot: name of the slot.
        options: of the output plug-in, as name and value.
        size: messages after which a call takes no further transaction.
    """

    def __init__(self, session: Session, slot: str, options: Sequence[tuple[str, str]], size: int = 20_000) -> None:
        self._session = session
        self._slot = slot
        self._options = [word for pair in options for word in pair]
        self._size = size
        self._reached = 0
        self._held = False

    def read(self, wait: float) -> list[bytes]:
        """As :meth:`Stream.read`; messages that are not acknowledged yet are not given twice."""
        if self._held:
            return []
        deadline = time.monotonic() + wait
        while True:
            # Taken before the look: a transaction that commits later is at a later position, and is found by the next call.
            end = lsn_number(str(self._session.value("SELECT pg_current_wal_flush_lsn()::text")))
            found = [bytes(data) for (data,) in self._session.rows(_PEEK, (self._slot, lsn_text(end), self._size, self._options))]
            if found:
                self._held = True
                return found
            self._reached = end
            if time.monotonic() >= deadline:
                return []
            time.sleep(min(0.2, max(deadline - time.monotonic(), 0)))

    @property
    def reached(self) -> int:
        """As :attr:`Stream.reached`."""
        return self._reached

    def acknowledge(self, position: int) -> None:
        """As :meth:`Stream.acknowledge`."""
        self._session.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", (self._slot, lsn_text(position)))
        self._held = False

    def close(self) -> None:
        """As :meth:`Stream.close`."""
        self._session.close()


class Replication:
    """A connection for the commands of the replication protocol; leaving the block closes it."""

    def __init__(self, url: str) -> None:
        self._connection = _connect(url)

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._connection.close()

    def identify(self) -> ServerIdentity:
        """Return who answers."""
        (row,) = self._rows("IDENTIFY_SYSTEM")
        return ServerIdentity(int(row[0]), int(row[1]))

    def history(self, timeline: int) -> list[TimelineSwitch]:
        """Return where each timeline before this one ends; empty for the first timeline."""
        if timeline == 1:
            return []
        (row,) = self._rows(f"TIMELINE_HISTORY {int(timeline)}")
        # Of type bytea before PostgreSQL 15, text since: a driver may have left the escapes of the former in it.
        content = bytes(row[1]).decode("utf-8", "replace") if isinstance(row[1], memoryview | bytes) else str(row[1])
        return parse_history(content.replace("\\012", "\n").replace("\\011", "\t"))

    def _rows(self, command: str) -> list[tuple[Any, ...]]:
        with _safe(), self._connection.cursor() as cursor:
            cursor.execute(command)
            return list(cursor.fetchall())


def _connect(url: str) -> Any:
    with _safe():
        return psycopg2.connect(
            url, connection_factory=LogicalReplicationConnection, application_name="obhut audit", connect_timeout=10, client_encoding="UTF8"
        )


def _slot(name: str) -> str:
    if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_"):
        raise ValueError("the name of a slot has lower-case letters, digits and underscores")
    return name


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@contextmanager
def _safe() -> Iterator[None]:
    """Translate errors of psycopg2 raised inside the block without their words, as :func:`obhut.postgres.errors.safe` does."""
    translated: DatabaseError
    try:
        yield
    except psycopg2.Error as error:
        if error.pgcode:
            translated = for_state(error.pgcode, {})
        else:
            lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError | psycopg2.DatabaseError)
            translated = without_state(type(error).__name__, lost=lost)
    else:
        return
    try:
        raise translated
    finally:
        translated.__context__ = None
        translated.__cause__ = None
