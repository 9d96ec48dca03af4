"""Django application of controllers, contracts and instructions."""

from __future__ import annotations

from django.apps import AppConfig


class ControllersConfig(AppConfig):
    """Tables of controllers, contracts and instructions in the control database."""

    name = "obhut.controllers"
    label = "controllers"
    default_auto_field = "django.db.models.BigAutoField"
