"""A first look at very much text at once: may one of the source's identifiers stand in it?

What the identifiers look like decides what is looked at: where all are e-mail addresses, a text without ``@`` is done with; where they are
numbers, only runs of as many digits are. Whole chunks are translated and split by the interpreter's own code, and what is left meets the
digests. Whoever may hold something is looked at again cell by cell, by :func:`~obhut.clones.digests.tokens`: so the sieve may let too much
through and never too little.

Where all identifiers are addresses of the usual kind and numbers, the bytes of a ``COPY`` are looked at as they are, binary ones included.
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
_LOOSE = bytes(ord("0") if chr(code).isdigit() or code in _BETWEEN else ord(" ") for code in range(128)) + b" " * 128
_APART = bytes.maketrans(_BETWEEN, b" " * len(_BETWEEN))
_BREAKS = b"\t\n\v\f\r\x1c\x1d\x1e\x1f \"',;:<>()[]{}|=\\"  # what ends a word
_SPACED = bytes.maketrans(_BREAKS, b" " * len(_BREAKS))
_ASCII = bytes(range(128))
_SQUEEZED = 8  # digits of a number that is found however it is written
_BROKEN = re.compile(r"[\s\"',;:<>()\[\]{}|=\\]")
_NUMBER = re.compile(r"\d+|\+?\d[\d /().-]{6,}\d", re.ASCII)  # the second as digests finds it, however it is written
_ADDRESS = re.compile(r"[a-z0-9][a-z0-9._-]*@[a-z0-9._-]*[a-z0-9]")  # most of them; the others go the long way
_BESIDE = re.compile(rb"[A-Za-z0-9._-]*")  # what may stand on either side of the sign of such an address
_NEAR = 64  # bytes before a sign that are looked at first
_KELVIN = "\N{KELVIN SIGN}".encode()  # the only letter beyond ASCII that is one of ASCII in lower case
_LENGTH = 3  # bytes of the length in front of a binary field that are not zero, at the most (below 16 MiB)
_WRITTEN = re.compile(rb'\\[bfnrtu"\\/]')  # a sign that a document writes otherwise
Shapes = tuple[bool, bool, bool, bool, bool, bool, int]
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
        odd: some are neither numbers nor addresses of the usual kind, so bytes cannot be looked at as they are.
        digits: the fewest digits of those that are numbers; 0: none is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = self.words = self.addresses = self.accounts = self.quoted = self.odd = False
        self.digits = 0

    def add(self, texts: Iterable[str]) -> None:
        """Add forms of identifiers, as :func:`~obhut.clones.digests.identifier_forms` yields them."""
        everything = list(texts)
        super().add(everything)
        usual = _ADDRESS.fullmatch
        others = [text for text in everything if not usual(text)]
        self.addresses |= len(others) < len(everything)
        for text in others:
            self._shape(text)

    def add_values(self, values: Iterable[str]) -> None:
        """Add canonical values in the forms under which they are looked for; addresses of the usual kind have one."""
        usual = _ADDRESS.fullmatch
        forms: set[str] = set()
        for value in values:
            if usual(value) and len(value) >= SHORTEST:
                forms.add(value)
            else:
                forms.update(identifier_forms(value))
        self.add(forms)

    def shapes(self) -> Shapes:
        """Return everything for :meth:`widen`."""
        return self.whole, self.words, self.addresses, self.accounts, self.quoted, self.odd, self.digits

    def widen(self, shapes: Shapes) -> None:
        """Add the shapes of what a forked process has gathered."""
        whole, words, addresses, accounts_, quoted, odd, digits = shapes
        self.odd |= odd
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
        if _NUMBER.fullmatch(text) and len(squeezed(text)) >= (SHORTEST if text.isdecimal() else _SQUEEZED):
            self._number(len(squeezed(text)))
            return
        self.odd = True
        if ACCOUNT.fullmatch(text) and (" " not in text or _searched_bare(text)):
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

    def may_stand_in_bytes(self, raw: bytes, *, binary: bool, documents: bool = False) -> bool:
        """Whether one of the identifiers, none of which is :attr:`odd`, may stand in the bytes of a ``COPY``.

        Args:
            raw: whole lines of text without its escapes, or a piece of a binary stream that neither begins nor ends inside a value or
                length, but may begin with the last bytes of a length.
            binary: which of the two.
            documents: whether some of the cells are JSON, which has escapes of its own.
        """
        if self.odd:
            raise ValueError("these identifiers cannot be looked for in bytes")
        if self._meets(raw, binary=binary):
            return True
        if not documents or not _WRITTEN.search(raw):
            return False
        plain = _ESCAPED.sub(_unescaped, raw.decode("utf-8", "surrogateescape"))
        return self._meets(plain.encode("utf-8", "replace"), binary=binary)

    def _meets(self, raw: bytes, *, binary: bool) -> bool:
        if self.digits and self.hits(_number_runs(raw, self.digits, binary=binary)):
            return True
        return self.addresses and b"@" in raw and bool(self.hits(_addresses(raw, binary=binary)))

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
    yield _number_runs(raw, fewest)


def _number_runs(raw: bytes, fewest: int, *, binary: bool = False) -> list[str]:
    """Return the runs of at least as many digits: without what stands between them, and each one alone."""
    shape = raw.translate(_LOOSE)
    wanted = b"0" * fewest
    found: list[bytes] = []
    start = shape.find(wanted)
    while start >= 0:
        end = shape.find(b" ", start)
        end = len(shape) if end < 0 else end
        found.append(raw[start:end])
        if binary and _after_length(raw, start):
            found += [raw[start + cut : end] for cut in range(1, _LENGTH + 1)]
        start = shape.find(wanted, end)
    runs = b"\n".join(found).translate(None, _BETWEEN).decode("ascii").split("\n")
    wanted_runs = [run for run in runs if len(run) >= fewest]
    apart = [loose for loose, run in zip(found, runs, strict=False) if len(loose) > len(run) >= fewest]
    if apart:
        wanted_runs += [run for run in b" ".join(apart).translate(_APART).decode("ascii").split() if len(run) >= fewest]
    return wanted_runs


def _addresses(raw: bytes, *, binary: bool) -> list[str]:
    """Return what stands around each ``@``, as far as an address of the usual kind can reach."""
    found: list[bytes] = []
    place = raw.find(b"@")
    while place >= 0:
        start, end = _begin(raw, place), _BESIDE.match(raw, place + 1).end()  # type: ignore[union-attr]  # it matches nothing, too
        if b"\xe2\x84" in (raw[start - 3 : start - 1], raw[end : end + 2]) and _KELVIN in raw:
            return _addresses(raw.replace(_KELVIN, b"k"), binary=binary)
        if place - start and end - place > 1:
            found.append(raw[start:end])
            if binary and _after_length(raw, start):
                found += [raw[start + cut : end] for cut in range(1, _LENGTH + 1) if start + cut < place]
        place = raw.find(b"@", place + 1)
    return [one.decode("ascii").lower().strip(EDGES) for one in found]


def _begin(text: bytes, place: int) -> int:
    """Return where the word before a sign begins."""
    wide = _NEAR
    while True:
        first = max(0, place - wide)
        length = _BESIDE.match(text[first:place][::-1]).end()  # type: ignore[union-attr]  # as above
        if length < place - first or not first:
            return place - length
        wide *= 2


def _after_length(raw: bytes, start: int) -> bool:
    """Whether what begins there may begin with bytes of the length in front of it."""
    return start < _LENGTH or b"\0" in raw[start - _LENGTH : start]
