"""What can be wrong with an audit log or with a bundle of it; one class and code a situation (specification, section 10)."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError


class AuditLogError(ObhutError):
    """The audit log cannot be written or read as it should."""

    code = "audit-log-failed"


class LogUnknownError(AuditLogError):
    """There is no log of that controller and period, or no such entry in it."""

    code = "audit-log-unknown"


class LogRolledBackError(AuditLogError):
    """The control database knows fewer entries than were published: it was restored. Nothing is signed until it has caught up."""

    code = "audit-log-rolled-back"


class LogForkedError(AuditLogError):
    """The published checkpoint is not a prefix of the log: signing would make two histories."""

    code = "audit-log-forked"


class LogDamagedError(AuditLogError):
    """A tile or an entry that the log must have is missing or does not give its hash."""

    code = "audit-log-damaged"


class LogStoreError(AuditLogError):
    """The place of the tiles cannot be read or written."""

    code = "audit-store-failed"


class EntryRefusedError(AuditLogError):
    """An entry that a log cannot take: too long, or without order."""

    code = "audit-entry-refused"


class WitnessError(AuditLogError):
    """A cosignature of no declared witness, or one that does not verify."""

    code = "audit-witness-refused"


class BundleError(AuditLogError):
    """A bundle does not prove what it says."""

    code = "audit-bundle-invalid"


class BundleIncompleteError(BundleError):
    """Not a bundle, or a file of it is missing."""

    code = "audit-bundle-incomplete"


class KeyDiffersError(BundleError):
    """The bundle was signed with another key than the one that was pinned or remembered."""

    code = "audit-key-differs"


class CheckpointSignatureError(BundleError):
    """The checkpoint is not signed by the log's key."""

    code = "audit-checkpoint-signature"


class TreeDiffersError(BundleError):
    """The leaf hashes do not give the signed root: something was changed, moved, dropped or added."""

    code = "audit-tree-differs"


class EntryAlteredError(BundleError):
    """An entry does not give its leaf hash."""

    code = "audit-entry-altered"


class EntriesReorderedError(BundleError):
    """Entries stand in each other's place."""

    code = "audit-entries-reordered"


class EntryReplayedError(BundleError):
    """An entry stands where another one belongs, or a change is logged twice."""

    code = "audit-entry-replayed"


class EntryMissingError(BundleError):
    """An index of the range has no entry."""

    code = "audit-entry-missing"


class PeriodTruncatedError(BundleError):
    """A period is shorter than what was seen of it before, or than the next period says."""

    code = "audit-period-truncated"


class BundleForkedError(BundleError):
    """The log has another history than the one that was seen before."""

    code = "audit-bundle-forked"


class PeriodMissingError(BundleError):
    """A period that must be there is not."""

    code = "audit-period-missing"


class OpeningWrongError(BundleError):
    """A log begins with another controller's or another period's opening."""

    code = "audit-opening-wrong"


class BlobSwappedError(BundleError):
    """A ciphertext that is kept beside the log does not have its hash."""

    code = "audit-blob-swapped"


class ValueAlteredError(BundleError):
    """A disclosed value does not have the digest of its entry."""

    code = "audit-value-altered"


class ReadableDiffersError(BundleError):
    """A file that is meant to be read says something else than the entries."""

    code = "audit-readable-differs"
