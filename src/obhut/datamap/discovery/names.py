"""Takes names apart - snake_case, camelCase, abbreviations, German and English compounds - and says what they mean.

A name is a hint, never a proof: :class:`Reading` says how much of the name was understood and how strong the telling words are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from obhut.datamap.discovery.lexicon import Meaning, Phrase, fold, lexicon

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DIGITS = re.compile(r"^([a-z]{2,}?)(\d+)$")
_LINKS = ("", "s", "n", "es", "en")  # what German puts between the parts of a compound
_SHORTEST = 3
_MANY = 5  # columns that must share a prefix
_WORDS = "user.content"
_WHATEVER = frozenset({"name"})
_STATES = frozenset({"status", "type", "severity", "date", "class", "level"})  # of an illness or a job they are facts about the person
_FACTS = ("user.health", "user.demographic", "user.job_title")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a name means.

    Attributes:
        category: the category that the telling words stand for.
        strong: whether those words hardly mean anything else.
        whole: whether nothing follows the telling words but what changes nothing (``private``, ``2``).
        alone: whether nothing else stands before them, either: ``name`` is alone, ``product_name`` is not.
        words: the telling words, for the reason.
        owned: whether a word for people stands before them: ``recipient_name``, ``spender_konto``.
    """

    category: str
    strong: bool
    whole: bool
    alone: bool
    words: str
    owned: bool = False


@lru_cache(maxsize=16_384)
def words(name: str) -> tuple[str, ...]:
    """Return the words of a name as they are written, umlauts folded."""
    return tuple(word for word in re.split(r"[^0-9a-z]+", fold(_CAMEL.sub("_", name))) if word)


@lru_cache(maxsize=16_384)
def parts(name: str) -> tuple[str, ...]:
    """Return the words of a name with compounds taken apart and trailing digits split off."""
    found: list[str] = []
    known = lexicon().phrases
    for word in words(name):
        digits = None if (word,) in known else _DIGITS.match(word)
        stem, number = (digits[1], digits[2]) if digits else (word, "")
        found += [*_compound(stem), *([number] if number else [])]
    return tuple(found)


@lru_cache(maxsize=16_384)
def _compound(word: str) -> tuple[str, ...]:
    """Return the fewest known words that a word is made of; the word itself where it is known or cannot be taken apart."""
    pieces = lexicon().pieces
    if word in pieces or len(word) < 2 * _SHORTEST:
        return (word,)
    best: dict[int, tuple[str, ...]] = {0: ()}
    for end in range(_SHORTEST, len(word) + 1):
        for start in range(end):
            if start not in best or (end - start < _SHORTEST and word[start:end] not in pieces):
                continue
            piece = next((word[start:end].removesuffix(link) for link in _LINKS if _is_piece(word[start:end], link)), None)
            if piece and (end not in best or len(best[start]) + 1 < len(best[end])):
                best[end] = (*best[start], piece)
    return best.get(len(word)) or _telling_end(word)


def _is_piece(text: str, link: str) -> bool:
    return text.endswith(link) and text[: len(text) - len(link)] in lexicon().pieces


def _telling_end(word: str) -> tuple[str, ...]:
    """Split off a long telling word at the end of one that is not understood: ``xyvorname``, ``hospitalcomment``."""
    known = lexicon().phrases
    for start in range(1, len(word) - 4):
        if word[start + 1 :] in _WHATEVER:  # "profilname" ends with a name, not with an "lname"
            continue
        meaning = known.get((word[start:],))
        if meaning is not None and (meaning.strong or (meaning.category == _WORDS and len(word) - start >= 6)):
            return word[:start], word[start:]
    return _stating_end(word)


def _stating_end(word: str) -> tuple[str, ...]:
    """Split off a long word that states a fact at the end of one that is not understood: ``areatype``, ``xymodus``."""
    heads = lexicon().heads
    starts = range(_SHORTEST, len(word) - _SHORTEST)
    return next(((word[:start], word[start:]) for start in starts if word[start:] in heads), (word,))


@lru_cache(maxsize=16_384)
def read(name: str) -> Reading | None:
    """Return what a column's name means, or None."""
    found = parts(name)
    if not found or harmless(name):
        return None
    return _read(found) or _read(_rejoined(found))


def _rejoined(found: Phrase) -> Phrase:
    """``user name`` may have been ``username``: the words without anything between them, as one."""
    return ("".join(found),)


def _read(found: Phrase) -> Reading | None:
    book = lexicon()
    candidates = []
    for length in range(min(book.longest, len(found)), 0, -1):
        for start in range(len(found) - length, -1, -1):
            meaning = book.phrases.get(found[start : start + length])
            if meaning is not None and (reading := _placed(meaning, found, start, length)):
                candidates.append(_Candidate(reading, start, start + length))
    outer = [one for one in candidates if not any(other.covers(one) for other in candidates)]
    return max(outer, key=_Candidate.rank).reading if outer else None


@dataclass(frozen=True, slots=True)
class _Candidate:
    reading: Reading
    start: int
    end: int

    def covers(self, other: _Candidate) -> bool:
        """Whether the other one is a part of this one: ``maiden_name`` covers ``name``."""
        return self.start <= other.start and other.end <= self.end and self.end - self.start > other.end - other.start

    def rank(self) -> tuple[bool, int, int]:
        """The last telling word is what the name is about, unless words that somebody writes come last: ``email_subject``."""
        return self.reading.strong, self.end, self.end - self.start


def _placed(meaning: Meaning, found: Phrase, start: int, length: int) -> Reading | None:
    """Judge a meaning by what stands after it: ``email_verified`` is a fact about an address, ``email_private`` is one."""
    book = lexicon()
    after = [word for word in found[start + length :] if not word.isdigit() and word not in book.generic]
    fact = meaning.strong and meaning.category.startswith(_FACTS) and set(after) <= _STATES
    if after and after[-1] in book.heads and not fact and not (meaning.strong and set(after) <= book.qualifiers):
        return None
    last = book.phrases.get((after[-1],)) if after else None
    if meaning.strong and last is not None and last.category == _WORDS and not last.strong and after[-1] not in book.qualifiers:
        return Reading(_WORDS, False, True, True, after[-1])
    neutral = all(word in book.qualifiers for word in after)
    if not meaning.strong and not neutral:
        return None
    alone = neutral and all(word in book.qualifiers or word.isdigit() for word in found[:start])
    owned = any({"person", "figure"} & about(word) for word in found[:start])
    return Reading(meaning.category, meaning.strong, neutral, alone, "_".join(found[start : start + length]), owned)


@lru_cache(maxsize=16_384)
def harmless(name: str) -> bool:
    """Whether a name says that the column is about a thing: ``status``, ``price``, ``created_at``."""
    book = lexicon()
    if words(name) in book.harmless:
        return True
    found = parts(name)
    return len(found) > 1 and found[-1] in book.heads and _read(found) is None


@cache
def about(table: str) -> frozenset[str]:
    """Return which kinds of table a table's name stands for: ``person``, ``health``, ``bank``, ``catalogue`` and so on."""
    found = {*words(table), *parts(table)}
    return frozenset(kind for kind, listed in lexicon().tables.items() if found & listed)


def bookkeeping(name: str) -> bool:
    """Whether a reference only says who did something to the row: ``created_by``, ``changed_by``, ``creator``."""
    found = words(name)
    return bool(set(found) & lexicon().bookkeeping) and (len(found) == 1 or "by" in found or "von" in found or found[-1] in {"id", "user"})


@lru_cache(maxsize=4_096)
def prefix(columns: tuple[str, ...]) -> str:
    """Return what most names of a table begin with (``cp_``, ``shipto``), or nothing: such a prefix says nothing about a column."""
    if len(columns) < _MANY:
        return ""
    counted: dict[str, int] = {}
    for name in map(fold, columns):
        for end in range(2, min(9, len(name) - 1)):
            if name[end - 1] == "_" or len(name) > end + 2:
                counted[name[:end]] = counted.get(name[:end], 0) + 1
    least = max(_MANY, 0.6 * len(columns))
    shared = [start for start, count in counted.items() if count >= least and (start.endswith("_") or len(start) >= 4)]
    return max(shared, key=len, default="")


@lru_cache(maxsize=4_096)
def second_set(columns: tuple[str, ...]) -> dict[str, str]:
    """Return columns that repeat others of their table with something in front: ``ktoname`` beside ``name``, ``ktoplz`` beside ``plz``."""
    known = {fold(name) for name in columns}
    found: dict[str, dict[str, str]] = {}
    for name in columns:
        folded = fold(name)
        for length in range(2, min(9, len(folded) - 2)):
            if folded[length:] in known:
                found.setdefault(folded[:length], {})[name] = folded[length:]
    return {name: rest for start, pairs in found.items() if len(pairs) >= 3 for name, rest in pairs.items()}


def bare(name: str, columns: tuple[str, ...]) -> str:
    """Return a column's name without what it shares with its neighbours."""
    shared = prefix(columns)
    if shared and fold(name).startswith(shared):
        return name[len(shared) :].strip("_") or name
    return name if read(name) is not None else second_set(columns).get(name, name)


@lru_cache(maxsize=16_384)
def in_table(table: str, name: str) -> Reading | None:
    """Return what table and column say together and neither alone: ``emails.address``, ``phone_numbers.number``, ``avatars.bytes``."""
    titled = list(parts(table))
    if not titled:
        return None
    titled[-1] = _singular(titled[-1])
    found = parts(name)
    reading = _read((*titled, *found))
    if reading is None or not reading.strong or not any(reading.words.startswith(word) for word in titled):
        return None
    spans = reading.words.endswith(found[-1]) if found else False
    generic = set(found) <= lexicon().generic
    return reading if spans or generic else None


def _singular(word: str) -> str:
    book = lexicon()
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("n"), word.removesuffix("en"))
    return next((form for form in forms if form in book.pieces), word)
