"""Damage what a restore needs: each damage is refused with its stable code, nothing is proved, nothing changes, and mended it works again."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.lost import Lost
from support.sweep import sweep

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.slow]

ANCHOR = "erasure-list.anchor"


@contextmanager
def _kept(*paths: Path) -> Iterator[None]:
    """Put files and directories back as they were."""
    place = Path(tempfile.mkdtemp(prefix="obhut-aside", dir="/tmp"))  # not beside them, where it would be found and used
    aside = [(path, place / f"{number}") for number, path in enumerate(paths)]
    for path, copy in aside:
        shutil.copytree(path, copy, symlinks=True) if path.is_dir() else shutil.copy2(path, copy)
    try:
        yield
    finally:
        for path, copy in aside:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            shutil.copytree(copy, path, symlinks=True) if copy.is_dir() else shutil.copy2(copy, path)
        shutil.rmtree(place)


def _flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x40
    path.write_bytes(content)


def _cut(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _segments(lost: Lost) -> list[Path]:
    """Return the archived WAL segments, oldest first."""
    return sorted(path for path in (lost.installation.archive / "wals").rglob("*") if path.is_file() and len(path.name) == 24)


def _sealed(lost: Lost) -> list[Path]:
    """Return the sealed base backups, the full one first."""
    return sorted(path for path in (lost.installation.archive.parents[1] / "sealed").iterdir() if not path.name.startswith("."))


def _largest(directory: Path) -> Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def _refused(lost: Lost, codes: set[str], *, to: str | None = None) -> None:
    """Check that a restore is refused, that it left nothing open, and that production and list did not change."""
    known = set(lost.runs())
    listed = lost.obhut.run("erasures", "list", "clinic").stdout
    rows = lost.installation.value("SELECT count(*) FROM patient")
    result = lost.obhut.refused("restore", "run", "clinic", "--to", to or lost.point, code=codes)
    assert result.status in {1, 3, 5}, str(result)
    assert result.document["error"]["hint"], "a refusal names the next check"
    assert lost.installation.value("SELECT count(*) FROM patient") == rows
    after = lost.obhut.run("erasures", "list", "clinic").stdout
    assert len(after) >= len(listed)
    for run in set(lost.runs()) - known:
        lost.obhut.refused("restore", "open", run, code="restore-not-proved", status=5)
        assert not (lost.directory(run) / "target" / "data").exists(), "a target was made before the refusal"
        lost.abandon(run)


# -- WAL ----------------------------------------------------------------------------------------------------------------------------

WAL = {
    "wal-invalid",
    "wal-gap",
    "wal-hole",
    "restore-refused",
    "backup-seal-broken",
    "backup-tampered",
    "restore-target-invalid",
    "backup-none",
}


def test_damaged_wal(lost: Lost) -> None:
    """A segment in the middle is missing, cut, empty, flipped, or another one's copy: never a restore that ends early and says nothing."""
    segments = _segments(lost)
    newest = lost.obhut("backup", "list", "clinic")[-1]
    # The first segment that recovery of the newest backup has to read.
    number = int(newest["begin_lsn"].split("/")[0], 16) << 32 | int(newest["begin_lsn"].split("/")[1], 16)
    first = next(
        path for path in segments if int(path.name[8:16], 16) << 32 | int(path.name[16:], 16) * (16 << 20) >= number - number % (16 << 20)
    )
    other = next(path for path in segments if path != first)

    def damage(name: str) -> None:
        {
            "missing": lambda: _remove(first),
            "cut": lambda: _cut(first),
            "empty": lambda: _cut(first, 0),
            "flipped in the middle": lambda: _flip(first),
            "flipped at the beginning": lambda: _flip(first, 0.01),
            "flipped at the end": lambda: _flip(first, 0.999),
            "another segment under its name": lambda: shutil.copy2(other, first),
        }[name]()

    def case(name: str) -> None:
        with _kept(first):
            damage(name)
            _refused(lost, WAL, to="latest")

    sweep(
        [
            "missing",
            "cut",
            "empty",
            "flipped in the middle",
            "flipped at the beginning",
            "flipped at the end",
            "another segment under its name",
        ],
        case,
    )


# -- base backups -------------------------------------------------------------------------------------------------------------------

BASE = {
    "backup-seal-broken",
    "backup-tampered",
    "backup-manifest-invalid",
    "backup-chain-broken",
    "backup-none",
    "restore-refused",
    "backup-key-gone",
}


def test_damaged_base_backup(lost: Lost) -> None:
    """A byte of a sealed file, a file, a manifest, a link of the chain: each damage is refused before any row is read."""
    full, incremental = _sealed(lost)
    table = _largest(full / "files")
    manifests = [
        path
        for path in (*full.rglob("*manifest*"), *(lost.installation.archive / "base").rglob("backup_manifest"))
        if full.name in str(path)
    ]
    assert manifests
    cases: dict[str, tuple[list[Path], Callable[[], None]]] = {
        "a flipped byte in the full": ([table], lambda: _flip(table)),
        "a file of the full is cut": ([table], lambda: _cut(table)),
        "a file of the full is missing": ([table], lambda: _remove(table)),
        "a file of the incremental is missing": ([_largest(incremental / "files")], lambda: _remove(_largest(incremental / "files"))),
        "two files changed places": ([full / "files" / "PG_VERSION", table], lambda: shutil.copy2(full / "files" / "PG_VERSION", table)),
        "a foreign file": ([full], lambda: (full / "files" / "base" / "99999").write_bytes(b"x" * 100)),
        "the manifest is changed": ([manifests[0]], lambda: _flip(manifests[0])),
        "the catalogue is changed": ([full / "catalogue.json"], lambda: _flip(full / "catalogue.json")),
        "the full is missing": ([full], lambda: _remove(full)),
    }

    def case(name: str) -> None:
        paths, damage = cases[name]
        with _kept(*paths):
            damage()
            _refused(lost, BASE)

    sweep(cases, case)


def test_the_key_of_the_backups_is_gone(lost: Lost) -> None:
    """Without the key of its day a backup cannot be read: refused, and no new key is made in its place."""
    keys = lost.installation.folder / "keys" / "data"
    with _kept(keys):
        before = sorted(path.name for path in keys.iterdir())
        for path in keys.iterdir():
            path.unlink()
        _refused(lost, {*BASE, "key-missing", "keystore-key-missing", "keystore-key-destroyed", "key-destroyed", *WAL})
        assert len(before) > 0


# -- the erasure list ---------------------------------------------------------------------------------------------------------------


def test_damaged_erasure_list(lost: Lost) -> None:
    """Mirror, anchor or table missing, cut, rolled back or changed: no restore goes on, no erasure behind a wrong end, nobody's row is touched."""
    folder, state = lost.installation.folder, lost.installation.state
    mirror, anchor = folder / "mirror", state / ANCHOR
    older = folder / "older"
    shutil.copytree(mirror, older)
    old_anchor = anchor.read_bytes()
    lost.installation.erase("patient", 41)
    lost.forget(41)
    file = max(mirror.iterdir())

    def sql(*statements: str) -> None:
        with lost.installation.control_session() as session:
            session.set("session_replication_role", "replica")  # a superuser who switches the guards off
            for statement in statements:
                session.execute(statement)

    def roll_mirror_back() -> None:
        shutil.rmtree(mirror)
        shutil.copytree(older, mirror)

    files: dict[str, Callable[[], object]] = {
        "the mirror is missing": lambda: _remove(mirror),
        "the mirror is empty": lambda: [path.unlink() for path in mirror.iterdir()],
        "the mirror is cut": lambda: _cut(file, 0.9),
        "a byte of the mirror is flipped": lambda: _flip(file, 0.3),
        "the mirror is rolled back": roll_mirror_back,
        "the anchor is missing": anchor.unlink,
        "the anchor is garbage": lambda: anchor.write_text("nonsense\n", encoding="utf-8"),
        "the anchor is changed": lambda: _flip(anchor, 0.6),
    }
    tables = ("erasure_entry", "erasure_tombstone", "erasure_head")
    database: dict[str, list[str]] = {
        "the last entry is gone": ["DELETE FROM erasure_entry WHERE seq = (SELECT max(seq) FROM erasure_entry)"],
        "an entry in the middle is gone": ["DELETE FROM erasure_entry WHERE seq = 2"],
        "an entry is changed": ["UPDATE erasure_entry SET body = replace(body, 'erase', 'erasE') WHERE seq = 1"],
        "a tombstone has another key": ["UPDATE erasure_tombstone SET key = '{4}' WHERE seq = (SELECT min(seq) FROM erasure_tombstone)"],
        "a tombstone is lifted by hand": [
            # The private part goes, too: the table's check constraint holds although the guards are switched off.
            "UPDATE erasure_tombstone SET state = 'lifted', key = NULL, fingerprint = NULL, salt = NULL WHERE seq = (SELECT min(seq) FROM erasure_tombstone)",
        ],
        "a tombstone is forgotten by hand": [
            "UPDATE erasure_tombstone SET key = NULL, fingerprint = NULL, salt = NULL WHERE seq = (SELECT min(seq) FROM erasure_tombstone)",
        ],
        "the list is empty": [f"DELETE FROM {table}" for table in tables],
        "the list is rolled back": [
            "DELETE FROM erasure_tombstone WHERE seq > 2", "DELETE FROM erasure_entry WHERE seq > 2",
            "UPDATE erasure_head SET size = 2, hash = (SELECT hash FROM erasure_entry WHERE seq = 2)",
        ],
    }  # fmt: skip

    inside = {  # a restore and the check read the whole list; an erasure reads the end, behind which it writes
        "a byte of the mirror is flipped",
        "an entry in the middle is gone",
        "an entry is changed",
        "a tombstone has another key",
        "a tombstone is lifted by hand",
        "a tombstone is forgotten by hand",
    }
    assert inside < {*files, *database}

    def check(name: str) -> None:
        result = lost.obhut.refused("erasures", "verify")
        assert result.error.startswith(("erasure-list-", "erasure-mirror-", "erasure-anchor-")) and result.status in {1, 5}, str(result)
        if name in files:  # a plan verifies as the run does
            plan = lost.obhut.refused("restore", "plan", "clinic", "--to", lost.point)
            assert plan.status in {1, 3, 5}, str(plan)
        _refused(lost, {result.error, "restore-refused", "erasure-list-failed"})
        if name not in inside:
            erasing = lost.obhut.refused("erase", "clinic", "patient", 43, status=5)
            assert erasing.error.startswith(("erasure-list-", "erasure-mirror-", "erasure-anchor-")), str(erasing)
            assert lost.installation.value("SELECT count(*) FROM patient WHERE id = 43") == 1

    def of_files(name: str) -> None:
        with _kept(mirror, anchor):
            files[name]()
            check(name)

    def of_database(name: str) -> None:
        sql(*(f"CREATE TABLE aside_{table} AS SELECT * FROM {table}" for table in tables))
        try:
            sql(*database[name])
            check(name)
        finally:
            sql(*(f"DELETE FROM {table}" for table in tables))
            sql(*(f"INSERT INTO {table} SELECT * FROM aside_{table}" for table in tables))
            sql(*(f"DROP TABLE aside_{table}" for table in tables))

    sweep(files, of_files)
    sweep(database, of_database)
    assert old_anchor != anchor.read_bytes()
    assert lost.obhut("erasures", "verify")["size"] > 0


# -- full disks ---------------------------------------------------------------------------------------------------------------------


def _limited(lost: Lost, size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that cannot write a file beyond a size in bytes, as on a disk that is full."""
    return subprocess.run(
        lost.obhut.line(arguments), env=lost.obhut.environment(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip


def test_no_room_for_a_restore(lost: Lost) -> None:
    """Files cannot grow while the quarantine is unpacked: an error without a traceback, not openable, and with room the same run converges."""
    known = set(lost.runs())
    done = _limited(lost, 1 << 20, "restore", "run", "clinic", "--to", lost.point)
    assert done.returncode not in {0, 2}, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    (run,) = set(lost.runs()) - known
    lost.obhut.refused("restore", "open", run, code="restore-not-proved", status=5)
    assert lost.obhut("restore", "resume", run)["holds"] is True
    lost.abandon(run)


def test_no_room_for_a_backup(lost: Lost) -> None:
    """A base backup that cannot be written counts as none; the next one sweeps what it left and is usable."""
    before = lost.obhut("backup", "list", "clinic")
    largest = _largest(_sealed(lost)[0] / "files").stat().st_size  # a server of one clinic is small: no table may be a megabyte long
    done = _limited(lost, largest // 2, "backup", "run", "clinic", "--full")
    assert done.returncode not in {0, 2} and '"backup-engine-failed"' in done.stdout, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert [one["id"] for one in lost.obhut("backup", "list", "clinic") if one["state"] == "usable"] == [one["id"] for one in before]
    lost.obhut("backup", "run", "clinic", "--full")
    after = lost.obhut("backup", "list", "clinic")
    assert len(after) == len(before) + 1 and after[-1]["state"] == "usable"
    bases = [path.name for path in (lost.installation.archive / "base").iterdir()]
    assert set(bases) <= {one["id"] for one in after}, "something of the failed backup is left"


def test_no_room_for_the_mirror(lost: Lost) -> None:
    """The mirror's disk is full in the middle of a segment: refused before the first row goes; with room again the same erasure works."""
    file = max((lost.installation.folder / "mirror").iterdir())
    done = _limited(lost, file.stat().st_size + 16, "erase", "clinic", "patient", "47")
    assert done.returncode not in {0, 2}, done.stdout
    assert "erasure-mirror" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert lost.installation.value("SELECT count(*) FROM patient WHERE id = 47") == 1, "nobody is erased whose tombstone is not safe"
    lost.obhut("erase", "clinic", "patient", 47)
    assert lost.installation.value("SELECT count(*) FROM patient WHERE id = 47") == 0
    lost.obhut("erasures", "verify")
    lost.forget(47)


def test_mended_everything_works(lost: Lost) -> None:
    """After all the damage was undone, the deep check finds nothing and a restore brings back exactly what it should."""
    assert not [finding for finding in lost.obhut("backup", "check", "clinic", "--deep") if finding["severity"] == "critical"]
    done = lost.run()
    lost.check(lost.obhut("restore", "open", done["run"])["url"])
    lost.installation.obhut.run("restore", "show", done["run"])
