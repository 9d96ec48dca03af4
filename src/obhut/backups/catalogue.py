"""The record of one sealed base backup: ``sealed/<id>/catalogue.json``, authenticated by an HMAC.

The record, not a table, is the truth: a restore must work when the control database is gone. It holds positions, times, sizes and
checksums of the engine's files; nothing of their contents.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from obhut.backups import keys as key_lending
from obhut.backups.errors import SealBrokenError
from obhut.backups.layout import fsync_directory, fsync_path
from obhut.foundation.clock import stamp
from obhut.foundation.ids import BackupId, Lsn

NAME: Final = "catalogue.json"
FORMAT: Final = "obhut base backup 1"


class BackupKind(StrEnum):
    """Whether a base backup stands alone."""

    FULL = "full"
    INCREMENTAL = "incremental"


class BackupState(StrEnum):
    """Whether a sealed base backup can be restored, judged by the files that are there."""

    USABLE = "usable"
    WAITING = "waiting"  # WAL up to its end has not arrived
    BROKEN = "broken"  # a link of its chain, or WAL it needs, is missing


@dataclass(frozen=True, slots=True)
class Backup:
    """One sealed base backup.

    Times are UTC; ``begin_time`` is also the age of its bytes, since a row that was deleted afterwards may be in it.
    """

    id: BackupId
    database: str
    kind: BackupKind
    parent: BackupId | None
    begin_time: datetime
    end_time: datetime
    begin_lsn: Lsn
    end_lsn: Lsn
    timeline: int
    system_identifier: int
    server_version: int  # such as 180006
    wal_segment_size: int  # bytes
    size: int  # bytes of its files in plain
    files: int
    manifest_digest: str  # SHA-256 that the server's manifest carries
    label: str  # of the data key
    tablespaces: tuple[int, ...]  # oids; their files lie under pg_tblspc/<oid>
    directories: tuple[str, ...]  # all of them, the empty ones too
    state: BackupState = BackupState.USABLE

    @property
    def major(self) -> int:
        """Major version of the server."""
        return self.server_version // 10_000


def write(backup: Backup, directory: Path, keys: key_lending.DataKeys) -> None:
    """Write the record durably."""
    body = json.dumps(_document(backup), sort_keys=True, indent=1)
    record = json.dumps({"body": body, "mac": key_lending.mac(keys, body.encode())})
    temporary = directory / f".{NAME}.tmp"
    temporary.write_text(record, encoding="utf-8")
    fsync_path(temporary)
    temporary.rename(directory / NAME)
    fsync_directory(directory)


def read(directory: Path, keys: key_lending.DataKeys) -> Backup:
    """Read and authenticate the record.

    Raises:
        SealBrokenError: missing, malformed or not written by the holder of this key store.
    """
    try:
        record = json.loads((directory / NAME).read_text(encoding="utf-8"))
        body, found = str(record["body"]), str(record["mac"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SealBrokenError(
            f"the record of base backup {directory.name} cannot be read", "Was the repository copied completely?"
        ) from None
    if not hmac.compare_digest(key_lending.mac(keys, body.encode()), found):
        raise SealBrokenError(
            f"the record of base backup {directory.name} was changed, or another key store wrote it",
            "Does the setting keystore.directory name the key store of this repository?",
        )
    backup = _backup(json.loads(body))
    if backup.id != directory.name:
        raise SealBrokenError(f"the record of base backup {directory.name} belongs to another one", "Was the repository edited by hand?")
    return backup


def _document(backup: Backup) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": backup.id,
        "database": backup.database,
        "kind": backup.kind.value,
        "parent": backup.parent,
        "begin_time": stamp(backup.begin_time),
        "end_time": stamp(backup.end_time),
        "begin_lsn": backup.begin_lsn,
        "end_lsn": backup.end_lsn,
        "timeline": backup.timeline,
        "system_identifier": str(backup.system_identifier),
        "server_version": backup.server_version,
        "wal_segment_size": backup.wal_segment_size,
        "size": backup.size,
        "files": backup.files,
        "manifest_digest": backup.manifest_digest,
        "label": backup.label,
        "tablespaces": list(backup.tablespaces),
        "directories": list(backup.directories),
    }


def _backup(document: dict[str, Any]) -> Backup:
    if document.get("format") != FORMAT:
        raise SealBrokenError("the record of a base backup has an unknown format", "Did a newer Obhut write it?")
    return Backup(
        id=BackupId(document["id"]),
        database=document["database"],
        kind=BackupKind(document["kind"]),
        parent=BackupId(document["parent"]) if document["parent"] else None,
        begin_time=datetime.fromisoformat(document["begin_time"]),
        end_time=datetime.fromisoformat(document["end_time"]),
        begin_lsn=Lsn(document["begin_lsn"]),
        end_lsn=Lsn(document["end_lsn"]),
        timeline=document["timeline"],
        system_identifier=int(document["system_identifier"]),
        server_version=document["server_version"],
        wal_segment_size=document["wal_segment_size"],
        size=document["size"],
        files=document["files"],
        manifest_digest=document["manifest_digest"],
        label=document["label"],
        tablespaces=tuple(document["tablespaces"]),
        directories=tuple(document["directories"]),
    )
