"""Words of the key table."""

from __future__ import annotations

from enum import StrEnum


class EpochState(StrEnum):
    """Life of an epoch; no way back."""

    OPEN = "open"  # everything is wrapped under it now
    CLOSING = "closing"  # survivors are being wrapped anew
    CLOSED = "closed"  # wraps nothing alive; its key goes after destroy_after
    DESTROYED = "destroyed"  # its key is destroyed; final on a date
