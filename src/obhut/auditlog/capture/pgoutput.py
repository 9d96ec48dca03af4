"""Decoder of ``pgoutput``, protocol version 1: bytes of the server to values, nothing invented.

Format: "Logical Replication Message Formats" in PostgreSQL's manual, the same from 14 to 18. Pure: no database, no clock. A value is
the server's own text as bytes, ``None`` for NULL, or :data:`UNCHANGED` where the server did not send a long value that was left alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from struct import Struct
from typing import Final

import msgspec

from obhut.foundation.errors import ObhutError

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_COUNT: Final = Struct(">H").unpack_from
_LENGTH: Final = Struct(">I").unpack_from
_VALUE: Final = Struct(">BI").unpack_from  # kind and length; behind a null that comes last there is no length
_PADDING: Final = 4  # so many octets are read behind it then
_BEGIN: Final = Struct(">QqI").unpack_from
_COMMIT: Final = Struct(">BQQq").unpack_from
_RELATION: Final = Struct(">I").unpack_from
_MESSAGE: Final = Struct(">BQ").unpack_from
_TRUNCATE: Final = Struct(">IB").unpack_from
_T, _N, _U, _B = b"tnub"
_NEW, _OLD, _KEY = b"NOK"


class Unchanged:
    """A value that the server did not send: stored out of line and left alone by the statement."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the one thing there is to say."""
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
Value = bytes | None | Unchanged
Values = list[Value]


class Operation(StrEnum):
    """What happened to a row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


# Looked up once: a member of an enumeration costs a call each time it is named.
_INSERTED, _UPDATED, _DELETED = Operation.INSERT, Operation.UPDATE, Operation.DELETE


class PgoutputError(ObhutError):
    """A message of the server does not follow the protocol, or is about a relation that was never described."""

    code = "audit-stream-invalid"


class RelationColumn(msgspec.Struct, frozen=True):
    """A column as the stream describes it."""

    name: str
    is_key: bool
    type_oid: int


class Relation(msgspec.Struct, frozen=True):
    """A table as it was when the following changes happened; ``identity`` is the letter of ``pg_class.relreplident``."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]
    names: tuple[str, ...]  # of the columns: what every row needs

    @property
    def full_name(self) -> str:
        """``schema.name``, as the data map writes it."""
        return f"{self.schema}.{self.name}"


class Begin(msgspec.Struct, gc=False):
    """A committed transaction starts; ``commit`` is the position of its commit record."""

    commit: int
    microseconds: int  # since 2000-01-01 UTC
    xid: int

    @property
    def at(self) -> datetime:
        """Time of the commit by the server's clock."""
        return _EPOCH + timedelta(microseconds=self.microseconds)


class Commit(msgspec.Struct, gc=False):
    """A transaction ends; ``end`` is the position behind its commit record, from which the next one is asked for."""

    commit: int
    end: int


class Change(msgspec.Struct, gc=False):
    """A row was changed.

    Attributes:
        partial: ``old`` holds the key's columns alone, the others None.
        lacking: a value is :data:`UNCHANGED`.
    """

    relation: Relation
    operation: Operation
    old: Values | None
    new: Values | None
    partial: bool = False
    lacking: bool = False


class Truncated(msgspec.Struct, gc=False):
    """Tables were emptied by one statement."""

    relations: list[Relation]
    cascade: bool
    restart_identity: bool


class Message(msgspec.Struct, gc=False):
    """A logical message of ``pg_logical_emit_message``."""

    prefix: str
    content: bytes
    transactional: bool


class Origin(msgspec.Struct, gc=False):
    """The transaction was replayed here from another server."""

    name: str


Event = Begin | Commit | Change | Truncated | Message | Origin | Relation


class Decoder:
    """Keeps the descriptions of relations that the stream has sent; a new connection needs a new decoder."""

    def __init__(self) -> None:
        self.relations: dict[int, Relation] = {}

    def decode(self, data: bytes) -> Event | None:
        """Return what a message says; None for one without meaning here (types).

        Raises:
            PgoutputError: the message does not follow the protocol.
        """
        try:
            return self._decode(data)
        except (IndexError, KeyError, ValueError, UnicodeDecodeError):
            pass
        except Exception as error:
            if type(error).__name__ != "error":  # struct.error has no better name
                raise
        kind = chr(data[0]) if data else ""
        raise PgoutputError(f"a message {kind!r} of {len(data)} bytes cannot be read", "Is the output plug-in of the slot pgoutput?")

    def _decode(self, data: bytes) -> Event | None:
        kind = data[0]
        if kind in _ROWS:
            return self._change(data + bytes(_PADDING), kind)
        if kind == _begin:
            return Begin(*_BEGIN(data, 1))
        if kind == _commit:
            _, commit, end, _at = _COMMIT(data, 1)
            return Commit(commit, end)
        if kind == _relation:
            return self._describe(data)
        if kind == _message:
            flags, _lsn = _MESSAGE(data, 1)
            end = data.index(0, 10)
            (length,) = _LENGTH(data, end + 1)
            return Message(data[10:end].decode(), _slice(data, end + 5, length), bool(flags & 1))
        if kind == _truncate:
            count, flags = _TRUNCATE(data, 1)
            oids = [_LENGTH(data, 6 + 4 * number)[0] for number in range(count)]
            return Truncated([self.relations[oid] for oid in oids], bool(flags & 1), bool(flags & 2))
        if kind == _origin:
            return Origin(data[9:-1].decode())
        if kind == _type:
            return None
        raise ValueError("an unknown kind of message")

    def _change(self, data: bytes, kind: int) -> Change:
        relation = self.relations[_RELATION(data, 1)[0]]
        marker = data[5]
        if kind == _insert:
            new, _, lacking = _tuple(data, 6)
            return Change(relation, _INSERTED, None, new, False, lacking)
        old: Values | None = None
        at, partial, lacking = 5, False, False
        if marker == _OLD or marker == _KEY:  # noqa: PLR1714, SIM109 - as in _tuple
            partial = marker == _KEY
            old, at, lacking = _tuple(data, 6)
        if kind == _delete:
            if old is None:
                raise ValueError("a deletion without an old row")
            return Change(relation, _DELETED, old, None, partial, lacking)
        if data[at] != _NEW:
            raise ValueError("an update without a new row")
        new, _, left_out = _tuple(data, at + 1)
        if left_out and old is not None and not partial:
            _refill(new, old)
        return Change(relation, _UPDATED, old, new, partial, lacking or left_out)

    def _describe(self, data: bytes) -> Relation:
        (oid,) = _RELATION(data, 1)
        schema, at = _string(data, 5)
        name, at = _string(data, at)
        identity = chr(data[at])
        (count,) = _COUNT(data, at + 1)
        at += 3
        columns = []
        for _ in range(count):
            is_key = bool(data[at] & 1)
            column, at = _string(data, at + 1)
            columns.append(RelationColumn(column, is_key, _LENGTH(data, at)[0]))
            at += 8
        # An empty schema stands for pg_catalog.
        names = tuple(column.name for column in columns)
        relation = Relation(oid, schema or "pg_catalog", name, identity, tuple(columns), names)
        self.relations[oid] = relation
        return relation


def _tuple(data: bytes, at: int) -> tuple[Values, int, bool]:
    """Return the values of a row, where it ends, and whether one was not sent."""
    (count,) = _COUNT(data, at)
    at += 2
    values: Values = []
    lacking = False
    add = values.append
    value_at = _VALUE
    for _ in range(count):
        kind, length = value_at(data, at)
        if kind == _T or kind == _B:  # noqa: PLR1714, SIM109 - a set or a tuple costs a tenth of the throughput
            start = at + 5
            at = start + length
            add(data[start:at])
        elif kind == _N:
            add(None)
            at += 1
        elif kind == _U:
            add(UNCHANGED)
            at += 1
            lacking = True
        else:
            raise ValueError("an unknown kind of column")
    if at > len(data) - _PADDING:
        raise ValueError("a value is longer than the message")
    return values, at, lacking


def _refill(new: Values, old: Values) -> None:
    """Under REPLICA IDENTITY FULL the old row carries long values that the new one left out: unchanged means the same."""
    for position, value in enumerate(new):
        if value is UNCHANGED:
            new[position] = old[position]


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _slice(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise ValueError("a text is longer than the message")
    return data[at : at + length]


_begin, _commit, _relation, _insert, _update, _delete, _truncate, _message, _origin, _type = b"BCRIUDTMOY"
_ROWS: Final = frozenset({_insert, _update, _delete})
