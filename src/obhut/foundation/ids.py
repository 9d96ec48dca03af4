"""Opaque identifiers: sortable by time, without meaning, safe in logs and job arguments."""

from __future__ import annotations

import os
import time
from base64 import b32encode
from typing import NewType

RunId = NewType("RunId", str)
BackupId = NewType("BackupId", str)
ControllerId = NewType("ControllerId", str)
InstructionId = NewType("InstructionId", str)
TombstoneId = NewType("TombstoneId", str)
Lsn = NewType("Lsn", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_FROM_RFC_4648 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _ALPHABET.encode())
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


def new_ids(prefix: str, count: int) -> list[str]:
    """Return identifiers as :func:`new_id` does, all of the same millisecond, at a tenth of the cost."""
    beginning = new_id(prefix)[:-16]  # the last 16 characters are the 80 random bits
    random = b32encode(os.urandom(10 * count)).translate(_FROM_RFC_4648).decode()
    return [beginning + random[start : start + 16] for start in range(0, 16 * count, 16)]


def new_id(prefix: str) -> str:
    """Return ``prefix_`` and 26 characters: 48 bits of Unix milliseconds and 80 random bits (the ULID layout)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return prefix + "_" + "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])
