"""What the local key store adds: files, permissions, passphrases, killed destructions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from obhut.keystore import KeyState, LocalKeystore, master
from obhut.keystore.errors import KeyDestroyedError, KeystorePermissionsError, KeyWrapError, MasterKeyError


def test_no_file_is_open_to_others_and_no_key_is_in_clear(tmp_path: Path) -> None:
    """Directories are 0700, files 0600, and no file but the master key's holds a key's bytes."""
    store = LocalKeystore(tmp_path / "keys")
    key = store.data_key("day")
    store.signing_key("list")
    for path in (tmp_path / "keys").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
        assert path.is_dir() or key not in path.read_bytes()
    assert not list((tmp_path / "keys").rglob("*.tmp"))


def test_an_open_master_key_is_refused(tmp_path: Path) -> None:
    """A master key that others could read stops the store instead of serving on."""
    LocalKeystore(tmp_path / "keys")
    (tmp_path / "keys" / "master.key").chmod(0o640)
    with pytest.raises(KeystorePermissionsError):
        LocalKeystore(tmp_path / "keys")


def test_a_lost_master_key_is_not_replaced(tmp_path: Path) -> None:
    """With wrapped keys present a missing master key is an error, never a fresh one."""
    LocalKeystore(tmp_path / "keys").data_key("day")
    (tmp_path / "keys" / "master.key").unlink()
    with pytest.raises(MasterKeyError, match="missing although"):
        LocalKeystore(tmp_path / "keys")


def test_a_damaged_master_key_is_named(tmp_path: Path) -> None:
    """Garbage in the master key file is an error of its own."""
    LocalKeystore(tmp_path / "keys")
    (tmp_path / "keys" / "master.key").write_bytes(b'{"format": "obhut-master-key/1", "kind": "random", "key": "AAAA"}')
    with pytest.raises(MasterKeyError, match="damaged"):
        LocalKeystore(tmp_path / "keys")


@pytest.mark.slow  # stretching a passphrase takes its time, that is what it is for
def test_the_passphrase_is_needed_and_can_change(tmp_path: Path) -> None:
    """A wrong or missing passphrase opens nothing; changing it leaves every key as it was."""
    key = LocalKeystore(tmp_path / "keys", passphrase=b"one").data_key("day")
    for wrong in (b"two", None):
        with pytest.raises(MasterKeyError):
            LocalKeystore(tmp_path / "keys", passphrase=wrong)
    master.change_passphrase(tmp_path / "keys", b"one", b"two")
    assert LocalKeystore(tmp_path / "keys", passphrase=b"two").data_key("day") == key
    master.change_passphrase(tmp_path / "keys", b"two", None)
    assert LocalKeystore(tmp_path / "keys").data_key("day") == key
    with pytest.raises(MasterKeyError, match="not sealed"):
        LocalKeystore(tmp_path / "keys", passphrase=b"two")


def test_the_passphrase_comes_from_credential_file_or_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The systemd credential wins over the named file, which wins over the descriptor; none configured is None."""
    for name in ("CREDENTIALS_DIRECTORY", master.FILE_VARIABLE, master.DESCRIPTOR_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert master.find_passphrase() is None
    read, write = os.pipe()
    os.write(write, b"from descriptor\n")
    os.close(write)
    monkeypatch.setenv(master.DESCRIPTOR_VARIABLE, str(read))
    assert master.find_passphrase() == b"from descriptor"
    os.close(read)
    (tmp_path / "phrase").write_bytes(b"from file\n")
    monkeypatch.setenv(master.FILE_VARIABLE, str(tmp_path / "phrase"))
    assert master.find_passphrase() == b"from file"
    (tmp_path / master.CREDENTIAL).write_bytes(b"from credential")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert master.find_passphrase() == b"from credential"
    (tmp_path / master.CREDENTIAL).write_bytes(b"\n")
    with pytest.raises(MasterKeyError):
        master.find_passphrase()


def test_a_key_file_under_another_label_does_not_open(tmp_path: Path) -> None:
    """Kind and label are bound into the wrapping, so swapping key files is noticed."""
    store = LocalKeystore(tmp_path / "keys")
    store.data_key("a")
    (tmp_path / "keys" / "data" / "a.key").rename(tmp_path / "keys" / "data" / "b.key")
    with pytest.raises(KeyWrapError):
        LocalKeystore(tmp_path / "keys").data_key("b")


@pytest.mark.parametrize("step", ["renamed", "overwritten", "marked"])
def test_a_killed_destruction_is_finished_by_the_next_opening(tmp_path: Path, step: str) -> None:
    """Killed between any two steps the key is refused at once, and reopening leaves only the marker."""
    directory = tmp_path / "keys"
    LocalKeystore(directory).data_key("day")
    code = "import sys, pathlib; from obhut.keystore import LocalKeystore; LocalKeystore(pathlib.Path(sys.argv[1])).destroy('day')"
    environment = {**os.environ, "OBHUT_DIE_AT": f"keystore.destroy.{step}", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", code, str(directory)], env=environment, check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL
    store = LocalKeystore(directory)
    assert store.state("day") is KeyState.DESTROYED
    assert [path.name for path in (directory / "data").iterdir()] == ["day.destroyed"]
    with pytest.raises(KeyDestroyedError):
        store.data_key("day")
