"""Where the repository of one database lies, and what each place may hold in plain text, for how long.

===============================  ========================================================  ===================================
below ``<state>/backups/<db>/``  holds                                                     plain text
===============================  ========================================================  ===================================
``home/<db>/streaming/``         the WAL segment being streamed, finished ones until the   until archived: seconds (see
                                 next archiving                                            ``serve archiver``)
``home/<db>/wals/``              archived WAL, sealed by the filter while it is archived   never
``home/<db>/base/<id>/``         a base backup while it is taken, verified and sealed;     until sealed; swept at the next
                                 afterwards its manifest alone (names and sizes, no rows)  start after a kill
``sealed/<id>/``                 sealed base backups with their ``catalogue.json``         never
``sealed/.<id>.tmp/``            a base backup being sealed                                never
``home/<db>/errors/``            WAL that the engine refused                               until the next run seals it
===============================  ========================================================  ===================================

All directories are 0700.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of one database's repository."""

    root: Path
    database: str

    @property
    def config(self) -> Path:
        """The engine's configuration file."""
        return self.root / "barman.conf"

    @property
    def home(self) -> Path:
        """The engine's home."""
        return self.root / "home"

    @property
    def server(self) -> Path:
        """The engine's directory of this database."""
        return self.home / self.database

    @property
    def streaming(self) -> Path:
        """WAL as it is streamed."""
        return self.server / "streaming"

    @property
    def wals(self) -> Path:
        """Archived WAL, sealed."""
        return self.server / "wals"

    @property
    def base(self) -> Path:
        """Base backups in the engine's hands."""
        return self.server / "base"

    @property
    def meta(self) -> Path:
        """The engine's ``backup.info`` files."""
        return self.server / "meta"

    @property
    def errors(self) -> Path:
        """WAL that the engine refused."""
        return self.server / "errors"

    @property
    def sealed(self) -> Path:
        """Sealed base backups."""
        return self.root / "sealed"

    @property
    def locks(self) -> Path:
        """The engine's lock files."""
        return self.root / "lock"

    @property
    def staging(self) -> Path:
        """The engine's staging directory; always empty between runs."""
        return self.root / "stage"

    @property
    def log(self) -> Path:
        """Logs of the engine: names of files and positions, no rows."""
        return self.root / "log"

    @property
    def run(self) -> Path:
        """Process ids of running children."""
        return self.root / "run"

    def create(self) -> None:
        """Make the directories, private to the user that runs Obhut."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.home, self.sealed, self.locks, self.staging, self.log, self.run):
            directory.mkdir(mode=0o700, exist_ok=True)


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_path(path: Path) -> None:
    """Make the contents of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
