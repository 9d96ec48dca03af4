"""What can be wrong with the erasure list; one class and code a finding (specification, section 10)."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError

_SPLIT_HINT = 'Nothing was changed. Run "obhut erasures verify", and see docs/spec/erasure-list.md, section 10.'


class ErasureListError(ObhutError):
    """The erasure list cannot be trusted or used; whoever needs it must stop."""

    code = "erasure-list-failed"

    def __init__(self, fact: str, hint: str | None = None) -> None:
        super().__init__(fact, hint or _SPLIT_HINT)


class ListNotOpenError(ErasureListError):
    """No erasure list was opened in this process."""

    code = "erasure-list-not-open"


class ListMissingError(ErasureListError):
    """The control database holds no list although mirror or anchor know entries."""

    code = "erasure-list-missing"


class ListGapError(ErasureListError):
    """An entry is missing in the middle."""

    code = "erasure-list-gap"


class ListReorderedError(ErasureListError):
    """An entry stands at another number than its own."""

    code = "erasure-list-reordered"


class ListTruncatedError(ErasureListError):
    """The last entries are gone while the head still counts them."""

    code = "erasure-list-truncated"


class ListTamperedError(ErasureListError):
    """An entry does not give the recorded hash or is not canonical."""

    code = "erasure-list-tampered"


class ListStateError(ErasureListError):
    """The table of tombstones does not follow from the entries."""

    code = "erasure-list-state"


class ListRolledBackError(ErasureListError):
    """The control database holds a true but older state of the list."""

    code = "erasure-list-rolled-back"


class ListBehindAnchorError(ErasureListError):
    """List and mirror both lost entries that were once acknowledged."""

    code = "erasure-list-behind-anchor"


class ListForkedError(ErasureListError):
    """Two places hold different heads of the same size."""

    code = "erasure-list-forked"


class ListSignatureError(ErasureListError):
    """A checkpoint is not signed by the list's key."""

    code = "erasure-list-signature"


class MirrorMissingError(ErasureListError):
    """The mirror is not there although entries exist."""

    code = "erasure-mirror-missing"


class MirrorDamagedError(ErasureListError):
    """A segment of the mirror is missing, incomplete or does not parse."""

    code = "erasure-mirror-damaged"


class MirrorTornError(ErasureListError):
    """The last segment of the mirror was never written to its end."""

    code = "erasure-mirror-torn"


class MirrorRolledBackError(ErasureListError):
    """The mirror holds a true but older state of the list."""

    code = "erasure-mirror-rolled-back"


class MirrorBehindError(ErasureListError):
    """The mirror lacks the latest entries, as after a crash."""

    code = "erasure-mirror-behind"


class MirrorUnwritableError(ErasureListError):
    """The mirror or the anchor cannot be written."""

    code = "erasure-mirror-unwritable"


class AnchorMissingError(ErasureListError):
    """The anchor is missing or not readable although entries exist."""

    code = "erasure-anchor-missing"


class EntryError(ErasureListError):
    """A value cannot be part of an entry."""

    code = "erasure-entry-invalid"


class TombstoneMissingError(ErasureListError):
    """There is no tombstone with this id."""

    code = "tombstone-missing"


class IllegalMoveError(ErasureListError):
    """A tombstone cannot go from its state to the wanted one."""

    code = "tombstone-move-illegal"


class CopyMayExistError(ErasureListError):
    """A copy may still hold the person, so the tombstone must stay."""

    code = "tombstone-copy-may-exist"


class UnsealError(ErasureListError):
    """A sealed private part of the mirror does not open or does not fit its commitment."""

    code = "erasure-mirror-unseal"
