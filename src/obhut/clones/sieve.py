"""A first look at very much text at once: may one of the source's identifiers stand in it?

What the identifiers look like decides what is looked at: where all are e-mail addresses, a text without ``@`` is done with; where they are
numbers, only runs of as many digits are. Whole chunks are translated and split by the interpreter's own code, and what is left meets the
digests. Whoever may hold something is looked at again cell by cell, by :func:`~obhut.clones.digests.tokens`: so the sieve may let too much
through and never too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from obhut.clones.digests import (
    ACCOUNT,
    EDGES,
    LONGEST_ACCOUNT,
    SHORTEST,
    SHORTEST_ACCOUNT,
    Digests,
    accounts,
    identifier_forms,
    numbers,
    squeezed,
)

SEPARATOR = "\x1f"  # between the cells of a text; white space for every search
_BETWEEN = b" /().-"  # what may stand between the digits of a number
_BREAKS = b"\t\n\v\f\r\x1c\x1d\x1e\x1f \"',;:<>()[]{}|=\\"  # what ends a word
_SPACED = bytes.maketrans(_BREAKS, b" " * len(_BREAKS))
_DIGITS = bytes(ord("0") if chr(code).isdigit() else ord(" ") for code in range(128)) + b" " * 128
_ASCII = bytes(range(128))
_SQUEEZED = 8  # digits of a number that is found however it is written
_BROKEN = re.compile(r"[\s\"',;:<>()\[\]{}|=\\]")
_NUMBER = re.compile(r"\d+|\+?\d[\d /().-]{6,}\d", re.ASCII)  # the second as digests finds it, however it is written
_ADDRESS = re.compile(r"[a-z0-9][a-z0-9._-]*@[a-z0-9._-]*[a-z0-9]")  # most of them; the others go the long way
_ESCAPED = re.compile(r"\\(u[dD][89abAB]..\\u[dD][c-fC-F]..|u[0-9a-fA-F]{4}|.)", re.DOTALL)  # two halves of a letter are one
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_INSIDE = str.maketrans(dict.fromkeys('",{}[]:', SEPARATOR))


class Identifiers(Digests):
    """Identifiers with what is to be known of their shapes; nothing of a value is kept but lengths and kinds of signs.

    Attributes:
        whole: some are found as whole cells only: they hold blanks, or begin or end with a sign that is taken off words.
        words: some are words without ``@``.
        addresses: some are words with ``@``.
        accounts: some may be international account numbers.
        quoted: some hold quotes or backslashes, which documents write otherwise.
        digits: the fewest digits of those that are numbers; 0: none is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = self.words = self.addresses = self.accounts = self.quoted = False
        self.digits = 0

    def add(self, texts: Iterable[str]) -> None:
        """Add forms of identifiers, as :func:`~obhut.clones.digests.identifier_forms` yields them."""
        everything = list(texts)
        super().add(everything)
        for text in everything:
            self._shape(text)

    def shapes(self) -> tuple[bool, bool, bool, bool, bool, int]:
        """Return everything for :meth:`widen`."""
        return self.whole, self.words, self.addresses, self.accounts, self.quoted, self.digits

    def widen(self, shapes: tuple[bool, bool, bool, bool, bool, int]) -> None:
        """Add the shapes of what a forked process has gathered."""
        whole, words, addresses, accounts_, quoted, digits = shapes
        self.whole |= whole
        self.words |= words
        self.addresses |= addresses
        self.accounts |= accounts_
        self.quoted |= quoted
        self._number(digits)

    def _number(self, digits: int) -> None:
        if digits:
            self.digits = min(self.digits or digits, digits)

    def _shape(self, text: str) -> None:
        if self.addresses and _ADDRESS.fullmatch(text):
            return
        if _NUMBER.fullmatch(text) and len(squeezed(text)) >= (SHORTEST if text.isdecimal() else _SQUEEZED):
            self._number(len(squeezed(text)))
        elif ACCOUNT.fullmatch(text) and (" " not in text or _searched_bare(text)):
            self.accounts = True
            self.words |= " " not in text
        elif _BROKEN.search(text) or text != text.strip(EDGES):
            self.whole = True
            self.quoted |= '"' in text or "\\" in text
        elif "@" in text:
            self.addresses = True
        else:
            self.words = True

    def may_stand_in(self, text: str, *, document: bool = False) -> bool:
        """Whether one of the identifiers may stand in a text.

        Args:
            text: cells with :data:`SEPARATOR` between them, as they are written.
            document: whether the cells are JSON or arrays, in which quotes set values apart.
        """
        if document and "\\" in text:
            text = _ESCAPED.sub(_unescaped, text)
        return any(self.hits(found) for found in self._candidates(text, document=document))

    def _candidates(self, text: str, *, document: bool) -> Iterator[list[str]]:
        if self.words:
            yield _words(text.lower())
        elif self.addresses and "@" in text:
            yield _words(SEPARATOR.join(cell for cell in text.split(SEPARATOR) if "@" in cell).lower())
        if self.digits:
            yield from _numbers(text, self.digits)
        if self.accounts:
            yield list(accounts(text.lower()))
        if self.whole:
            lowered = text.lower()
            yield [cell.strip() for cell in lowered.split(SEPARATOR)]
            if document:
                yield [piece.strip() for piece in lowered.replace('"', SEPARATOR).split(SEPARATOR)]
                yield [piece.strip() for piece in lowered.translate(_INSIDE).split(SEPARATOR)]


def _searched_bare(account: str) -> bool:
    """Whether an account number written in groups is looked for without its blanks, too."""
    bare = squeezed(account)
    return SHORTEST_ACCOUNT <= len(bare) <= LONGEST_ACCOUNT and bare in identifier_forms(account)


def _unescaped(found: re.Match[str]) -> str:
    sign = found[1]
    if len(sign) > 1:
        codes = [int(code, 16) for code in sign.replace("\\", "").split("u")[1:]]
        return b"".join(code.to_bytes(2, "big") for code in codes).decode("utf-16-be", "surrogatepass")
    return _CONTROL.get(sign, sign)


def _words(text: str) -> list[str]:
    if not text.isascii():
        text = " ".join(text.split())  # other scripts have blanks of their own
    spaced = text.encode("utf-8", "surrogatepass").translate(_SPACED).decode("utf-8", "surrogatepass")
    return [word.strip(EDGES) for word in spaced.split(" ") if len(word) >= SHORTEST]


def _numbers(text: str, fewest: int) -> Iterator[list[str]]:
    """Yield runs of digits: those that blanks, dashes, dots and brackets interrupt, and those of words."""
    raw = text.encode("utf-8", "surrogatepass")
    if not text.isascii() and any(map(str.isdecimal, raw.translate(None, _ASCII).decode("utf-8", "surrogatepass"))):
        yield list(numbers(text.lower()))  # digits of other scripts
    bare = raw.translate(None, _BETWEEN)
    together = list(_runs(bare, fewest))
    yield together
    if together and len(bare) < len(raw):  # a run of a word is part of one of these
        yield list(_runs(raw, fewest))


def _runs(text: bytes, fewest: int) -> Iterator[str]:
    shape = text.translate(_DIGITS)
    wanted = b"0" * fewest
    start = shape.find(wanted)
    while start >= 0:
        end = shape.find(b" ", start)
        end = len(shape) if end < 0 else end
        yield text[start:end].decode("ascii")
        start = shape.find(wanted, end)
