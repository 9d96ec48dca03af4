"""A repository that somebody or something damaged: every change is found, named and refused; nothing is restored from it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from obhut.backups import run, verify
from obhut.backups.catalogue import BackupState
from obhut.backups.errors import (
    BackupError,
    BrokenChainError,
    NoBackupError,
    SealBrokenError,
    TamperedBackupError,
    WalConflictError,
    WalError,
)
from obhut.backups.manifest import compare, read
from obhut.foundation.clock import SystemClock

pytestmark = pytest.mark.fault


@pytest.fixture
def repository(installation):
    """Give a repository with a full and an incremental backup and archived WAL after them."""
    installation.start()
    installation.incremental()
    for number in range(3):
        installation.add_person(f"{number}@example.org")
        installation.archive()
    return installation.repository


def codes(installation, *, deep: bool = False) -> set[str]:
    """Return the codes that a verification of the files alone finds."""
    clock = SystemClock()
    return {one.code for one in verify.verify(installation.repository, clock.now(), installation.workshop.rules.gone_after, deep=deep)}


def flip(path, position: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_each_damage_to_a_base_backup_is_found_and_refused(installation, repository, place) -> None:
    """Flipped byte, truncated, missing, extra, exchanged file, changed record: found by the check, refused by unsealing."""
    assert codes(installation, deep=True) == set()
    full, incremental = repository.backups()
    archive = repository.archives()[0]
    files = archive.layout.sealed / full.id / "files"
    saved = place / "saved"
    shutil.copytree(files.parent, saved)

    def restore_files() -> None:
        shutil.rmtree(files.parent)
        shutil.copytree(saved, files.parent)

    heap = max((path for path in files.glob("base/*/*") if path.is_file()), key=lambda path: path.stat().st_size)
    other = next(path for path in files.glob("base/*/*") if path.is_file() and path != heap)
    damages = {
        "flipped heap": lambda: flip(heap, 4000),
        "flipped control file": lambda: flip(files / "global" / "pg_control"),
        "flipped manifest": lambda: flip(files / "backup_manifest", 5000),
        "truncated": lambda: heap.write_bytes(heap.read_bytes()[:-1]),
        "emptied": lambda: heap.write_bytes(b""),
        "missing": heap.unlink,
        "extra": lambda: (files / "base" / "1" / "99999").write_bytes(b"x"),
        "exchanged": lambda: shutil.copy(other, heap),
        "plain instead of sealed": lambda: heap.write_bytes(b"\0" * 8192),
        "other incremental's file": lambda: shutil.copy(
            archive.layout.sealed / incremental.id / "files" / "PG_VERSION", files / "PG_VERSION"
        ),
    }
    for number, (name, damage) in enumerate(damages.items()):
        damage()
        with pytest.raises(BackupError) as caught:
            repository.unseal(full, place / f"u{number}")
        assert caught.value.code in {"backup-tampered", "backup-manifest-invalid"}, name
        assert codes(installation, deep=True) & {"backup-tampered", "backup-manifest-invalid"}, name
        shutil.rmtree(place / f"u{number}")
        restore_files()
    record = files.parent / "catalogue.json"
    record.write_text(record.read_text().replace(full.begin_lsn, incremental.begin_lsn))
    assert "backup-seal-broken" in codes(installation)
    with pytest.raises(BrokenChainError):
        repository.chain(incremental.id)
    restore_files()
    repository.unseal(full, place / "whole")
    assert compare(read(place / "whole" / "backup_manifest"), place / "whole") == []
    # PostgreSQL's own verifier agrees.
    verifier = installation.workshop.present()[2].binaries.path("pg_verifybackup")
    assert subprocess.run([verifier, "--no-parse-wal", place / "whole"], capture_output=True, check=False).returncode == 0


def test_a_missing_link_makes_the_chain_unusable(installation, repository) -> None:
    """Without its full backup an incremental one is broken, not chosen, not opened; a new full one is due at once."""
    full, incremental = repository.backups()
    archive = repository.archives()[0]
    shutil.rmtree(archive.layout.sealed / full.id)
    (left,) = repository.backups()
    assert left.state is BackupState.BROKEN
    with pytest.raises(BrokenChainError):
        repository.chain(incremental.id)
    with pytest.raises(NoBackupError):
        repository.choose()
    assert {"backup-chain-broken", "nothing-restorable"} <= codes(installation)
    taken = run.run(installation.settings, "courses", run.Wanted.AUTO, _actor(), SystemClock())
    assert taken.backup.kind == "full"
    assert repository.choose().id == taken.backup.id


def test_each_damage_to_wal_is_found_and_refused(installation, repository, place) -> None:
    """Missing, truncated, flipped, exchanged and doubled segments are found by the check and refused by staging."""
    full = repository.backups()[0]
    archive = repository.archives()[0]
    segments = [one for one in repository.wal_segments(1, full.begin_lsn) if one.source == "archived"]
    victim, other = segments[-2], segments[-1]
    saved = victim.path.read_bytes()

    def staged() -> None:
        target = place / "w"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        repository.stage_wal(repository.wal_segments(1, full.begin_lsn), target)

    staged()
    rival = place / "rival"
    shutil.copy(place / "w" / other.name, rival)
    damages = {
        "flipped": (lambda: flip(victim.path), SealBrokenError),
        "truncated": (lambda: victim.path.write_bytes(saved[: len(saved) // 2]), SealBrokenError),
        "empty": (lambda: victim.path.write_bytes(b""), SealBrokenError),
        "exchanged": (lambda: shutil.copy(other.path, victim.path), WalError),
        "conflict": (lambda: shutil.copy(rival, archive.layout.errors / f"{victim.name}.20261123T080000Z.duplicate"), WalConflictError),
    }
    for name, (damage, error) in damages.items():
        damage()
        with pytest.raises(error):
            staged()
        assert codes(installation, deep=True), name
        victim.path.write_bytes(saved)
        for left in archive.layout.errors.iterdir():
            left.unlink()
    victim.path.unlink()
    missing = repository.wal_hole(1, full.begin_lsn)
    assert (missing.first, missing.last) == (victim.name, victim.name)
    assert "wal-gap" in codes(installation)
    victim.path.write_bytes(saved)
    staged()
    assert codes(installation, deep=True) == set()


def test_another_key_store_opens_nothing(installation, repository, place) -> None:
    """With the repository alone, and a key store of one's own, nothing can be read."""
    from obhut.backups.archive import Archive
    from obhut.keystore.local import LocalKeystore

    foreign = Archive(repository.archives()[0].layout, LocalKeystore(place / "keys"))
    good, bad = foreign.records()
    assert good == []
    assert {error.code for error in bad.values()} == {"backup-seal-broken"}


def test_everything_goes_at_its_age_whatever_it_is(installation, repository) -> None:
    """Kept, failed, orphaned, unknown, plain, sealed, key: after 35 days not a byte is left, and what the clock shows counts, not luck."""
    import os
    from datetime import timedelta

    from obhut.foundation.clock import OffsetClock

    archive = repository.archives()[0]
    layout = archive.layout
    orphan = layout.base / "20261101T000000" / "data"
    orphan.mkdir(parents=True)
    (orphan / "PG_VERSION").write_bytes(b"18\n")
    keep = layout.base / repository.backups()[0].id / "annotations" / "keep"
    keep.parent.mkdir(parents=True)
    keep.write_text("full")
    strange = [
        layout.root / "copy-of-everything.tar",
        repository.root / "notes.txt",
        layout.server / "incoming" / "x",
        layout.errors / "000000010000000000000001.unknown",
    ]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"personal data")
    (layout.sealed / ".dead.tmp").mkdir()
    (layout.sealed / ".dead.tmp" / "x").write_bytes(b"x")
    unreadable = layout.sealed / "20261122T000000"
    unreadable.mkdir()
    (unreadable / "heap").write_bytes(b"x")
    # A copied file looks new, its data is not.
    for path in layout.wals.rglob("0000*"):
        if path.is_file():
            os.utime(path, (2_000_000_000, 2_000_000_000))
    installation.stop()

    def expire(days: float):
        return run.expire(installation.settings, "courses", _actor(), OffsetClock(timedelta(days=days)))

    expire(1)
    assert not orphan.exists()
    assert len(repository.backups()) == 2
    expire(34)
    assert len(repository.backups()) == 2
    done = expire(35)
    assert "nothing-restorable" in done.plan.warnings
    left = [path for path in repository.root.rglob("*") if path.is_file()]
    strangers = [path for path in left if path.suffix not in {".db", ".conf", ".log", ".json"} and ".lock" not in path.name]
    assert strangers == []
    assert [
        label
        for label, state in repository.keys.labels()
        if label.startswith("backup-") and state == "active" and label < "backup-courses-" + _now()
    ] == []


def _now() -> str:
    return SystemClock().now().strftime("%Y-%m-%dT%H")


def _actor():
    from obhut.foundation.actors import Actor, Role

    return Actor(Role.SYSTEM, "test")


def test_tampered_errors_name_no_person() -> None:
    """The words of an error hold ids and paths of the server's files only."""
    assert "base/5/1259" in str(TamperedBackupError("base backup x: base/5/1259 is missing"))
