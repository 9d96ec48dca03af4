"""One worker at a time on a repository, held by the operating system: a killed worker holds nothing."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obhut.backups.errors import BackupBusyError

RUN = ".run.lock"  # taking, sealing and expiring base backups
ARCHIVE = ".archive.lock"  # moving WAL into the archive
NAMES = frozenset({RUN, ARCHIVE})


@contextmanager
def exclusive(root: Path, name: str, *, wait: float = 0) -> Iterator[None]:
    """Hold a lock of a repository while the block runs.

    Args:
        root: the repository of a database; made when missing.
        name: RUN or ARCHIVE.
        wait: seconds to wait for another worker.

    Raises:
        BackupBusyError: another worker holds it.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BackupBusyError(
                        "another process is working on the repository", "Wait for it, then run the command again."
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def held(root: Path, name: str) -> bool:
    """Whether somebody holds a lock."""
    try:
        with exclusive(root, name):
            return False
    except BackupBusyError:
        return True
