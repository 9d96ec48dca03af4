"""Decisions of a restore, with their reasons. Pure: no database, no files, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from obhut.foundation.clock import stamp
from obhut.restores.errors import RestoreTargetError

_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")  # what pg_create_restore_point takes, without what could be a value
_FORMS = "a time with zone (2026-03-01T09:00:00Z), an LSN (0/3000148), name:<restore point> or latest"


class Form(StrEnum):
    """How the point in time is named."""

    TIME = "time"
    LSN = "lsn"
    NAME = "name"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class RecoveryTarget:
    """The point to restore to. ``latest`` is a wish; before recovery it is resolved to an LSN."""

    form: Form
    time: datetime | None = None
    lsn: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        """Return the target as it is given on the command line."""
        if self.time is not None and self.form is Form.TIME:
            return stamp(self.time)
        return self.lsn or (f"name:{self.name}" if self.name else "latest")

    def settings(self) -> dict[str, str]:
        """Return the server's recovery target settings; exactly one, never none.

        Raises:
            RestoreTargetError: ``latest`` was not resolved. Recovery without a target would end quietly at the first damaged segment.
        """
        if self.form is Form.TIME and self.time is not None:
            return {"recovery_target_time": self.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")}
        if self.form is Form.LSN and self.lsn is not None:
            return {"recovery_target_lsn": self.lsn}
        if self.form is Form.NAME and self.name is not None:
            return {"recovery_target_name": self.name}
        raise RestoreTargetError("the point to restore to is not resolved", "A programming error: latest has to become an LSN first.")


def parse_target(given: str) -> RecoveryTarget:
    """Return the point that a person named.

    Raises:
        RestoreTargetError: none of the four forms, or a time without its zone.
    """
    text = given.strip()
    if text == "latest":
        return RecoveryTarget(Form.LATEST)
    if _LSN.fullmatch(text):
        return RecoveryTarget(Form.LSN, lsn=text.upper())
    if text.startswith("name:"):
        if not _NAME.fullmatch(text[5:]):
            raise RestoreTargetError("the name of the restore point has characters that none can have", f"Give {_FORMS}.")
        return RecoveryTarget(Form.NAME, name=text[5:])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RestoreTargetError("the point to restore to is not understood", f"Give {_FORMS}.") from None
    if moment.tzinfo is None:
        raise RestoreTargetError("the time to restore to has no zone", "Append Z for UTC or an offset: 2026-03-01T09:00:00Z.")
    return RecoveryTarget(Form.TIME, time=moment.astimezone(UTC))


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason against the restore: a stable code, the fact, and what to do."""

    code: str
    fact: str
    todo: str


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """What the backups and this machine say before anything is opened."""

    target: RecoveryTarget
    chain: int  # links
    chain_missing: bool
    wal_hole: str | None  # first missing segment, in words
    wal_reaches: bool
    major: int
    programs: bool  # the programs of that major version are there
    needed_bytes: int
    free_bytes: int
    list_error: str | None
    instruction_error: str | None
    target_empty: bool = True


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What the recovered database itself says."""

    prepared_transactions: int
    missing_extensions: tuple[str, ...] = ()
    other_extensions: tuple[tuple[str, str, str], ...] = ()  # name, version at the source, version at a given target
    missing_collations: tuple[str, ...] = ()
    map_findings: tuple[str, ...] = ()
    unknown_tables: tuple[str, ...] = ()  # findings about tables and columns that the map lacks
    large_objects: int = 0
    large_objects_mapped: bool = False
    reads_everything: bool = True
    foreign_tables: tuple[str, ...] = ()
    unlogged_tables: tuple[str, ...] = ()
    tablespaces: tuple[str, ...] = ()
    subscriptions: int = 0
    publications: int = 0
    event_triggers: int = 0
    inheritance: tuple[str, ...] = ()
    conflicts: int = 0
    collation_changes: tuple[str, ...] = ()
    extension_tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the restore may go on; notes are for the report."""

    refusals: tuple[Reason, ...]
    notes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.refusals


def judge_repository(facts: RepositoryFacts) -> Decision:
    """Decide from the repository, the machine and the erasure list."""
    found: list[Reason] = []
    if facts.chain_missing:
        found.append(Reason("backup-chain-broken", "a link of the chain of base backups is missing", 'Run "obhut backup check".'))
    if facts.wal_hole:
        found.append(Reason("wal-gap", f"the WAL has a hole before the target: {facts.wal_hole}", "Choose a target before the hole."))
    if not facts.wal_reaches:
        fact = f"no WAL reaches {facts.target}"
        found.append(Reason("restore-target-unreachable", fact, 'Choose an earlier point, or "latest" for the last one there is.'))
    if not facts.programs:
        fact = f"there are no programs of PostgreSQL {facts.major}, the version of the backup"
        found.append(Reason("component-missing", fact, f"Name their directory in the setting postgres.binaries.{facts.major}."))
    if facts.free_bytes < facts.needed_bytes:
        fact = f"the restore needs about {facts.needed_bytes >> 20} MiB and {facts.free_bytes >> 20} MiB are free"
        found.append(Reason("disk-space", fact, "Make room, or put the state directory on a larger volume."))
    if facts.list_error:
        found.append(Reason("erasure-list-failed", facts.list_error, 'Run "obhut erasures verify".'))
    if facts.instruction_error:
        found.append(Reason("not-instructed", facts.instruction_error, 'See "obhut instructions list".'))
    if not facts.target_empty:
        found.append(
            Reason("restore-target-not-empty", "the target holds something already", "Give an empty database or another directory.")
        )
    return Decision(tuple(found))


def judge_database(facts: DatabaseFacts) -> Decision:
    """Decide from the recovered database: whatever could bring a person back unseen, or lose a row unseen, refuses."""
    found: list[Reason] = []
    if facts.prepared_transactions:
        fact = f"{facts.prepared_transactions} prepared transactions were open at the target"
        found.append(
            Reason("prepared-transactions", fact, "They may hold anybody's rows. Restore to a point before they were prepared or after.")
        )
    if not facts.reads_everything:
        found.append(Reason("reader-limited", "the reading role is neither superuser nor exempt from row security", "Give it BYPASSRLS."))
    for name in facts.missing_extensions:
        found.append(Reason("extension-missing", f"extension {name} is not available for the target", "Install it for this PostgreSQL."))
    for name, mine, theirs in facts.other_extensions:
        fact = f"extension {name} has version {mine} at the source and would have {theirs} at the target"
        found.append(Reason("extension-version", fact, "Give a server with that version, or restore without --target."))
    for name in facts.missing_collations:
        found.append(Reason("collation-missing", f"collation {name} does not exist on this machine", "Install its locale or ICU."))
    for text in facts.map_findings:
        found.append(Reason("datamap-invalid", f"the data map does not fit the schema at the target: {text}", "Use the map of that time."))
    for text in facts.unknown_tables:
        found.append(
            Reason(
                "datamap-table-unknown",
                f"the data map does not know all of the schema: {text}",
                "Classify it, even if only for this restore.",
            )
        )
    if facts.large_objects and not facts.large_objects_mapped:
        fact = f"there are {facts.large_objects} large objects and the data map does not say which columns name them"
        found.append(Reason("large-objects-unmapped", fact, "Give the columns that hold their oids the category and links they need."))
    if facts.conflicts:
        fact = f"{facts.conflicts} tombstones meet a row with another fingerprint"
        found.append(Reason("tombstone-conflict", fact, 'Settle them: "obhut erasures resolve".'))
    return Decision(tuple(found), tuple(_notes(facts)))


def _notes(facts: DatabaseFacts) -> Iterable[str]:
    if facts.unlogged_tables:
        yield f"unlogged tables are empty after any recovery: {', '.join(facts.unlogged_tables)}"
    if facts.foreign_tables:
        yield f"foreign tables are restored as definitions only: {', '.join(facts.foreign_tables)}"
    if facts.extension_tables:
        yield f"rows of tables that configure an extension are not carried over: {', '.join(facts.extension_tables)}"
    if facts.tablespaces:
        yield f"tablespaces are not kept; everything lies in the default one: {', '.join(facts.tablespaces)}"
    if facts.subscriptions:
        yield f"{facts.subscriptions} subscriptions are created disabled and without a connection"
    if facts.publications:
        yield f"{facts.publications} publications remain; replication slots do not, subscribers must synchronise again"
    if facts.event_triggers:
        yield f"{facts.event_triggers} event triggers are created last"
    if facts.collation_changes:
        yield f"collation versions differ from those recorded; indexes are built anew: {', '.join(facts.collation_changes)}"


# -- parts ------------------------------------------------------------------------------------------------------------------------

DOOMED_IN_A_PART = 100_000  # row addresses in one range: about 1.3 MB of a statement's text
SMALLEST_CUT = 32_768  # blocks: 256 MiB


@dataclass(frozen=True, slots=True)
class Range:
    """Blocks ``first`` (inclusive) to ``last`` (exclusive, None: to the end of the table)."""

    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """A unit of work: ranges of one table, committed in one transaction, recorded under its name."""

    name: str
    oid: int
    ranges: tuple[Range, ...]
    alone: bool  # the only part of its table, so it can truncate and freeze
    weight: int = field(default=0)  # blocks


def split(
    tables: Sequence[tuple[int, str, int]],
    edges: Mapping[int, Sequence[int]],
    *,
    workers: int,
    smallest: int = SMALLEST_CUT,
) -> list[Part]:
    """Cut the load into parts, heaviest first.

    A table that is more than its share of all blocks is cut into parts for several workers; a part with very many filtered rows is cut
    into ranges, each a branch of the same statement, so that no array of addresses grows too long.

    Args:
        tables: oid, name and number of blocks.
        edges: block numbers at which a table is to be cut into ranges, ascending (see :data:`DOOMED_IN_A_PART`).
        workers: streams side by side.
        smallest: blocks below which a table is never cut between workers.
    """
    total = sum(blocks for _, _, blocks in tables)
    share = max(smallest, -(-total // max(1, workers)))
    parts: list[Part] = []
    for oid, name, blocks in tables:
        # Cutting costs the WAL that an uncut table can do without, so only a table that would keep the others waiting is cut.
        pieces = min(workers, -(-blocks // share)) if blocks > share * 1.2 else 1
        starts = [blocks * index // pieces for index in range(pieces)]
        for index, first in enumerate(starts):
            last = starts[index + 1] if index + 1 < pieces else None
            inside = [edge for edge in edges.get(oid, ()) if edge > first and (last is None or edge < last)]
            borders = [first, *inside]
            ranges = tuple(Range(low, high) for low, high in zip(borders, [*borders[1:], last], strict=True))
            parts.append(Part(f"{name}#{index}" if pieces > 1 else name, oid, ranges, pieces == 1, max(1, blocks // pieces)))
    return sorted(parts, key=lambda part: -part.weight)


# -- sequences --------------------------------------------------------------------------------------------------------------------


def next_value(increment: int, minimum: int, maximum: int, values: Iterable[int | None]) -> int | None:
    """Return the value that a sequence must have handed out last, so that none of ``values`` is handed out again.

    None when nothing was ever handed out. A descending sequence goes below the lowest. Never beyond the sequence's bounds.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return min(maximum, max(known)) if increment > 0 else max(minimum, min(known))
