"""The word lists behind discovery, read once from ``words/*.toml``: one file a language.

All words are in lower case with umlauts folded (``straße`` is ``strasse``), so that a name is looked up the way it was folded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from itertools import pairwise

Phrase = tuple[str, ...]
_FOLDED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a word says: a category, and whether it hardly says anything else."""

    category: str
    strong: bool


@dataclass(frozen=True)
class Lexicon:
    """Every list, over all languages."""

    phrases: dict[Phrase, Meaning] = field(default_factory=dict)
    tables: dict[str, frozenset[str]] = field(default_factory=dict)  # kind of table -> words
    harmless: frozenset[Phrase] = frozenset()
    heads: frozenset[str] = frozenset()  # last words of names that state a fact about something else
    bookkeeping: frozenset[str] = frozenset()
    qualifiers: frozenset[str] = frozenset()  # words that may follow a telling one without changing what it says
    generic: frozenset[str] = frozenset()  # names of columns that say nothing without their table
    pieces: frozenset[str] = frozenset()  # words that compounds are taken apart into

    @cached_property
    def longest(self) -> int:
        """Words of the longest phrase."""
        return max(map(len, self.phrases))


def fold(text: str) -> str:
    """Return the text in lower case with umlauts written out."""
    return text.lower().translate(_FOLDED)


@cache
def lexicon() -> Lexicon:
    """Return the lists of every language that is shipped."""
    folder = resources.files("obhut.datamap.discovery").joinpath("words")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return merged([tomllib.loads(entry.read_text(encoding="utf-8")) for entry in files])


def merged(documents: Iterable[dict[str, dict[str, str]]]) -> Lexicon:
    """Put the lists of several languages together; a strong meaning in one beats a weak one in another."""
    documents = list(documents)
    phrases: dict[Phrase, Meaning] = {}
    for section in ("strong", "weak"):
        for document in documents:
            for category, words in document.get(section, {}).items():
                for word in fold(words).split():
                    phrases.setdefault(tuple(word.split("_")), Meaning(category, section == "strong"))
    listed = {name: _listed(documents, section, name) for section, name in _LISTS}
    kinds = {kind for document in documents for kind in document.get("tables", {})}
    pieces = {word for phrase in phrases for word in phrase if len(word) > 2} | listed["words"]
    pieces |= {word for word in listed["whole"] | listed["heads"] if len(word) > 3 and "_" not in word}
    return Lexicon(
        phrases=phrases,
        tables={kind: frozenset(_listed(documents, "tables", kind)) for kind in kinds},
        harmless=frozenset(tuple(word.split("_")) for word in listed["whole"]),
        heads=frozenset(listed["heads"]),
        bookkeeping=frozenset(listed["bookkeeping"]),
        qualifiers=frozenset(listed["qualifiers"]),
        generic=frozenset(listed["generic"]),
        pieces=frozenset(pieces),
    )


_LISTS = (
    ("harmless", "whole"),
    ("harmless", "heads"),
    ("harmless", "bookkeeping"),
    ("compounds", "words"),
    ("compounds", "qualifiers"),
    ("compounds", "generic"),
)


def _listed(documents: list[dict[str, dict[str, str]]], section: str, name: str) -> set[str]:
    return {word for document in documents for word in fold(document.get(section, {}).get(name, "")).split()}


def joined(words: tuple[str, ...]) -> set[Phrase]:
    """Return the ways to read neighbouring words as one: ``post code`` is ``postcode``, too."""
    found = {words}
    for index, (left, right) in enumerate(pairwise(words)):
        found.add((*words[:index], left + right, *words[index + 2 :]))
    return found
