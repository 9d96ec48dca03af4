"""Sessions: the one shape in which the rest of Obhut speaks to a database.

A :class:`Session` is a driver connection whose errors are value-free. It starts in autocommit; a transaction is always an explicit
block. Every session sets the output formats that checksums depend on, so that the same value is the same text everywhere.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Self, TypeVar

import psycopg
from psycopg import IsolationLevel, conninfo
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from obhut.postgres.errors import SerializationError, safe
from obhut.postgres.sql import SQL, Composable, Composed, Literal, trusted

_TID, _TID_ARRAY = 27, 1010  # oids of pg_catalog.tid and tid[]
_AT_ONCE = 10_000  # row addresses
Query = Composable | str
Statement = SQL | Composed
Row = tuple[Any, ...]
T = TypeVar("T")
Params = Sequence[Any] | Mapping[str, Any] | None

# Values must read the same on every server: checksums compare text across clusters.
_FORMATS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "client_min_messages": "warning",
    "row_security": "off",  # a policy that would hide rows becomes an error instead of a silently shorter copy
}


class TidArray:
    """Row addresses as a parameter of type ``tid[]`` in binary: four bytes block number, two bytes line pointer, big endian.

    Args:
        packed: addresses as ``block << 16 | line pointer``, which is the same six bytes.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: Iterable[int]) -> None:
        self.packed = packed


class _TidArrayDumper(Dumper):
    format = Format.BINARY
    oid = _TID_ARRAY

    def dump(self, obj: TidArray) -> Buffer:
        elements, addresses = bytearray(), iter(obj.packed)
        while some := [b"\0\0\0\6" + packed.to_bytes(6, "big") for packed in islice(addresses, _AT_ONCE)]:
            elements += b"".join(some)  # in pieces: an object for each of a million addresses would take fifty megabytes
        return struct.pack(">iiIii", 1, 0, _TID, len(elements) // 10, 1) + elements


class Session:
    """A connection to one database.

    Raises (every method): :class:`~obhut.postgres.errors.DatabaseError` and its kinds, never a driver error.
    """

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        application_name: str = "obhut",
        settings: Mapping[str, str] | None = None,
        connect_timeout: int = 10,
    ) -> Self:
        """Open a session in autocommit.

        Args:
            url: libpq connection string or URI.
            application_name: what pg_stat_activity shows; never a personal value.
            settings: run-time parameters to set beside the fixed output formats.
            connect_timeout: seconds.
        """
        with safe():
            connection = psycopg.connect(
                url,
                autocommit=True,
                application_name=application_name,
                connect_timeout=connect_timeout,
                client_encoding="UTF8",
            )
            wanted = {**_FORMATS, **(settings or {})}
            assignments = SQL(", ").join(
                SQL("set_config({}, {}, false)").format(Literal(name), Literal(value)) for name, value in wanted.items()
            )
            connection.execute(SQL("SELECT ") + assignments)
            connection.adapters.register_dumper(TidArray, _TidArrayDumper)
        return cls(connection)

    def __enter__(self) -> Self:
        """Return the session; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session."""
        self.close()

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back by the server."""
        self._connection.close()

    @property
    def closed(self) -> bool:
        """Whether the connection is closed or broken."""
        return self._connection.closed or self._connection.broken

    @property
    def server_version(self) -> int:
        """Server version number, such as 180006."""
        return self._connection.info.server_version

    @property
    def backend_pid(self) -> int:
        """Process id of the server's backend."""
        return self._connection.info.backend_pid

    @property
    def database(self) -> str:
        """Name of the database."""
        return self._connection.info.dbname

    def execute(self, query: Query, params: Params = None) -> int:
        """Run a statement and return the number of rows it touched (-1 where that makes no sense)."""
        with safe():
            return self._connection.execute(_composed(query), params).rowcount

    def rows(self, query: Query, params: Params = None, *, binary: bool = False) -> list[Row]:
        """Return all rows; ``binary`` transfers them in the server's own form, which costs less where there is much of bytea."""
        with safe():
            return self._connection.execute(_composed(query), params, binary=binary).fetchall()

    def row(self, query: Query, params: Params = None, *, binary: bool = False) -> Row | None:
        """Return the first row, or none; in ``binary`` format megabytes of text come at a third of the price."""
        with safe():
            return self._connection.execute(_composed(query), params, binary=binary).fetchone()

    def value(self, query: Query, params: Params = None) -> Any:
        """Return the first column of the first row, or None."""
        found = self.row(query, params)
        return found[0] if found else None

    def stream(self, query: Query, params: Params = None, *, size: int = 10_000) -> Iterator[list[Row]]:
        """Yield rows in lists of at most ``size`` through a server-side cursor (needs an open transaction)."""
        with safe(), self._connection.cursor("obhut_stream") as cursor:
            cursor.execute(_composed(query), params)
            while batch := cursor.fetchmany(size):
                yield batch

    def addresses(self, query: Query, params: Params = None) -> list[Row]:
        """Return rows in binary format: an oid comes as int, a tid as its six bytes (``int.from_bytes`` packs it)."""
        with safe(), self._connection.cursor(binary=True) as cursor:
            return cursor.execute(_composed(query), params).fetchall()

    def copy_out(self, query: Statement) -> Iterator[memoryview]:
        """Yield the blocks of a ``COPY … TO STDOUT`` as the server sends them."""
        with safe(), self._connection.cursor() as cursor, cursor.copy(query) as copy:
            while block := copy.read():
                yield memoryview(block)

    def copy_in(self, statement: Statement, blocks: Iterable[bytes | memoryview]) -> int:
        """Feed the blocks to a ``COPY … FROM STDIN`` and return the number of rows loaded."""
        with safe(), self._connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for block in blocks:
                    copy.write(bytes(block) if isinstance(block, memoryview) else block)
            return cursor.rowcount

    def copy_rows(self, statement: Statement, rows: Iterable[Sequence[Any]]) -> int:
        """Feed Python rows to a ``COPY … FROM STDIN`` in text format and return the number of rows loaded."""
        with safe(), self._connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
            return cursor.rowcount

    @contextmanager
    def transaction(self, isolation: str | None = None, *, read_only: bool | None = None) -> Iterator[None]:
        """Run the block in one transaction: committed at its end, rolled back when it raises.

        Args:
            isolation: ``"repeatable read"``, ``"serializable"``, or None for the server's default.
            read_only: refuse writes when true.
        """
        connection = self._connection
        with safe():
            connection.isolation_level = IsolationLevel[isolation.upper().replace(" ", "_")] if isolation else None
            connection.read_only = read_only
            with connection.transaction():
                yield

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Send the statements of the block without waiting for each answer (libpq pipeline mode)."""
        with safe(), self._connection.pipeline():
            yield

    def many(self, query: Query, params: Iterable[Params]) -> None:
        """Run a statement once for each set of parameters, pipelined."""
        with safe(), self._connection.cursor() as cursor:
            cursor.executemany(_composed(query), params)  # type: ignore[arg-type]  # None never comes

    def set(self, name: str, value: str, *, local: bool = False) -> None:
        """Set a run-time parameter; the value travels as a parameter, not in the statement's text."""
        self.execute("SELECT set_config(%s, %s, %s)", (name, value, local))

    def cancel(self) -> None:
        """Ask the server to cancel the running statement; safe to call from another thread."""
        with safe():
            self._connection.cancel_safe()


def _composed(query: Query) -> Statement:
    if isinstance(query, SQL | Composed):
        return query
    return Composed([query]) if isinstance(query, Composable) else trusted(query)


def retrying(attempt: Callable[[], T], *, tries: int = 5, pause: float = 0.05) -> T:
    """Return the result of ``attempt``, repeated on serialization failures and deadlocks.

    Args:
        attempt: a whole transaction; must be free of effects outside it.
        tries: how often at the most.
        pause: seconds before the second try, doubled before each further one.

    Raises:
        SerializationError: the last try failed too.
    """
    for number in range(tries):
        try:
            return attempt()
        except SerializationError:
            if number == tries - 1:
                raise
            time.sleep(pause * 2**number)
    raise AssertionError("tries must be positive")


def with_parameters(url: str, **parameters: str) -> str:
    """Return the connection string with parameters added or replaced, such as ``dbname``."""
    return conninfo.make_conninfo(url, **parameters)


def parameter(url: str, name: str) -> str | None:
    """Return one parameter of a connection string."""
    found = conninfo.conninfo_to_dict(url).get(name)
    return None if found is None else str(found)
