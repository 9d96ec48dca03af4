"""The key table (docs/spec/audit-log-keys.md, sections 3 to 7).

Written by SQL in ``sql/keys.sql`` alone, for speed; the models are the schema. Triggers (migration ``0002``) keep a fence from getting a
key again and from going away, whoever connects.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from obhut.keystore.vocabulary import EpochState


class Counter(models.Model):
    """The one row: how often keys were destroyed here, which every process that holds keys watches."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    destructions = models.BigIntegerField(default=0)
    in_use = models.BooleanField(default=False)  # whether keys are handed out at all: without, an erasure has nothing to fence

    class Meta:
        """One row."""

        db_table = "keystore_counter"
        constraints: ClassVar = [models.CheckConstraint(condition=Q(id=1), name="keystore_counter_single")]


class Owner(models.Model):
    """A controller that has keys, with its wrapped lookup key."""

    number = models.AutoField(primary_key=True)
    controller = models.TextField()
    lookup = models.BinaryField()
    epoch = models.IntegerField()  # that wraps the lookup key

    class Meta:
        """One row a controller."""

        db_table = "keystore_owner"
        constraints: ClassVar = [models.UniqueConstraint(fields=["controller"], name="keystore_owner_controller")]


class Epoch(models.Model):
    """An epoch of a controller; the row stays when the key has gone."""

    pk = models.CompositePrimaryKey("controller", "number")
    controller = models.TextField()
    number = models.IntegerField()
    state = models.TextField()
    wrapped = models.BinaryField(null=True)
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    destroy_after = models.DateTimeField(null=True)
    destroyed_at = models.DateTimeField(null=True)
    final_on = models.DateTimeField(null=True)

    class Meta:
        """At most one open epoch a controller."""

        db_table = "keystore_epoch"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=[state.value for state in EpochState]), name="keystore_epoch_state"),
            models.CheckConstraint(
                condition=(Q(state="destroyed") & Q(wrapped=None, destroyed_at__isnull=False, final_on__isnull=False))
                | (~Q(state="destroyed") & Q(wrapped__isnull=False, destroyed_at=None)),
                name="keystore_epoch_destroyed",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["open", "closing"]) | Q(closed_at__isnull=False, destroy_after__isnull=False),
                name="keystore_epoch_closed",
            ),
            models.UniqueConstraint(fields=["controller"], condition=Q(state="open"), name="keystore_epoch_open"),
        ]


class Subject(models.Model):
    """A life of a data subject: its wrapped key, or the fence that is left of it."""

    pk = models.CompositePrimaryKey("owner", "fingerprint", "life")
    owner = models.IntegerField()  # number of the controller; no foreign key: a look-up a row would cost more than it finds
    fingerprint = models.BinaryField()
    life = models.SmallIntegerField()
    epoch = models.IntegerField()  # that wraps the key, or wrapped it last; 0 when there never was one
    key_id = models.BinaryField(null=True)  # null when there never was a key
    wrapped = models.BinaryField(null=True)
    began_at = models.DateTimeField(null=True)  # of later lives
    destroyed_at = models.DateTimeField(null=True)
    destruction = models.BigIntegerField(null=True)

    class Meta:
        """Found by fingerprint by writers and by key id by readers; destructions by those who hold keys."""

        db_table = "keystore_subject"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["key_id"], name="keystore_subject_key_id"),
            models.CheckConstraint(
                condition=Q(wrapped__isnull=False, key_id__isnull=False, destroyed_at=None, destruction=None)
                | Q(wrapped=None, destroyed_at__isnull=False, destruction__isnull=False),
                name="keystore_subject_state",
            ),
            models.CheckConstraint(condition=Q(life__gte=1) & (Q(life=1) | Q(began_at__isnull=False)), name="keystore_subject_life"),
        ]
        indexes: ClassVar = [
            models.Index(F("destruction"), name="keystore_subject_destroyed", condition=Q(destruction__isnull=False)),
        ]


class Holder(models.Model):
    """A process that may hold keys in memory until its lease ends."""

    id = models.TextField(primary_key=True)
    boot_id = models.TextField()
    pid = models.IntegerField()
    pid_started = models.BigIntegerField()
    lease_until = models.DateTimeField()
    seen = models.BigIntegerField()

    class Meta:
        """Few rows."""

        db_table = "keystore_holder"
