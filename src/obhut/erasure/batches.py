"""Many tombstones at once: what :mod:`obhut.erasure.entries` says of one, made for thousands in one pass. Pure.

What needs neither the place in the list nor the hash before it is made before the writer's lock is taken. Entries that differ only in
commitment, id and number share a form, in which everything else is escaped once. A test holds the outcome against the plain way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from obhut.erasure import chain, entries
from obhut.erasure.entries import Canonical, NewTombstone, Private, State, Tombstone
from obhut.erasure.store import Published, Stored, label_of
from obhut.foundation.ids import InstructionId, TombstoneId, new_ids
from obhut.postgres.sql import array_literal, copy_field


class Prepared(NamedTuple):
    """A tombstone as far as it can be made before its place in the list is known.

    Attributes:
        identity: id of the tombstone.
        literal: the key as array literal.
        text: canonical text of the private part.
        commitment: to the private part, in hexadecimal.
    """

    new: NewTombstone
    identity: str
    literal: str
    salt: bytes
    text: Canonical
    commitment: str


class Batch(NamedTuple):
    """Tombstones in their place: as the mirror, the caller and the two tables want them.

    Attributes:
        entry_lines: for ``COPY erasure_entry``.
        tombstone_lines: for ``COPY erasure_tombstone``.
    """

    published: list[Published]
    tombstones: list[Tombstone]
    entry_lines: list[str]
    tombstone_lines: list[str]


class _Form(NamedTuple):
    """What the tombstones of one controller have in common: pieces of the entry's text, and columns before and behind the private part."""

    pieces: tuple[str, str, str, str]
    escaped: bool
    before: str
    behind: str
    erased_at: datetime


def prepare(tombstones: Sequence[NewTombstone]) -> list[Prepared]:
    """Return the tombstones with what needs no place in the list.

    Raises:
        EntryError: a value cannot be part of an entry.
    """
    random, size = os.urandom(len(tombstones) * chain.SALT_BYTES), chain.SALT_BYTES
    made, make = [], partial(tuple.__new__, Prepared)
    for index, (new, identity) in enumerate(zip(tombstones, new_ids("ts", len(tombstones)), strict=True)):
        salt = random[index * size : index * size + size]
        text = entries.private_of_tombstone(new.key, new.fingerprint)
        commitment = sha256(chain.PRIVATE + salt + text.encode()).hexdigest()
        made.append(make((new, identity, array_literal(new.key), salt, text, commitment)))
    return made


def place(prepared: Sequence[Prepared], before: Stored, now: datetime, epochs: dict[str, int]) -> Batch:
    """Return the tombstones as the next entries of the list.

    Args:
        prepared: the tombstones in the order of the list.
        before: head of the list.
        now: when they are recorded.
        epochs: current restore epoch of each database.
    """
    head = before.hash
    forms: dict[tuple[object, ...], _Form] = {}
    batch = Batch([], [], [], [])
    publish, remember = batch.published.append, batch.tombstones.append
    entry, tombstone = batch.entry_lines.append, batch.tombstone_lines.append
    as_private, as_published = partial(tuple.__new__, Private), partial(tuple.__new__, Published)
    as_tombstone = partial(tuple.__new__, Tombstone)
    for seq, (new, identity, literal, salt, secret, commitment) in enumerate(prepared, before.size + 1):
        alike = new.database, new.controller, new.subject_kind, new.action, new.map_version, new.instruction, new.erased_at
        form = forms.get(alike) or forms.setdefault(alike, _form(new, now, epochs[new.database]))
        a, b, c, d = form.pieces
        text = f"{a}{commitment}{b}{identity}{c}{seq}{d}"
        head = sha256(chain.ENTRY + head + text.encode()).digest()
        entry(f"{seq}\t{copy_field(text) if form.escaped else text}\t\\\\x{head.hex()}\n")
        key = literal if literal.isprintable() and "\\" not in literal else copy_field(literal)
        tombstone(f"{seq}\t{identity}\t{form.before}\t{key}\t{copy_field(new.fingerprint)}\t\\\\x{salt.hex()}\t{form.behind}\n")
        publish(as_published((seq, text, head, as_private((seq, salt, secret)))))
        known = new.database, new.controller, new.subject_kind, new.key, new.fingerprint, new.action, new.map_version
        instruction, epoch = InstructionId(new.instruction), epochs[new.database]
        remember(as_tombstone((seq, TombstoneId(identity), *known, instruction, epoch, form.erased_at, State.RECORDED)))
    return batch


def _form(new: NewTombstone, now: datetime, epoch: int) -> _Form:
    members = entries.tombstone(0, now, "", new, epoch, b"")
    text = entries.canonical(members)
    # No value can hold these: within a value every quotation mark is escaped.
    first, _, rest = text.partition('"commitment":"')
    second, _, rest = rest.partition('"id":"')
    third, _, fourth = rest.partition('"seq":0')
    first, second, third = first + '"commitment":"', second + '"id":"', third + '"seq":'
    before = [new.database, new.controller, new.subject_kind]
    behind = [str(new.action), new.map_version, new.instruction, str(epoch), members["erased_at"], str(State.RECORDED), label_of(text)]
    return _Form(
        (first, second, third, fourth),
        "\\" in text,
        "\t".join(copy_field(value) for value in before),
        "\t".join(copy_field(value) for value in behind),
        (new.erased_at or now).astimezone(UTC),
    )
