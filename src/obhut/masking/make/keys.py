"""Keys issued anew, and texts scrambled in their own shape: both by permutations, so that nothing collides and every reference follows."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence

from obhut.datamap.kinds import Kind
from obhut.datamap.transformers import Family
from obhut.masking.facts import Bounds, Facts
from obhut.masking.fields import NULL, escape, unescape
from obhut.masking.identity import KeyDomain, Variant
from obhut.masking.keys import RunKey
from obhut.masking.make.base import Cells, Maker, Rows, around_gaps, by_value
from obhut.masking.make.numbers import token, uuid
from obhut.masking.permutation import Permutation, permuted

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TABLED = 1 << 22  # keys of a range that are written out at the most
_STEP = 1 << 14  # keys at a time
_SHAPES = (("0123456789", "0"), (_LETTERS, "a"), (_LETTERS.upper(), "A"))


def rekey(
    variants: Sequence[Variant],
    columns: Mapping[str, int],
    domains: Mapping[str, KeyDomain],
    key: RunKey,
    facts: Facts,
    wrap: Callable[[Maker], Maker],
    *,
    again: bool,
) -> Maker:
    """Return the maker of a column that holds re-issued keys.

    Args:
        variants: the domains it follows, in which rows.
        columns: index by name, for the columns that decide.
        domains: all domains.
        key: of the run.
        facts: with the ranges.
        wrap: takes arrays apart, where the column holds them.
        again: whether the column names a key more than once.
    """
    makers = [(variant.when, wrap(domain_maker(domains[variant.domain], key, facts, again=again))) for variant in variants]
    if len(makers) == 1 and not makers[0][0]:
        return makers[0][1]

    def make(rows: Rows, cells: Cells) -> Cells:
        found = list(cells)
        for when, maker in makers:
            wanted = [(rows.columns[columns[name]], escape(value.encode())) for name, value in when]
            indexes = [index for index in range(len(cells)) if all(column[index] == value for column, value in wanted)]
            for index, new in zip(indexes, maker(rows, [cells[index] for index in indexes]), strict=True):
                found[index] = new
        return found

    return make


def domain_maker(domain: KeyDomain, key: RunKey, facts: Facts, *, again: bool = True) -> Maker:
    """Return the maker of one domain's keys; ``again``: the column names a key more than once."""
    secret = key.sub(f"key.{domain.name}")
    if domain.kind.family is Family.UUID:
        return by_value(uuid, secret, _uuids)
    return _numbers(domain.kind, secret, facts.range(domain.name), again=again)


def _uuids(cells: Cells) -> Cells:
    return [cell.lower() for cell in cells]


def _numbers(kind: Kind, secret: bytes, bounds: Bounds, *, again: bool) -> Maker:
    inner, offset = _inside(secret, bounds)
    # Numbers that the narrowest follower can hold stay such numbers; the rest stays above.
    narrow = _around(kind.low, kind.high, secret[::-1], (bounds.low, bounds.high))
    wide = _around(-(1 << 63), (1 << 63) - 1, secret[1:] + secret[:1], (kind.low, kind.high))
    other = by_value(token(None), secret)
    table = _Table(inner, bounds, offset)

    def fresh(cells: Cells) -> list[bytes]:
        if not b"".join(cells).isdigit():
            return [_one(cell) for cell in cells]  # signs, or texts in a text column
        numbers = list(map(int, cells))
        if min(numbers) >= bounds.low and max(numbers) <= bounds.high:
            found: Sequence[int] | None = table.look_up(numbers) if again else None
            if found is None:
                found = [image + offset for image in inner([number - offset for number in numbers])] if offset else inner(numbers)
            return list(map(b"%d".__mod__, found))
        return [_one(cell) for cell in cells]

    def _each(number: int) -> int:
        if bounds.low <= number <= bounds.high:
            return inner([number - offset])[0] + offset
        return narrow(number) if kind.low <= number <= kind.high else wide(number)

    def _one(cell: bytes) -> bytes:
        if cell.removeprefix(b"-").isdigit() and -(1 << 63) <= (number := int(cell)) < 1 << 63:
            return b"%d" % _each(number)
        return other(Rows(()), [cell])[0]

    return lambda _, cells: around_gaps(cells, fresh)


class _Table:
    """The new keys of a whole range, written out once it pays: a foreign key names the same people again and again.

    At most 2**22 keys below 2**32, so 16 MB.
    """

    __slots__ = ("_asked", "_bounds", "_inner", "_keys", "_offset")

    def __init__(self, inner: Permutation, bounds: Bounds, offset: int) -> None:
        self._inner, self._bounds, self._offset = inner, bounds, offset
        self._asked = 0
        self._keys: array[int] | None = None

    def look_up(self, numbers: Sequence[int]) -> list[int] | None:
        """Return the new keys of numbers inside the range, or None while they are not worth a table."""
        low, size = self._bounds.low, self._bounds.high - self._bounds.low + 1
        if self._keys is None:
            self._asked += len(numbers)
            if size > _TABLED or self._asked * 2 < size or not 0 <= low <= self._bounds.high < 1 << 32:
                return None
            self._keys = array("I", [image for start in range(0, size, _STEP) for image in self._some(start, size)])
        return list(map(self._keys.__getitem__, [number - low for number in numbers] if low else numbers))

    def _some(self, start: int, size: int) -> Sequence[int]:
        first = self._bounds.low - self._offset
        images = self._inner(range(first + start, first + min(start + _STEP, size)))
        return [image + self._offset for image in images] if self._offset else images


def _inside(secret: bytes, bounds: Bounds) -> tuple[Permutation, int]:
    """Return the permutation of the range, and what to take off a number before and put back afterwards."""
    size = bounds.high - bounds.low + 1
    if 0 <= bounds.low <= (1 << 64) - (1 << max((size - 1).bit_length(), 2)):
        return Permutation(secret, size, bounds.low), 0
    return Permutation(secret, size), bounds.low


def _around(low: int, high: int, secret: bytes, inside: tuple[int, int]) -> Callable[[int], int]:
    """Return the permutation of ``low`` to ``high`` without a part inside: keys that name a row which is gone name none afterwards."""
    permutation = Permutation(secret, high - low + 1)

    def away(image: int) -> bool:
        return not inside[0] <= image + low <= inside[1]

    return lambda number: permutation.walk([number - low], away)[0] + low


def scramble(secret: bytes) -> Maker:
    """Return the maker that turns digits into digits and letters into letters: one permutation for each shape."""

    def one(cell: bytes) -> bytes:
        text = unescape(cell).decode("utf-8", "replace")
        number, size, shape = 0, 1, []
        for sign in text:
            alphabet, mark = next(((letters, mark) for letters, mark in _SHAPES if sign in letters), ("", sign))
            shape.append(mark)
            if alphabet:
                number, size = number * len(alphabet) + alphabet.index(sign), size * len(alphabet)
        return escape(_spelt(permuted(secret, "".join(shape).encode()[:64], number, size), shape).encode())

    known: dict[bytes, bytes] = {}

    def make(_: Rows, cells: Cells) -> Cells:
        if len(known) > 1 << 15:
            known.clear()
        for cell in set(cells) - known.keys():
            known[cell] = NULL if cell == NULL else one(cell)
        return [known[cell] for cell in cells]

    return make


def _spelt(number: int, shape: Sequence[str]) -> str:
    alphabets = {mark: letters for letters, mark in _SHAPES}
    signs: list[str] = []
    for mark in reversed(shape):
        letters = alphabets.get(mark, "")
        if letters:
            number, index = divmod(number, len(letters))
            signs.append(letters[index])
        else:
            signs.append(mark)
    return "".join(reversed(signs))
