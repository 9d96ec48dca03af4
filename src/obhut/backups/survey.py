"""Everything that lies in a repository, known or not, as items with an age: what retention decides about.

Walks the disk and believes names only where they make a thing older, never younger.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from obhut.backups import keys as key_lending
from obhut.backups import locks, manifest, sealing
from obhut.backups.archive import Archive
from obhut.backups.catalogue import BackupState
from obhut.backups.engine import BaseCopy, CopyState, Engine
from obhut.backups.errors import SealBrokenError
from obhut.backups.plan import EPOCH, Copy, Item, ItemKind
from obhut.backups.repository import Repository
from obhut.foundation.lsn import lsn_number
from obhut.keystore.store import KeyState

_ID: Final = re.compile(r"(\d{8}T\d{6})")
_TEMPORARY: Final = (".tmp", ".compressed", ".uncompressed")
# No rows in these: configuration, positions, process ids, positions of timelines, names of segments. Logs name files and positions.
_BOOKKEEPING: Final = re.compile(r"barman\.conf|identity\.json|.*-xlog\.db|.*\.lock|[0-9A-F]{8}\.history|(log|run)/[^/]+")


def items(repository: Repository, engines: Iterable[tuple[Archive, Engine]], *, busy: bool) -> list[Item]:
    """Return every thing in a database's repository.

    Args:
        repository: of the database.
        engines: the archives with the engine that writes them.
        busy: whether another process is taking a base backup; its unfinished things are its own.
    """
    found: list[Item] = []
    for archive, engine in engines:
        found += _archive(archive, engine, busy=busy)
    known = {str(archive.system_identifier) for archive, _ in engines}
    for path in _files(repository.root):
        top = path.relative_to(repository.root).parts[0]
        if top not in known and path.name not in locks.NAMES:
            found.append(Item(ItemKind.FILE, path.relative_to(repository.root).as_posix(), _modified(path)))
    return found + _keys(repository)


def copies(engine: Engine, sealed: Path, *, busy: bool) -> Iterator[tuple[BaseCopy, Copy]]:
    """Yield the plain base backups with their state as retention sees it."""
    for copy in engine.copies():
        if copy.state is CopyState.FAILED:
            yield copy, Copy.FAILED
        elif copy.state is CopyState.STARTED:
            yield copy, Copy.RUNNING if busy else Copy.KILLED
        elif (sealed / copy.id / "catalogue.json").exists() and not _has_plain(copy):
            yield copy, Copy.EMPTIED
        else:
            yield copy, Copy.RUNNING if busy else Copy.COPIED


def _archive(archive: Archive, engine: Engine, *, busy: bool) -> list[Item]:
    layout, server = archive.layout, archive.system_identifier
    found: list[Item] = []
    claimed: list[Path] = []
    for backup in archive.backups():
        found.append(
            Item(
                ItemKind.BACKUP,
                backup.id,
                backup.begin_time,
                server,
                end=backup.end_time,
                parent=backup.parent,
                usable=backup.state is not BackupState.BROKEN,
                start=lsn_number(backup.begin_lsn),
            )
        )
        claimed.append(layout.sealed / backup.id)
    for copy, state in copies(engine, layout.sealed, busy=busy):
        born = min(filter(None, [copy.begin_time, _named(copy.id)]), default=_modified(copy.data.parent))
        found.append(Item(ItemKind.COPY, copy.id, born, server, copy=state))
        claimed += [copy.data.parent, layout.meta / f"{copy.id}-backup.info"]
    size = next((backup.wal_segment_size for backup in archive.records()[0]), 16 << 20)
    for segment in archive.inventory(size):
        born = min(segment.modified, _sealed_until(segment.path, archive.layout.database) or segment.modified)
        relative = segment.path.relative_to(layout.root).as_posix()
        found.append(Item(ItemKind.WAL, relative, born, server, start=segment.start, stop=segment.end))
        claimed.append(segment.path)
    skip = {str(path) for path in claimed}
    for path in _files(layout.root):
        if str(path) in skip or any(str(parent) in skip for parent in path.parents):
            continue
        relative = path.relative_to(layout.root).as_posix()
        if _BOOKKEEPING.fullmatch(relative) or _BOOKKEEPING.fullmatch(path.name):
            continue
        temporary = relative.startswith(("stage/", "sealed/.")) or path.name.endswith(_TEMPORARY)
        kind = ItemKind.LEFTOVER if temporary and not busy else ItemKind.FILE
        born = min(filter(None, [_modified(path), _named(relative)]))
        found.append(Item(kind, relative, born, server))
    return found


def _keys(repository: Repository) -> list[Item]:
    found = []
    for label, state in repository.keys.labels():
        span = key_lending.labelled_span(label, repository.database)
        if span is not None and state is KeyState.ACTIVE:
            found.append(Item(ItemKind.KEY, label, span))
    return found


def _files(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        links = [name for name in names if (Path(directory) / name).is_symlink()]
        for name in [*files, *links]:
            yield Path(directory) / name


def _has_plain(copy: BaseCopy) -> bool:
    root = copy.data.parent
    if not root.is_dir():
        return False
    if any(entry != copy.data for entry in root.iterdir()):
        return True
    return copy.data.is_dir() and any(entry.name != manifest.NAME for entry in copy.data.iterdir())


def _named(text: str) -> datetime | None:
    """Return the time in an engine's id, if the text holds one."""
    match = _ID.search(text)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _modified(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    except FileNotFoundError:
        return EPOCH
    except (OverflowError, ValueError):
        return EPOCH  # a time that cannot be: old enough to go


def _sealed_until(path: Path, database: str) -> datetime | None:
    """Return the end of the span of the key that sealed a file: a copied file's own time may be younger, its data is not."""
    try:
        with path.open("rb") as file:
            span = key_lending.labelled_span(sealing.Header.read(file).label, database)
    except (OSError, SealBrokenError):
        return None
    # The last moment of the span, not the first of the next one.
    return span + key_lending.SPAN - timedelta(microseconds=1) if span else None
