"""Sealed files: what goes in comes out, and nothing else does."""

from __future__ import annotations

import io
import os
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.backups.errors import SealBrokenError
from obhut.backups.sealing import CHUNK, Header, Sealer, unsealed

KEY = bytes(range(32))


def seal(plain: bytes, *, chunk: int = 64, compress: bool = False, context: str = "c", pieces: int = 50) -> bytes:
    target = io.BytesIO()
    sealer = Sealer(target, KEY, "label", context, compress=compress, chunk=chunk)
    for start in range(0, len(plain), pieces):
        sealer.write(plain[start : start + pieces])
    sealer.finish()
    return target.getvalue()


def opened(sealed: bytes, context: str | None = "c") -> bytes:
    return b"".join(unsealed(io.BytesIO(sealed), lambda label: KEY, context))


@given(st.binary(max_size=400), st.integers(1, 150), st.booleans())
def test_what_goes_in_comes_out(plain, pieces, compress) -> None:
    """Any text in any pieces is opened as it was, compressed or not."""
    assert opened(seal(plain, pieces=pieces, compress=compress)) == plain


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 129, 192])
@pytest.mark.parametrize("compress", [False, True])
def test_every_flipped_bit_is_noticed(size: int, compress: bool) -> None:
    """A single flipped bit anywhere, head and tail included, is refused."""
    sealed = bytearray(seal(os.urandom(size), compress=compress))
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1 << random.randrange(8)
        with pytest.raises(SealBrokenError):
            opened(bytes(damaged))


@pytest.mark.parametrize("size", [0, 64, 65, 128, 200])
def test_every_truncation_is_noticed(size: int) -> None:
    """Cutting off any number of bytes is refused, also exactly at the border of a chunk."""
    sealed = seal(os.urandom(size))
    for length in range(len(sealed)):
        with pytest.raises(SealBrokenError):
            opened(sealed[:length])


def test_chunks_cannot_change_places_or_be_repeated() -> None:
    """Chunks swapped, dropped or doubled are refused, and so is anything behind the last one."""
    sealed = seal(os.urandom(64 * 4))
    head = len(Header("label", "c", compressed=False, chunk=64, salt=bytes(32)).pack())
    chunks = [sealed[position : position + 80] for position in range(head, len(sealed), 80)]
    for wrong in ([1, 0, 2, 3], [0, 1, 3], [0, 1, 1, 2, 3], [0, 1, 2, 3, 3], [3], [0, 1, 2]):
        with pytest.raises(SealBrokenError):
            opened(sealed[:head] + b"".join(chunks[number] for number in wrong))
    with pytest.raises(SealBrokenError):
        opened(sealed + b"x")


def test_a_file_in_another_files_place_is_refused() -> None:
    """A sealed file is bound to its backup and path."""
    with pytest.raises(SealBrokenError, match="another file's place"):
        opened(seal(b"x", context="b1/base/1"), "b1/base/2")


def test_equal_texts_are_sealed_differently() -> None:
    """Nobody can see that two files are equal."""
    assert seal(b"x" * 1000)[-500:] != seal(b"x" * 1000)[-500:]


def test_memory_stays_constant() -> None:
    """Sixty-four megabytes, even of zeros that compress a thousandfold, are sealed and opened in a few."""

    class Nothing(io.RawIOBase):
        def write(self, block) -> int:
            return len(block)

    tracemalloc.start()
    try:
        kept = io.BytesIO()
        for target, compress in ((Nothing(), False), (kept, True)):
            sealer = Sealer(target, KEY, "l", "c", compress=compress)
            for _ in range(64):
                sealer.write(bytes(CHUNK))
            sealer.finish()
        kept.seek(0)
        assert sum(len(block) for block in unsealed(kept, lambda label: KEY)) == 64 * CHUNK
        assert tracemalloc.get_traced_memory()[1] < 16 * CHUNK
    finally:
        tracemalloc.stop()
