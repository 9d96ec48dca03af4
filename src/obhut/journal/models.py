"""Tables of the journal."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from django.db import models
from django.db.models import Q

from obhut.journal.states import RunKind, RunState, StepState


def _words(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(word, word) for word in _words(words)]


class Run(models.Model):
    """One execution of a use case, by one process at a time."""

    id = models.CharField(primary_key=True, max_length=64)
    kind = models.CharField(max_length=16, choices=_choices(RunKind))
    database = models.CharField(max_length=63)
    state = models.CharField(max_length=16, choices=_choices(RunState))
    actor = models.CharField(max_length=100)
    instruction_id = models.CharField(max_length=64, blank=True, default="")
    parameters = models.JSONField(default=dict)  # opaque: ids, numbers, hashes, times
    plan_hash = models.CharField(max_length=64, blank=True, default="")
    error_code = models.CharField(max_length=64, blank=True, default="")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField()
    # The process that carries it out: a number alone may belong to another process by now.
    boot_id = models.CharField(max_length=100)
    pid = models.IntegerField()
    pid_started = models.BigIntegerField()

    class Meta:
        """The youngest runs of a database are asked for most."""

        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(kind__in=_words(RunKind)), name="journal_run_kind"),
            models.CheckConstraint(condition=Q(state__in=_words(RunState)), name="journal_run_state"),
            models.CheckConstraint(
                condition=Q(state__in=["planned", "running"], finished_at=None)
                | (~Q(state__in=["planned", "running"]) & Q(finished_at__isnull=False)),
                name="journal_run_finished",
            ),
            models.CheckConstraint(condition=~Q(state="done") | Q(error_code=""), name="journal_run_done_without_error"),
        ]
        indexes: ClassVar = [models.Index(fields=["database", "-started_at"], name="journal_run_recent")]

    def __str__(self) -> str:
        return self.id


class Step(models.Model):
    """A step of a run; repeated after a crash in the same row."""

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="steps", db_index=False)
    ordinal = models.IntegerField()
    name = models.CharField(max_length=63)
    state = models.CharField(max_length=16, choices=_choices(StepState))
    attempts = models.IntegerField(default=1)
    facts = models.JSONField(default=dict)  # numbers, hashes, ids
    error_code = models.CharField(max_length=64, blank=True, default="")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        """One row a name."""

        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run", "name"], name="journal_step_name"),
            models.CheckConstraint(condition=Q(state__in=_words(StepState)), name="journal_step_state"),
            models.CheckConstraint(
                condition=Q(state="running", finished_at=None) | (~Q(state="running") & Q(finished_at__isnull=False)),
                name="journal_step_finished",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id}.{self.name}"
