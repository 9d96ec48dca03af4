"""PostgreSQL backup manifests: reading one, and comparing files with it.

Own implementation of the rules documented for pg_verifybackup (PostgreSQL 14 to 18, manifest versions 1 and 2), because a verifier
that needs a working server binary is one more thing that can be missing on the day of a restore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import google_crc32c

from obhut.backups.errors import ManifestError
from obhut.foundation.lsn import lsn_number

NAME: Final = "backup_manifest"
_IGNORED: Final = frozenset({NAME, "postgresql.auto.conf", "standby.signal", "recovery.signal"})
_SIZES: Final = {"CRC32C": 8, "SHA224": 56, "SHA256": 64, "SHA384": 96, "SHA512": 128}


class Checksum(Protocol):
    """A running checksum."""

    def update(self, block: bytes | memoryview) -> None:
        """Take in the next bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the checksum as a manifest spells it."""
        ...


class Crc32c:
    """CRC-32C as PostgreSQL writes it: the four bytes of the little-endian integer in hexadecimal."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, block: bytes | memoryview) -> None:
        """Take in the next bytes."""
        self._value = google_crc32c.extend(self._value, bytes(block) if isinstance(block, memoryview) else block)

    def hexdigest(self) -> str:
        """Return the checksum as a manifest spells it."""
        return self._value.to_bytes(4, "little").hex()


def checksum(algorithm: str) -> Checksum | None:
    """Return a running checksum for the manifest's name of an algorithm; None where the manifest says NONE."""
    if algorithm == "NONE":
        return None
    if algorithm == "CRC32C":
        return Crc32c()
    return hashlib.new(algorithm.lower())


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file that the server says it sent."""

    path: str
    size: int
    algorithm: str
    checksum: str


@dataclass(frozen=True, slots=True)
class WalRange:
    """WAL that a backup needs to become consistent."""

    timeline: int
    start_lsn: int
    end_lsn: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest whose own checksum was right."""

    version: int
    system_identifier: int | None
    files: Mapping[str, ManifestFile]
    wal_ranges: tuple[WalRange, ...]
    digest: str

    @property
    def total_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def ignored(path: str) -> bool:
    """Return whether a path may be missing or extra: WAL, the manifest itself, and files that a restore writes."""
    return path in _IGNORED or path.startswith("pg_wal/")


def read(path: Path) -> Manifest:
    """Parse the manifest file.

    Raises:
        ManifestError: missing, malformed, or its own checksum does not match.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"the backup manifest cannot be read: {error.strerror}", "Is the backup complete?") from None
    return parse(content)


def parse(content: bytes) -> Manifest:
    """Parse the bytes of a manifest.

    Raises:
        ManifestError: malformed, or its own checksum does not match.
    """
    # The last line is the checksum over everything up to and with the line break before it.
    body_end = content.rstrip(b"\n").rfind(b"\n") + 1
    try:
        document: dict[str, Any] = json.loads(content, object_pairs_hook=_strict)
        digest = str(document["Manifest-Checksum"])
        version = int(document["PostgreSQL-Backup-Manifest-Version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _malformed("it is not the JSON that PostgreSQL writes") from None
    if b'"Manifest-Checksum"' not in content[body_end:] or hashlib.sha256(content[:body_end]).hexdigest() != digest:
        raise ManifestError(
            "the backup manifest does not match its own checksum", 'The base backup is damaged: take another with "obhut backup run".'
        )
    if version not in {1, 2}:
        raise _malformed(f"version {version} is unknown")
    try:
        files = _files(document["Files"])
        ranges = tuple(
            WalRange(int(item["Timeline"]), lsn_number(item["Start-LSN"]), lsn_number(item["End-LSN"])) for item in document["WAL-Ranges"]
        )
        identifier = int(document["System-Identifier"]) if version >= 2 else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _malformed("a field is missing or has the wrong type") from None
    return Manifest(version, identifier, files, ranges, digest)


def _files(items: list[dict[str, Any]]) -> dict[str, ManifestFile]:
    files: dict[str, ManifestFile] = {}
    for item in items:
        path = item["Path"] if "Path" in item else bytes.fromhex(item["Encoded-Path"]).decode("utf-8", "surrogateescape")
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise _malformed("a path leads outside the backup")
        if path in files:
            raise _malformed("a path is listed twice")
        size, algorithm = int(item["Size"]), str(item.get("Checksum-Algorithm", "NONE"))
        value = str(item.get("Checksum", "")).lower()
        if size < 0 or (algorithm != "NONE" and len(value) != _SIZES.get(algorithm, -1)):
            raise _malformed("a size or checksum has an impossible form")
        files[path] = ManifestFile(path, size, algorithm, value)
    return files


def _strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _malformed(why: str) -> ManifestError:
    return ManifestError(f"the backup manifest is malformed: {why}", 'The base backup is unusable: take another with "obhut backup run".')


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference between a manifest and the files."""

    path: str
    what: str  # missing, extra, size, checksum, system-identifier


def compare(manifest: Manifest, directory: Path) -> list[Problem]:
    """Compare a plain data directory with its manifest and return every difference, as pg_verifybackup reports them."""
    problems: list[Problem] = []
    seen: set[str] = set()
    for path in walk(directory):
        relative = path.relative_to(directory).as_posix()
        entry = manifest.files.get(relative)
        if entry is None:
            if not ignored(relative):
                problems.append(Problem(relative, "extra"))
            continue
        seen.add(relative)
        if path.stat().st_size != entry.size:
            problems.append(Problem(relative, "size"))
        elif not _matches(path, entry):
            problems.append(Problem(relative, "checksum"))
    problems.extend(Problem(path, "missing") for path in manifest.files if path not in seen and not ignored(path))
    control = directory / "global" / "pg_control"
    if manifest.system_identifier is not None and control.is_file() and control_identifier(control) != manifest.system_identifier:
        problems.append(Problem("global/pg_control", "system-identifier"))
    return problems


def control_identifier(control: Path) -> int:
    """Return the system identifier in a control file (its first eight bytes)."""
    with control.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def walk(directory: Path) -> list[Path]:
    """Return all files below the directory, sorted; links are followed only for tablespaces, as the server does."""
    found: list[Path] = []
    pending = [directory]
    while pending:
        current = pending.pop()
        for entry in sorted(current.iterdir()):
            if entry.is_symlink() and current.name != "pg_tblspc":
                found.append(entry)
            elif entry.is_dir():
                pending.append(entry)
            else:
                found.append(entry)
    return sorted(found)


def _matches(path: Path, entry: ManifestFile) -> bool:
    running = checksum(entry.algorithm)
    if running is None:
        return True
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            running.update(block)
    return running.hexdigest() == entry.checksum
