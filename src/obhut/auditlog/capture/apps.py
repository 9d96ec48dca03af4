"""Django application of capture."""

from __future__ import annotations

from django.apps import AppConfig


class CaptureConfig(AppConfig):
    """How far each protected database's stream has been read, in the control database."""

    name = "obhut.auditlog.capture"
    label = "capture"
    default_auto_field = "django.db.models.BigAutoField"
