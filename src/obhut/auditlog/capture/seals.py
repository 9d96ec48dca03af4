"""Keys and places of one batch: a cipher a person, made once, and positions whose common part is made once a transaction.

Lives as long as the batch: a key is never kept longer than the lease under which it was handed out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from obhut.auditlog import entries
from obhut.auditlog.capture.forms import Whose
from obhut.auditlog.capture.intake import Transaction
from obhut.auditlog.entries import Position, Sealed
from obhut.controllers.vocabulary import SubjectRef
from obhut.foundation.lsn import lsn_text
from obhut.keystore.sealing import NONCE_BYTES, Sealer
from obhut.keystore.subjects import Erased, Held
from obhut.postgres.timelines import TimelineSwitch, timeline_at

_NEVER: Final = bytes(entries.KEY_ID)  # stands for the key of a person who was erased before there was one
_SALT: Final = 16
_DRAWN: Final = _SALT + NONCE_BYTES  # random octets of a part
_AT_ONCE: Final = 1_000 * _DRAWN  # drawn from the system at a time


class Keys(Protocol):
    """Where keys come from (:class:`obhut.keystore.subjects.Keyring`)."""

    def keys(self, wanted: Mapping[str, Iterable[SubjectRef]]) -> dict[str, dict[SubjectRef, Held]]:
        """Return the keys of subjects by controller."""

    def begin(self, controller: str, ref: SubjectRef, committed_at: datetime) -> Held:
        """Give an erased subject that registers again a new life."""


@dataclass(frozen=True, slots=True)
class Server:
    """Who sends the stream; ``history`` holds the ends of timelines before this one."""

    system: str
    timeline: int
    history: Sequence[TimelineSwitch] = ()

    def position(self, transaction: Transaction, ordinal: int) -> Position:
        """Return the place of a change."""
        return self.at(transaction.commit, ordinal)

    def at(self, commit: int, ordinal: int) -> Position:
        """Return a place by the commit's position; changes before a fork belong to the timeline on which they were written."""
        return Position(self.system, timeline_at(commit, self.timeline, self.history), lsn_text(commit), ordinal)


class Places:
    """Positions of changes, the transaction's part of them made once a transaction."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transaction: Transaction | None = None
        self._timeline, self._lsn = 0, ""

    def of(self, transaction: Transaction, ordinal: int) -> Position:
        """Return the position of a change."""
        if transaction is not self._transaction:
            first = self._server.position(transaction, 0)
            self._transaction, self._timeline, self._lsn = transaction, first.timeline, first.lsn
        return Position(self._server.system, self._timeline, self._lsn, ordinal)


class Seals:
    """The keys of everybody in a batch."""

    def __init__(self, everybody: Iterable[Whose], keys: Keys) -> None:
        people = list(everybody)
        wanted: dict[str, list[SubjectRef]] = {}
        for whose in people:
            wanted.setdefault(whose.controller, []).append(whose.ref)
        held = keys.keys(wanted)
        self._keys = keys
        self._random, self._at = b"", 0
        self._held = {whose: _usable(held[whose.controller][whose.ref]) for whose in people}

    def part(
        self, part: str, whose: Whose, members: Mapping[str, object], bound: Callable[[str], bytes], born: datetime | None = None
    ) -> Sealed:
        """Return a part sealed under a person's key; dropped where the person was erased.

        Args:
            part: name of the part.
            whose: the person, one of the batch.
            members: of the plaintext.
            bound: returns the associated data of a part.
            born: when the person's own row was inserted, if this change is that: somebody who was erased before begins anew.
        """
        held = self._held[whose]
        if born is not None and isinstance(held, Erased):
            held = self._held[whose] = _usable(self._keys.begin(whose.controller, whose.ref, born))
        if isinstance(held, Erased):
            return Sealed(part=part, key=held.id or _NEVER, dropped="erased")
        at = self._at
        if at == len(self._random):
            self._random, at = os.urandom(_AT_ONCE), 0
        self._at = at + _DRAWN
        salt, nonce = self._random[at : at + _SALT], self._random[at + _SALT : at + _DRAWN]
        plaintext = entries.plain(salt, members)
        key = held.key
        return Sealed(part, key.id, key.commitment, entries.digest(plaintext), held.seal_with(plaintext, bound(part), nonce))


def _usable(held: Held) -> Sealer | Erased:
    return held if isinstance(held, Erased) else Sealer(held)
