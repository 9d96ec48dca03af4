"""Sealed files: streaming authenticated encryption in constant memory.

Layout: a header, then chunks of AES-256-GCM in the STREAM construction. The header is ``OBHUTSL1``, flags (1 byte, bit 0: the plain
text was compressed with zlib), a zero byte, the lengths of label and context (2 bytes each), the chunk size (4 bytes), a random
salt (32 bytes), then label and context in UTF-8; integers are big-endian. The key of the file is HKDF-SHA256 of the day's data key with
the salt. The nonce of a chunk is three zero bytes, its number (8 bytes) and 1 for the last chunk, 0 for the others: chunks cannot be
reordered, repeated or dropped, and a truncated file has no last chunk. Every chunk authenticates the SHA-256 of the header, so the label
(which key), the context (which file of which backup) and the flags cannot be changed.

Imports nothing heavy: the WAL filter starts once per segment.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.backups.errors import SealBrokenError

MAGIC: Final = b"OBHUTSL1"
CHUNK: Final = 1 << 20
_FIXED: Final = struct.Struct(">8sBBHHI32s")
_TAG: Final = 16
_COMPRESSED: Final = 1
_INFO: Final = b"obhut sealed file 1"
_LARGEST_CHUNK: Final = 16 << 20

KeySource = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a sealed file."""

    label: str
    context: str
    compressed: bool
    chunk: int
    salt: bytes

    def pack(self) -> bytes:
        """Return the bytes that open the file."""
        label, context = self.label.encode(), self.context.encode()
        flags = _COMPRESSED if self.compressed else 0
        return _FIXED.pack(MAGIC, flags, 0, len(label), len(context), self.chunk, self.salt) + label + context

    @classmethod
    def read(cls, source: BinaryIO) -> Header:
        """Read the head of a sealed file.

        Raises:
            SealBrokenError: the file does not begin like a sealed one.
        """
        fixed = source.read(_FIXED.size)
        if len(fixed) != _FIXED.size or not fixed.startswith(MAGIC):
            raise SealBrokenError("a file of the repository is not sealed", "Was it written or changed by another program?")
        _, flags, zero, label_size, context_size, chunk, salt = _FIXED.unpack(fixed)
        names = source.read(label_size + context_size)
        if flags & ~_COMPRESSED or zero or not 0 < chunk <= _LARGEST_CHUNK or len(names) != label_size + context_size:
            raise SealBrokenError("the head of a sealed file is damaged", "Does the disk report errors?")
        try:
            label, context = names[:label_size].decode(), names[label_size:].decode()
        except UnicodeDecodeError:
            raise SealBrokenError("the head of a sealed file is damaged", "Does the disk report errors?") from None
        return cls(label, context, bool(flags & _COMPRESSED), chunk, salt)


class Sealer:
    """Writes one sealed file; call :meth:`write` any number of times, then :meth:`finish` exactly once."""

    def __init__(self, target: BinaryIO, data_key: bytes, label: str, context: str, *, compress: bool = False, chunk: int = CHUNK) -> None:
        header = Header(label, context, compress, chunk, os.urandom(32)).pack()
        self._target = target
        self._cipher = AESGCM(_file_key(data_key, header[_FIXED.size - 32 : _FIXED.size]))
        self._binding = hashlib.sha256(header).digest()
        self._chunk = chunk
        self._number = 0
        self._held: bytes | bytearray | memoryview = b""
        self._deflater = zlib.compressobj(1) if compress else None
        target.write(header)

    def write(self, block: bytes | bytearray | memoryview) -> None:
        """Seal the next bytes of the plain text; the block must not change afterwards."""
        self._feed(self._deflater.compress(block) if self._deflater is not None else block)

    def finish(self) -> None:
        """Seal the last chunk."""
        if self._deflater is not None:
            self._feed(self._deflater.flush())
        self._emit(self._held, last=True)
        self._held = b""

    def _feed(self, block: bytes | bytearray | memoryview) -> None:
        # One whole chunk is held back without being copied: only at the end is it known to be the last.
        if len(self._held) == self._chunk and block:
            self._emit(self._held, last=False)
        elif self._held:
            block = bytes(self._held) + bytes(block)
        elif not block:
            return
        if len(block) > self._chunk:
            view = memoryview(block)
            while len(view) > self._chunk:
                self._emit(view[: self._chunk], last=False)
                view = view[self._chunk :]
            block = view
        if block:
            self._held = block

    def _emit(self, block: bytes | bytearray | memoryview, *, last: bool) -> None:
        self._target.write(self._cipher.encrypt(_nonce(self._number, last=last), block, self._binding))
        self._number += 1


def unsealed(source: BinaryIO, keys: KeySource, context: str | None = None) -> Iterator[bytes]:
    """Yield the plain text of a sealed file, block by block, each one authenticated before it is yielded.

    Args:
        source: positioned at the head.
        keys: returns the data key for a label.
        context: what the file must have been sealed for; None accepts any.

    Raises:
        SealBrokenError: changed, truncated, or sealed for another context. Blocks yielded before are genuine but incomplete.
    """
    header = Header.read(source)
    if context is not None and header.context != context:
        raise SealBrokenError("a sealed file lies in another file's place", "Was the repository copied or edited by hand?")
    cipher = AESGCM(_file_key(keys(header.label), header.salt))
    binding = hashlib.sha256(header.pack()).digest()
    inflater = zlib.decompressobj() if header.compressed else None
    number = 0
    block = source.read(header.chunk + _TAG)
    while True:
        following = source.read(header.chunk + _TAG)
        try:
            plain = cipher.decrypt(_nonce(number, last=not following), block, binding)
        except (InvalidTag, ValueError):
            raise SealBrokenError(
                "a sealed file was changed or truncated", 'Does the disk report errors? Run "obhut backup check".'
            ) from None
        if inflater is None:
            yield plain
        else:
            yield from _inflated(inflater, plain)
        if not following:
            break
        block, number = following, number + 1


def _inflated(inflater: zlib._Decompress, block: bytes) -> Iterator[bytes]:
    # Bounded output: zeros compress a thousandfold, and memory must not follow.
    while block:
        plain = inflater.decompress(block, CHUNK)
        if plain:
            yield plain
        block = inflater.unconsumed_tail
    while plain := inflater.decompress(b"", CHUNK):
        yield plain


def _file_key(data_key: bytes, salt: bytes) -> bytes:
    # HKDF-SHA256 with one block of output, RFC 5869.
    return hmac.digest(hmac.digest(salt, data_key, "sha256"), _INFO + b"\x01", "sha256")


def _nonce(number: int, *, last: bool) -> bytes:
    return b"\0\0\0" + number.to_bytes(8, "big") + (b"\1" if last else b"\0")
