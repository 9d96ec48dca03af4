"""Every version of a map that was ever used, by its hash: a restore to an older schema needs the map of that time."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from pydantic import ValidationError

from obhut.datamap.graph import map_version
from obhut.datamap.models import DatabaseMap
from obhut.foundation.errors import ObhutError

_VERSION = re.compile(r"[0-9a-f]{64}")


class MapVersionError(ObhutError):
    """A version of the data map is not in the archive, or was changed there."""

    code = "datamap-version-missing"


def archive(rules: DatabaseMap, directory: Path) -> str:
    """Keep the map of one database as ``<directory>/<version>.yaml`` and return its version; does nothing when it is there.

    Args:
        rules: the map of one database.
        directory: ``maps`` in the state directory; created when missing.
    """
    version = map_version(rules)
    target = directory / f"{version}.yaml"
    if target.exists():
        return version
    directory.mkdir(parents=True, exist_ok=True)
    # Canonical JSON is YAML, and the hash is taken over it: the file proves its own name.
    content = json.dumps(rules.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    draft = directory / f".{version}.{os.getpid()}"
    with draft.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    _sync(directory)
    return version


def archived(version: str, directory: Path) -> DatabaseMap:
    """Return a map of former times.

    Raises:
        MapVersionError: it is not in the archive, or its content does not have this hash.
    """
    path = directory / f"{version}.yaml"
    hint = "Bring the file back from the vendor's git: obhut datamap check --archive writes the version of a checked-out map."
    if not _VERSION.fullmatch(version) or not path.is_file():
        raise MapVersionError("a version of the data map is not in the archive", hint)
    try:
        rules = DatabaseMap.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError):
        raise MapVersionError(f"the archived data map {version[:12]} cannot be read", hint) from None
    if map_version(rules) != version:
        raise MapVersionError(f"the archived data map {version[:12]} was changed", hint)
    return rules


def versions(directory: Path) -> list[str]:
    """Return the versions in the archive, the newest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.suffix == ".yaml" and _VERSION.fullmatch(path.stem)]
    return [path.stem for path in sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
