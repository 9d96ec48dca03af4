"""Keyed permutations of whole numbers: a key is issued anew, no two get the same one, and none leaves its range.

An alternating Feistel network (an unbalanced one where the bits are odd) over the next power of two; what falls outside the range goes
round again (cycle walking), which keeps it a permutation. A whole chunk goes through at once: AES under the sub-key is the round function,
one call a round, and the halves of all numbers are added as one large integer. Measured: 0.4 µs a number instead of 4.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b

from obhut.masking.keyed import BLOCK, bulk

_ROUNDS = 8


class Permutation:
    """A permutation of ``first … first + size - 1``; ``first`` plus the next power of two is at most 2**64."""

    def __init__(self, key: bytes, size: int, first: int = 0) -> None:
        self._bits = max((size - 1).bit_length(), 2)
        if not size >= 1 or not 0 <= first <= (1 << 64) - (1 << self._bits):
            raise ValueError("a permutation has at least one member, and its network fits below 2**64")
        self._first, self._last = first, first + size - 1
        self._whole = size == 1 << self._bits
        self._low = self._bits // 2
        self._encrypt = bulk(key)

    def __call__(self, numbers: Sequence[int]) -> Sequence[int]:
        """Return the images of the numbers."""
        return self._once(numbers) if self._whole else self.walk(numbers, self._last.__ge__)

    def walk(self, numbers: Sequence[int], inside: Callable[[int], bool]) -> Sequence[int]:
        """Return images, each one the first inside on its cycle; every number must be inside itself."""
        images = self._once(numbers)
        waiting = [index for index, image in enumerate(images) if not inside(image)]
        while waiting:
            again = self._once([images[index] for index in waiting])
            for index, image in zip(waiting, again, strict=True):
                images[index] = image
            waiting = [index for index, image in zip(waiting, again, strict=True) if not inside(image)]
        return images

    def _once(self, numbers: Sequence[int]) -> list[int]:
        count = len(numbers)
        lanes = array("Q", bytes(BLOCK * count))
        lanes[0::2] = array("Q", numbers)
        ones = int.from_bytes((b"\1" + bytes(BLOCK - 1)) * count, "little")
        low, high = self._low, self._bits - self._low
        low_mask, high_mask = ones * ((1 << low) - 1), ones * ((1 << high) - 1)
        whole = int.from_bytes(lanes.tobytes(), "little") - ones * self._first
        right, left = whole & low_mask, whole >> low & high_mask
        for step in range(_ROUNDS):
            mark = ones * (step + 1 << 120)  # keeps the rounds' functions apart
            if step % 2:
                left ^= self._round(right | mark, count) & high_mask
            else:
                right ^= self._round(left | mark, count) & low_mask
        made = (left << low | right) + ones * self._first
        return array("Q", made.to_bytes(BLOCK * count, "little"))[0::2].tolist()

    def _round(self, half: int, count: int) -> int:
        return int.from_bytes(self._encrypt(half.to_bytes(BLOCK * count, "little")), "little")


def permuted(key: bytes, tweak: bytes, number: int, size: int) -> int:
    """Return the image of one number below ``size``, by a permutation that key and tweak choose; for sizes without limit."""
    if size < 2:
        return number
    bits = max((size - 1).bit_length(), 2)
    low, high = bits // 2, bits - bits // 2
    base = blake2b(tweak, key=key, digest_size=min(64, high // 8 + 8))
    while True:
        right, left = number & (1 << low) - 1, number >> low
        for step in range(8):
            if step % 2:
                left ^= _function(base, step, right) & (1 << high) - 1
            else:
                right ^= _function(base, step, left) & (1 << low) - 1
        number = left << low | right
        if number < size:
            return number


def _function(base: blake2b, step: int, half: int) -> int:
    digest = base.copy()
    digest.update(b"%d:%x" % (step, half))
    made = int.from_bytes(digest.digest(), "big")
    return made if half < 1 << 512 else made * (1 << 512 | 1)
