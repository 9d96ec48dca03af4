"""Django application of the audit log's index."""

from __future__ import annotations

from django.apps import AppConfig


class AuditLogConfig(AppConfig):
    """Where logs, marks and the outbox have their tables."""

    name = "obhut.auditlog"
    label = "auditlog"
