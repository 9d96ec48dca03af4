"""Tables of the erasure list.

Written by SQL in :mod:`obhut.erasure.store` alone, for speed; the models are the schema and serve reading. Triggers (migration
``0001``) refuse to change or remove an entry and allow a tombstone only its legal moves, whoever connects.
"""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class Head(models.Model):
    """Name, size and last hash of the list; the one row is the lock of its writers."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    origin = models.TextField()
    size = models.BigIntegerField()
    hash = models.BinaryField()

    class Meta:
        """One row."""

        db_table = "erasure_head"
        constraints: ClassVar = [models.CheckConstraint(condition=Q(id=1), name="erasure_head_single")]


class Entry(models.Model):
    """An entry: its number, canonical text and the head after it. Never changed, never removed."""

    seq = models.BigIntegerField(primary_key=True)
    body = models.TextField()
    hash = models.BinaryField()

    class Meta:
        """Append-only by trigger."""

        db_table = "erasure_entry"


class Tombstone(models.Model):
    """Current state of a tombstone, with the private part as long as it may be known. Follows from the entries; verification proves it."""

    seq = models.BigIntegerField(primary_key=True)
    identifier = models.TextField(db_column="id")
    database = models.TextField()
    controller = models.TextField()
    subject_kind = models.TextField()
    key = ArrayField(models.TextField(), null=True)
    fingerprint = models.TextField(null=True)  # noqa: DJ001 - null means forgotten, empty means the map declares none
    salt = models.BinaryField(null=True)
    action = models.TextField()
    map_version = models.TextField()
    instruction = models.TextField()
    epoch = models.IntegerField()
    erased_at = models.DateTimeField()
    state = models.TextField()
    sealed_under = models.TextField()
    effective_at = models.DateTimeField(null=True)

    class Meta:
        """Ordered reading by database and kind serves the restore; the key index serves idempotent recording."""

        db_table = "erasure_tombstone"
        constraints: ClassVar = [
            # A constraint and not unique=True, which would add a second index for LIKE.
            models.UniqueConstraint(fields=["identifier"], name="erasure_tombstone_identifier"),
            models.CheckConstraint(condition=Q(state__in=["recorded", "effective", "lifted", "retired"]), name="erasure_tombstone_state"),
            models.CheckConstraint(
                condition=Q(state__in=["recorded", "effective"]) | Q(key=None, fingerprint=None, salt=None),
                name="erasure_tombstone_forgotten",
            ),
        ]
        indexes: ClassVar = [
            models.Index("database", "subject_kind", "seq", name="erasure_tombstone_list"),
            models.Index("database", "subject_kind", "key", name="erasure_tombstone_key"),
            models.Index("sealed_under", name="erasure_tombstone_label", condition=Q(key__isnull=False)),
        ]


class Epoch(models.Model):
    """A restore epoch."""

    seq = models.BigIntegerField(primary_key=True)
    database = models.TextField()
    number = models.IntegerField()
    run = models.TextField()
    system_identifier = models.TextField()
    timeline = models.IntegerField()
    opened_at = models.DateTimeField()

    class Meta:
        """One row a database and number."""

        db_table = "erasure_epoch"
        constraints: ClassVar = [models.UniqueConstraint(fields=["database", "number"], name="erasure_epoch_number")]


class Resolution(models.Model):
    """A settled conflict of fingerprints; the fingerprint goes with the tombstone's private part."""

    seq = models.BigIntegerField(primary_key=True)
    tombstone = models.ForeignKey(Tombstone, on_delete=models.PROTECT, db_column="tombstone", db_constraint=False)
    decision = models.TextField()
    found = models.TextField(null=True)  # noqa: DJ001 - null means forgotten
    salt = models.BinaryField(null=True)

    class Meta:
        """Few rows."""

        db_table = "erasure_resolution"


class Access(models.Model):
    """A look at the private part of a tombstone by a named actor."""

    id = models.TextField(primary_key=True)
    tombstone = models.ForeignKey(Tombstone, on_delete=models.PROTECT, db_column="tombstone", db_constraint=False)
    actor = models.TextField()
    purpose = models.TextField()
    at = models.DateTimeField()

    class Meta:
        """Append-only by trigger."""

        db_table = "erasure_access"


class Canary(models.Model):
    """A synthetic person that was planted; its key and token belong to nobody."""

    id = models.TextField(primary_key=True)
    database = models.TextField()
    subject_kind = models.TextField()
    key = ArrayField(models.TextField())
    fingerprint = models.TextField()
    controller = models.TextField()
    token = models.TextField()
    planted_at = models.DateTimeField()
    tombstone = models.BigIntegerField(null=True)  # null while it lives, 0 when it never came to be

    class Meta:
        """Few rows."""

        db_table = "erasure_canary"
        indexes: ClassVar = [models.Index("database", "planted_at", name="erasure_canary_database")]
