"""Tables of finality in the control database: names of relations, numbers and moments; nobody's data."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q


class Observation(models.Model):
    """A look at a database that took in all erasures confirmed since the one before."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    server = models.CharField(max_length=32)  # system identifier
    taken_at = models.DateTimeField()
    first_entry = models.BigIntegerField()  # of the erasure list
    last_entry = models.BigIntegerField()
    runs = models.IntegerField()
    people = models.BigIntegerField()
    kinds = models.JSONField()  # [[subject kind, action], …]
    xid = models.BigIntegerField()  # every transaction of these erasures is older
    settled_at = models.DateTimeField(null=True)  # no snapshot is left that could still see the old rows
    final_at = models.DateTimeField(null=True)  # nothing is left anywhere

    class Meta:
        """In the order of the list."""

        db_table = "finality_observation"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(first_entry__lte=F("last_entry")), name="finality_observation_entries"),
            models.UniqueConstraint(fields=["database", "last_entry"], name="finality_observation_once"),
        ]


class Object(models.Model):
    """A file of a server as it was seen last: when it first appeared under its number, and what was done to it."""

    id = models.BigAutoField(primary_key=True)
    database = models.CharField(max_length=63)
    server = models.CharField(max_length=32)
    place = models.CharField(max_length=16)
    name = models.CharField(max_length=200)
    filenode = models.BigIntegerField()  # 0 for statistics
    since = models.DateTimeField()  # first seen so; it was built before this moment and after the look before
    since_lsn = models.CharField(max_length=20)
    cleaned_at = models.DateTimeField(null=True)  # vacuumed or analysed
    cleaned_lsn = models.CharField(max_length=20, blank=True, default="")

    class Meta:
        """One row an object."""

        db_table = "finality_object"
        constraints: ClassVar = [models.UniqueConstraint(fields=["database", "server", "place", "name"], name="finality_object_name")]
