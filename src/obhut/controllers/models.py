"""Tables of controllers, contracts and instructions.

The rules stand as CHECK constraints in the database, so that no path around Django can store another word. No column takes free
text about people: references are opaque, documents are hashes, and the contract's description admits no ``@``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q

from obhut.controllers.vocabulary import DURATION, NAME, REFERENCE, SHA256, Action, Channel, InstructionKind


def _words(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word, word) for word in _words(words)]


def _check(condition: Q, name: str) -> models.CheckConstraint:
    return models.CheckConstraint(condition=condition, name=name)


class Controller(models.Model):
    """A customer of the processor: the party that decides about its people's data."""

    id = models.CharField(primary_key=True, max_length=64)
    database = models.CharField(max_length=63)
    key = models.TextField()  # value of the controller key in the protected database, canonical JSON array
    name = models.CharField(max_length=200)  # of a company
    recorded_by = models.CharField(max_length=100)
    recorded_at = models.DateTimeField()

    class Meta:
        """One row a key and database."""

        constraints: ClassVar = [
            models.UniqueConstraint(fields=["database", "key"], name="controllers_controller_key"),
            _check(Q(database__regex=NAME), "controllers_controller_database"),
            _check(Q(key__startswith="[") & Q(key__endswith="]"), "controllers_controller_canonical"),
            _check(~Q(name=""), "controllers_controller_name"),
        ]

    def __str__(self) -> str:
        return self.id


class Contract(models.Model):
    """A data processing agreement: what Art. 28(3) wants in its head, and the hash of the signed document."""

    id = models.CharField(primary_key=True, max_length=64)
    controller = models.ForeignKey(Controller, on_delete=models.PROTECT, related_name="contracts")
    version = models.CharField(max_length=64)
    subject_matter = models.CharField(max_length=500)
    nature = models.CharField(max_length=500)
    purpose = models.CharField(max_length=500)
    duration = models.CharField(max_length=40)
    data_categories = ArrayField(models.CharField(max_length=200))
    subject_categories = ArrayField(models.CharField(max_length=63))
    document_hash = models.CharField(max_length=64)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True)
    recorded_by = models.CharField(max_length=100)
    recorded_at = models.DateTimeField()

    class Meta:
        """One row a version."""

        constraints: ClassVar = [
            models.UniqueConstraint(fields=["controller", "version"], name="controllers_contract_version"),
            _check(Q(version__regex=REFERENCE), "controllers_contract_version_form"),
            _check(Q(document_hash__regex=SHA256), "controllers_contract_document"),
            _check(Q(duration__regex=DURATION), "controllers_contract_duration"),
            _check(Q(valid_until=None) | Q(valid_until__gt=F("valid_from")), "controllers_contract_validity"),
            _check(Q(data_categories__len__gt=0) & Q(subject_categories__len__gt=0), "controllers_contract_categories"),
            _check(
                ~Q(subject_matter__contains="@") & ~Q(nature__contains="@") & ~Q(purpose__contains="@"),
                "controllers_contract_no_address",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class Instruction(models.Model):
    """What a controller has told the processor to do."""

    id = models.CharField(primary_key=True, max_length=64)
    controller = models.ForeignKey(Controller, on_delete=models.PROTECT, related_name="instructions")
    contract = models.ForeignKey(Contract, on_delete=models.PROTECT, related_name="instructions")  # under which it was given
    kind = models.CharField(max_length=16, choices=_choices(InstructionKind))
    actions = ArrayField(models.CharField(max_length=32))
    database = models.CharField(max_length=63)
    subject_kind = models.CharField(max_length=63, blank=True, default="")  # "" means every kind
    subject_keys = ArrayField(models.TextField(), null=True)  # canonical keys; null means everyone
    given_by = models.CharField(max_length=64)  # opaque reference of the controller's person
    channel = models.CharField(max_length=16, choices=_choices(Channel))
    document_hash = models.CharField(max_length=64)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=100, blank=True, default="")
    used_by_run = models.CharField(max_length=64, blank=True, default="")  # the one run of a single instruction
    used_at = models.DateTimeField(null=True)
    recorded_by = models.CharField(max_length=100)
    recorded_at = models.DateTimeField()

    class Meta:
        """Found by controller and database; by key for a batch of people."""

        constraints: ClassVar = [
            _check(Q(kind__in=_words(InstructionKind)), "controllers_instruction_kind"),
            _check(Q(channel__in=_words(Channel)), "controllers_instruction_channel"),
            _check(Q(actions__contained_by=_words(Action)) & Q(actions__len__gt=0), "controllers_instruction_actions"),
            _check(Q(subject_keys=None) | (Q(subject_keys__len__gt=0) & ~Q(subject_kind="")), "controllers_instruction_subjects"),
            _check(Q(given_by__regex=REFERENCE), "controllers_instruction_given_by"),
            _check(Q(document_hash__regex=SHA256), "controllers_instruction_document"),
            _check(Q(valid_until=None) | Q(valid_until__gt=F("valid_from")), "controllers_instruction_validity"),
            _check(Q(used_by_run="", used_at=None) | Q(kind="single", used_at__isnull=False), "controllers_instruction_used"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["controller", "database"], name="controllers_instruction_scope"),
            GinIndex(fields=["subject_keys"], name="controllers_instruction_keys"),
        ]

    def __str__(self) -> str:
        return self.id


class Refusal(models.Model):
    """What the gate did not permit, so that the controller can read it."""

    id = models.CharField(primary_key=True, max_length=64)
    controller = models.CharField(max_length=64)
    database = models.CharField(max_length=63)
    action = models.CharField(max_length=32)
    reason = models.CharField(max_length=40)
    run = models.CharField(max_length=64, blank=True, default="")
    actor = models.CharField(max_length=100)
    at = models.DateTimeField()

    class Meta:
        """Found by controller and time."""

        db_table = "controllers_refusal"
        indexes: ClassVar = [models.Index(fields=["controller", "at"], name="controllers_refusal_time")]

    def __str__(self) -> str:
        return self.id
