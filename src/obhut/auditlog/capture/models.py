"""Table of capture: one row a protected database. The log's own high-water mark decides what is skipped; this row notices what is missing.

System identifiers are text: they use all 64 bits, a BIGINT has a sign. Positions are bytes from the beginning of a server's WAL.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q


class Capture(models.Model):
    """Capture of one database, while it is on."""

    database = models.CharField(primary_key=True, max_length=63)
    slot = models.CharField(max_length=63)
    publication = models.CharField(max_length=63)
    system_identifier = models.CharField(max_length=20)
    timeline = models.IntegerField()
    database_oid = models.BigIntegerField()  # on that server, where another database may take over the name
    acknowledged = models.BigIntegerField()  # written before the server is told, so the slot can never be further by our doing
    pending = models.CharField(max_length=40, blank=True, default="")  # reason and cause of a gap whose entry is not written yet
    observed = models.JSONField(default=dict)  # how the captured tables stood when they were last looked at
    looking = models.JSONField(default=dict)  # a look whose findings are being logged: its number, and how the tables stood
    enabled_at = models.DateTimeField()
    enabled_by = models.CharField(max_length=100)
    heard_at = models.DateTimeField(null=True)  # commit time of the last transaction that was read
    changes = models.BigIntegerField(default=0)
    unassigned = models.BigIntegerField(default=0)
    gaps = models.BigIntegerField(default=0)

    class Meta:
        """Names that need no quoting."""

        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(slot__regex="^[a-z0-9_]+$"), name="capture_capture_slot"),
            models.CheckConstraint(condition=Q(acknowledged__gte=0), name="capture_capture_position"),
        ]

    def __str__(self) -> str:
        return self.database
