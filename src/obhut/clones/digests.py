"""Values of the source as keyed digests in memory: what the search in the copy compares with.

Two 32-bit halves of one keyed digest, each in its own bitmap: ten million values cost about forty megabytes, and one lookup in a
million million meets by chance where both halves are sparse. What meets is asked for at the source before it is called a leak, so chance
never drops a copy. The key is random and dies with the object; no value is kept.

The digest of a text is its SipHash under the interpreter's random key, put through AES under the object's own: thousands go through at once
(measured: 0.1 µs a text; a BLAKE2b digest each took 0.8). A forked process has the same keys, so what it gathered can be added.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence

from pyroaring import BitMap

from obhut.masking.keyed import BLOCK, bulk

SHORTEST = 6  # characters: shorter values occur by chance
_WORD = re.compile(r"[^\s\"',;:<>()\[\]{}|=\\]{6,}")
_NUMBER = re.compile(r"\+?\d[\d /().-]{6,}\d")
ACCOUNT = re.compile(r"\b[a-z]{2}\d{2}(?: ?[0-9a-z]{2,4}){3,8}\b")
SHORTEST_ACCOUNT, LONGEST_ACCOUNT = 15, 34  # letters and digits of an IBAN
EDGES = ".!?*_-+/~`"
_TOGETHER = 1 << 12  # texts that go through at once
_SHARE = 1 << 17  # digests that are a set at once


class Digests:
    """A set of texts of which only keyed digests are held."""

    def __init__(self) -> None:
        self._encrypt = bulk(os.urandom(32))
        self._high, self._low = BitMap(), BitMap()
        self.count = 0

    def add(self, texts: Iterable[str]) -> None:
        """Add texts that are in their canonical form."""
        everything = list(texts)
        low, high = self._halves(everything)
        self._low |= BitMap(array("I", sorted(low)))
        self._high |= BitMap(array("I", sorted(high)))
        self.count += len(everything)

    def merge(self, gathered: tuple[bytes, bytes, int]) -> None:
        """Add what a forked process has gathered into the same set."""
        low, high, count = gathered
        self._low |= BitMap.deserialize(low)
        self._high |= BitMap.deserialize(high)
        self.count += count

    def gathered(self) -> tuple[bytes, bytes, int]:
        """Return everything for :meth:`merge`."""
        return self._low.serialize(), self._high.serialize(), self.count

    def __contains__(self, text: str) -> bool:
        """Whether a canonical text is (all but certainly) in the set."""
        return bool(self.hits([text]))

    def hits(self, texts: Sequence[str]) -> list[str]:
        """Return those of the canonical texts that are (all but certainly) in the set."""
        found: list[str] = []
        if not self.count:
            return found
        for start in range(0, len(texts), _TOGETHER):
            some = texts[start : start + _TOGETHER]
            low, high = self._halves(some)
            met = list(map(self._low.__contains__, low))
            if True in met:
                rows = zip(some, met, high, strict=True)
                found += [text for text, here, other in rows if here and other in self._high]
        return found

    def _halves(self, texts: Sequence[str]) -> tuple[array[int], array[int]]:
        lanes = array("q", bytes(BLOCK * len(texts)))
        lanes[0::2] = array("q", map(hash, texts))
        mixed = array("I", self._encrypt(lanes.tobytes()))
        return mixed[0::4], mixed[1::4]


def common(before: array[int], after: array[int]) -> int:
    """Return how many digests of the second side are on the first: 64 bits of SipHash under the interpreter's key, which forks share.

    In shares, so that no more than some megabytes are needed.
    """
    met = 0
    for start in range(0, len(before), _SHARE):
        known = set(before[start : start + _SHARE])
        if not known.isdisjoint(after):
            met += sum(map(known.__contains__, after))
    return met


def canonical(text: str) -> str:
    """Return the form in which texts are compared: lower case, without blanks at the ends."""
    return text.strip().lower()


def squeezed(text: str) -> str:
    """Return letters and digits only, so that numbers written with blanks, dashes and brackets are the same."""
    return "".join(filter(str.isalnum, text))


def identifier_forms(text: str) -> Iterator[str]:
    """Yield the forms under which an identifier is looked for inside other texts."""
    value = canonical(text)
    if len(value) >= SHORTEST and not (value.isalpha() and " " not in value and len(value) < 12):
        yield value
        bare = "" if "@" in value else squeezed(value)  # an address without its sign is none
        if bare != value and len(bare) >= 8 and sum(map(str.isdigit, bare)) >= 6:
            yield bare


def tokens(text: str) -> Iterator[str]:
    """Yield what may be an identifier in a text: the text itself, its words, and its runs of digits."""
    value = canonical(text)
    if len(value) < SHORTEST:
        return
    yield value
    for word in _WORD.findall(value):
        bare = word.strip(EDGES)
        if bare != value and len(bare) >= SHORTEST:
            yield bare
    if any(map(str.isdigit, value)):
        yield from numbers(value)


def numbers(value: str) -> Iterator[str]:
    """Yield the runs of digits of a canonical text, without what stands between them, and what may be an account number."""
    for run in _NUMBER.findall(value):
        bare = squeezed(run)
        if len(bare) >= 8:
            yield bare
    yield from accounts(value)


def accounts(value: str) -> Iterator[str]:
    """Yield what may be an international account number in a canonical text."""
    for run in ACCOUNT.findall(value):
        bare = squeezed(run)
        # Where groups are apart, the word behind the last one looks like another group.
        yield from (bare[:length] for length in range(SHORTEST_ACCOUNT, min(len(bare), LONGEST_ACCOUNT) + 1))
