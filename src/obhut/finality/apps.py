"""Django application of finality."""

from __future__ import annotations

from django.apps import AppConfig


class FinalityConfig(AppConfig):
    """Tables of observations and objects in the control database."""

    name = "obhut.finality"
    label = "finality"
    default_auto_field = "django.db.models.BigAutoField"
