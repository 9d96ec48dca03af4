"""The backups of one database, as restores see them: what there is, which one to use, and its bytes in plain, verified.

Works from the files and the key store alone, so a restore is possible when the control database is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from obhut.backups import keys as key_lending
from obhut.backups import seal
from obhut.backups.archive import Archive
from obhut.backups.catalogue import Backup, BackupKind, BackupState
from obhut.backups.errors import NoBackupError, WalError
from obhut.backups.layout import Layout
from obhut.backups.wal import WalHole, WalIdentity, WalSegment, WalSource
from obhut.foundation.clock import aware, stamp
from obhut.foundation.ids import Lsn
from obhut.foundation.lsn import lsn_number, lsn_text
from obhut.foundation.settings import Settings
from obhut.keystore.local import open_keystore

__all__ = [
    "Backup",
    "BackupKind",
    "BackupState",
    "Repository",
    "WalHole",
    "WalIdentity",
    "WalSegment",
    "WalSource",
    "lsn_number",
    "lsn_text",
]


class Repository:
    """All archives of one database; a new one begins whenever the database is opened on another server (after a restore).

    Args:
        settings: names state directory and key store.
        database: name of the protected database in the settings.
        keys: the key store, when it is open already.

    Raises:
        SettingsError: there is no such database.
    """

    def __init__(self, settings: Settings, database: str, keys: key_lending.DataKeys | None = None) -> None:
        settings.database(database)
        self.database = database
        self.root = settings.state.directory / "backups" / database
        self.keys: key_lending.DataKeys = keys if keys is not None else open_keystore(settings)

    def archives(self) -> list[Archive]:
        """Return the archives of all servers this database has lived on, by the time of their oldest base backup."""
        if not self.root.is_dir():
            return []
        found = [self.archive(int(entry.name)) for entry in self.root.iterdir() if entry.name.isdigit()]
        oldest = {archive.system_identifier: [backup.begin_time for backup in archive.records()[0]] for archive in found}
        return sorted(found, key=lambda archive: (not oldest[archive.system_identifier], *oldest[archive.system_identifier][:1]))

    def archive(self, system_identifier: int) -> Archive:
        """Return the archive of one server."""
        return Archive(Layout(self.root / str(system_identifier), self.database), self.keys)

    # -- base backups -----------------------------------------------------------------------------------------------------------

    def backups(self) -> list[Backup]:
        """Return all sealed base backups with their state, oldest first."""
        return sorted(
            (backup for archive in self.archives() for backup in archive.backups()), key=lambda backup: (backup.end_time, backup.id)
        )

    def backup(self, backup_id: str) -> Backup:
        """Return one base backup.

        Raises:
            NoBackupError: there is none of this id.
        """
        for backup in self.backups():
            if backup.id == backup_id:
                return backup
        raise NoBackupError(f"there is no base backup {backup_id} of {self.database}", f'Run "obhut backup list {self.database}".')

    def chain(self, backup_id: str) -> list[Backup]:
        """Return the links of a base backup, the full one first.

        Raises:
            NoBackupError: there is none of this id.
            BrokenChainError: a link is missing or does not fit.
        """
        return self.archive(self.backup(backup_id).system_identifier).chain(backup_id)

    def choose(self, target: datetime | Lsn | None = None, *, system_identifier: int | None = None) -> Backup:
        """Return the base backup to start from: the newest usable one that ended at or before the target.

        Args:
            target: a moment, a position in the WAL, or None for the latest.
            system_identifier: look at one server only; a position means the newest server unless one is named.

        Raises:
            NoBackupError: no usable base backup is old enough (or there is none).
        """
        everything = [backup for backup in self.backups() if backup.state is BackupState.USABLE]
        if isinstance(target, str) and system_identifier is None and everything:
            system_identifier = everything[-1].system_identifier
        fitting = [backup for backup in everything if system_identifier in {None, backup.system_identifier}]
        if isinstance(target, datetime):
            fitting = [backup for backup in fitting if backup.end_time <= aware(target)]
        elif target is not None:
            fitting = [backup for backup in fitting if lsn_number(backup.end_lsn) <= lsn_number(target)]
        if fitting:
            return fitting[-1]
        said = stamp(target) if isinstance(target, datetime) else target
        fact = f"{self.database} has no usable base backup" + (f" that ended before {said}" if target is not None else "")
        raise NoBackupError(fact, f'Run "obhut backup list {self.database}" to see how far back a restore can go.')

    def unseal(
        self, backup: Backup, directory: Path, progress: seal.Progress = seal.silent, *, owner: tuple[int, int] | None = None
    ) -> None:
        """Open one link into an empty directory (made 0700), every file verified against its manifest, which is written too.

        Args:
            backup: from :meth:`chain`.
            directory: the data directory to be.
            progress: called with bytes done and in all.
            owner: uid and gid to give everything to.

        Raises:
            TamperedBackupError: a file is missing, extra or changed.
            ManifestError: the manifest is damaged.
        """
        self.archive(backup.system_identifier).unseal(backup, directory, progress, owner)

    # -- WAL --------------------------------------------------------------------------------------------------------------------

    def wal_segments(
        self, timeline: int, start_lsn: Lsn, end_lsn: Lsn | None = None, *, system_identifier: int | None = None
    ) -> list[WalSegment]:
        """Return one segment for each position, in order, the one being streamed included; gaps are :meth:`wal_hole`'s matter.

        Args:
            timeline: whose history to follow (see :meth:`latest_timeline`); earlier positions come from its ancestors.
            start_lsn: first position, such as a base backup's ``begin_lsn``.
            end_lsn: position that must be reached; None: everything there is.
            system_identifier: the server; None: the newest one.
        """
        return self._server(system_identifier).segments(timeline, start_lsn, end_lsn)

    def wal_hole(
        self, timeline: int, start_lsn: Lsn, end_lsn: Lsn | None = None, *, system_identifier: int | None = None
    ) -> WalHole | None:
        """Return the first gap between two positions (end None: the newest segment there is), or None when complete."""
        return self._server(system_identifier).hole(timeline, start_lsn, end_lsn)

    def wal_end(self, timeline: int, start_lsn: Lsn, *, system_identifier: int | None = None) -> Lsn:
        """Return the position behind the last segment that is reachable without a gap (its last part may be unused)."""
        missing = self.wal_hole(timeline, start_lsn, system_identifier=system_identifier)
        if missing is not None:
            return missing.start_lsn
        segments = self.wal_segments(timeline, start_lsn, system_identifier=system_identifier)
        return lsn_text(segments[-1].end) if segments else start_lsn

    def latest_timeline(self, backup: Backup) -> int:
        """Return the newest timeline that descends from the end of a base backup."""
        return self.archive(backup.system_identifier).latest_timeline(backup)

    def stage_wal(self, segments: Iterable[WalSegment], directory: Path, *, owner: tuple[int, int] | None = None) -> list[Path]:
        """Write segments of one server in plain under their server names into an existing private directory, with all histories.

        Every segment is decrypted, its size and every page header checked against server, timeline and position. The one being
        streamed is written under its final name; recovery stops where it ends.

        Raises:
            WalError: a segment is not what its name says.
            WalConflictError: two different files claim to be the same segment.
            SealBrokenError: a sealed segment was changed or truncated.
        """
        wanted = list(segments)
        if len({segment.system_identifier for segment in wanted}) > 1:
            raise WalError("segments of two servers cannot be staged together", "Ask for the segments of one server.")
        if not wanted:
            return []
        return self.archive(wanted[0].system_identifier).stage_wal(wanted, directory, owner)

    def histories(self, *, system_identifier: int | None = None) -> dict[int, str]:
        """Return the text of each timeline's history file of one server (None: the newest)."""
        return self._server(system_identifier).histories()

    def _server(self, system_identifier: int | None) -> Archive:
        if system_identifier is not None:
            return self.archive(system_identifier)
        found = self.archives()
        # An archive that was just begun has no base backup to restore from yet.
        found = [archive for archive in found if archive.records()[0]] or found
        if not found:
            raise NoBackupError(f"{self.database} has no backups", f'Run "obhut backup start {self.database}".')
        return found[-1]
