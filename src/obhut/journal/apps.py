"""Django application of the journal."""

from __future__ import annotations

from django.apps import AppConfig


class JournalConfig(AppConfig):
    """Tables of runs and steps in the control database."""

    name = "obhut.journal"
    label = "journal"
    default_auto_field = "django.db.models.BigAutoField"
