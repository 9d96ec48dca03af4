"""Carries out what retention decided.

Order that survives a crash: a base backup disappears from the catalogue by one rename before its files go, links before what they build
on, WAL oldest first, keys last. A kill at any point leaves usable backups whole and the rest to the next run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from obhut.backups import keys as key_lending
from obhut.backups import seal, sealing, survey
from obhut.backups.archive import Archive
from obhut.backups.engine import Engine
from obhut.backups.layout import Layout, fsync_directory
from obhut.backups.plan import Copy, Decision, Item, ItemKind, Plan, Rules, decide
from obhut.backups.repository import Repository
from obhut.foundation import faultpoints
from obhut.foundation.clock import Clock


@dataclass(frozen=True, slots=True)
class Expired:
    """What an expire run did."""

    plan: Plan
    removed: Mapping[ItemKind, int]


def plan(repository: Repository, engines: Iterable[tuple[Archive, Engine]], rules: Rules, clock: Clock, *, busy: bool) -> Plan:
    """Return what would be kept and removed now, with reasons."""
    return decide(survey.items(repository, list(engines), busy=busy), rules, clock.now())


def apply(repository: Repository, engines: Iterable[tuple[Archive, Engine]], decided: Plan) -> Expired:
    """Remove what the plan removes."""
    by_server = {archive.system_identifier: (archive, engine) for archive, engine in engines}
    counts: dict[ItemKind, int] = {}
    for decision in decided.removals:
        faultpoints.reach("expire.remove.before")
        _remove(decision, repository, by_server)
        counts[decision.item.kind] = counts.get(decision.item.kind, 0) + 1
        faultpoints.reach("expire.remove.after")
    for archive, _ in by_server.values():
        _tidy(archive.layout)
    return Expired(decided, counts)


def sweep(archive: Archive, engine: Engine) -> int:
    """Remove what a killed or failed run left, at the start of the next one; the caller holds the run lock.

    Returns:
        how many things were removed.
    """
    layout = archive.layout
    removed = 0
    for copy, state in list(survey.copies(engine, layout.sealed, busy=False)):
        if state in {Copy.KILLED, Copy.FAILED}:
            engine.forget(copy.id)
            removed += 1
        elif (layout.sealed / copy.id / "catalogue.json").exists():
            seal.remove_plain(copy)
    for directory in (layout.sealed, layout.staging):
        for entry in list(directory.iterdir()) if directory.is_dir() else []:
            if directory == layout.staging or entry.name.startswith("."):
                _delete(entry)
                removed += 1
    return removed


def seal_refused(layout: Layout, keys: key_lending.DataKeys, clock: Clock) -> int:
    """Seal the plain WAL that the engine put aside in its errors directory; returns how many files."""
    count = 0
    for path in list(layout.errors.iterdir()) if layout.errors.is_dir() else []:
        if path.name.endswith(".tmp"):
            path.unlink()
            continue
        status = path.stat()
        with path.open("rb") as source:
            if source.read(len(sealing.MAGIC)) == sealing.MAGIC:
                continue
            source.seek(0)
            label = key_lending.label(layout.database, clock.now())
            temporary = path.with_name(f"{path.name}.tmp")
            with temporary.open("wb") as target:
                os.fchmod(target.fileno(), 0o600)
                sealer = sealing.Sealer(target, keys.data_key(label), label, "wal", compress=True)
                while block := source.read(sealing.CHUNK):
                    sealer.write(block)
                sealer.finish()
                target.flush()
                os.fsync(target.fileno())
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))  # its age is its data's age
        temporary.rename(path)
        fsync_directory(layout.errors)
        count += 1
    return count


def _remove(decision: Decision, repository: Repository, by_server: Mapping[int, tuple[Archive, Engine]]) -> None:
    item = decision.item
    if item.kind is ItemKind.KEY:
        repository.keys.destroy(item.ref)
    elif item.archive not in by_server:
        _delete(repository.root / item.ref)
    else:
        _remove_of(item, *by_server[item.archive])


def _remove_of(item: Item, archive: Archive, engine: Engine) -> None:
    layout = archive.layout
    if item.kind is ItemKind.BACKUP:
        gone = layout.sealed / f".{item.ref}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (layout.sealed / item.ref).rename(gone)
            fsync_directory(layout.sealed)
        faultpoints.reach("expire.backup.renamed")
        engine.forget(item.ref)
        _delete(gone)
    elif item.kind is ItemKind.COPY:
        engine.forget(item.ref)
    else:
        _delete(layout.root / item.ref)


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return  # the engine moved it in the meantime: the next run looks again
    if path.parent.is_dir():
        fsync_directory(path.parent)


def _tidy(layout: Layout) -> None:
    """Remove directories that emptied: those of WAL, and what was left of unreadable base backups."""
    for parent in (layout.wals, layout.sealed):
        for directory, _, _ in os.walk(parent, topdown=False):
            path = Path(directory)
            if path != parent and not (parent == layout.sealed and (path / "catalogue.json").exists()):
                if parent == layout.sealed and _inside_backup(path, parent):
                    continue
                with contextlib.suppress(OSError):
                    path.rmdir()


def _inside_backup(path: Path, sealed: Path) -> bool:
    """Whether a directory belongs to a recorded base backup: its empty directories are part of it."""
    top = sealed / path.relative_to(sealed).parts[0]
    return (top / "catalogue.json").exists()
