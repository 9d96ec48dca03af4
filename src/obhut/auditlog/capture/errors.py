"""What can be wrong with capture; one class per situation that a caller can tell apart."""

from __future__ import annotations

from typing import ClassVar

from obhut.foundation.errors import ObhutError


class CaptureError(ObhutError):
    """Changes could not be captured."""

    code: ClassVar[str] = "audit-capture-failed"


class ServerUnsuitableError(CaptureError):
    """The server is set up so that its changes cannot be captured, or not without a danger to it."""

    code = "audit-server-unsuitable"


class NotEnabledError(CaptureError):
    """The audit log is not switched on for this database."""

    code = "audit-not-enabled"


class CaptureBusyError(CaptureError):
    """Another process reads the slot."""

    code = "audit-capture-busy"


class CaptureUnhealthyError(CaptureError):
    """The state of capture breaks the promise."""

    code = "audit-capture-unhealthy"
