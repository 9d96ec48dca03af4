"""Django application of the restores."""

from __future__ import annotations

from django.apps import AppConfig


class RestoresConfig(AppConfig):
    """Certificates of restores."""

    name = "obhut.restores"
    label = "restores"
    default_auto_field = "django.db.models.BigAutoField"
