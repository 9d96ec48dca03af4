"""What a transformer cannot do to a column: wrong type, NOT NULL, too short, a unique index, a secret that would stay.

Pure. The check of the data map asks for the masks that it writes down, the planner of a copy for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from obhut.datamap.kinds import Kind
from obhut.datamap.transformers import CATALOGUE, Effect, Family, Per, Place, Transformer, Uniqueness
from obhut.postgres.catalogue import Column, Key, Table

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|invalid|test)$")
# Transformers that can stand at a path inside a document.
JSON_LEAVES = frozenset(
    name
    for name, one in CATALOGUE.items()
    if (one.place is Place.CLIENT and name not in {"rekey", "shuffle", "sample", "json", "bytes", "tsvector"})
    or name in {"keep", "null", "empty", "constant", "redact"}
)
SECRETS = ("user.authorization",)  # Fideslang categories: passwords, tokens, keys, sessions


@dataclass(frozen=True, slots=True)
class Conflict:
    """One reason against a transformer: a stable code, the fact and what to do."""

    code: str
    fact: str
    todo: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """A transformer with its options, on a column of a kind."""

    transformer: Transformer
    options: Mapping[str, Any]
    column: Column
    kind: Kind

    @property
    def per(self) -> Per | None:
        """What decides the result."""
        wanted = self.options.get("per")
        return Per(wanted) if wanted else self.transformer.per

    @property
    def width(self) -> int:
        """Characters that the shortest result needs."""
        if self.transformer.name in {"email", "url"}:
            extra = 1 if self.transformer.name == "email" else len("https:///")
            return 16 + extra + len(str(self.options.get("domain", "example.org")))
        if self.transformer.name == "constant":
            return len(str(self.options.get("value", "")))
        if self.transformer.name == "redact":
            return len(str(self.options.get("mark", "[redacted]")))
        return self.transformer.width

    def keeps_apart(self, *, alone: bool) -> bool:
        """Whether different values stay different; ``alone``: nothing else stands in the index."""
        if self.transformer.name == "shuffle":
            return alone
        if self.per is Per.PERSON or (self.transformer.name == "scramble" and self.kind.array):
            return False
        return self.transformer.uniqueness is Uniqueness.PRESERVED


def conflicts(place: str, category: str | None, chosen: Chosen) -> Iterator[Conflict]:
    """Yield what speaks against a transformer on a column by itself.

    Args:
        place: the column in words, ``public.person.email``.
        category: of the data map.
        chosen: the transformer on the column.
    """
    yield from _secret(place, category, chosen)
    yield from _type(place, chosen)
    yield from _nothing(place, chosen)
    yield from _length(place, chosen)
    yield from _words(place, chosen)
    yield from _leaves(place, chosen)


def _leaves(place: str, chosen: Chosen) -> Iterator[Conflict]:
    if chosen.transformer.name != "json":
        return
    for path, written in (chosen.options.get("paths") or {}).items():
        name = written if isinstance(written, str) else "null" if written is None else next(iter(written))
        if name not in JSON_LEAVES:
            fact = f"{name} cannot be used at {path} inside {place}"
            yield Conflict("mask-json-path", fact, "Use a transformer that invents, or null, constant, redact, keep.")


def _secret(place: str, category: str | None, chosen: Chosen) -> Iterator[Conflict]:
    if category is None or not category.startswith(SECRETS) or chosen.transformer.effect is Effect.DESTROYS:
        return
    yield Conflict(
        "mask-secret", f"{place} holds secrets, and {chosen.transformer.name} is a function of them", "Use null, constant or token."
    )


def _type(place: str, chosen: Chosen) -> Iterator[Conflict]:
    if chosen.kind.family in chosen.transformer.families and (chosen.transformer.arrays or not chosen.kind.array):
        return
    fitting = ", ".join(name for name, one in CATALOGUE.items() if chosen.kind.family in one.families and one.per is not None) or "null"
    yield Conflict("mask-type", f"{place} is {chosen.kind.words}, which {chosen.transformer.name} does not take", f"These fit: {fitting}.")


def _nothing(place: str, chosen: Chosen) -> Iterator[Conflict]:
    name, column = chosen.transformer.name, chosen.column
    if column.not_null and (name == "null" or (name == "default" and column.default is None)):
        yield Conflict("mask-not-null", f"{place} would become NULL and is NOT NULL", "Use empty, constant, or a transformer that invents.")
    if chosen.options.get("nulls") == "fill" and chosen.kind.array:
        yield Conflict("mask-fill", f"{place} is an array: a NULL cannot be filled element by element", "Leave out nulls.")


def _length(place: str, chosen: Chosen) -> Iterator[Conflict]:
    limit, width = chosen.kind.limit, chosen.width
    if limit is not None and width > limit:
        yield Conflict(
            "mask-length",
            f"{place} holds {limit} characters, and {chosen.transformer.name} needs {width}",
            "Use a shorter transformer (scramble keeps the length), or null.",
        )


def _words(place: str, chosen: Chosen) -> Iterator[Conflict]:
    domain = chosen.options.get("domain")
    if domain is not None and not _RESERVED.search(str(domain).lower()):
        yield Conflict(
            "mask-domain", f"the domain for {place} belongs to somebody", "Use one reserved by RFC 2606: example.org, shop.test."
        )
    labels = chosen.kind.labels
    given = chosen.options.get("of") or ([chosen.options["value"]] if "value" in chosen.options else [])
    if labels and any(str(value) not in labels for value in given):
        yield Conflict(
            "mask-value", f"a value given for {place} is no label of {chosen.kind.base_type}", f"Labels: {', '.join(labels[:6])}."
        )


def unique_conflicts(table: Table, chosen: Mapping[str, Chosen], reads: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, Conflict]]:
    """Yield a column and the conflict for every unique index that masked values could break.

    An index holds when the columns of it that keep different values apart contain a unique key; one that becomes NULL throughout holds too,
    unless it takes one NULL only.

    Args:
        table: with its unique indexes.
        chosen: the masked columns; all others are kept.
        reads: columns that an index with expressions reads, by its name.
    """
    named = {key.name: _columns(key, reads) for key in table.keys}
    for key in table.keys:
        columns = named[key.name]
        masked = [name for name in columns if name in chosen]
        if not masked or (not key.one_null and any(chosen[name].transformer.name == "null" for name in masked)):
            continue
        alone = len(columns) == 1
        apart = {name for name in columns if name not in chosen or chosen[name].keeps_apart(alone=alone) or _own(chosen[name], table)}
        if any(other <= apart for other in named.values() if other):
            continue
        for name in masked:
            if name not in apart:
                where = f"{table.full_name}.{name} stands in the unique index {key.name}"
                fact = f"{where}, and {chosen[name].transformer.name} may give two rows one value"
                yield name, Conflict("mask-not-unique", fact, _way_out(chosen[name].kind))


def _columns(key: Key, reads: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset([name for name in key.columns if name]) | frozenset(reads.get(key.name, ()))


def _own(chosen: Chosen, table: Table) -> bool:
    """Whether a template reads a whole key of its row."""
    if chosen.transformer.name != "template":
        return False
    read = set(_FIELD.findall(str(chosen.options.get("text", ""))))
    return any(None not in key.columns and set(key.columns) <= read for key in table.keys)


def _way_out(kind: Kind) -> str:
    preserved = [
        name
        for name, one in CATALOGUE.items()
        if one.uniqueness is Uniqueness.PRESERVED and kind.family in one.families and one.effect is not Effect.KEEPS and name != "template"
    ]
    return f"These keep values apart: {', '.join(preserved) or 'null'}." if kind.family is not Family.OTHER else "Use null."
