"""Why retention does not act."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError


class RetentionError(ObhutError):
    """Retention refuses; nobody was anonymised."""

    code = "retention-refused"


class RuleInvalidError(RetentionError):
    """A retention rule cannot be recorded as asked."""

    code = "retention-rule-invalid"


class RuleUnknownError(RetentionError):
    """There is no retention rule with that id."""

    code = "retention-rule-unknown"


class HoldInvalidError(RetentionError):
    """A hold cannot be recorded, or there is none with that id."""

    code = "retention-hold-invalid"


class SweepBusyError(RetentionError):
    """Another process sweeps the same database."""

    code = "retention-busy"


class NoticeFailedError(RetentionError):
    """Notices could not be handed over; whom they were for is not anonymised."""

    code = "retention-notice-failed"
