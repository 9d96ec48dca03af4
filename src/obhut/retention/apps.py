"""Django application of retention."""

from __future__ import annotations

from django.apps import AppConfig


class RetentionConfig(AppConfig):
    """Tables of rules, cases, holds and sweeps in the control database."""

    name = "obhut.retention"
    label = "retention"
    default_auto_field = "django.db.models.BigAutoField"
