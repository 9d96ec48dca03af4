"""The key of a run: random, in memory only, one sub-key for each identity domain, destroyed at the end.

As long as the key exists, whoever holds it can test guesses, and the output is pseudonymised by definition. ``stable`` keys that outlive a
run are therefore not made here: :meth:`RunKey.kept` takes one from a key store, and the verdict never goes beyond ``pseudonymised``.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import NoReturn, Self

from obhut.masking.errors import MaskingKeyError

SIZE = 32  # bytes


class RunKey:
    """256 random bits. A worker process inherits it by fork; it refuses to be pickled, so that it never reaches a disk or a job table."""

    __slots__ = ("_secret", "stable")

    def __init__(self, secret: bytes | bytearray | None = None, *, stable: bool = False) -> None:
        self._secret: bytearray | None = bytearray(os.urandom(SIZE) if secret is None else secret)
        self.stable = stable
        if len(self._secret) != SIZE:
            raise ValueError("a run's key has 32 bytes")

    @classmethod
    def kept(cls, secret: bytes) -> Self:
        """Return a key that is kept beyond the run: equal values stay equal from copy to copy, and the copies stay pseudonymised."""
        return cls(secret, stable=True)

    @property
    def destroyed(self) -> bool:
        """Whether the key is gone."""
        return self._secret is None

    def sub(self, domain: str) -> bytes:
        """Return the 32-byte sub-key of an identity domain.

        Raises:
            MaskingKeyError: the key was destroyed.
        """
        if self._secret is None:
            raise MaskingKeyError("the key of this run was destroyed", "Start a new run: it makes its own key.")
        return blake2b(domain.encode(), key=bytes(self._secret), digest_size=SIZE, person=b"obhut.mask").digest()

    def destroy(self) -> None:
        """Overwrite the key and forget it; maskers made with it must be closed too, they hold sub-keys."""
        if self._secret is not None:
            self._secret[:] = bytes(SIZE)
            self._secret = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("the key of a run stays in memory")

    def __repr__(self) -> str:
        return "RunKey(destroyed)" if self.destroyed else "RunKey(…)"
