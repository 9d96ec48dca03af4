"""The protected database as backups see it: facts of the server, its slot, the heartbeat; all SQL that backups send there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from obhut.backups.errors import BackupError
from obhut.foundation.clock import aware
from obhut.foundation.ids import Lsn
from obhut.foundation.lsn import lsn_number
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError, PermissionDeniedError

_FACTS = """
SELECT (SELECT system_identifier FROM pg_control_system()), current_setting('server_version_num')::int,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
       coalesce(current_setting('summarize_wal', true), 'off') = 'on',
       current_setting('wal_level'), pg_is_in_recovery(), (SELECT timeline_id FROM pg_control_checkpoint())
"""
# Missing on PostgreSQL 14 to 16 are no columns that are asked for here.
_SLOT = """
SELECT active, wal_status, restart_lsn::text, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn)::bigint
FROM pg_replication_slots WHERE slot_name = %s AND slot_type = 'physical'
"""
_RECEIVED = """
SELECT flush_lsn::text, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)::bigint
FROM pg_stat_replication WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s)
"""
_MESSAGE = "SELECT clock_timestamp(), pg_logical_emit_message(true, 'obhut', 'heartbeat')"
_BARE = "SELECT clock_timestamp(), pg_current_xact_id()"
_SEQUENCES = """
SELECT schemaname, sequencename, increment_by, last_value FROM pg_sequences
WHERE last_value IS NOT NULL AND schemaname NOT LIKE 'pg\\_temp%%' AND schemaname NOT LIKE 'pg\\_toast%%'
"""


class UnsuitableServerError(BackupError):
    """The server is set up so that it cannot be backed up."""

    code = "backup-server-unsuitable"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What backups must know of a server."""

    system_identifier: int
    version: int  # such as 180006
    wal_segment_size: int  # bytes
    summarizes_wal: bool
    timeline: int

    @property
    def major(self) -> int:
        """Major version."""
        return self.version // 10_000

    @property
    def incrementals(self) -> bool:
        """Whether it can send incremental base backups: PostgreSQL 17 or later with ``summarize_wal = on``."""
        return self.major >= 17 and self.summarizes_wal


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """The replication slot that keeps WAL for the receiver."""

    active: bool
    wal_status: str  # reserved, extended, unreserved or lost
    retained: int  # bytes of WAL that the server keeps for it
    flushed: Lsn | None  # how far the receiver has it on disk; None when none is connected
    lag: int | None  # bytes that the receiver is behind


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat commit."""

    system_identifier: int
    timeline: int
    at: datetime  # server's clock just before the commit
    position: int  # at or behind the commit record
    segment_size: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """How far a sequence has been handed out."""

    schema: str
    name: str
    increment: int
    value: int


class Source:
    """A session on the protected database."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def facts(self) -> ServerFacts:
        """Return the facts of the server.

        Raises:
            UnsuitableServerError: a standby, or ``wal_level`` is ``minimal``.
        """
        row = self._session.row(_FACTS)
        if row is None:
            raise UnsuitableServerError("the server does not tell its settings")
        identifier, version, segment, summarizes, level, standby, timeline = row
        if standby:
            raise UnsuitableServerError("the server is a standby", "Name the primary in the database URL.")
        if level == "minimal":
            raise UnsuitableServerError("wal_level of the server is minimal", "Set wal_level to replica and restart the server.")
        return ServerFacts(_unsigned(identifier), version, segment, summarizes, timeline)

    def slot(self, name: str) -> SlotFacts | None:
        """Return the state of a slot, or None when there is none."""
        row = self._session.row(_SLOT, (name,))
        if row is None:
            return None
        received = self._session.row(_RECEIVED, (name,)) or (None, None)
        return SlotFacts(row[0], row[1] or "lost", row[3] or 0, Lsn(received[0]) if received[0] else None, received[1])

    def drop_slot(self, name: str) -> bool:
        """Drop an inactive slot; returns whether there was one."""
        return (
            self._session.value(
                "SELECT pg_drop_replication_slot(slot_name) IS NOT NULL FROM pg_replication_slots WHERE slot_name = %s", (name,)
            )
            is not None
        )

    def beat(self) -> Beat:
        """Commit a heartbeat: a small WAL record and a commit record, no table, no schema."""
        try:
            row = self._session.row(_MESSAGE)  # autocommit: a transaction of its own
        except PermissionDeniedError:
            row = self._session.row(_BARE)
        after = self._session.row(
            "SELECT pg_current_wal_insert_lsn()::text, system_identifier, timeline_id, setting::bigint "
            "FROM pg_control_system(), pg_control_checkpoint(), pg_settings WHERE name = 'wal_segment_size'"
        )
        if row is None or after is None:
            raise DatabaseError("the server did not answer a heartbeat")
        return Beat(_unsigned(after[1]), after[2], aware(row[0]), lsn_number(after[0]), after[3])

    def switch_wal(self) -> bool:
        """Finish the running WAL segment; false when the role may not."""
        try:
            self._session.execute("SELECT pg_switch_wal()")
        except PermissionDeniedError:
            return False
        return True

    def sequences(self) -> list[Sequence]:
        """Return the sequences of the database that the role may see."""
        return [Sequence(*row) for row in self._session.rows(_SEQUENCES)]

    def now(self) -> datetime:
        """Return the server's clock."""
        return aware(self._session.value("SELECT clock_timestamp()"))


@contextmanager
def opened(url: str, *, application_name: str = "obhut backup") -> Iterator[Source]:
    """Open a session on the protected database for the block."""
    with Session.connect(url, application_name=application_name, settings={"statement_timeout": "60s", "lock_timeout": "5s"}) as session:
        yield Source(session)


def _unsigned(identifier: int) -> int:
    # The server's 64 unsigned bits come as a signed BIGINT.
    return identifier % (1 << 64)
