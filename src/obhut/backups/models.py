"""Tables of backups: a mirror of what lies in the repository, for portals and for retiring tombstones; the files are the truth.

Positions are bytes from the beginning of a server's WAL. System identifiers are text: they use all 64 bits, a BIGINT has a sign.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q


class Backup(models.Model):
    """One base backup, also after it is gone."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    system_identifier = models.CharField(max_length=20)
    backup_id = models.CharField(max_length=64)  # the engine's
    kind = models.CharField(max_length=16)
    parent = models.CharField(max_length=64, blank=True, default="")
    state = models.CharField(max_length=16)  # usable, waiting, broken, gone
    begin_time = models.DateTimeField()
    end_time = models.DateTimeField()
    begin_lsn = models.BigIntegerField()
    end_lsn = models.BigIntegerField()
    timeline = models.IntegerField()
    server_version = models.IntegerField()
    size = models.BigIntegerField()
    recorded_at = models.DateTimeField()
    gone_at = models.DateTimeField(null=True)

    class Meta:
        """One row a base backup."""

        constraints: ClassVar = [
            models.UniqueConstraint(fields=["database", "system_identifier", "backup_id"], name="backups_backup_once"),
            models.CheckConstraint(condition=Q(kind__in=["full", "incremental"]), name="backups_backup_kind"),
            models.CheckConstraint(condition=Q(state__in=["usable", "waiting", "broken", "gone"]), name="backups_backup_state"),
            models.CheckConstraint(
                condition=Q(state="gone", gone_at__isnull=False) | (~Q(state="gone") & Q(gone_at=None)), name="backups_backup_gone"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["database", "-end_time"], name="backups_backup_recent")]


class Heartbeat(models.Model):
    """A commit on the protected database that exists only so that its minute can be restored to."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    system_identifier = models.CharField(max_length=20)
    timeline = models.IntegerField()
    at = models.DateTimeField()  # the server's clock just before the commit
    position = models.BigIntegerField()  # at or behind the commit record

    class Meta:
        """Looked up by time and by position."""

        indexes: ClassVar = [
            models.Index(fields=["database", "at"], name="backups_heartbeat_at"),
            models.Index(fields=["database", "system_identifier", "position"], name="backups_heartbeat_position"),
        ]


class SequenceMark(models.Model):
    """How far a sequence had been handed out when a heartbeat last looked; a restore must not hand out the same again."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    schema = models.CharField(max_length=63)
    name = models.CharField(max_length=63)
    increment = models.BigIntegerField()
    value = models.BigIntegerField()  # the furthest in the direction of the increment
    seen_at = models.DateTimeField()

    class Meta:
        """One row a sequence."""

        constraints: ClassVar = [models.UniqueConstraint(fields=["database", "schema", "name"], name="backups_sequencemark_once")]


class Alarm(models.Model):
    """A condition that needs somebody; open until a check no longer finds it."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    code = models.CharField(max_length=64)
    severity = models.CharField(max_length=16)
    raised_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    cleared_at = models.DateTimeField(null=True)

    class Meta:
        """At most one open alarm of a code and database."""

        constraints: ClassVar = [
            models.UniqueConstraint(fields=["database", "code"], condition=Q(cleared_at=None), name="backups_alarm_open_once"),
            models.CheckConstraint(condition=Q(severity__in=["warning", "critical"]), name="backups_alarm_severity"),
        ]
