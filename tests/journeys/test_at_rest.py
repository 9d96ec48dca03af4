"""Promise *at-rest*: everything stored is encrypted, keys live in a private key store."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import scanner
from support.clinic import installed_clinic
from support.installation import Installation

pytestmark = [pytest.mark.journey, pytest.mark.postgres]

MARK = "obhutmarkeratrest8d1f"


@pytest.fixture(scope="module")
def backed_up() -> Iterator[Installation]:
    """Give an installation with a full and an incremental backup and archived WAL that hold a marked person."""
    with installed_clinic() as installation:
        installation.sql(f"UPDATE patient SET first_name = '{MARK}a' WHERE id = 1")
        installation.sql("CHECKPOINT")
        installation.backup()
        installation.sql(f"UPDATE patient SET first_name = '{MARK}b' WHERE id = 2")
        installation.flush()
        installation.obhut("backup", "run", "clinic", "--incremental")
        yield installation


def _everything_else(installation: Installation) -> list[Path]:
    """Return what Obhut has written, but for its own running server and the segment that is being streamed at this moment."""
    writing = installation.archive / "streaming"
    skipped = (installation.state / "control", writing)
    files = [
        path for root in (installation.state, installation.folder / "mirror", installation.folder / "keys") for path in root.rglob("*")
    ]
    return [path for path in files if path.is_file() and not any(path.is_relative_to(place) for place in skipped)]


def test_no_stored_byte_shows_a_person(backed_up: Installation) -> None:
    """A marked value is found in the vendor's own files and in no file that Obhut keeps: base backups, WAL, mirror, keys, logs."""
    backed_up.sql("CHECKPOINT")
    assert scanner.hits(backed_up.cluster.data / "base", [MARK]), "positive control: the search finds what is there"
    files = _everything_else(backed_up)
    kept = sum(path.stat().st_size for path in files)
    assert kept > 5_000_000, "positive control: there are backups"
    assert [hit for path in files for hit in scanner.hits(path, [MARK])] == []


def test_what_is_streamed_is_plain_for_one_segment_only(backed_up: Installation) -> None:
    """Finished segments do not stay plain: after archiving only the one being written lies in the streaming directory."""
    names = [path.name for path in (backed_up.archive / "streaming").iterdir()]
    assert len(names) == 1 and names[0].endswith(".partial"), names


def test_keys_are_private(backed_up: Installation) -> None:
    """Nobody but the owner may read or enter the key store; the promise notices when that changes."""
    store = backed_up.folder / "keys"
    paths = [store, *store.rglob("*")]
    assert len(paths) > 2
    assert [path for path in paths if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []
    verdict = backed_up.obhut("promises", "at-rest")["promises"][0]
    assert verdict["state"] == "unproven"  # a server's disk cannot be seen through SQL, and that is said
    assert {item["state"] for item in verdict["evidence"]} == {"kept", "unproven"}, verdict

    victim = next(path for path in paths if path.is_file())
    mode = stat.S_IMODE(victim.stat().st_mode)
    victim.chmod(0o644)
    try:
        result = backed_up.obhut.run("promises", "at-rest")
        assert result.status in {3, 5}, str(result)
    finally:
        victim.chmod(mode)


def test_backups_are_worth_nothing_without_the_keys(backed_up: Installation) -> None:
    """With the key store gone a deep check of the backups cannot read a byte, and says so."""
    store = backed_up.folder / "keys"
    aside = backed_up.folder / "keys-aside"
    store.rename(aside)
    try:
        result = backed_up.obhut.run("backup", "check", "clinic", "--deep")
        assert result.status not in {0, 2}, str(result)
        assert "Traceback" not in result.said
    finally:
        if store.exists():
            store.rename(backed_up.folder / "keys-made-anew")
        aside.rename(store)
    assert not any(finding["severity"] == "critical" for finding in backed_up.obhut("backup", "check", "clinic", "--deep"))
