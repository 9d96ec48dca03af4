"""How often keys were destroyed, noted beside the key store: a restored control database knows fewer destructions than this file.

One file of 21 octets that is changed in place: they lie in one sector, so a power cut leaves the old number or the new one, and a number
that is too low is legal.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from obhut.keystore.errors import KeystoreError
from obhut.keystore.files import private_directory, sync_directory

FILE_NAME: Final = "audit-keys.anchor"
_DIGITS: Final = 20


def read(directory: Path) -> int:
    """Return the number; 0 when nothing was ever destroyed.

    Raises:
        KeystoreError: the file holds no number.
    """
    try:
        content = (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return 0
    return _number(directory, content) if content else 0


def raise_to(directory: Path, number: int) -> None:
    """Note a number durably, unless a higher one is there."""
    private_directory(directory)
    handle = os.open(directory / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        content = os.pread(handle, _DIGITS + 1, 0)
        if content and _number(directory, content) >= number:
            return
        os.pwrite(handle, f"{number:0{_DIGITS}d}\n".encode(), 0)
        os.fsync(handle)
        if not content:
            sync_directory(directory)
    finally:
        os.close(handle)


def _number(directory: Path, content: bytes) -> int:
    if len(content) != _DIGITS + 1 or not content[:_DIGITS].isdigit():
        raise KeystoreError(f"{directory / FILE_NAME} is damaged", 'Remove it, and run "obhut keys reconcile".')
    return int(content)
