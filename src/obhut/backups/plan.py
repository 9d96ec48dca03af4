"""Decides what to take and what to remove; pure, every decision carries its reason.

Two limits that pull apart: every moment of the last ``restorable`` must be reachable, and no byte may be older than ``gone_after``. Engines
keep the newest backup that is older than their window for as long as no newer one succeeds; here the upper limit always wins.

The age of a byte counts from when the data was in the database: for a base backup from its begin (a row deleted a second later may
be in it), for a WAL segment from its last write. Bookkeeping without rows (configuration, lock files, timeline histories) has no age.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from obhut.backups.keys import span_of
from obhut.foundation.errors import SettingsError

# What must fit between the window and the limit besides the time from one full backup to the next: six hours in which one data key
# is used, one hour between two runs of expire, and five hours for a base backup to run, fail once and be repeated.
SLACK: Final = timedelta(hours=12)
MARGIN: Final = timedelta(hours=1)  # expire runs at least this often
SKEW: Final = timedelta(minutes=10)  # files may be this much younger than now


class ItemKind(StrEnum):
    """What a thing in the repository is."""

    BACKUP = "backup"  # a sealed base backup
    COPY = "copy"  # a plain base backup in the engine's hands
    WAL = "wal"  # a WAL segment, archived or not
    LEFTOVER = "leftover"  # a temporary file of a run that is over
    FILE = "file"  # anything else, known or not
    KEY = "key"  # a data key


class Copy(StrEnum):
    """State of a plain base backup."""

    RUNNING = "running"  # a live process writes it
    KILLED = "killed"  # started, and nobody writes it
    FAILED = "failed"
    COPIED = "copied"  # complete, to be verified and sealed
    EMPTIED = "emptied"  # sealed; only its manifest is left


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in the repository."""

    kind: ItemKind
    ref: str  # id of a backup, name of a segment, path below the repository, or label of a key
    born: datetime  # when its youngest data was in the database, at the latest
    archive: int = 0  # system identifier of the server
    end: datetime | None = None  # backup: when it ended
    parent: str | None = None  # backup: the link it builds on
    usable: bool = False  # backup: whole chain and WAL are there
    start: int = 0  # backup: begin position; WAL: first position
    stop: int = 0  # WAL: position behind it
    copy: Copy | None = None


class Action(StrEnum):
    """What becomes of an item."""

    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an item, and why."""

    item: Item
    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of one database's backups."""

    restorable: timedelta
    gone_after: timedelta
    full_every: timedelta
    incremental_every: timedelta

    @property
    def hard(self) -> timedelta:
        """Age at which a byte goes, whatever it is: the limit less the time until expire runs again."""
        return self.gone_after - MARGIN


@dataclass(frozen=True, slots=True)
class Plan:
    """All decisions, removals in the order in which they are to be made."""

    decisions: tuple[Decision, ...]
    warnings: tuple[str, ...]  # codes, see obhut.backups.alarms

    @property
    def removals(self) -> list[Decision]:
        """The removals, in order."""
        return [decision for decision in self.decisions if decision.action is Action.REMOVE]


def validated(rules: Rules) -> Rules:
    """Return the rules if both limits can be kept at once.

    Raises:
        SettingsError: the settings promise more than can be kept.
    """
    if rules.restorable + rules.full_every + SLACK > rules.gone_after:
        most = rules.gone_after - rules.restorable - SLACK
        hint = (
            f"Take a full backup every {_spell(most)} or more often, shorten restorable, or lengthen gone_after: a base backup is kept "
            f"until the next one is as old as restorable."
            if most > timedelta()
            else f"Leave at least {_spell(SLACK)} and the time between two full backups between restorable and gone_after."
        )
        raise SettingsError(
            f"restorable ({_spell(rules.restorable)}) and full_every ({_spell(rules.full_every)}) do not fit into gone_after "
            f"({_spell(rules.gone_after)})",
            hint,
        )
    return rules


@dataclass(frozen=True, slots=True)
class Due:
    """What kind of base backup is due, and why."""

    kind: str | None  # full, incremental or None
    reason: str


def due(backups: Iterable[Item], rules: Rules, now: datetime, *, archive: int, incrementals: bool) -> Due:
    """Return what to take now for a server.

    Args:
        backups: items of kind BACKUP.
        rules: the intervals.
        now: the current moment.
        archive: system identifier of the server as it is now.
        incrementals: whether the server can take them.
    """
    mine = [item for item in backups if item.archive == archive and item.kind is ItemKind.BACKUP and item.born <= now + SKEW]
    by_ref = {item.ref: item for item in mine}
    fulls = [item for item in mine if item.parent is None]
    if not fulls:
        return Due("full", "there is no full backup of this server")
    newest = max(fulls, key=lambda item: item.born)
    # A tenth of the interval early, so that a schedule that ticks at the same time each day does not slip a day.
    if now - newest.born >= rules.full_every - rules.full_every / 10:
        return Due("full", f"the newest full backup began {_spell(now - newest.born)} ago")
    if not incrementals:
        return Due(None, "the server cannot take incremental backups and the next full one is not due")
    youngest = max((item for item in mine if _root(item, by_ref) is not None), key=lambda item: item.born)
    if now - youngest.born >= rules.incremental_every - rules.incremental_every / 10:
        return Due("incremental", f"the newest base backup began {_spell(now - youngest.born)} ago")
    return Due(None, f"the newest base backup began {_spell(now - youngest.born)} ago")


def decide(items: Iterable[Item], rules: Rules, now: datetime) -> Plan:
    """Decide about everything in the repository.

    Removals come in the order that survives a crash: links before what they build on, base backups before the WAL that only they need,
    everything before its key. So at every instant what is left is whole.
    """
    everything = list(items)
    backups = [item for item in everything if item.kind is ItemKind.BACKUP]
    warnings: set[str] = set()
    chains = _chains(backups, rules, now, warnings)
    kept = {decision.item.ref for decision in chains if decision.action is Action.KEEP}
    decisions = [
        *chains,
        *(_copy(item, kept, rules, now) for item in everything if item.kind is ItemKind.COPY),
        *_leftovers(everything),
        *_wal(everything, [item for item in backups if item.ref in kept], rules, now),
        *(_file(item, rules, now) for item in everything if item.kind is ItemKind.FILE),
        *(_key(item, rules, now) for item in sorted(everything, key=lambda item: item.born) if item.kind is ItemKind.KEY),
    ]
    if any(item.born > now + SKEW for item in everything if item.kind is not ItemKind.KEY):
        warnings.add("clock-behind")
    return Plan(tuple(decisions), tuple(sorted(warnings)))


def _chains(backups: Sequence[Item], rules: Rules, now: datetime, warnings: set[str]) -> list[Decision]:
    by_ref = {item.ref: item for item in backups}
    window = now - rules.restorable
    covering = [item for item in backups if item.usable and item.end is not None and item.end <= window]
    anchor = max(covering, key=lambda item: (item.end or item.born, item.ref), default=None)
    anchor_root = _root(anchor, by_ref) if anchor else None
    decided: list[Decision] = []
    for item in sorted(backups, key=lambda item: (item.born, item.ref)):
        root = _root(item, by_ref)
        oldest = root or item
        if _age(oldest, now) >= rules.hard:
            which = "it is" if root is item or root is None else f"its full backup {root.ref} is"
            decided.append(Decision(item, Action.REMOVE, f"{which} older than {_spell(rules.hard)}: it goes, whatever depends on it"))
        elif root is None:
            decided.append(Decision(item, Action.KEEP, "a link of its chain is missing; it goes when it is old enough"))
        elif anchor is not None and anchor_root is not None and _before(root, anchor_root):
            decided.append(Decision(item, Action.REMOVE, f"{anchor.ref} reaches back over the whole restorable time"))
        elif anchor_root is not None and root.ref == anchor_root.ref:
            decided.append(Decision(item, Action.KEEP, "the restorable time begins in its chain"))
        else:
            decided.append(Decision(item, Action.KEEP, "it lies in the restorable time"))
    kept = [decision.item for decision in decided if decision.action is Action.KEEP]
    if backups and not any(item.usable for item in kept):
        warnings.add("nothing-restorable")
    if anchor is not None and anchor.ref not in {item.ref for item in kept}:
        warnings.add("window-short")
    removed = [decision for decision in decided if decision.action is Action.REMOVE]
    # Youngest link first: a crash in between leaves shorter chains, never one without its beginning.
    removed.sort(key=lambda decision: (_root_born(decision.item, by_ref), -decision.item.born.timestamp()))
    return [decision for decision in decided if decision.action is Action.KEEP] + removed


def _copy(item: Item, kept: set[str], rules: Rules, now: datetime) -> Decision:
    if item.copy is Copy.KILLED:
        return Decision(item, Action.REMOVE, "a killed run left it")
    if item.copy is Copy.FAILED:
        return Decision(item, Action.REMOVE, "it failed")
    # Before "it is being taken": a base backup that hangs there grows old like any other.
    if _age(item, now) >= rules.hard:
        return Decision(item, Action.REMOVE, f"it is older than {_spell(rules.hard)}")
    if item.copy is Copy.RUNNING:
        return Decision(item, Action.KEEP, "it is being taken")
    if item.copy is Copy.EMPTIED:
        if item.ref in kept:
            return Decision(item, Action.KEEP, "the manifest of a sealed base backup, for incremental ones to build on")
        return Decision(item, Action.REMOVE, "its sealed base backup is gone")
    return Decision(item, Action.KEEP, "it is complete, to be verified and sealed by the next run")


def _leftovers(items: Iterable[Item]) -> list[Decision]:
    return [Decision(item, Action.REMOVE, "an interrupted run left it") for item in items if item.kind is ItemKind.LEFTOVER]


def _wal(items: Iterable[Item], kept: Sequence[Item], rules: Rules, now: datetime) -> list[Decision]:
    needed_from: dict[int, int] = {}
    for backup in kept:
        needed_from[backup.archive] = min(backup.start, needed_from.get(backup.archive, backup.start))
    decided: list[Decision] = []
    # Oldest first, so that what is left has no hole.
    for item in sorted((item for item in items if item.kind is ItemKind.WAL), key=lambda item: (item.archive, item.start, item.ref)):
        first = needed_from.get(item.archive)
        if _age(item, now) >= rules.hard:
            decided.append(Decision(item, Action.REMOVE, f"it is older than {_spell(rules.hard)}"))
        elif first is not None and item.stop <= first:
            decided.append(Decision(item, Action.REMOVE, "no base backup needs it"))
        elif first is None:
            decided.append(Decision(item, Action.KEEP, "there is no base backup yet; it goes when it is old enough"))
        else:
            decided.append(Decision(item, Action.KEEP, "a base backup needs it"))
    return decided


def _file(item: Item, rules: Rules, now: datetime) -> Decision:
    if _age(item, now) >= rules.hard:
        return Decision(item, Action.REMOVE, f"it is older than {_spell(rules.hard)}, whatever it is")
    return Decision(item, Action.KEEP, "it is not old enough")


def _key(item: Item, rules: Rules, now: datetime) -> Decision:
    # The span begins at ``born``. Destroyed when its first byte reaches the limit, though others of the span are six hours younger:
    # the belt must not be looser than the limit, and SLACK has room for it.
    if now - item.born >= rules.gone_after:
        return Decision(item, Action.REMOVE, f"what it sealed first is older than {_spell(rules.gone_after)}")
    return Decision(item, Action.KEEP, "what it sealed is not old enough")


def _age(item: Item, now: datetime) -> timedelta:
    # From the beginning of the span of its key: it must be gone when the key goes, not be listed and unreadable.
    return now - span_of(item.born)


def _root(item: Item, by_ref: dict[str, Item]) -> Item | None:
    """Return the full backup of a chain; None when a link is missing or the chain is circular."""
    seen: set[str] = set()
    current: Item | None = item
    while current is not None and current.parent is not None and current.ref not in seen:
        seen.add(current.ref)
        current = by_ref.get(current.parent)
    return current if current is not None and current.parent is None else None


def _root_born(item: Item, by_ref: dict[str, Item]) -> datetime:
    root = _root(item, by_ref)
    return root.born if root else item.born


def _before(one: Item, other: Item) -> bool:
    return (one.end or one.born, one.ref) < (other.end or other.born, other.ref)


def _spell(span: timedelta) -> str:
    """Return a span in days, hours and minutes, as a person says it."""
    seconds = int(span.total_seconds())
    days, rest = divmod(abs(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    parts = [
        f"{number} {unit}{'s' if number != 1 else ''}"
        for number, unit in ((days, "day"), (hours, "hour"), (rest // 60, "minute"))
        if number
    ]
    return ("-" if seconds < 0 else "") + (" ".join(parts) or "0 minutes")


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)  # age of what has no readable time: it is the first to go
