"""Django application of the key table."""

from __future__ import annotations

from django.apps import AppConfig


class KeystoreConfig(AppConfig):
    """Tables of wrapped sealing keys in the control database."""

    name = "obhut.keystore"
    label = "keystore"
    default_auto_field = "django.db.models.BigAutoField"
