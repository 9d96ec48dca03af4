"""The archive of one server: its sealed base backups and its WAL.

A restore opens another server with another system identifier and a WAL history that starts anew, so every server has an archive of its
own; the old one is still there, still restorable, and still expires.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from obhut.backups import catalogue, seal, wal
from obhut.backups import keys as key_lending
from obhut.backups.catalogue import Backup, BackupKind, BackupState
from obhut.backups.errors import BrokenChainError, NoBackupError, WalError
from obhut.backups.layout import Layout
from obhut.foundation.errors import ObhutError
from obhut.foundation.ids import BackupId, Lsn
from obhut.foundation.lsn import lsn_number


@dataclass(frozen=True, slots=True)
class Archive:
    """Everything kept of one server."""

    layout: Layout
    keys: key_lending.DataKeys

    @property
    def system_identifier(self) -> int:
        """The server's identifier: the name of the directory."""
        return int(self.layout.root.name)

    # -- base backups -----------------------------------------------------------------------------------------------------------

    def records(self) -> tuple[list[Backup], dict[str, ObhutError]]:
        """Return the readable records, oldest first, and what is wrong with the others by id."""
        good: list[Backup] = []
        bad: dict[str, ObhutError] = {}
        directory = self.layout.sealed
        for entry in sorted(directory.iterdir()) if directory.is_dir() else []:
            if entry.name.startswith("."):
                continue
            try:
                good.append(catalogue.read(entry, self.keys))
            except ObhutError as error:
                bad[entry.name] = error
        return sorted(good, key=lambda backup: (backup.end_time, backup.id)), bad

    def backups(self) -> list[Backup]:
        """Return the base backups with their state, oldest first; unreadable records are left out (see :meth:`records`)."""
        records, _ = self.records()
        by_id = {backup.id: backup for backup in records}
        segments = self.inventory(records[0].wal_segment_size) if records else []
        return [replace(backup, state=self._state(backup, by_id, segments)) for backup in records]

    def chain(self, backup_id: str) -> list[Backup]:
        """Return the links of a base backup, the full one first.

        Raises:
            NoBackupError: there is no such base backup.
            BrokenChainError: a link is missing or does not fit.
        """
        by_id = {backup.id: backup for backup in self.backups()}
        if backup_id not in by_id:
            raise NoBackupError(f"there is no base backup {backup_id}", 'Run "obhut backup list".')
        return _links(by_id[BackupId(backup_id)], by_id)

    def _state(self, backup: Backup, by_id: dict[BackupId, Backup], segments: Sequence[wal.WalSegment]) -> BackupState:
        try:
            _links(backup, by_id)
        except BrokenChainError:
            return BackupState.BROKEN
        start, end = lsn_number(backup.begin_lsn), lsn_number(backup.end_lsn)
        have = wal.chosen(segments, [(backup.timeline, 0, None)], start, end)
        missing = wal.hole(have, start, end, backup.timeline, backup.wal_segment_size)
        if missing is None:
            return BackupState.USABLE
        newer = any(segment.timeline == backup.timeline and segment.start >= end for segment in segments)
        return BackupState.BROKEN if newer else BackupState.WAITING

    # -- WAL --------------------------------------------------------------------------------------------------------------------

    def inventory(self, size: int) -> list[wal.WalSegment]:
        """Return every segment there is, duplicates too."""
        return wal.inventory(self.layout, size)

    def identity(self) -> wal.WalIdentity:
        """Return what every segment must say about its server; all base backups of an archive agree on it.

        Raises:
            NoBackupError: the archive has no readable base backup.
        """
        records, _ = self.records()
        if not records:
            raise NoBackupError("the archive has no readable base backup", 'Run "obhut backup check".')
        return wal.WalIdentity(self.system_identifier, records[-1].major, records[-1].wal_segment_size)

    def histories(self) -> dict[int, str]:
        """Return the text of each timeline's history file."""
        return {timeline: wal.read_text(path, self._open) for timeline, path in wal.histories(self.layout).items()}

    def latest_timeline(self, backup: Backup) -> int:
        """Return the newest timeline that descends from the end of a base backup."""
        end = lsn_number(backup.end_lsn)
        candidates = [backup.timeline]
        for timeline, text in self.histories().items():
            switches = wal.parse_history(text)
            if any(switch.timeline == backup.timeline and switch.switch >= end for switch in switches):
                candidates.append(timeline)
        return max(candidates)

    def stretches(self, timeline: int) -> list[tuple[int, int, int | None]]:
        """Return the stretches of WAL that lead to a timeline's end.

        Raises:
            WalError: the timeline's history file is missing or malformed.
        """
        if timeline == 1:
            return [(1, 0, None)]
        text = self.histories().get(timeline)
        if text is None:
            # A server may have been born on a later timeline (promoted before its first backup): then there is one stretch only.
            if any(segment.timeline < timeline for segment in self.inventory(16 << 20)):
                raise WalError(f"the history file of timeline {timeline} is missing", 'Run "obhut backup check".')
            return [(timeline, 0, None)]
        return wal.path_of(timeline, wal.parse_history(text))

    def segments(self, timeline: int, start: Lsn, end: Lsn | None) -> list[wal.WalSegment]:
        """Return one segment for each position from ``start`` to ``end`` along a timeline's history; no hole check."""
        last = None if end is None else lsn_number(end)
        return wal.chosen(self.inventory(self.identity().segment_size), self.stretches(timeline), lsn_number(start), last)

    def hole(self, timeline: int, start: Lsn, end: Lsn | None) -> wal.WalHole | None:
        """Return the first gap between two positions, or None."""
        last = None if end is None else lsn_number(end)
        return wal.hole(self.segments(timeline, start, end), lsn_number(start), last, timeline, self.identity().segment_size)

    def stage_wal(self, segments: Iterable[wal.WalSegment], directory: Path, owner: tuple[int, int] | None) -> list[Path]:
        """Write segments and all timeline histories in plain, each verified; see :func:`obhut.backups.wal.stage`."""
        wanted, identity = list(segments), self.identity()
        wal.refuse_conflicts(wanted, self.inventory(identity.segment_size), self.layout.errors, self._open)
        staged = wal.stage(wanted, directory, self._open, identity, owner)
        for path in wal.histories(self.layout).values():
            wal.plain_copy(path, directory / path.name, self._open, owner)
        return staged

    # -- base backups again -----------------------------------------------------------------------------------------------------

    def unseal(self, backup: Backup, directory: Path, progress: seal.Progress, owner: tuple[int, int] | None) -> None:
        """Open a sealed base backup; see :func:`obhut.backups.seal.unseal`."""
        seal.unseal(backup, self.layout, directory, self.keys, progress, owner)

    def verify(self, backup: Backup, progress: seal.Progress = seal.silent) -> None:
        """Read a sealed base backup through; see :func:`obhut.backups.seal.verify`."""
        seal.verify(backup, self.layout, self.keys, progress)

    def verify_wal(self, segment: wal.WalSegment) -> None:
        """Read one segment through; see :func:`obhut.backups.wal.verify`."""
        wal.verify(segment, self._open, self.identity())

    def _open(self, label: str) -> bytes:
        return self.keys.data_key(label, create=False)


def _links(backup: Backup, by_id: dict[BackupId, Backup]) -> list[Backup]:
    links = [backup]
    while links[-1].parent is not None:
        current, parent = links[-1], by_id.get(links[-1].parent or BackupId(""))
        if parent is None:
            raise BrokenChainError(
                f"base backup {backup.id} cannot be used: its link {current.parent} is missing", 'Run "obhut backup list" for one that can.'
            )
        if len(links) > len(by_id) or parent.end_time > current.begin_time or parent.system_identifier != current.system_identifier:
            raise BrokenChainError(f"base backup {backup.id} cannot be used: its links do not fit", 'Run "obhut backup check".')
        links.append(parent)
    if links[-1].kind is not BackupKind.FULL:
        raise BrokenChainError(f"base backup {backup.id} cannot be used: its chain has no full one", 'Run "obhut backup check".')
    return links[::-1]
