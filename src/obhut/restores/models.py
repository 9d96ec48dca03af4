"""Tables of restores."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Certificate(models.Model):
    """A signed certificate of one restore; the file beside it is what is handed out."""

    id = models.CharField(primary_key=True, max_length=64)
    run = models.CharField(max_length=64, unique=True)
    database = models.CharField(max_length=63)
    issued_at = models.DateTimeField()
    holds = models.BooleanField()
    sha256 = models.CharField(max_length=64)
    document = models.JSONField()
    opened_at = models.DateTimeField(null=True)

    class Meta:
        """Asked for by database, the youngest first."""

        indexes: ClassVar = [models.Index(fields=["database", "-issued_at"], name="restores_certificate_recent")]
