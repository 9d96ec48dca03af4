"""Values of the source as keyed digests in memory: what the search in the copy compares with.

Two 32-bit halves of one keyed BLAKE2b digest, each in its own bitmap: ten million values cost about forty megabytes, and one lookup in a
million million meets by chance where both halves are sparse. What meets is asked for at the source before it is called a leak, so chance
never drops a copy. The key is random and dies with the object; no value is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from pyroaring import BitMap

SHORTEST = 6  # characters: shorter values occur by chance
_WORD = re.compile(r"[^\s\"',;:<>()\[\]{}|=\\]{6,}")
_NUMBER = re.compile(r"\+?\d[\d /().-]{6,}\d")
_ACCOUNT = re.compile(r"\b[a-z]{2}\d{2}(?: ?[0-9a-z]{2,4}){3,8}\b")
_SHORTEST_ACCOUNT, _LONGEST_ACCOUNT = 15, 34  # letters and digits of an IBAN
_EDGES = ".!?*_-+/~`"


class Digests:
    """A set of texts of which only keyed digests are held."""

    def __init__(self) -> None:
        self._state = blake2b(key=os.urandom(32), digest_size=8)
        self._high, self._low = BitMap(), BitMap()
        self.count = 0

    def add(self, texts: Iterable[str]) -> None:
        """Add texts that are in their canonical form."""
        halves = [self._halves(text) for text in texts]
        self._high.update(high for high, _ in halves)
        self._low.update(low for _, low in halves)
        self.count += len(halves)

    def __contains__(self, text: str) -> bool:
        """Whether a canonical text is (all but certainly) in the set."""
        high, low = self._halves(text)
        return high in self._high and low in self._low

    def _halves(self, text: str) -> tuple[int, int]:
        state = self._state.copy()
        state.update(text.encode("utf-8", "surrogatepass"))
        digest = int.from_bytes(state.digest(), "big")
        return digest >> 32, digest & 0xFFFFFFFF


def canonical(text: str) -> str:
    """Return the form in which texts are compared: lower case, without blanks at the ends."""
    return text.strip().lower()


def squeezed(text: str) -> str:
    """Return letters and digits only, so that numbers written with blanks, dashes and brackets are the same."""
    return "".join(letter for letter in text if letter.isalnum())


def identifier_forms(text: str) -> Iterator[str]:
    """Yield the forms under which an identifier is looked for inside other texts."""
    value = canonical(text)
    if len(value) >= SHORTEST and not (value.isalpha() and " " not in value and len(value) < 12):
        yield value
        bare = squeezed(value)
        if bare != value and len(bare) >= 8 and sum(letter.isdigit() for letter in bare) >= 6:
            yield bare


def tokens(text: str) -> Iterator[str]:
    """Yield what may be an identifier in a text: the text itself, its words, and its runs of digits."""
    value = canonical(text)
    if len(value) < SHORTEST:
        return
    yield value
    for word in _WORD.findall(value):
        bare = word.strip(_EDGES)
        if bare != value and len(bare) >= SHORTEST:
            yield bare
    if any(letter.isdigit() for letter in value):
        yield from _numbers(value)


def _numbers(value: str) -> Iterator[str]:
    for run in _NUMBER.findall(value):
        bare = squeezed(run)
        if len(bare) >= 8:
            yield bare
    for run in _ACCOUNT.findall(value):
        bare = squeezed(run)
        # Where groups are apart, the word behind the last one looks like another group.
        yield from (bare[:length] for length in range(_SHORTEST_ACCOUNT, min(len(bare), _LONGEST_ACCOUNT) + 1))
