"""What can be said about the traces of erasures, as values. Pure: facts in, judgement out.

The rule behind it: a file that was built after no snapshot could see the old rows any more was built from living rows only. So a heap or
an index is clean once its file number has changed since the observation was settled, whoever changed it and whatever happens in it later.
Nothing else is believed: a plain VACUUM leaves most of the bytes where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from obhut.finality.objects import CATALOGUE, File
from obhut.finality.vocabulary import Place, TraceState


@dataclass(frozen=True, slots=True)
class Seen:
    """An observation: erasures confirmed up to it. ``settled_at``: when no snapshot could see the old rows any more."""

    id: str
    server: str
    taken_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one object: since when it has its file, and when it was vacuumed or analysed last, with WAL positions."""

    since: datetime
    since_lsn: int
    cleaned_at: datetime | None
    cleaned_lsn: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the judgement needs besides the objects.

    Attributes:
        server: system identifier of the server as it is now.
        replaced_at: when another server took the place of the one observed, if one did.
        oldest_wal: address of the oldest page in the server's WAL files; None when it may not be read.
        copies_since: the oldest copy in the backup repository; None when there is none, or when it cannot be told.
        backups_known: whether the repository could be listed in full.
        backups_gone: so long after it was made every byte of a backup is gone.
        window: the next time at which tables may be rewritten, if there is one.
    """

    server: str
    replaced_at: datetime | None
    oldest_wal: int | None
    copies_since: datetime | None
    backups_known: bool
    backups_gone: timedelta
    window: datetime | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What can be said about one place of one observation.

    Attributes:
        when: since when it is gone, or by when it will be; None where no date can be given.
        objects: those in which something may remain.
        why: in words without values; "" when it is gone.
    """

    place: Place
    state: TraceState
    when: datetime | None
    objects: tuple[str, ...]
    why: str


def judge(seen: Seen, files: Sequence[File], known: Mapping[tuple[Place, str], Known], around: Surroundings) -> tuple[Trace, ...]:
    """Return one trace a place."""
    if seen.server != around.server:
        gone = around.replaced_at
        here = [Trace(place, TraceState.GONE, gone, (), "") for place in (Place.HEAP, Place.INDEX, Place.STATISTICS, Place.WAL)]
        return (*here, _backups(gone, around))
    if seen.settled_at is None:
        why = "an older snapshot, transaction or replication slot still holds the old rows"
        waiting = [Trace(place, TraceState.REMAINS, None, (), why) for place in Place]
        return tuple(waiting)
    settled = seen.settled_at
    heap = _built(Place.HEAP, settled, files, known, around.window)
    index = _built(Place.INDEX, settled, files, known, None)
    statistics = _statistics(settled, files, known, around.window)
    quiet = _quiet_since(settled, files, known)
    rewritten = _latest([heap, index, statistics])
    return (heap, index, statistics, _wal(quiet, around), _backups(rewritten, around))


def _built(
    place: Place, settled: datetime, files: Iterable[File], known: Mapping[tuple[Place, str], Known], window: datetime | None
) -> Trace:
    mine = [file for file in files if file.place is place]
    old = [file.name for file in mine if not _renewed(known.get((place, file.name)), settled)]
    if not old:
        built = [known[place, file.name].since for file in mine]
        return Trace(place, TraceState.GONE, max(built, default=settled), (), "")
    if place is Place.INDEX:
        return Trace(place, TraceState.REMAINS, None, tuple(old), "they were not rebuilt since")
    state = TraceState.UNTIL if window else TraceState.REMAINS
    return Trace(place, state, window, tuple(old), "they are rewritten then" if window else "they were not rewritten since")


def _statistics(settled: datetime, files: Sequence[File], known: Mapping[tuple[Place, str], Known], window: datetime | None) -> Trace:
    """What the planner shows is gone with ANALYZE; the catalogue that held it keeps the bytes until it is rewritten."""
    catalogue = [file for file in files if file.place is Place.STATISTICS and file.filenode]
    tables = [file for file in files if file.place is Place.STATISTICS and not file.filenode]
    stale = [file.name for file in tables if not _analysed(file, known, settled)]
    if stale:
        return Trace(Place.STATISTICS, TraceState.REMAINS, None, tuple(stale), "they were not gathered anew since")
    # Rewritten after the statistics were renewed, that is, and by nobody who could not see to it.
    rewritten = [found.cleaned_at for file in catalogue if (found := known.get((Place.STATISTICS, file.name))) and found.cleaned_at]
    if len(rewritten) < len(catalogue) or any(moment <= settled for moment in rewritten):
        state = TraceState.UNTIL if window else TraceState.REMAINS
        why = "what the planner shows is new; the catalogue that held it was not rewritten since"
        return Trace(Place.STATISTICS, state, window, (CATALOGUE,), why)
    return Trace(Place.STATISTICS, TraceState.GONE, max(rewritten, default=settled), (), "")


def _analysed(file: File, known: Mapping[tuple[Place, str], Known], settled: datetime) -> bool:
    found = known.get((Place.STATISTICS, file.name))
    by_us = found is not None and found.cleaned_at is not None and found.cleaned_at > settled
    return by_us or (file.renewed_at is not None and file.renewed_at > settled)


def _renewed(found: Known | None, settled: datetime) -> bool:
    return found is not None and found.since > settled


def _quiet_since(settled: datetime, files: Iterable[File], known: Mapping[tuple[Place, str], Known]) -> int | None:
    """Return the WAL position behind which no page image can hold an old row any more, or None while one still can.

    An image leaves out the hole of a page, so a heap needs no more than VACUUM; an index keeps separators until it is rebuilt.
    """
    last = 0
    for file in files:
        if file.place not in {Place.HEAP, Place.INDEX}:
            continue
        found = known.get((file.place, file.name))
        if found is None:
            return None
        if found.since > settled:
            last = max(last, found.since_lsn)
        elif file.place is Place.HEAP and found.cleaned_at is not None and found.cleaned_at > settled:
            last = max(last, found.cleaned_lsn)
        else:
            return None
    return last


def _wal(quiet: int | None, around: Surroundings) -> Trace:
    if quiet is None:
        why = "tables and indexes were not vacuumed and rebuilt since: new WAL may repeat old rows"
        return Trace(Place.WAL, TraceState.REMAINS, None, (), why)
    if around.oldest_wal is None:
        return Trace(Place.WAL, TraceState.UNSEEN, None, (), "the role may not read the server's files")
    if around.oldest_wal > quiet:
        return Trace(Place.WAL, TraceState.GONE, None, (), "")
    return Trace(Place.WAL, TraceState.REMAINS, None, (), "the server has not overwritten its WAL files yet")


def _backups(clean: datetime | None, around: Surroundings) -> Trace:
    """A base backup copies pages with all that is in them: the clock starts with the last object that was made anew."""
    if clean is None:
        return Trace(Place.BACKUPS, TraceState.REMAINS, None, (), "each new base backup copies what remains in the tables")
    if around.backups_known and around.copies_since is not None and around.copies_since > clean:
        return Trace(Place.BACKUPS, TraceState.GONE, clean, (), "")
    if not around.backups_known:
        return Trace(Place.BACKUPS, TraceState.UNSEEN, clean + around.backups_gone, (), "the backup repository could not be listed in full")
    return Trace(Place.BACKUPS, TraceState.UNTIL, clean + around.backups_gone, (), "no byte of a backup is older")


def _latest(traces: Iterable[Trace]) -> datetime | None:
    """Return the moment at which the last of the places became clean, or will; None when one of them never does by itself."""
    moments = [trace.when for trace in traces]
    return None if any(moment is None for moment in moments) else max(moment for moment in moments if moment is not None)
