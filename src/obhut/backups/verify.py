"""Re-derives the health of a repository from its files alone.

Never asks the engine, the control database or the code that took the backups; needs the key store to open what is sealed. Three
questions: is every byte young enough, can every moment since the oldest base backup be reached, and is each byte what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from obhut.backups import manifest, seal, sealing, wal
from obhut.backups.archive import Archive
from obhut.backups.catalogue import Backup, BackupState
from obhut.backups.findings import Finding, critical, warning
from obhut.backups.repository import Repository
from obhut.foundation.errors import ObhutError

ARCHIVING_WITHIN = timedelta(minutes=15)  # a finished segment may lie in plain for so long
_PLAIN_HINT = 'Is "obhut serve archiver" running? Run "obhut backup run".'


def verify(
    repository: Repository, now: datetime, gone_after: timedelta, *, deep: bool = False, progress: seal.Progress = seal.silent
) -> list[Finding]:
    """Return what is wrong with a repository.

    Args:
        repository: of one database.
        now: the current moment.
        gone_after: the age that no byte may exceed.
        deep: also read every sealed byte; otherwise heads, sizes and chains only.
        progress: called with bytes done and in all, when deep.
    """
    found: list[Finding] = []
    archives = repository.archives()
    if not archives:
        return [critical("backup-none", "there is no backup", f'Run "obhut backup start {repository.database}".')]
    for archive in archives:
        found += _ages(archive, now, gone_after)
        found += _plain(archive, now)
        found += _records(archive)
        found += _chain_of_wal(archive, newest=archive is archives[-1])
        if deep:
            found += _deep(archive, progress)
    return found


def _ages(archive: Archive, now: datetime, gone_after: timedelta) -> Iterator[Finding]:
    limit = now - gone_after
    size = next((backup.wal_segment_size for backup in archive.records()[0]), 16 << 20)
    old = [f"base backup {backup.id}" for backup in archive.records()[0] if backup.begin_time < limit]
    old += [f"WAL segment {segment.name}" for segment in archive.inventory(size) if segment.modified < limit]
    for directory in (archive.layout.base, archive.layout.errors, archive.layout.staging, archive.layout.sealed):
        old += [path.name for path in _files(directory) if datetime.fromtimestamp(path.lstat().st_mtime, UTC) < limit]
    if old:
        yield critical(
            "backup-too-old", f"{len(old)} things are older than {gone_after.days} days, among them {old[0]}", 'Run "obhut backup expire".'
        )


def _plain(archive: Archive, now: datetime) -> Iterator[Finding]:
    """Look for plain text that has waited too long to be sealed."""
    for path in _files(archive.layout.streaming):
        if not path.name.endswith(".partial") and now - datetime.fromtimestamp(path.stat().st_mtime, UTC) > ARCHIVING_WITHIN:
            yield warning("backup-plain-wal", f"finished WAL segment {path.name} still lies in plain", _PLAIN_HINT)
            break
    for path in _files(archive.layout.base):
        sealed = archive.layout.sealed / path.relative_to(archive.layout.base).parts[0] / "catalogue.json"
        if sealed.exists() and path.name != manifest.NAME:
            yield warning("backup-plain-base", f"plain files of base backup {sealed.parent.name} are left", _PLAIN_HINT)
            break
    for path in _files(archive.layout.wals):
        if _segment(path) and not _begins_sealed(path):
            yield critical("backup-plain-wal", f"archived WAL segment {path.name} is not sealed", "Did another program write it?")
            break


def _records(archive: Archive) -> Iterator[Finding]:
    _, bad = archive.records()
    for name, error in bad.items():
        yield critical(error.code, error.fact, error.hint or f'Take another with "obhut backup run"; {name} goes when it is old enough.')
    for backup in archive.backups():
        if backup.state is BackupState.BROKEN:
            yield critical(
                "backup-chain-broken",
                f"base backup {backup.id} is unusable: a link or WAL it needs is missing",
                'Run "obhut backup run --full".',
            )
        yield from _files_of(archive, backup)


def _files_of(archive: Archive, backup: Backup) -> Iterator[Finding]:
    root = archive.layout.sealed / backup.id / seal.FILES
    count = sum(1 for _ in _files(root))
    if count != backup.files + 1:  # and the manifest
        yield critical(
            "backup-tampered",
            f"base backup {backup.id} has {count} files, its record says {backup.files + 1}",
            'Run "obhut backup run --full".',
        )


def _chain_of_wal(archive: Archive, *, newest: bool) -> Iterator[Finding]:
    usable = [backup for backup in archive.backups() if backup.state is not BackupState.BROKEN]
    if not usable:
        if newest:
            yield critical("nothing-restorable", "there is no usable base backup of the present server", 'Run "obhut backup run --full".')
        return
    try:
        missing = archive.hole(archive.latest_timeline(usable[0]), usable[0].begin_lsn, None)
    except ObhutError as error:
        yield critical(error.code, error.fact, error.hint or 'Run "obhut backup run --full".')
        return
    if missing is not None:
        yield critical(
            "wal-gap",
            f"WAL segments {missing.first} to {missing.last} are missing: moments from there to the next base backup cannot be reached",
            'Run "obhut backup run --full" now, and find out who removed them.',
        )
    if any(path.name.endswith(".duplicate") for path in _files(archive.layout.errors)):
        yield critical(
            "wal-conflict", "the engine put aside WAL segments whose names were taken", "Does another server with the same name write here?"
        )


def _deep(archive: Archive, progress: seal.Progress) -> Iterator[Finding]:
    backups, _ = archive.records()
    for backup in backups:
        try:
            archive.verify(backup, progress)
        except ObhutError as error:
            yield critical(error.code, error.fact, error.hint or "Use another base backup.")
    if not backups:
        return
    for segment in archive.inventory(archive.identity().segment_size):
        if segment.source is wal.WalSource.PARTIAL:
            continue
        try:
            archive.verify_wal(segment)
        except ObhutError as error:
            yield critical(error.code, f"WAL segment {segment.name}: {error.fact}", error.hint or 'Run "obhut backup run --full".')


def _segment(path: Path) -> bool:
    return len(path.name) == 24 and path.parent.name == path.name[:16]


def _begins_sealed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(sealing.MAGIC)) == sealing.MAGIC


def _files(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from (path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink())
