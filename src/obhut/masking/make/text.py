"""Free text of like length, bytes of like length, and search vectors made anew from masked columns."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from functools import cache

from obhut.masking.fields import NULL, escape, unescape
from obhut.masking.make.base import Cells, Invent, Maker, Rows, Seeds
from obhut.masking.wordlists import Words, words

_CORPUS = 1 << 16  # characters of filler that a masker mixes once
_SHORT, _LONG = 20, 1 << 15  # characters between which one cut does
_LEXEME = re.compile(r"\w+")
_LAST_POSITION = 16383  # of a tsvector
_HEAD = rb"\\x"  # bytea in hexadecimal, as a COPY cell


def filler(chosen: Words, limit: int | None) -> Invent:
    """Return text of the locale's everyday words, a tenth longer or shorter than the original: an exact length can name its author."""
    corpus, starts = _mixed(chosen.locale)
    large = [start for start in starts if corpus[start].isupper()]
    count = len(large)

    def one(cell: bytes, place: int, stretch: int) -> bytes:
        length = len(cell) if cell.isascii() and b"\\" not in cell else len(unescape(cell).decode("utf-8", "replace"))
        wanted = max(1, length * (922 + stretch % 205) // 1024)
        wanted = wanted if limit is None else min(wanted, limit)
        if _SHORT < wanted < _LONG:
            start = large[place % count]
            return (corpus[start : start + wanted - 1].rstrip(" .") + ".").encode()
        if not length:
            return cell
        start = starts[place % len(starts)]
        found = corpus[start : start + wanted]
        if len(found) < wanted:
            found = (found + " " + corpus * (wanted // _CORPUS + 1))[:wanted]
        return _ended(found).encode()

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        return [one(cell, place, stretch) for cell, place, stretch in zip(cells, seeds.words(7), seeds.words(8), strict=True)]

    return invent


@cache
def _mixed(locale: str) -> tuple[str, list[int]]:
    """Return sentences of random words, and where words start."""
    dice = random.SystemRandom()
    vocabulary = [word.decode() for word in words(locale).text]
    pieces: list[str] = []
    size = 0
    while size < _CORPUS:
        sentence = " ".join(dice.choices(vocabulary, k=dice.randint(4, 14))).capitalize() + "."
        pieces.append(sentence)
        size += len(sentence) + 1
    corpus = " ".join(pieces)
    return corpus, [match.start() for match in re.finditer(r"\S+", corpus)][: len(corpus) // 8]


def _ended(text: str) -> str:
    """Return text that begins large and, where there is room, ends with a full stop."""
    text = text[0].upper() + text[1:]
    return text[:-1].rstrip(" .").ljust(len(text) - 1, "e") + "." if len(text) > 20 else text


def noise_bytes(limit: int) -> Invent:
    """Return random bytes of like length, at most ``limit``."""

    def invent(_: Seeds, cells: Cells) -> list[bytes]:
        sizes = [min(max((len(cell) - len(_HEAD)) // 2, 0), limit) for cell in cells]
        return [_HEAD + os.urandom(size).hex().encode() for size in sizes]

    return invent


def vector(columns: Sequence[int]) -> Maker:
    """Return the maker of a tsvector from other columns of the row: their words in lower case, with positions, without stemming."""

    def make(rows: Rows, cells: Cells) -> Cells:
        read = [rows.masked.get(index, rows.columns[index]) for index in columns]
        return [NULL if cell == NULL else _vector(row) for cell, row in zip(cells, zip(*read, strict=True), strict=True)]

    return make


def _vector(texts: Sequence[bytes]) -> bytes:
    words: dict[str, list[int]] = {}
    position = 0
    for text in texts:
        for word in _LEXEME.findall("" if text == NULL else unescape(text).decode("utf-8", "replace").lower()):
            position = min(position + 1, _LAST_POSITION)
            places = words.setdefault(word[:255], [])
            if len(places) < 255 and position not in places:
                places.append(position)
    return escape(" ".join(f"'{word}':{','.join(map(str, places))}" for word, places in sorted(words.items())).encode())
