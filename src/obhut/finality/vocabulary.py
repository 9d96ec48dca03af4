"""Words of finality: where traces lie, and what can be said about them."""

from __future__ import annotations

from enum import StrEnum


class Place(StrEnum):
    """Where a value may remain as bytes after its row is gone."""

    HEAP = "heap"  # tables, their TOAST, filled materialised views
    INDEX = "index"
    STATISTICS = "statistics"  # what the planner remembers, and the catalogue that holds it
    WAL = "wal"  # the server's own files; those of the archive are backups
    BACKUPS = "backups"


class TraceState(StrEnum):
    """What can be said about one place."""

    GONE = "gone"
    UNTIL = "until"  # gone by a known date without anybody's doing
    REMAINS = "remains"  # something has to be done first
    UNSEEN = "unseen"  # could not be looked at
