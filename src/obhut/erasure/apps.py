"""Django application of the erasure list."""

from __future__ import annotations

from django.apps import AppConfig


class ErasureConfig(AppConfig):
    """Tables of the erasure list in the control database."""

    name = "obhut.erasure"
    label = "erasure"
    default_auto_field = "django.db.models.BigAutoField"
