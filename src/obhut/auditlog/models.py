"""Tables of the audit log in the control database: heads of logs, how far sources were read, names, and the outbox of Obhut's own acts.

The index of entries is no model: it is partitioned, filled by COPY, and asked by the statements in ``sql/index.sql``. No column holds a
personal value: subjects are the random ids of their keys.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Log(models.Model):
    """One controller's log of one month: the truth about its size and root."""

    id = models.AutoField(primary_key=True)
    controller = models.CharField(max_length=64)
    period = models.CharField(max_length=7)
    origin = models.CharField(max_length=64, unique=True)
    size = models.BigIntegerField()
    root = models.BinaryField(max_length=32)
    tail = models.BigIntegerField()  # octets of the last, unfinished bundle of entries that belong to the log
    opened_at = models.DateTimeField()
    grown_at = models.DateTimeField()
    removed_at = models.DateTimeField(null=True)  # entries, tiles and blobs are gone; the checkpoint stays
    checkpoint = models.TextField(blank=True, default="")  # the last one with cosignatures, or the last one of a removed log

    class Meta:
        """One log a controller and period."""

        db_table = "auditlog_log"
        constraints: ClassVar = [models.UniqueConstraint(fields=["controller", "period"], name="auditlog_log_period")]

    def __str__(self) -> str:
        return self.origin


class Mark(models.Model):
    """How far a source was read: positions at or below it are in the logs."""

    id = models.AutoField(primary_key=True)
    database = models.CharField(max_length=63)
    source = models.CharField(max_length=100)
    system = models.CharField(max_length=32)
    timeline = models.BigIntegerField()
    lsn = models.CharField(max_length=20)
    ordinal = models.BigIntegerField()
    at = models.DateTimeField()

    class Meta:
        """One mark a source."""

        db_table = "auditlog_mark"
        constraints: ClassVar = [models.UniqueConstraint(fields=["database", "source"], name="auditlog_mark_source")]

    def __str__(self) -> str:
        return f"{self.database}/{self.source}"


class Topic(models.Model):
    """What an entry is about, as one number in the index."""

    id = models.AutoField(primary_key=True)
    database = models.CharField(max_length=63)
    relation = models.CharField(max_length=130)
    kind = models.CharField(max_length=16)
    operation = models.CharField(max_length=64)

    class Meta:
        """One number a topic."""

        db_table = "auditlog_topic"
        constraints: ClassVar = [models.UniqueConstraint(fields=["database", "relation", "kind", "operation"], name="auditlog_topic_name")]

    def __str__(self) -> str:
        return str(self.pk)


class Act(models.Model):
    """Something Obhut did, written in the transaction that did it, until it is an entry of the logs it concerns."""

    id = models.BigAutoField(primary_key=True)
    controller = models.CharField(max_length=64, null=True)  # noqa: DJ001 - null means every controller of the database
    database = models.CharField(max_length=63)
    at = models.DateTimeField()
    name = models.CharField(max_length=64)
    detail = models.JSONField()

    class Meta:
        """Taken in the order of their numbers."""

        db_table = "auditlog_act"

    def __str__(self) -> str:
        return str(self.pk)


class Witness(models.Model):
    """A public key whose cosignatures are accepted."""

    id = models.AutoField(primary_key=True)
    controller = models.CharField(max_length=64)
    key = models.TextField()  # a verifier key, name+id+base64
    declared_by = models.CharField(max_length=100)
    declared_at = models.DateTimeField()

    class Meta:
        """One row a key and controller."""

        db_table = "auditlog_witness"
        constraints: ClassVar = [models.UniqueConstraint(fields=["controller", "key"], name="auditlog_witness_key")]

    def __str__(self) -> str:
        return str(self.pk)


class Retention(models.Model):
    """How long a controller's logs are kept, where it is not the default of the settings."""

    controller = models.CharField(primary_key=True, max_length=64)
    days = models.IntegerField()
    set_by = models.CharField(max_length=100)
    set_at = models.DateTimeField()

    class Meta:
        """Few rows."""

        db_table = "auditlog_retention"
        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(days__gte=1), name="auditlog_retention_days")]

    def __str__(self) -> str:
        return self.controller
