"""Reads the labelled corpus and builds catalogues of it, as a live database would give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from obhut.postgres.catalogue import Action, Catalogue, Column, ForeignKey, Key, Table

FOLDER: Final = Path(__file__).parent / "corpus"
# Each pair or three was labelled before it was scored, scored once, and only then used for better rules.
FIRST_LOOKS: Final = (
    ("documenso", "jverein"), ("sharetribe", "studip"), ("admidio", "osem"), ("diaspora", "syntax"),
    ("hitobito", "openxe"), ("fast", "foodsoft"), ("houdini", "mitglied", "ospos"), ("casa", "pupilfirst"), ("essentials", "librebooking"),
)  # fmt: skip
HELD_OUT: Final = FIRST_LOOKS[-1]
ONCE_HELD_OUT: Final = tuple(name for names in FIRST_LOOKS[:-1] for name in names)
_CATEGORY: Final = {
    "integer": "N", "bigint": "N", "smallint": "N", "numeric": "N", "real": "N", "double precision": "N", "boolean": "B", "text": "S",
    "character varying": "S", "character": "S", "date": "D", "timestamp without time zone": "D", "timestamp with time zone": "D",
    "time without time zone": "D", "inet": "I", "tsrange": "R", "tstzrange": "R",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says about a column: a category, nothing, or that careful people may disagree."""

    category: str | None
    open: bool


@dataclass(frozen=True)
class Corpus:
    """One schema with its labels by table and column."""

    name: str
    source: str
    catalogue: Catalogue
    labels: dict[tuple[str, str], Label]


def names() -> list[str]:
    """Return the names of the schemas."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def sets() -> dict[str, list[str]]:
    """Return which schemas the rules were made with, which showed what was missing, and which came last."""
    tuned = [name for name in names() if name not in ONCE_HELD_OUT + HELD_OUT]
    return {"tuned-on": tuned, "once-held-out": list(ONCE_HELD_OUT), "held-out": list(HELD_OUT)}


def read(name: str) -> Corpus:
    """Read one schema."""
    source, *lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    tables: dict[str, list[list[str]]] = {}
    for line in lines:
        if line.startswith("  "):
            tables[next(reversed(tables))].append(line.split())
        elif line:
            tables[line] = []
    labels = {(table, words[0]): _label(words) for table, columns in tables.items() for words in columns}
    return Corpus(name, source.removeprefix("# "), _catalogue(tables), labels)


def _label(words: list[str]) -> Label:
    for mark in ("=", "?"):
        if mark in words:
            return Label(f"user.{words[words.index(mark) + 1]}", mark == "?")
    return Label(None, False)


def _catalogue(tables: dict[str, list[list[str]]]) -> Catalogue:
    oids = {name: number for number, name in enumerate(tables, 1)}
    made = {oids[name]: _table(oids[name], name, columns) for name, columns in tables.items()}
    keys = tuple(_keys(oids, made, tables))
    return Catalogue(180000, made, keys, (), {}, (), {f"public.{name}": oid for name, oid in oids.items()})


def _table(oid: int, name: str, columns: list[list[str]]) -> Table:
    primary = tuple(words[0] for words in columns if "key" in words[2:])
    keys = (Key(f"{name}_pkey", True, primary, None),) if primary else ()
    made = tuple(_column(number, words) for number, words in enumerate(columns, 1))
    return Table(oid, "public", name, "r", "p", False, None, False, 0, 0, 0, 0, None, False, None, False, made, keys)


def _column(number: int, words: list[str]) -> Column:
    written = words[1].replace("_", " ") if not words[1].endswith(("_enum", "_rating")) else words[1]
    base, _, limit = written.partition("(")
    enum = base == "enum" or base.endswith(("_enum", "_rating"))
    modifier = int(limit.rstrip(")")) + 4 if limit.rstrip(")").isdigit() else -1
    category = "A" if base.endswith("[]") else "E" if enum else _CATEGORY.get(base, "U")
    required = "required" in words[2:] or "key" in words[2:]
    return Column(words[0], written, base, required, None, "", "", category, "e" if enum else "b", None, number, modifier)


def _keys(oids: dict[str, int], made: dict[int, Table], tables: dict[str, list[list[str]]]) -> Iterator[ForeignKey]:
    for name, columns in tables.items():
        for words in columns:
            parent = next((word[1:] for word in words[2:] if word.startswith(">")), None)
            if parent not in oids:
                continue
            theirs = made[oids[parent]].primary_key[:1] or (made[oids[parent]].columns[0].name,)
            yield ForeignKey(
                10_000 + oids[name] * 100 + len(words), f"{name}_{words[0]}_fkey", oids[name], oids[parent], (words[0],), theirs,
                Action.NO_ACTION, Action.NO_ACTION, False, True, False, True, (),
            )  # fmt: skip
