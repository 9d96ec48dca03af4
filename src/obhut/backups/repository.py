"""The backups of one database, as restores see them: what there is, which one to use, and its bytes in plain, verified.

Works from the files and the key store alone, so a restore is possible when the control database is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from obhut.backups import seal, wal
from obhut.backups import keys as key_lending
from obhut.backups.archive import Archive
from obhut.backups.catalogue import Backup, BackupKind, BackupState
from obhut.backups.errors import NoBackupError
from obhut.backups.layout import Layout
from obhut.backups.wal import WalHole, WalIdentity, WalSegment, WalSource, lsn_number, lsn_text
from obhut.foundation.clock import aware, stamp
from obhut.foundation.ids import Lsn
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
        return sorted((backup for archive in self.archives() for backup in archive.backups()), key=lambda backup: (backup.end_time, backup.id))

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

    def wal_segments(self, backup: Backup, end: Lsn | None = None, *, timeline: int | None = None) -> list[WalSegment]:
        """Return the segments from a base backup's begin to a position, in order, the one being streamed included.

        Args:
            backup: where recovery starts (of a chain, the last link).
            end: position that must be reached; None: everything there is.
            timeline: whose history to follow; None: the newest that descends from the backup.
        """
        archive = self.archive(backup.system_identifier)
        wanted = timeline if timeline is not None else archive.latest_timeline(backup)
        return archive.segments(wanted, backup.begin_lsn, end, backup.wal_segment_size)

    def wal_hole(self, backup: Backup, end: Lsn | None = None, *, timeline: int | None = None) -> WalHole | None:
        """Return the first gap between a base backup's begin and a position (None: the newest segment), or None when complete."""
        archive = self.archive(backup.system_identifier)
        wanted = timeline if timeline is not None else archive.latest_timeline(backup)
        return archive.hole(wanted, backup.begin_lsn, end, backup.wal_segment_size)

    def wal_end(self, backup: Backup, *, timeline: int | None = None) -> Lsn:
        """Return the position behind the last segment that is reachable without a gap (its last part may be unused)."""
        segments = self.wal_segments(backup, timeline=timeline)
        position = lsn_number(backup.begin_lsn) // backup.wal_segment_size * backup.wal_segment_size
        for segment in segments:
            if segment.start != position:
                break
            position = segment.end
        return lsn_text(position)

    def stage_wal(
        self, backup: Backup, segments: Sequence[WalSegment] | Iterable[WalSegment], directory: Path, *, owner: tuple[int, int] | None = None
    ) -> list[Path]:
        """Write segments in plain under their server names into an existing private directory, with all timeline histories.

        Every segment is decrypted, its size and every page header checked against server, timeline and position. The one being
        streamed is written under its final name; recovery stops where it ends.

        Raises:
            WalError: a segment is not what its name says.
            WalConflictError: two different files claim to be the same segment.
            SealBrokenError: a sealed segment was changed or truncated.
        """
        archive = self.archive(backup.system_identifier)
        return archive.stage_wal(segments, directory, archive.identity(backup), owner)

    def timelines(self, system_identifier: int) -> dict[int, str]:
        """Return the text of each timeline's history file of one server."""
        return self.archive(system_identifier).histories()
