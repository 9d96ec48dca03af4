"""Tables of retention in the control database.

A case holds a person's key as long as the person is about to be anonymised, and goes with the end of it. No address, no name, no moment of
activity is kept.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from obhut.controllers.vocabulary import NAME, REFERENCE
from obhut.retention.vocabulary import CaseState, HoldReason, SweepState

PERIOD = r"^P(\d+[YMWD])+$"


def _words(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words if word.value]


def _check(condition: Q, name: str) -> models.CheckConstraint:
    return models.CheckConstraint(condition=condition, name=name)


class Rule(models.Model):
    """What a controller has instructed about one kind of its people."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    controller = models.CharField(max_length=64)
    controller_key = models.TextField()
    subject_kind = models.CharField(max_length=63)
    instruction = models.CharField(max_length=64)
    period = models.CharField(max_length=40)
    notice = models.CharField(max_length=40, blank=True, default="")  # so long before the end of the period; "" tells nobody
    grace = models.CharField(max_length=40)  # so long after the notice at the least
    zone = models.CharField(max_length=64)
    daily_cap = models.IntegerField()
    alarm_share = models.FloatField()
    accepted_share = models.FloatField(null=True)  # a person has looked at an implausible share and found it right …
    accepted_until = models.DateTimeField(null=True)  # … for so long
    accepted_by = models.CharField(max_length=100, blank=True, default="")
    recorded_by = models.CharField(max_length=100)
    recorded_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=100, blank=True, default="")

    class Meta:
        """One rule in force a controller and kind."""

        db_table = "retention_rule"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["controller", "subject_kind"], condition=Q(revoked_at=None), name="retention_rule_in_force"),
            _check(Q(database__regex=NAME), "retention_rule_database"),
            _check(Q(period__regex=PERIOD) & Q(grace__regex=PERIOD), "retention_rule_periods"),
            _check(Q(notice="") | Q(notice__regex=PERIOD), "retention_rule_notice"),
            _check(Q(daily_cap__gt=0), "retention_rule_cap"),
            _check(Q(alarm_share__gt=0) & Q(alarm_share__lte=1), "retention_rule_share"),
        ]


class Case(models.Model):
    """A person who is about to be anonymised."""

    id = models.CharField(primary_key=True, max_length=64)
    # Indexed below; a sweep makes thousands of cases at once and pays for every index.
    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, related_name="cases", db_index=False)
    database = models.CharField(max_length=63)
    subject_kind = models.CharField(max_length=63)
    key = models.TextField()  # canonical JSON array
    state = models.CharField(max_length=16)
    attempts = models.IntegerField(default=0)
    made_at = models.DateTimeField()
    told_at = models.DateTimeField(null=True)
    reached = models.BooleanField(default=False)  # false where there was no address, or it refused for good

    class Meta:
        """One case a person."""

        db_table = "retention_case"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["database", "subject_kind", "key"], name="retention_case_person"),
            _check(Q(state__in=_words(CaseState)), "retention_case_state"),
            _check(~Q(state="told") | Q(told_at__isnull=False), "retention_case_told"),
        ]
        indexes: ClassVar = [models.Index(fields=["rule", "state", "told_at"], name="retention_case_due")]


class Part(models.Model):
    """People whom a sweep is anonymising together; gone with their transaction."""

    id = models.CharField(primary_key=True, max_length=64)
    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, related_name="parts", db_index=False)
    database = models.CharField(max_length=63)
    subject_kind = models.CharField(max_length=63)
    keys = models.TextField()  # JSON array of canonical keys
    made_at = models.DateTimeField()

    class Meta:
        """As many rows as lanes, and what a process that died has left."""

        db_table = "retention_part"


class Hold(models.Model):
    """Somebody, or all of a controller's people of a kind, who must not be anonymised for now."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    controller = models.CharField(max_length=64)
    subject_kind = models.CharField(max_length=63)
    key = models.TextField(null=True)  # noqa: DJ001 - null means everybody, and "" is no key
    reason = models.CharField(max_length=16)
    reference = models.CharField(max_length=64)  # opaque, such as a ticket
    until = models.DateTimeField(null=True)
    placed_by = models.CharField(max_length=100)
    placed_at = models.DateTimeField()
    lifted_by = models.CharField(max_length=100, blank=True, default="")
    lifted_at = models.DateTimeField(null=True)

    class Meta:
        """Few rows."""

        db_table = "retention_hold"
        constraints: ClassVar = [
            _check(Q(reason__in=_words(HoldReason)), "retention_hold_reason"),
            _check(Q(reference__regex=REFERENCE), "retention_hold_reference"),
            _check(Q(until=None) | Q(until__gt=F("placed_at")), "retention_hold_until"),
            _check(Q(lifted_at=None) | Q(key=None), "retention_hold_forgotten"),  # who it was about is forgotten with its end
        ]
        indexes: ClassVar = [models.Index(fields=["database", "subject_kind"], name="retention_hold_scope", condition=Q(lifted_at=None))]


class Sweep(models.Model):
    """What one run did by one rule, in numbers; ``rule`` is a rule's id or, for rows, the table's name."""

    id = models.BigAutoField(primary_key=True)
    run = models.CharField(max_length=64)
    database = models.CharField(max_length=63)
    rule = models.CharField(max_length=200)
    state = models.CharField(max_length=16)
    obstacle = models.CharField(max_length=32, blank=True, default="")
    error_code = models.CharField(max_length=64, blank=True, default="")
    actor = models.CharField(max_length=100)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    people = models.BigIntegerField(default=0)
    due = models.BigIntegerField(default=0)
    held = models.BigIntegerField(default=0)
    told = models.BigIntegerField(default=0)
    returned = models.BigIntegerField(default=0)
    anonymised = models.BigIntegerField(default=0)
    spared = models.BigIntegerField(default=0)
    left = models.BigIntegerField(default=0)
    rows_changed = models.BigIntegerField(default=0)

    class Meta:
        """The youngest of a rule is asked for most."""

        db_table = "retention_sweep"
        constraints: ClassVar = [_check(Q(state__in=_words(SweepState)), "retention_sweep_state")]
        indexes: ClassVar = [models.Index(fields=["database", "rule", "-started_at"], name="retention_sweep_recent")]
