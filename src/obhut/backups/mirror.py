"""Copies the catalogue of the repository into the control database: what portals show, and until when a tombstone is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from obhut.backups.repository import Repository
from obhut.foundation.clock import Clock
from obhut.foundation.ids import new_id
from obhut.foundation.lsn import lsn_number
from obhut.postgres.control import Deferred, control_safe

if TYPE_CHECKING:
    from obhut.backups import models
else:
    models = Deferred("obhut.backups.models")


def refresh(repository: Repository, clock: Clock) -> None:
    """Make the rows say what the files say; a row whose files are gone stays, marked as gone."""
    now = clock.now()
    with control_safe():
        known = {(row.system_identifier, row.backup_id): row for row in models.Backup.objects.filter(database=repository.database)}
        present = set()
        for backup in repository.backups():
            key = (str(backup.system_identifier), str(backup.id))
            present.add(key)
            values = {
                "kind": backup.kind.value,
                "parent": backup.parent or "",
                "state": backup.state.value,
                "begin_time": backup.begin_time,
                "end_time": backup.end_time,
                "begin_lsn": lsn_number(backup.begin_lsn),
                "end_lsn": lsn_number(backup.end_lsn),
                "timeline": backup.timeline,
                "server_version": backup.server_version,
                "size": backup.size,
                "gone_at": None,
            }
            if key in known:
                models.Backup.objects.filter(id=known[key].id).update(**values)
            else:
                models.Backup.objects.create(
                    id=new_id("bak"), database=repository.database, system_identifier=key[0], backup_id=key[1], recorded_at=now, **values
                )
        gone = [row.id for key, row in known.items() if key not in present and row.gone_at is None]
        models.Backup.objects.filter(id__in=gone).update(state="gone", gone_at=now)
