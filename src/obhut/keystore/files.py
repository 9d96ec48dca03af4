"""Writing small secret files so that a crash leaves the old content or the new one, never half of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from obhut.keystore.errors import KeystorePermissionsError


def sync_directory(directory: Path) -> None:
    """Make renames and unlinks in the directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_temporary(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    return temporary


def write_once(path: Path, content: bytes) -> bool:
    """Create the file, 0600 and durable; false when another process was first and its content stands."""
    temporary = _write_temporary(path, content)
    try:
        # A hard link refuses an existing name, which a rename would replace: two first users agree on one key.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_directory(path.parent)
    return True


def write_atomic(path: Path, content: bytes) -> None:
    """Create or replace the file, 0600 and durable."""
    _write_temporary(path, content).replace(path)
    sync_directory(path.parent)


def overwrite(path: Path) -> None:
    """Replace the bytes of the file in place by random ones, durable.

    On a copy-on-write or wear-levelled medium old blocks may outlive this; the key inside is wrapped, so whoever finds such a
    block still needs the master key.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        length = os.fstat(handle).st_size
        os.pwrite(handle, os.urandom(length), 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def private_directory(directory: Path) -> None:
    """Create the directory with 0700 where it is missing, and refuse one that others may enter.

    Raises:
        KeystorePermissionsError: group or others have a permission on it, or it belongs to somebody else.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(directory)


def read_private(path: Path) -> bytes:
    """Return the content of a file that only its owner may read.

    Raises:
        FileNotFoundError: there is none.
        KeystorePermissionsError: group or others have a permission on it, or it belongs to somebody else.
    """
    _require_private(path)
    return path.read_bytes()


def _require_private(path: Path) -> None:
    status = path.stat()
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeystorePermissionsError(
            f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})",
            f'Take the permissions away with "chmod go-rwx {path}", and ask who could read the keys until now.',
        )
    if status.st_uid != os.geteuid():
        raise KeystorePermissionsError(f"{path} belongs to another user", "Run Obhut as the user who owns the key store.")
