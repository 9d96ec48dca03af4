"""Driver errors without their values.

Measured on PostgreSQL: unique, not-null and check violations put the value or the whole row in DETAIL, COPY errors put the line in
CONTEXT, and cast errors put it in the primary message. So nothing of the server's text is kept: the message is made from the
SQLSTATE's condition name and from object names, and the cause is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import errors as driver_errors

from obhut.foundation.errors import ObhutError


class DatabaseError(ObhutError):
    """The server refused a statement."""

    code = "database-error"

    def __init__(
        self,
        fact: str,
        hint: str | None = None,
        *,
        sqlstate: str | None = None,
        schema: str | None = None,
        table: str | None = None,
        column: str | None = None,
        constraint: str | None = None,
    ) -> None:
        super().__init__(fact, hint)
        self.sqlstate = sqlstate
        self.schema = schema
        self.table = table
        self.column = column
        self.constraint = constraint


class UnreachableError(DatabaseError):
    """No connection could be made, or it was lost."""

    code = "database-unreachable"


class SerializationError(DatabaseError):
    """A concurrent transaction changed the same rows (class 40): the caller repeats the whole transaction."""

    code = "database-conflict"


class LockTimeoutError(DatabaseError):
    """A lock or the statement took longer than allowed (55P03, 57014)."""

    code = "database-lock-timeout"


class ForeignKeyError(DatabaseError):
    """A foreign key forbids the change (23503, 23001)."""

    code = "database-foreign-key"


class PermissionDeniedError(DatabaseError):
    """The role lacks a privilege (class 28 or 42501)."""

    code = "database-permission"


class NoRoomError(DatabaseError):
    """The server's disk is full, or another of its limits is reached (class 53)."""

    code = "database-no-room"


def translate(error: psycopg.Error) -> DatabaseError:
    """Return the value-free error for a driver error."""
    diag = error.diag
    if error.sqlstate is None:
        return without_state(type(error).__name__, lost=isinstance(error, psycopg.OperationalError))
    names = {
        "schema": diag.schema_name,
        "table": diag.table_name,
        "column": diag.column_name,
        "constraint": diag.constraint_name,
    }
    return for_state(error.sqlstate, names)


def without_state(kind: str, *, lost: bool) -> DatabaseError:
    """Return the error for a failure that the server did not name.

    Args:
        kind: name of the driver's exception.
        lost: the connection failed or was lost.
    """
    if lost:
        return UnreachableError(
            "the connection to the database failed or was lost",
            "Is the server running, and do address, role and password of the database URL fit?",
        )
    return DatabaseError(f"the driver refused the call ({kind})", sqlstate=None)


def for_state(state: str, names: Mapping[str, str | None]) -> DatabaseError:
    """Return the error for a SQLSTATE and the names of the objects it is about."""
    where = ", ".join(f"{kind} {name}" for kind, name in names.items() if name)
    try:
        condition = driver_errors.lookup(state).__name__
    except KeyError:
        condition = "unknown condition"
    fact = f"the database refused a statement: {condition} ({state})" + (f" at {where}" if where else "")
    kind: type[DatabaseError] = DatabaseError
    hint = None
    if state.startswith("40"):
        kind, hint = SerializationError, "Another transaction changed the same rows; run the command again."
    elif state in {"55P03", "57014"}:
        kind, hint = LockTimeoutError, "Which session holds the lock? Look at pg_stat_activity, then run the command again."
    elif state in {"23503", "23001"}:
        kind, hint = ForeignKeyError, 'Does the data map cover the referencing table? Run "obhut datamap check".'
    elif state.startswith("28") or state == "42501":
        kind, hint = PermissionDeniedError, "Has the role of the database URL the privileges listed in docs/reference/privileges.md?"
    elif state.startswith("53"):
        kind, hint = NoRoomError, "Give the server room (disk, memory, connections), then run the command again."
    elif state.startswith(("08", "57P")):
        kind, hint = UnreachableError, "Is the server running? Its log says why it closed the connection."
    return kind(fact, hint, sqlstate=state, **names)


@contextmanager
def safe() -> Iterator[None]:
    """Translate driver errors raised inside the block, with the cause cut off."""
    try:
        yield
    except psycopg.Error as error:
        translated = translate(error)
    else:
        return
    try:
        raise translated
    finally:
        # Python links the driver's error again on the way out of the with statement; its words must not travel along.
        translated.__context__ = None
        translated.__cause__ = None
