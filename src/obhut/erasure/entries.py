"""Entries of the erasure list and their canonical text (specification, sections 2 to 4 and 8). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple, NewType

from obhut.erasure.errors import EntryError
from obhut.foundation.clock import stamp
from obhut.foundation.ids import InstructionId, Lsn, RunId, TombstoneId

Canonical = NewType("Canonical", str)
Range = tuple[int, int]
Members = dict[str, Any]
MAX_INTEGER: Final = 2**53 - 1


class Action(StrEnum):
    """What was done to the person, and is done again on a restore."""

    ERASE = "erase"
    ANONYMISE = "anonymise"


class State(StrEnum):
    """Where a tombstone is in its life."""

    RECORDED = "recorded"  # durable; the erasure itself may not have happened yet
    EFFECTIVE = "effective"  # the erasing transaction is committed
    LIFTED = "lifted"  # no longer applied, on an instruction
    RETIRED = "retired"  # no copy can hold the person any more


class Decision(StrEnum):
    """How a conflict of fingerprints was settled."""

    SAME_PERSON = "same_person"
    OTHER_PERSON = "other_person"


LEGAL_MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.RECORDED: frozenset({State.EFFECTIVE, State.LIFTED}),
    State.EFFECTIVE: frozenset({State.LIFTED, State.RETIRED}),
    State.LIFTED: frozenset(),
    State.RETIRED: frozenset(),
}
OPEN_STATES: Final = frozenset({State.RECORDED, State.EFFECTIVE})


class NewTombstone(NamedTuple):
    """A tombstone to be recorded. A named tuple, because a batch makes thousands.

    Attributes:
        database: name of the protected database in the settings.
        controller: opaque id of the controller.
        subject_kind: kind of data subject in the data map.
        key: columns of the primary key as PostgreSQL's text, in the order of the data map.
        action: what is done to the person.
        map_version: version of the data map that the erasure follows.
        instruction: id of the instruction that permits it.
        fingerprint: see :func:`obhut.erasure.fingerprints.fingerprint`; empty when the map declares no incarnation columns.
        erased_at: when the person was erased; None for the moment of recording.
    """

    database: str
    controller: str
    subject_kind: str
    key: tuple[str, ...]
    action: Action
    map_version: str
    instruction: str
    fingerprint: str = ""
    erased_at: datetime | None = None


class Tombstone(NamedTuple):
    """A recorded tombstone. A named tuple, because a restore reads a million of them.

    Attributes:
        seq: number of its entry in the list.
        key: columns of the primary key as text; None once the person is forgotten (lifted or retired).
        epoch: restore epoch of the database when it was recorded.
    """

    seq: int
    id: TombstoneId
    database: str
    controller: str
    subject_kind: str
    key: tuple[str, ...] | None
    fingerprint: str
    action: Action
    map_version: str
    instruction: InstructionId
    epoch: int
    erased_at: datetime
    state: State

    def __repr__(self) -> str:
        """Return a text without the key, so that no log or traceback shows it."""
        return f"<Tombstone {self.id} {self.state}>"


@dataclass(frozen=True, slots=True)
class Head:
    """Size of the list, hash of its last entry, and when the anchored checkpoint was signed (None when none was)."""

    size: int
    hash: bytes
    signed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Epoch:
    """A life of a database between two restores."""

    database: str
    number: int
    run: RunId
    system_identifier: str
    timeline: int
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the backup repository of a database really holds, listed, not computed from a setting.

    Attributes:
        database: name of the protected database.
        complete: whether every place that may hold a copy could be listed.
        copies_since: when the oldest existing copy was begun, of whatever state; None when there is no copy at all.
        taken_at: when the listing was made.
    """

    database: str
    complete: bool
    copies_since: datetime | None
    taken_at: datetime


class Private(NamedTuple):
    """The private part of an entry, as its salt and canonical text."""

    seq: int
    salt: bytes
    text: Canonical


class Pending(NamedTuple):
    """An entry about to be appended: its members, canonical text, and private part if its kind has one."""

    members: Members
    text: Canonical
    private: Private | None


_stamp = lru_cache(maxsize=64)(stamp)  # a batch shares one moment
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def canonical(value: object) -> Canonical:
    """Return the canonical text of a value made of mappings, lists, text, integers and None.

    Raises:
        EntryError: the value is of another type, an integer out of range, or text that is not valid Unicode.
    """
    _check(value)
    return Canonical(_encoder.encode(value))


def _check(value: object) -> None:  # noqa: C901, PLR0912 - flat on purpose: it runs for every value of a batch
    if type(value) is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise EntryError("a text in an entry is not valid Unicode") from None
    elif type(value) is int:
        if not 0 <= value <= MAX_INTEGER:
            raise EntryError("an integer in an entry is negative or above 2^53-1")
    elif isinstance(value, list | tuple):
        for item in value:
            if not (type(item) is str and item.isascii()):  # what nearly every value is, without a call
                _check(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if type(name) is not str or not name.isascii():
                raise EntryError("a member name in an entry is not ASCII")
            if not (type(item) is str and item.isascii()):
                _check(item)
    elif value is not None:
        raise EntryError(f"a value of type {type(value).__name__} cannot be part of an entry")


def is_plain(text: str) -> bool:
    """Whether nothing in a text is escaped in its canonical form."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def parse(text: str) -> Members:
    """Return the members of an entry.

    Raises:
        EntryError: the text is not the canonical text of an entry.
    """
    try:
        entry = json.loads(text)
    except ValueError:
        raise EntryError("an entry is not JSON") from None
    if not isinstance(entry, dict) or canonical(entry) != text:
        raise EntryError("an entry is not in canonical form")
    if not isinstance(entry.get("seq"), int) or not isinstance(entry.get("kind"), str) or not isinstance(entry.get("at"), str):
        raise EntryError("an entry lacks seq, kind or at")
    return entry


def validate(new: NewTombstone) -> None:
    """Refuse what no entry can hold, before anything asks a database about it.

    Raises:
        EntryError: no key, NUL characters, or text that is not valid Unicode.
    """
    if not new.key:
        raise EntryError("a tombstone has no key")
    texts = *new.key, new.database, new.controller, new.subject_kind, new.map_version, new.instruction, new.fingerprint
    if "".join(texts).isprintable():
        return
    for text in texts:
        if not text.isprintable():
            _check(text)
            if "\x00" in text:
                raise EntryError("a text in an entry holds a NUL character")


def private_of_tombstone(key: Sequence[str], fingerprint: str) -> Canonical:
    """Return the private part of a tombstone."""
    plain = "".join(key) + fingerprint
    if plain.isascii() and plain.replace("-", "").isalnum():  # numbers and UUIDs: nothing to escape
        return Canonical('{"fingerprint":"' + fingerprint + '","key":["' + '","'.join(key) + '"]}')
    return canonical({"fingerprint": fingerprint, "key": list(key)})


def private_of_resolution(found: str) -> Canonical:
    """Return the private part of a resolution: the fingerprint of the row it is about."""
    return canonical({"found": found})


def tombstone(seq: int, at: datetime, identity: str, new: NewTombstone, epoch: int, commitment: bytes) -> Members:
    """Return the entry of a tombstone."""
    moment = _stamp(at)
    return {
        "seq": seq,
        "kind": "tombstone",
        "at": moment,
        "id": identity,
        "database": new.database,
        "controller": new.controller,
        "subject": new.subject_kind,
        "action": str(new.action),
        "map": new.map_version,
        "instruction": new.instruction,
        "epoch": epoch,
        "erased_at": _stamp(new.erased_at) if new.erased_at else moment,
        "commitment": commitment.hex(),
    }


def text_of_tombstone(m: Members) -> Canonical:
    """Return the canonical text of a tombstone's entry: at once where no value needs escaping, as in nearly all of a batch."""
    values = m["action"], m["at"], m["controller"], m["database"], m["erased_at"], m["id"], m["instruction"], m["map"], m["subject"]
    joined = "".join(values)
    if not is_plain(joined):
        return canonical(m)
    _check(m["seq"])
    _check(m["epoch"])
    action, at, controller, database, erased_at, identity, instruction, version, subject = values
    return Canonical(
        f'{{"action":"{action}","at":"{at}","commitment":"{m["commitment"]}","controller":"{controller}","database":"{database}"'
        f',"epoch":{m["epoch"]},"erased_at":"{erased_at}","id":"{identity}","instruction":"{instruction}","kind":"tombstone"'
        f',"map":"{version}","seq":{m["seq"]},"subject":"{subject}"}}'
    )


def effective(seq: int, at: datetime, database: str, run: RunId, lsn: Lsn | str, numbers: Iterable[int]) -> Members:
    """Return the entry that says the erasing transaction of these tombstones is committed."""
    spans = ranges(numbers)
    return {"seq": seq, "kind": "effective", "at": stamp(at), "database": database, "run": run, "lsn": str(lsn), "tombstones": spans}


def lifted(seq: int, at: datetime, instruction: str, numbers: Iterable[int]) -> Members:
    """Return the entry that lifts tombstones."""
    return {"seq": seq, "kind": "lifted", "at": stamp(at), "instruction": instruction, "tombstones": ranges(numbers)}


def retired(seq: int, at: datetime, inventory: Inventory, numbers: Iterable[int]) -> Members:
    """Return the entry that retires tombstones."""
    since = stamp(inventory.copies_since) if inventory.copies_since else ""
    taken = stamp(inventory.taken_at)
    return {"seq": seq, "kind": "retired", "at": stamp(at), "copies_since": since, "taken_at": taken, "tombstones": ranges(numbers)}


def epoch(seq: int, opened: Epoch) -> Members:
    """Return the entry that opens a restore epoch."""
    return {
        "seq": seq,
        "kind": "epoch",
        "at": stamp(opened.opened_at),
        "database": opened.database,
        "epoch": opened.number,
        "run": opened.run,
        "system_identifier": opened.system_identifier,
        "timeline": opened.timeline,
    }


def resolved(seq: int, at: datetime, number: int, decision: Decision, instruction: str, commitment: bytes) -> Members:
    """Return the entry that settles a conflict of fingerprints."""
    members = {"tombstone": number, "decision": str(decision), "instruction": instruction, "commitment": commitment.hex()}
    return {"seq": seq, "kind": "resolved", "at": stamp(at), **members}


def date_of(text: str) -> str:
    """Return the UTC date of ``at`` of an entry given as canonical text, without parsing it all."""
    # Members are sorted: only "action" can come before "at", and its values hold no quote.
    start = text.index('"at":"') + 6
    return text[start : start + 10]


def commitment_of(text: str) -> str | None:
    """Return the commitment of an entry given as canonical text, or None where its kind has none."""
    # Members are sorted: before "commitment" come "action" and "at" only, so a value cannot be mistaken for the name.
    start = text.find('"commitment":"', 0, 100)
    return None if start < 0 else text[start + 14 : start + 78]


def ranges(numbers: Iterable[int]) -> list[Range]:
    """Return the numbers as ascending, inclusive ranges that do not touch."""
    ordered = sorted(set(numbers))
    if not ordered:
        return []
    breaks = [index for index, (low, high) in enumerate(pairwise(ordered), 1) if high != low + 1]
    return [(ordered[start], ordered[end - 1]) for start, end in zip([0, *breaks], [*breaks, len(ordered)], strict=True)]


def check_ranges(found: object) -> list[Range]:
    """Return the ranges of an entry that was read.

    Raises:
        EntryError: they are not ascending, touch, or are no ranges of numbers.
    """
    result: list[Range] = []
    before = -1
    for item in found if isinstance(found, list) else [None]:
        if not (isinstance(item, list) and len(item) == 2 and all(type(number) is int for number in item)):
            raise EntryError("tombstones is not a list of ranges")
        low, high = item
        if not before + 1 < low <= high:
            raise EntryError("ranges of tombstones are not ascending")
        result.append((low, high))
        before = high
    return result
