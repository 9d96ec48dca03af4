"""The whole check: the files (:mod:`obhut.backups.verify`), the server, the schedule, the disk; findings become alarms."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from obhut.backups import heartbeat, seal, source, verify
from obhut.backups.catalogue import Backup, BackupKind, BackupState
from obhut.backups.findings import Finding, Severity, critical, warning
from obhut.backups.plan import SLACK, Rules
from obhut.backups.repository import Repository
from obhut.foundation.errors import ObhutError
from obhut.foundation.ids import new_id
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.postgres.control import Deferred, control_safe

if TYPE_CHECKING:
    from obhut.backups import models
else:
    models = Deferred("obhut.backups.models")

LAG_SEGMENTS: Final = 4  # the receiver may be so many segments behind
BEATS: Final = 5  # so many heartbeats may be missing
FREE_SHARE: Final = 0.10  # of the file system


def server(url: str, slot: str) -> Iterator[Finding]:
    """Yield what is wrong with the server and its slot."""
    hint = 'Is "obhut serve receiver" running? Run "obhut backup start".'
    try:
        with source.opened(url) as opened:
            facts = opened.facts()
            state = opened.slot(slot)
    except ObhutError as error:
        yield critical(error.code, error.fact, error.hint or "Is the server up?")
        return
    if state is None:
        yield critical("slot-missing", f"the server has no replication slot {slot}", hint)
        return
    if state.wal_status == "lost":
        yield critical(
            "slot-lost", f"the server has removed WAL that replication slot {slot} needed", 'Run "obhut backup start" and a full backup.'
        )
    if not state.active:
        yield critical(
            "slot-inactive", f"nobody reads replication slot {slot}; the server keeps {state.retained} bytes of WAL for it", hint
        )
    elif state.lag is None or state.lag > LAG_SEGMENTS * facts.wal_segment_size:
        yield critical(
            "wal-lag",
            f"the WAL receiver is {state.lag if state.lag is not None else 'unknown'} bytes behind",
            "Is the network or the disk slow?",
        )
    if state.retained > 64 * facts.wal_segment_size and state.active:
        yield warning("wal-retained", f"the server keeps {state.retained} bytes of WAL for the slot", "Is the receiver slow?")
    if facts.major >= 17 and not facts.summarizes_wal:
        yield warning("incremental-off", "summarize_wal is off: incremental backups are not possible", "Set summarize_wal to on.")


def schedule(database: str, backups: Iterable[Backup], rules: Rules, now: datetime, every: int) -> Iterator[Finding]:
    """Yield what is overdue: full backup, heartbeat, a run that failed or never finished."""
    usable = [backup for backup in backups if backup.state is BackupState.USABLE]
    fulls = [backup for backup in usable if backup.kind is BackupKind.FULL]
    if fulls and now - fulls[-1].begin_time > rules.full_every + SLACK / 2:
        age = int((now - fulls[-1].begin_time).total_seconds() // 3600)
        yield critical(
            "base-stale",
            f"the newest usable full backup began {age} hours ago",
            'Run "obhut backup run --full"; "obhut runs list" says why.',
        )
    if usable and usable[0].end_time > now - rules.restorable:
        yield warning(
            "window-short", "the oldest usable base backup is younger than the restorable time", "It grows with every day of backups."
        )
    last = heartbeat.latest(database)
    if last is None or now - last.at > timedelta(seconds=every * BEATS):
        yield warning("heartbeat-stale", "the last heartbeat is too old", 'Is "obhut serve heartbeat" running?')
    recent = runs.list_runs(kind=RunKind.BACKUP, database=database, limit=1)
    if recent and recent[0].state is RunState.FAILED:
        yield critical(
            "backup-failed", f"the last backup run failed ({recent[0].error_code})", f'Look at "obhut runs show {recent[0].id}".'
        )
    if last is not None and last.at > now + timedelta(minutes=10):
        yield warning("clock-behind", "this machine's clock is behind the server's", "Set both clocks by NTP: retention counts on them.")


def disk(repository: Repository) -> Iterator[Finding]:
    """Yield whether the disk has room for the next base backup, which lies there plain and sealed for a moment."""
    usage = shutil.disk_usage(repository.root if repository.root.exists() else repository.root.anchor)
    fulls = [backup.size for backup in repository.backups() if backup.kind is BackupKind.FULL]
    wanted = max(int(usage.total * FREE_SHARE), 2 * max(fulls, default=0))
    if usage.free < wanted:
        yield critical(
            "disk-full", f"{usage.free} bytes are free on the repository's disk, {wanted} are wanted", "Make room or enlarge it."
        )


def check(
    repository: Repository,
    url: str,
    slot: str,
    rules: Rules,
    now: datetime,
    every: int,
    *,
    deep: bool = False,
    progress: seal.Progress = seal.silent,
) -> list[Finding]:
    """Return all findings, the worst first."""
    found = [
        *verify.verify(repository, now, rules.gone_after, deep=deep, progress=progress),
        *server(url, slot),
        *schedule(repository.database, repository.backups(), rules, now, every),
        *disk(repository),
    ]
    return sorted(found, key=lambda finding: (finding.severity is not Severity.CRITICAL, finding.code))


def raise_alarms(database: str, found: Iterable[Finding], now: datetime) -> list[str]:
    """Open an alarm for each new finding, keep the known ones, close those that are over; returns the codes that are new."""
    findings = list(found)
    new = raise_more(database, findings, now)
    with control_safe():
        over = models.Alarm.objects.filter(database=database, cleared_at=None).exclude(code__in=[finding.code for finding in findings])
        over.update(cleared_at=now)
    return new


def raise_more(database: str, found: Iterable[Finding], now: datetime) -> list[str]:
    """Open an alarm for each new finding and keep the known ones; closes none. Returns the codes that are new."""
    worst: dict[str, Severity] = {}
    for finding in found:
        if worst.get(finding.code) is not Severity.CRITICAL:
            worst[finding.code] = finding.severity
    with control_safe():
        known = models.Alarm.objects.filter(database=database, cleared_at=None, code__in=list(worst))
        opened = {row.code: row.id for row in known}
        for code, row_id in opened.items():
            models.Alarm.objects.filter(id=row_id).update(seen_at=now, severity=worst[code].value)
        new = [code for code in worst if code not in opened]
        models.Alarm.objects.bulk_create(
            [
                models.Alarm(id=new_id("alarm"), database=database, code=code, severity=worst[code].value, raised_at=now, seen_at=now)
                for code in new
            ],
            ignore_conflicts=True,  # another check may have found it first
        )
    return new


def open_alarms(database: str) -> list[tuple[str, Severity, datetime]]:
    """Return the open alarms: code, severity, since when."""
    with control_safe():
        rows = models.Alarm.objects.filter(database=database, cleared_at=None).order_by("raised_at", "code")
        return [(row.code, Severity(row.severity), row.raised_at) for row in rows]
