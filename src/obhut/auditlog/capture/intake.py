"""From messages of the stream to changes with their place, time and actor; transactions need not fit into memory.

pgoutput sends a transaction after its commit, and its first message names the commit's position and time: so each change has its whole
position as soon as it is read, and a transaction of any size is passed on in pieces.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

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
_FACTS: Final = 1_000  # remembered at the most


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
        self._facts: dict[bytes, Acting] = {}

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
            elif type(event) is Begin:
                self.transaction = Transaction(event.commit, event.at)
            elif event is not None:
                self._other(event, items)
        if self.transaction is not None and self.transaction.ordinal >= 0:
            self.last = self.transaction.commit, self.transaction.ordinal

    def _other(self, event: object, items: list[Item]) -> None:
        now = self.transaction
        if now is None:
            return  # a message outside a transaction: nobody of ours writes one
        if isinstance(event, Commit):
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
            if event.prefix == PREFIX:
                self._told(event.content, now, items)

    def _told(self, content: bytes, now: Transaction, items: list[Item]) -> None:
        """Note who acts. Sessions of one application tell the same fact in each transaction: one object stands for all of them."""
        if now.acting is None and (known := self._facts.get(content)) is not None:
            now.acting = known
            return
        told = read(content)
        if told is None:
            return
        first, now.acting = now.acting is None, acting(told, now.acting)
        if told.k not in {"fact", "context"}:
            items.append(Event(told, now, now.ordinal, now.acting))
        elif first and told.k == "fact":
            if len(self._facts) >= _FACTS:
                self._facts.clear()
            self._facts[content] = now.acting
