"""The sample on which attacks are measured: people of the source, half of them masked as a copy masks them, half held out as control.

A whole copy releases everybody, so nobody is left outside to compare with. The sample is therefore masked anew by the same plan, under a
key of its own that dies with the call; both halves stay in memory. Where a table has more rows than the sample, classes in it are smaller
than in the copy: the judgement is stricter, never milder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random, SystemRandom
from typing import Final

from obhut.clones import attacks
from obhut.clones.attacks import Sample
from obhut.clones.columns import Column, Value
from obhut.clones.texts import leaves
from obhut.datamap.transformers import Effect, Family
from obhut.masking import facts as masking_facts
from obhut.masking.facts import Facts
from obhut.masking.fields import NULL, unescape
from obhut.masking.keys import RunKey
from obhut.masking.model import ColumnPlan, MaskPlan, TablePlan
from obhut.masking.stream import Masker, stream
from obhut.masking.verdict import Attack, quasi_identifiers, sensitive_columns
from obhut.postgres import catalogue as catalogues
from obhut.postgres.catalogue import Catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Literal

PEOPLE: Final = 20_000  # rows of each half
_LEFT: Final = frozenset({Effect.GENERALISES, Effect.PERTURBS, Effect.PSEUDONYMISES, Effect.KEEPS})
_NUMBERS: Final = frozenset({Family.INTEGER, Family.NUMBER})
_DAY: Final = 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something of the original that is left: a column, or a path of a document ("" for the column itself)."""

    column: int
    plan: ColumnPlan
    path: str = ""

    @property
    def name(self) -> str:
        """The column with its path."""
        return self.plan.name + self.path

    def values(self, cells: Sequence[bytes], description: catalogues.Column) -> list[Value]:
        """Return the values in cells of COPY's text format."""
        if self.path:
            return [_at(description, cell, self.path) for cell in cells]
        family = self.plan.kind.family
        return [None if cell == NULL else _value(unescape(cell).decode("utf-8", "replace"), family) for cell in cells]


def attributes(plan: MaskPlan) -> dict[int, tuple[Attribute, ...]]:
    """Return what is left of people, by table: an attacker has nothing else to work with."""
    named = [quasi_identifiers(plan), sensitive_columns(plan)]
    found = {}
    for oid, table in plan.tables.items():
        wanted = {name for part in named for name in part.get(oid, ())}
        mine: list[Attribute] = []
        for index, column in enumerate(table.columns):
            if column.name in wanted:
                mine.append(Attribute(index, column))
            mine += [Attribute(index, column, path) for path, effect in column.inside.items() if effect in _LEFT]
        if mine:
            found[oid] = tuple(mine)
    return found


def measure(
    session: Session, plan: MaskPlan, catalogue: Catalogue, *, people: int = PEOPLE, random: Random | None = None
) -> dict[str, Attack]:
    """Attack a sample of every table of which something is left, and return the worst of each attack.

    Args:
        session: on the source, inside one snapshot.
        plan: made afresh from the map, for the source.
        catalogue: of the source.
        people: rows of each half at the most.
        random: chance of sampling and attacks; by default the system's.
    """
    chance = random or SystemRandom()
    facts = masking_facts.read(session, plan, catalogue)
    found = [
        attacks.carry_out(_sample(session, plan, catalogue, oid, left, facts, people, chance), chance)
        for oid, left in attributes(plan).items()
        if session.value(SQL("SELECT EXISTS (SELECT FROM {})").format(catalogue.tables[oid].relation))
    ]
    return attacks.worst(found)


def _sample(
    session: Session, plan: MaskPlan, catalogue: Catalogue, oid: int, left: Sequence[Attribute], facts: Facts, people: int, random: Random
) -> Sample:
    table = plan.tables[oid]
    lines = _read(session, table, catalogue, 2 * people)
    random.shuffle(lines)
    half = len(lines) // 2
    released = _masked(lines[:half], table, facts, plan.locale)
    random.shuffle(released)  # nothing tells which row was whose
    described = catalogue.tables[oid].by_name
    cells = [list(zip(*(line.split(b"\t") for line in part), strict=True)) for part in (released, lines[:half], lines[half : 2 * half])]
    sides = [[one.values(part[one.column], described[one.plan.name]) if part else [] for one in left] for part in cells]
    ordered = [all(_ordered(side[index]) for side in sides) for index in range(len(left))]
    built = [
        tuple(
            Column(values if ranked else [None if value is None else str(value) for value in values], ranked)
            for values, ranked in zip(side, ordered, strict=True)
        )
        for side in sides
    ]
    return Sample(tuple(one.name for one in left), *built)


def _read(session: Session, table: TablePlan, catalogue: Catalogue, count: int) -> list[bytes]:
    """Return rows chosen by chance, as the source's SELECT of a copy gives them: the map's public rules applied."""
    relation = catalogue.tables[table.oid].relation
    query = SQL("SELECT {} FROM (SELECT * FROM {} ORDER BY random() LIMIT {}) AS sample").format(
        table.select_list(), relation, Literal(count)
    )
    text = b"".join(bytes(block) for block in session.copy_out(SQL("COPY ({}) TO STDOUT (FORMAT text)").format(query)))
    return text.split(b"\n")[:-1]


def _masked(lines: Sequence[bytes], table: TablePlan, facts: Facts, locale: str) -> list[bytes]:
    key = RunKey()
    masker = Masker(table, key, facts, locale=locale)
    try:
        return b"".join(stream([b"".join(line + b"\n" for line in lines)], masker)).split(b"\n")[:-1]
    finally:
        masker.close()
        key.destroy()


def _at(description: catalogues.Column, cell: bytes, path: str) -> Value:
    if cell == NULL:
        return None
    text_form = unescape(cell).decode("utf-8", "replace")
    found = next((text for where, text in leaves(description, text_form) if where == path), None)
    if found is None:
        return None
    return _value(found, Family.NUMBER)


def _value(text: str, family: Family) -> Value:
    if family in _NUMBERS:
        with contextlib.suppress(ValueError):
            return float(text)
    if family is Family.DATE:
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(text)
            return moment.toordinal() + (moment.hour * 3600 + moment.minute * 60 + moment.second) / _DAY
    return text


def _ordered(values: Sequence[Value]) -> bool:
    return all(value is None or isinstance(value, float) for value in values)


def nothing_left() -> Mapping[str, Attack]:
    """Return the attacks on a copy in which nothing of an original is left."""
    why = "no column holds anything of the originals"
    return {name: Attack(not_applicable=why) for name in ("singling_out", "linkability", "inference")}
