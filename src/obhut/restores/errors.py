"""What can go wrong with a restore: one class and code for each situation that a caller can tell apart."""

from __future__ import annotations

from typing import ClassVar

from obhut.foundation.errors import ObhutError


class RestoreError(ObhutError):
    """A restore could not be carried out."""

    code: ClassVar[str] = "restore-failed"


class RestoreTargetError(RestoreError):
    """The point to restore to is not understood, or no backup and WAL lead to it."""

    code = "restore-target-invalid"


class RestoreRefusedError(RestoreError):
    """The preflight found reasons against the restore; nothing was changed."""

    code = "restore-refused"

    def __init__(self, fact: str, hint: str | None = None, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(fact, hint)
        self.reasons = reasons


class RecoveryError(RestoreError):
    """Recovery in the quarantine ended elsewhere than at the target."""

    code = "restore-recovery-missed"


class QuarantineError(RestoreError):
    """The quarantine is not the unchanging, private copy that the filter relies on."""

    code = "restore-quarantine-unusable"


class StreamError(RestoreError):
    """A stream of rows broke off; nothing of that part was committed."""

    code = "restore-stream-failed"


class SchemaLeakError(RestoreError):
    """The schema itself holds an identifier of an erased person."""

    code = "restore-schema-leak"


class NotProvedError(RestoreError):
    """The proof failed or was never made; the database stays closed."""

    code = "restore-not-proved"


class CertificateError(RestoreError):
    """A certificate is malformed or its signature does not hold."""

    code = "certificate-invalid"


class VerificationError(RestoreError):
    """The target differs from its certificate."""

    code = "certificate-differs"


class RestoreStateError(RestoreError):
    """The run is not in the state that the command needs."""

    code = "restore-state"


class TargetNotEmptyError(RestoreError):
    """The target holds something already."""

    code = "restore-target-not-empty"
