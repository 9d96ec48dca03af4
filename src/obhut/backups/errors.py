"""What can be wrong with a backup, a WAL archive or their schedule; one class per situation that a caller can tell apart."""

from __future__ import annotations

from typing import ClassVar

from obhut.foundation.errors import ObhutError


class BackupError(ObhutError):
    """A backup could not be taken, read or removed."""

    code: ClassVar[str] = "backup-failed"


class EngineError(BackupError):
    """The backup engine's program failed."""

    code = "backup-engine-failed"


class BackupBusyError(BackupError):
    """Another process of Obhut is working on the same repository."""

    code = "backup-busy"


class NoBackupError(BackupError):
    """No usable backup exists for what was asked."""

    code = "backup-none"


class BrokenChainError(BackupError):
    """A link of a chain of incremental backups is missing."""

    code = "backup-chain-broken"


class ManifestError(BackupError):
    """A backup manifest is missing, malformed or not what its own checksum says."""

    code = "backup-manifest-invalid"


class TamperedBackupError(BackupError):
    """A file of a base backup is missing, foreign, truncated or changed."""

    code = "backup-tampered"


class SealBrokenError(BackupError):
    """A sealed file cannot be opened: changed, truncated or sealed for another place."""

    code = "backup-seal-broken"


class KeyGoneError(BackupError):
    """The data key of a backup day has been destroyed or was never there."""

    code = "backup-key-gone"


class WalError(BackupError):
    """A WAL segment is not what its name says."""

    code = "wal-invalid"


class WalConflictError(WalError):
    """Two different files claim to be the same WAL segment."""

    code = "wal-conflict"
