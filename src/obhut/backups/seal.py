"""Sealing a base backup, and opening it again; every file is compared with the server's manifest both ways.

Order that survives a kill: files are sealed into ``sealed/.<id>.tmp``, made durable, recorded, renamed to ``sealed/<id>``; only then the
plain copy goes. At every instant there is a complete copy, plain or sealed, or none was ever complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from obhut.backups import catalogue, manifest, sealing
from obhut.backups import keys as key_lending
from obhut.backups.catalogue import Backup, BackupKind
from obhut.backups.engine import BaseCopy
from obhut.backups.errors import ManifestError, SealBrokenError, TamperedBackupError
from obhut.backups.layout import Layout, fsync_directory
from obhut.foundation import faultpoints
from obhut.foundation.ids import BackupId, Lsn

FILES: Final = "files"
_BLOCK: Final = sealing.CHUNK
_AT_ONCE: Final = 4  # files
T = TypeVar("T")
Progress = Callable[[int, int], None]  # bytes done, bytes in all


def silent(_done: int, _total: int) -> None:
    """Report nothing."""


def seal(copy: BaseCopy, layout: Layout, keys: key_lending.DataKeys, progress: Progress = silent) -> Backup:
    """Verify a finished copy against its manifest while sealing it, then remove the plain one.

    Raises:
        ManifestError: the manifest is missing, damaged or of another server.
        TamperedBackupError: a file is missing, extra or not what the server sent.
    """
    final = layout.sealed / copy.id
    if not (final / catalogue.NAME).exists():
        work = layout.sealed / f".{copy.id}.tmp"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700, parents=True)
        listed = manifest.read(copy.data / manifest.NAME)
        backup = _record(copy, listed, layout.database)
        _seal_files(copy.data, work, listed, backup, keys, progress)
        catalogue.write(backup, work, keys)
        faultpoints.reach("backup.sealed")
        work.rename(final)
        fsync_directory(layout.sealed)
        faultpoints.reach("backup.sealed.renamed")
    backup = catalogue.read(final, keys)
    remove_plain(copy)
    return backup


def remove_plain(copy: BaseCopy) -> None:
    """Remove the plain files of a sealed copy; its manifest stays, an incremental needs it of its parent."""
    root = copy.data.parent
    if not root.is_dir():
        return
    for entry in list(root.iterdir()):
        if entry != copy.data:
            _remove(entry)
    for entry in list(copy.data.iterdir()) if copy.data.is_dir() else []:
        if entry.name != manifest.NAME:
            _remove(entry)
    if copy.data.is_dir():
        fsync_directory(copy.data)
    fsync_directory(root)


def unseal(
    backup: Backup,
    layout: Layout,
    directory: Path,
    keys: key_lending.DataKeys,
    progress: Progress = silent,
    owner: tuple[int, int] | None = None,
) -> None:
    """Open every file of a sealed base backup into a directory, each compared with the manifest.

    Args:
        backup: one link; a chain is opened link by link into separate directories and combined by pg_combinebackup.
        layout: the repository.
        directory: is made, 0700; must be empty or missing.
        keys: the key store.
        progress: called with bytes done and in all.
        owner: uid and gid to give everything to.

    Raises:
        TamperedBackupError: a file is missing, extra, or not what the server sent.
        SealBrokenError: a sealed file does not open.
        ManifestError: the manifest is not the one that was sealed.
    """
    source = layout.sealed / backup.id / FILES
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise TamperedBackupError("the directory to open a base backup into is not empty", "Remove what an earlier run left there.")
    for relative in ("", *backup.directories):
        (directory / relative).mkdir(mode=0o700, parents=True, exist_ok=True)
        if owner is not None:
            os.chown(directory / relative, *owner)
    opener = _Opener(backup, source, directory, lambda label: keys.data_key(label, create=False), owner)
    opener.open(manifest.NAME, None)
    listed = manifest.read(directory / manifest.NAME)
    if listed.digest != backup.manifest_digest:
        raise ManifestError("the manifest is not the one that was sealed with the base backup", 'Take another with "obhut backup run".')
    present = {path.relative_to(source).as_posix() for path in manifest.walk(source)}
    if extra := present - set(listed.files) - {manifest.NAME}:
        raise _tampered(backup.id, min(extra), "is not in the manifest")
    _open_all(opener, listed, progress)
    control = directory / "global" / "pg_control"
    if manifest.control_identifier(control) != backup.system_identifier:
        raise _tampered(backup.id, "global/pg_control", "is of another server")


def verify(backup: Backup, layout: Layout, keys: key_lending.DataKeys, progress: Progress = silent) -> None:
    """Read a sealed base backup through and raise what :func:`unseal` would raise; nothing is written."""
    source = layout.sealed / backup.id / FILES
    opener = _Opener(backup, source, None, lambda label: keys.data_key(label, create=False), None)
    listed = manifest.parse(b"".join(opener.blocks(manifest.NAME)))
    if listed.digest != backup.manifest_digest:
        raise ManifestError("the manifest is not the one that was sealed with the base backup", 'Take another with "obhut backup run".')
    present = {path.relative_to(source).as_posix() for path in manifest.walk(source)}
    if extra := present - set(listed.files) - {manifest.NAME}:
        raise _tampered(backup.id, min(extra), "is not in the manifest")
    _open_all(opener, listed, progress)


def _open_all(opener: _Opener, listed: manifest.Manifest, progress: Progress) -> None:
    entries = [listed.files[path] for path in sorted(listed.files)]
    _side_by_side(lambda entry: opener.open(entry.path, entry), entries, lambda entry: entry.size, opener.backup.size, progress)


def _side_by_side(work: Callable[[T], None], items: Sequence[T], size: Callable[[T], int], total: int, progress: Progress) -> None:
    """Do the work on several files at once: one waits for the disk while another one is encrypted."""
    done = 0
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="seal")
    try:
        for item, _ in zip(items, pool.map(work, items), strict=True):
            done += size(item)
            progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Opener:
    backup: Backup
    source: Path
    target: Path | None
    keys: sealing.KeySource
    owner: tuple[int, int] | None

    def blocks(self, path: str) -> Iterator[bytes]:
        try:
            with (self.source / path).open("rb") as file:
                yield from sealing.unsealed(file, self.keys, f"{self.backup.id}/{path}")
        except FileNotFoundError:
            raise _tampered(self.backup.id, path, "is missing") from None
        except SealBrokenError:
            raise _tampered(self.backup.id, path, "was changed or truncated") from None

    def open(self, path: str, entry: manifest.ManifestFile | None) -> None:
        running = manifest.checksum(entry.algorithm) if entry else None
        size = 0
        with self._writer(path) as write:
            for block in self.blocks(path):
                if running is not None:
                    running.update(block)
                size += len(block)
                write(block)
        if entry is not None and (size != entry.size or (running is not None and running.hexdigest() != entry.checksum)):
            raise _tampered(self.backup.id, path, "is not what the server sent")

    @contextmanager
    def _writer(self, path: str) -> Iterator[Callable[[bytes], object]]:
        if self.target is None:
            yield len
            return
        with (self.target / path).open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            if self.owner is not None:
                os.fchown(file.fileno(), *self.owner)
            yield file.write


def _record(copy: BaseCopy, listed: manifest.Manifest, database: str) -> Backup:
    if (
        copy.begin_time is None
        or copy.end_time is None
        or copy.begin_lsn is None
        or copy.end_lsn is None
        or copy.timeline is None
        or copy.system_identifier is None
        or copy.server_version is None
    ):
        raise ManifestError(f"the engine's record of base backup {copy.id} is incomplete", 'Take another with "obhut backup run".')
    if listed.system_identifier is not None and listed.system_identifier != copy.system_identifier:
        raise ManifestError(f"the manifest of base backup {copy.id} is of another server", 'Take another with "obhut backup run".')
    if not any(reach.timeline == copy.timeline for reach in listed.wal_ranges):
        raise ManifestError(f"the manifest of base backup {copy.id} names another timeline", 'Take another with "obhut backup run".')
    return Backup(
        id=BackupId(copy.id),
        database=database,
        kind=BackupKind.INCREMENTAL if copy.parent else BackupKind.FULL,
        parent=BackupId(copy.parent) if copy.parent else None,
        begin_time=copy.begin_time,
        end_time=copy.end_time,
        begin_lsn=Lsn(copy.begin_lsn),
        end_lsn=Lsn(copy.end_lsn),
        timeline=copy.timeline,
        system_identifier=copy.system_identifier,
        server_version=copy.server_version,
        wal_segment_size=copy.wal_segment_size,
        size=listed.total_size,
        files=len(listed.files),
        manifest_digest=listed.digest,
        label=key_lending.label(database, copy.begin_time),
        tablespaces=tuple(oid for oid, _ in copy.tablespaces),
        directories=tuple(_directories(copy.data)),
    )


def _directories(root: Path) -> list[str]:
    found: list[str] = []
    pending = [root]
    while pending:
        current = pending.pop()
        for entry in current.iterdir():
            if entry.is_dir() and (not entry.is_symlink() or current.name == "pg_tblspc"):
                found.append(entry.relative_to(root).as_posix())
                pending.append(entry)
    return sorted(found)


def _seal_files(data: Path, work: Path, listed: manifest.Manifest, backup: Backup, keys: key_lending.DataKeys, progress: Progress) -> None:
    files = work / FILES
    for relative in ("", *backup.directories):
        (files / relative).mkdir(mode=0o700, exist_ok=True)
    key = keys.data_key(backup.label)
    present = {path.relative_to(data).as_posix() for path in manifest.walk(data)}
    for relative in sorted(present - set(listed.files) - {manifest.NAME}):
        if not manifest.ignored(relative):
            raise _tampered(backup.id, relative, "is not in the manifest")
    for relative in sorted(set(listed.files) - present):
        raise _tampered(backup.id, relative, "is missing")

    def one(relative: str) -> None:
        _seal_file(data / relative, files / relative, key, backup, relative, listed.files.get(relative))

    def size(relative: str) -> int:
        entry = listed.files.get(relative)
        return entry.size if entry else 0

    _side_by_side(one, [manifest.NAME, *sorted(listed.files)], size, backup.size, progress)
    for relative in ("", *backup.directories):
        fsync_directory(files / relative)
    control = manifest.control_identifier(data / "global" / "pg_control")
    if control != backup.system_identifier:
        raise _tampered(backup.id, "global/pg_control", "is of another server")


def _seal_file(path: Path, target: Path, key: bytes, backup: Backup, relative: str, entry: manifest.ManifestFile | None) -> None:
    running = manifest.checksum(entry.algorithm) if entry else None
    size = 0
    with path.open("rb", buffering=0) as source, target.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        sealer = sealing.Sealer(file, key, backup.label, f"{backup.id}/{relative}")
        while block := source.read(_BLOCK):
            if running is not None:
                running.update(block)
            size += len(block)
            sealer.write(block)
        sealer.finish()
        file.flush()
        os.fdatasync(file.fileno())
    if entry is not None and (size != entry.size or (running is not None and running.hexdigest() != entry.checksum)):
        raise _tampered(backup.id, relative, "is not what the server sent")


def _tampered(backup_id: str, path: str, what: str) -> TamperedBackupError:
    return TamperedBackupError(
        f"base backup {backup_id}: {path} {what}", 'Use an older one ("obhut backup list") and take another ("obhut backup run").'
    )


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
