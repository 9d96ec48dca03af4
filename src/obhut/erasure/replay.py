"""What follows from entries of the erasure list alone: their form, the state of every tombstone (specification, section 8). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from pyroaring import BitMap64

from obhut.erasure.entries import LEGAL_MOVES, Members, State, check_ranges, parse
from obhut.erasure.errors import EntryError, ListReorderedError, ListStateError
from obhut.postgres.connections import Row

_TEXT: Final = r'"([^"\\\x00-\x1f]*)"'
_TIME: Final = r'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)"'
# A tombstone whose texts need no escaping: matching proves the canonical form, at a fraction of the cost of parsing.
_PLAIN_TOMBSTONE: Final = re.compile(
    rf'\{{"action":"(erase|anonymise)","at":{_TIME},"commitment":"([0-9a-f]{{64}})","controller":{_TEXT},"database":{_TEXT},'
    rf'"epoch":(0|[1-9]\d{{0,15}}),"erased_at":{_TIME},"id":{_TEXT},"instruction":{_TEXT},"kind":"tombstone","map":{_TEXT},'
    rf'"seq":([1-9]\d{{0,15}}),"subject":{_TEXT}\}}'
)
TOMBSTONE_ORDER: Final = (
    "action", "at", "commitment", "controller", "database", "epoch", "erased_at", "id", "instruction", "map", "seq", "subject",
)  # fmt: skip
_MEMBERS: Final = {
    "tombstone": {
        "action", "at", "commitment", "controller", "database", "epoch", "erased_at", "id", "instruction", "kind", "map", "seq", "subject",
    },
    "effective": {"at", "database", "kind", "lsn", "run", "seq", "tombstones"},
    "lifted": {"at", "instruction", "kind", "seq", "tombstones"},
    "retired": {"at", "copies_since", "kind", "seq", "taken_at", "tombstones"},
    "epoch": {"at", "database", "epoch", "kind", "run", "seq", "system_identifier", "timeline"},
    "resolved": {"at", "commitment", "decision", "instruction", "kind", "seq", "tombstone"},
}  # fmt: skip


@dataclass(slots=True)
class Replay:
    """The state of tombstones as it follows from entries read so far; sets of numbers, so a million tombstones stay small."""

    size: int = 0
    recorded: BitMap64 = field(default_factory=BitMap64)
    effective: BitMap64 = field(default_factory=BitMap64)
    lifted: BitMap64 = field(default_factory=BitMap64)
    retired: BitMap64 = field(default_factory=BitMap64)
    epochs: list[Row] = field(default_factory=list)
    resolved: list[Row] = field(default_factory=list)

    def of(self, state: State) -> BitMap64:
        """Return the numbers of the tombstones in a state."""
        found: BitMap64 = getattr(self, state.value)
        return found

    @property
    def open(self) -> BitMap64:
        """Numbers of the tombstones that a restore applies."""
        return self.recorded | self.effective

    def add(self, seq: int) -> None:
        """Apply the entry of a tombstone."""
        self.size = seq
        self.recorded.add(seq)

    def step(self, entry: dict[str, Any]) -> None:
        """Apply one entry.

        Raises:
            ListStateError: it makes a move that is not legal.
            EntryError: it lacks members or has others.
        """
        kind, seq = entry["kind"], entry["seq"]
        if entry.keys() != _MEMBERS.get(kind):
            raise EntryError("an entry is of an unknown kind or has other members than its kind")
        self.size = seq
        if kind == "tombstone":
            self.recorded.add(seq)
        elif kind == "epoch":
            before = [row[2] for row in self.epochs if row[1] == entry["database"]]
            if entry["epoch"] != max(before, default=0) + 1:
                raise ListStateError(f"entry {seq} opens an epoch out of order")
            values = entry["database"], entry["epoch"], entry["run"], entry["system_identifier"], entry["timeline"], entry["at"]
            self.epochs.append((seq, *values))
        elif kind == "resolved":
            if entry["tombstone"] not in self.open:
                raise ListStateError(f"entry {seq} settles a conflict of a tombstone that is not open")
            self.resolved.append((seq, entry["tombstone"], entry["decision"], entry["commitment"]))
        else:
            self._move(State(kind), seq, check_ranges(entry["tombstones"]))

    def _move(self, to: State, seq: int, spans: list[tuple[int, int]]) -> None:
        moved = BitMap64()
        for low, high in spans:
            if high >= seq:
                raise ListStateError(f"entry {seq} moves a later entry")
            moved |= BitMap64(range(low, high + 1))
        rest = moved
        for source in (state for state, targets in LEGAL_MOVES.items() if to in targets):
            rest = rest - self.of(source)
            setattr(self, source.value, self.of(source) - moved)
        if rest:
            raise ListStateError(f"entry {seq} makes a move that is not legal, with tombstone number {rest[0]}")
        setattr(self, to.value, self.of(to) | moved)


def read(seq: int, body: str) -> Members | tuple[str, ...]:
    """Return the members of an entry; those of a plain tombstone as a tuple in :data:`TOMBSTONE_ORDER`."""
    plain = _PLAIN_TOMBSTONE.fullmatch(body)
    entry = None if plain else parse(body)
    number = int(plain[11]) if plain else entry["seq"] if entry else 0
    if number != seq:
        raise ListReorderedError(f"at number {seq} of the erasure list stands entry {number}")
    return plain.groups() if plain else entry or {}
