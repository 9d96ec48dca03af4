"""From messages of the stream to changes with their place, time and actor; transactions need not fit into memory.

pgoutput sends a transaction after its commit, and its first message names the commit's position and time: so each change has its whole
position as soon as it is read, and a transaction of any size is passed on in pieces.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from obhut.auditlog.capture.messages import PREFIX, Acting, Told, acting, read
from obhut.auditlog.capture.pgoutput import Begin, Change, Commit, Decoder, Message, Origin, Truncated


class Transaction(msgspec.Struct):
    """A transaction that is being read. ``ordinal`` counts its messages, the same way whenever it is read again."""

    commit: int  # position of the commit record
    at: datetime
    ordinal: int = -1
    acting: Acting | None = None
    origin: str = ""  # name of the replication origin where it was replayed from another server


class Row(msgspec.Struct, gc=False):
    """A change with its place."""

    change: Change
    transaction: Transaction
    ordinal: int
    acting: Acting | None


class Emptied(msgspec.Struct):
    """A TRUNCATE with its place."""

    truncated: Truncated
    transaction: Transaction
    ordinal: int
    acting: Acting | None


class Event(msgspec.Struct):
    """What an event trigger told, with its place."""

    told: Told
    transaction: Transaction
    ordinal: int
    acting: Acting | None


Item = Row | Emptied | Event


class Intake:
    """Reads one connection's stream.

    Attributes:
        transaction: the one that is being read; None between two.
        end: position behind the last transaction that was read whole; 0 before the first.
        last: commit position and ordinal of the last numbered message.
        heard: time of the last commit.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        self.transaction: Transaction | None = None
        self.end = 0
        self.last: tuple[int, int] | None = None
        self.heard: datetime | None = None

    def take(self, payloads: list[bytes], items: list[Item]) -> None:
        """Append what the payloads hold to ``items``.

        Raises:
            PgoutputError: a payload cannot be read, or stands outside a transaction.
        """
        decode = self._decoder.decode
        add = items.append
        for payload in payloads:
            event = decode(payload)
            if type(event) is Change:
                now = self.transaction
                assert now is not None  # noqa: S101 - the protocol: rows stand between begin and commit
                now.ordinal += 1
                add(Row(event, now, now.ordinal, now.acting))
            elif event is not None:
                self._other(event, items)
        if self.transaction is not None and self.transaction.ordinal >= 0:
            self.last = self.transaction.commit, self.transaction.ordinal

    def _other(self, event: object, items: list[Item]) -> None:
        now = self.transaction
        if isinstance(event, Begin):
            self.transaction = Transaction(event.commit, event.at)
        elif now is None:
            return  # a message outside a transaction: nobody of ours writes one
        elif isinstance(event, Commit):
            if now.ordinal >= 0:
                self.last = now.commit, now.ordinal
            self.end, self.heard, self.transaction = event.end, now.at, None
        elif isinstance(event, Origin):
            now.origin = event.name
        elif isinstance(event, Truncated):
            now.ordinal += 1
            items.append(Emptied(event, now, now.ordinal, now.acting))
        elif isinstance(event, Message):
            now.ordinal += 1
            told = read(event.content) if event.prefix == PREFIX else None
            if told is not None and told.k in {"fact", "context"}:
                now.acting = acting(told, now.acting)
            elif told is not None:
                now.acting = acting(told, now.acting)
                items.append(Event(told, now, now.ordinal, now.acting))
