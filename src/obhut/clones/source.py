"""The moment of a database that a copy shows: one exported snapshot, held until the last part is carried.

While the snapshot is held, the address of every row that it sees stays what it is; a lock on each table keeps rewrites (VACUUM FULL,
CLUSTER, ALTER TABLE) waiting, which would move rows. Nothing is written at the source, so a standby will do, or a quarantine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from obhut.clones.errors import CloneRefusedError
from obhut.postgres.catalogue import Catalogue, read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL
from obhut.restores import streams

_READING = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "lock_timeout": "30s"}
_MOMENT = """
SELECT now(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text,
       (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
"""


@dataclass(frozen=True)
class Source:
    """A database at one moment.

    Attributes:
        session: inside the transaction whose snapshot is exported; for reading.
        snapshot: its name, for other sessions and programs.
        moment: when it was taken.
        lsn: position of the WAL at that time, or a little before.
        path: search path for reading rows, on which the catalogue's names of types depend; none where values are names themselves.
    """

    url: str
    session: Session
    snapshot: str
    catalogue: Catalogue
    moment: datetime
    lsn: str
    path: str = ""

    @property
    def major(self) -> int:
        """Major version of the server."""
        return self.session.server_version // 10_000


@contextmanager
def held(url: str, application: str, *, moment: datetime | None = None) -> Iterator[Source]:
    """Hold a snapshot of a database while the block runs.

    Args:
        url: the database.
        application: name of the session.
        moment: that the database stands at, if it does not live.

    Raises:
        CloneRefusedError: the schema changed while it was taken, or the role does not see every row.
        DatabaseError: the database does not answer, or a table is locked for longer than half a minute.
    """
    with Session.connect(url, application_name=application, settings=_READING) as session:
        before = read_catalogue(session)
        with session.transaction("repeatable read", read_only=True):
            tables = [table.relation for table in before.tables.values() if table.kind in {"r", "p"}]
            if tables:  # before the first question: a lock takes no snapshot yet
                session.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(SQL(", ").join(tables)))
            snapshot = str(session.value("SELECT pg_export_snapshot()"))
            catalogue = read_catalogue(session)
            if catalogue.fingerprint() != before.fingerprint():
                raise CloneRefusedError("the schema changed while the snapshot was taken", "Try again when the migration is over.")
            now, lsn, everything = session.row(_MOMENT) or (None, "", False)
            if not everything:
                raise CloneRefusedError("the role may not read every row", "Use a role with BYPASSRLS; see docs/reference/privileges.md.")
            yield Source(url, session, snapshot, catalogue, moment or now, lsn, _path(session, catalogue))


def _path(session: Session, catalogue: Catalogue) -> str:
    return "" if any(streams.as_text(table) for table in catalogue.tables.values()) else str(session.value("SHOW search_path"))
