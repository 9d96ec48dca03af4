"""Backup manifests: the rules of pg_verifybackup, and every way a manifest can lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from obhut.backups import manifest
from obhut.backups.errors import ManifestError

SYSTEM = 7711258375065990640


def crc(content: bytes) -> str:
    running = manifest.Crc32c()
    running.update(content)
    return running.hexdigest()


def render(files: list[dict], version: int = 2, ranges: list[dict] | None = None, **more) -> bytes:
    """Return a manifest as the server writes it: line by line, the checksum of all before on the last one."""
    lines = [f'{{ "PostgreSQL-Backup-Manifest-Version": {version},']
    if version >= 2:
        lines.append(f'"System-Identifier": {SYSTEM},')
    lines.append('"Files": [')
    lines.append(",\n".join(json.dumps(item) for item in files))
    lines.append("],")
    lines.append(f'"WAL-Ranges": {json.dumps(ranges or [{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000120"}])},')
    for key, value in more.items():
        lines.append(f'"{key}": {json.dumps(value)},')
    body = ("\n".join(lines) + "\n").encode()
    return body + f'"Manifest-Checksum": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def entry(path: str, content: bytes, algorithm: str = "CRC32C") -> dict:
    value = crc(content) if algorithm == "CRC32C" else hashlib.new(algorithm.lower(), content).hexdigest()
    return {
        "Path": path,
        "Size": len(content),
        "Last-Modified": "2026-11-23 07:01:22 GMT",
        "Checksum-Algorithm": algorithm,
        "Checksum": value,
    }


@pytest.fixture
def backup(tmp_path: Path) -> tuple[Path, list[dict]]:
    """Give a small data directory and the entries of its manifest."""
    files = {
        "PG_VERSION": b"18\n",
        "base/5/1259": b"heap" * 5000,
        "global/pg_control": SYSTEM.to_bytes(8, "little") + b"rest",
        "empty": b"",
    }
    entries = []
    for number, (name, content) in enumerate(files.items()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        entries.append(entry(name, content, ["CRC32C", "SHA256", "SHA224", "SHA512"][number]))
    return tmp_path, entries


def problems(directory: Path, entries: list[dict]) -> set[tuple[str, str]]:
    found = manifest.compare(manifest.parse(render(entries)), directory)
    return {(problem.path, problem.what) for problem in found}


def test_checksums_are_spelled_as_the_server_spells_them() -> None:
    """The CRC-32C of "18" and a line break is what PostgreSQL 18 writes for PG_VERSION (little-endian)."""
    assert crc(b"18\n") == "994e7be2"


def test_a_whole_backup_has_no_problem(backup) -> None:
    """Sizes and checksums of all algorithms fit, empty files included."""
    assert problems(*backup) == set()


def test_each_kind_of_damage_is_named(backup) -> None:
    """Missing, extra, longer, flipped: each is found and named by its path."""
    directory, entries = backup
    (directory / "empty").unlink()
    (directory / "base/5/9999").write_bytes(b"foreign")
    with (directory / "PG_VERSION").open("ab") as file:
        file.write(b"x")
    content = bytearray((directory / "base/5/1259").read_bytes())
    content[7000] ^= 1
    (directory / "base/5/1259").write_bytes(content)
    assert problems(directory, entries) == {
        ("empty", "missing"),
        ("base/5/9999", "extra"),
        ("PG_VERSION", "size"),
        ("base/5/1259", "checksum"),
    }


def test_what_a_restore_writes_is_no_difference(backup) -> None:
    """WAL, signal files, postgresql.auto.conf and the manifest itself may be extra, as pg_verifybackup's page says."""
    directory, entries = backup
    for name in ("backup_manifest", "postgresql.auto.conf", "standby.signal", "recovery.signal", "pg_wal/000000010000000000000001"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"x")
    assert problems(directory, entries) == set()
    assert problems(directory, [*entries, entry("postgresql.auto.conf.d", b"x")]) == {("postgresql.auto.conf.d", "missing")}


def test_a_control_file_of_another_server_is_noticed(backup) -> None:
    """Version 2 of the manifest names the server, and so does the control file."""
    directory, entries = backup
    content = (SYSTEM + 1).to_bytes(8, "little") + b"rest"
    (directory / "global/pg_control").write_bytes(content)
    entries = [entry("global/pg_control", content) if item["Path"] == "global/pg_control" else item for item in entries]
    assert problems(directory, entries) == {("global/pg_control", "system-identifier")}


def test_any_changed_byte_of_a_manifest_is_refused(backup) -> None:
    """The manifest's own SHA-256 covers every byte before it; the checksum line itself must be the last."""
    content = render(backup[1])
    for position in range(0, len(content) - 2, 7):
        damaged = bytearray(content)
        damaged[position] ^= 1
        with pytest.raises(ManifestError):
            manifest.parse(bytes(damaged))
    for length in (0, 1, 100, len(content) - 3):
        with pytest.raises(ManifestError):
            manifest.parse(content[:length])


@pytest.mark.parametrize(
    "item",
    [
        {"Path": "../outside"},
        {"Path": "/etc/passwd"},
        {"Path": "a/../../b"},
        {"Path": ""},
        {"Path": "x", "Size": -1},
        {"Path": "x", "Checksum-Algorithm": "MD5"},
        {"Path": "x", "Checksum": "00"},
        {"Path": "x", "Size": "many"},
        {"Encoded-Path": "zz"},
        {},
    ],
)
def test_impossible_entries_are_refused(item: dict) -> None:
    """A path that leads outside, an impossible size or checksum is refused although the manifest's checksum is right."""
    given = {**entry("x", b"x"), **item}
    if "Path" not in item and not ("Encoded-Path" in item and given.pop("Path")):
        given.pop("Path", None)
    with pytest.raises(ManifestError):
        manifest.parse(render([given]))


def test_a_path_twice_and_an_unknown_version_are_refused() -> None:
    """Which of two entries would count is not guessed; neither is a format of the future."""
    with pytest.raises(ManifestError, match="twice"):
        manifest.parse(render([entry("x", b"x"), entry("x", b"y")]))
    with pytest.raises(ManifestError, match="unknown"):
        manifest.parse(render([], version=3))


def test_an_older_manifest_has_no_system_identifier() -> None:
    """PostgreSQL 14 to 16 write version 1."""
    parsed = manifest.parse(render([entry("x", b"x")], version=1))
    assert parsed.system_identifier is None
    assert parsed.wal_ranges[0].start_lsn == 0x2000028


def test_encoded_paths_and_no_checksum() -> None:
    """A name that is no UTF-8 comes in hexadecimal; algorithm NONE compares sizes only."""
    parsed = manifest.parse(render([{"Encoded-Path": "ff61", "Size": 3, "Last-Modified": "x"}]))
    (only,) = parsed.files.values()
    assert (only.path, only.algorithm, only.size) == ("\udcffa", "NONE", 3)
