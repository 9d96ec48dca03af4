"""Django application of backups."""

from __future__ import annotations

from django.apps import AppConfig


class BackupsConfig(AppConfig):
    """Tables of backups, heartbeats, sequence marks and alarms in the control database."""

    name = "obhut.backups"
    label = "backups"
    default_auto_field = "django.db.models.BigAutoField"
