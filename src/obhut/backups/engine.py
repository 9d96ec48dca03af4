"""What Obhut asks of a backup engine; one adapter per engine, one conformance suite for all.

The engine moves bytes: a base backup onto the disk, WAL into its archive through the sealing filter. It decides nothing: what is
complete, usable, too old or left over is decided by Obhut from the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from obhut.backups.processes import Child


class CopyState(StrEnum):
    """How far the engine got with a base backup."""

    STARTED = "started"  # running, or left by a kill
    COPIED = "copied"  # every byte of the base backup is there; its WAL may not be
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BaseCopy:
    """A base backup in the engine's hands; the engine's word, to be verified."""

    id: str
    state: CopyState
    parent: str | None
    data: Path  # the plain data directory, with its manifest
    begin_time: datetime | None
    end_time: datetime | None
    begin_lsn: str | None
    end_lsn: str | None
    timeline: int | None
    system_identifier: int | None
    server_version: int | None  # such as 180006
    wal_segment_size: int  # bytes
    tablespaces: tuple[tuple[int, Path], ...]  # oid, plain directory in the repository


class Engine(Protocol):
    """The programs that take backups of one database."""

    def prepare(self) -> None:
        """Write the engine's configuration; repeating it is harmless."""
        ...

    def ensure_slot(self) -> None:
        """Create the replication slot unless it is there."""
        ...

    def receiver(self) -> Child:
        """Start the program that streams WAL; it runs until it is ended."""
        ...

    def lost_wal(self) -> bool:
        """Whether the last receiver ended because the server no longer has the WAL it asked for."""
        ...

    def reset_receiver(self) -> None:
        """Let the next receiver begin where the server is now: leaves a gap, after :meth:`lost_wal` only."""
        ...

    def archive(self, now: datetime) -> None:
        """Move finished segments into the archive, sealed with the keys for the times of their last write."""
        ...

    def base_backup(self, parent: str | None, now: datetime) -> str:
        """Take a base backup, an incremental one when a parent is given, and return its id.

        Raises:
            EngineError: the engine failed; what it left is swept at the next run.
        """
        ...

    def copies(self) -> list[BaseCopy]:
        """Return every base backup that the engine knows or that lies in its directory, oldest first."""
        ...

    def forget(self, copy_id: str) -> None:
        """Remove a base backup from the engine's catalogue and disk, whatever its state."""
        ...
