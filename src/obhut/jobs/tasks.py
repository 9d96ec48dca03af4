"""Jobs of the engine (procrastinate) in the control database: what happens on schedule.

Each periodic task defers one job for each protected database under a queueing lock, so that a slow job is not queued twice; the use case
itself decides whether anything is due. Needs an open control database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeVar

import procrastinate
import structlog
from procrastinate.contrib.django import app
from procrastinate.exceptions import AlreadyEnqueued

from obhut.auditlog import upkeep
from obhut.backups import run as backups
from obhut.erasure import canary
from obhut.erasure.erase import Eraser
from obhut.erasure.finish import finish, sweep_kept
from obhut.finality.clean import clean
from obhut.finality.look import look
from obhut.finality.windows import is_open
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import Clock, SystemClock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.keystore import rotation
from obhut.keystore.destruction import in_use
from obhut.keystore.subjects import Keyring
from obhut.postgres.control import control_session
from obhut.restores import inventory
from obhut.retention import sweep
from obhut.retention.guard import guarding

QUEUE: Final = "obhut"
INTERRUPTED: Final = timedelta(minutes=15)  # younger erasures may still be at work in their own process
ACTOR: Final = Actor(Role.SYSTEM, "schedule")
T = TypeVar("T")
_log = structlog.get_logger("obhut.jobs")


class _Surroundings:
    """Settings and clock of this worker; jobs carry none of their own."""

    settings: Settings
    clock: Clock


def configure(settings: Settings, clock: Clock | None = None) -> procrastinate.App:
    """Give the tasks of this process their settings and return the job engine."""
    _Surroundings.settings = settings
    _Surroundings.clock = clock or SystemClock()
    return app


class JobFailedError(Exception):
    """A use case failed; only its code is told, because the engine keeps the words of an exception."""


@app.periodic(cron="*/5 * * * *")
@app.task(name="backups.schedule_backup", queue=QUEUE)
def schedule_backup(timestamp: int) -> None:
    """Ask each database every five minutes whether a base backup is due."""
    _defer("backups.backup", timestamp)


@app.periodic(cron="3,33 * * * *")
@app.task(name="backups.schedule_expire", queue=QUEUE)
def schedule_expire(timestamp: int) -> None:
    """Let every repository expire twice an hour: retention counts on once an hour at least."""
    _defer("backups.expire", timestamp)


@app.periodic(cron="*/10 * * * *")
@app.task(name="backups.schedule_check", queue=QUEUE)
def schedule_check(timestamp: int) -> None:
    """Check every repository every ten minutes and keep the alarms."""
    _defer("backups.check", timestamp)


@app.periodic(cron="7,22,37,52 * * * *")
@app.task(name="erasure.schedule_tidy", queue=QUEUE)
def schedule_tidy(timestamp: int) -> None:
    """Look after each erasure list four times an hour."""
    _defer("erasure.tidy", timestamp)


@app.periodic(cron="41 3 * * *")
@app.task(name="erasure.schedule_retire", queue=QUEUE)
def schedule_retire(timestamp: int) -> None:
    """Let tombstones retire once a day."""
    _defer("erasure.retire", timestamp)


@app.periodic(cron="23 4 * * *")
@app.task(name="retention.schedule_sweep", queue=QUEUE)
def schedule_sweep(timestamp: int) -> None:
    """Carry out the rules of retention once a day."""
    _defer("retention.sweep", timestamp)


@app.task(name="retention.sweep", queue=QUEUE)
def sweep_inactive(database: str) -> None:
    """Tell people who are inactive, and anonymise those who did not come back."""
    done = _do("sweep", database, lambda: sweep.run(_Surroundings.settings, database, ACTOR, _Surroundings.clock))
    for record in done.records:
        level = _log.warning if record.obstacle or record.error_code else _log.info
        level(
            "retention.swept",
            database=database,
            rule=record.rule,
            anonymised=record.anonymised,
            told=record.told,
            obstacle=record.obstacle.value,
            code=record.error_code,
        )
    if done.failed:
        raise JobFailedError("retention-partial")


@app.periodic(cron="29 2 * * *")
@app.task(name="keys.rotate", queue=QUEUE, queueing_lock="keys.rotate", lock="keys.rotate")
def rotate_keys(timestamp: int) -> None:
    """Give controllers new wrapping keys where somebody was erased, once a day, and destroy the old ones whose grace is over."""
    del timestamp  # the use case asks the clock
    _do("rotate", "", _rotate_keys)


def _rotate_keys() -> None:
    settings, clock = _Surroundings.settings, _Surroundings.clock
    with control_session() as session:
        if not in_use(session):
            return
    with Keyring(settings, clock=clock) as keyring:
        rotated, destroyed = rotation.rotate_due(keyring, settings.keystore)
    _log.info("keys.rotated", count=len(rotated), destroyed=len(destroyed))


@app.periodic(cron="47 * * * *")
@app.task(name="finality.schedule_look", queue=QUEUE)
def schedule_look(timestamp: int) -> None:
    """Take in new erasures once an hour; rewrite tables where the window is open."""
    _defer("finality.look", timestamp)


@app.periodic(cron="11 5 * * *")
@app.task(name="finality.schedule_clean", queue=QUEUE)
def schedule_clean(timestamp: int) -> None:
    """Vacuum, rebuild and renew once a day what erasures have touched."""
    _defer("finality.clean", timestamp)


@app.task(name="finality.look", queue=QUEUE)
def look_after_traces(database: str) -> None:
    """Note when the traces of new erasures can be removed, and remove them for good while the window is open."""
    settings, clock = _Surroundings.settings, _Surroundings.clock
    window = settings.database(database).finality
    if is_open(window.window, window.zone, clock.now()):
        _do("clean", database, lambda: clean(settings, database, clock))
    else:
        _do("look", database, lambda: look(settings, database, clock))


@app.task(name="finality.clean", queue=QUEUE)
def clean_traces(database: str) -> None:
    """Remove traces without keeping anybody waiting."""
    _do("clean", database, lambda: clean(_Surroundings.settings, database, _Surroundings.clock))


@app.periodic(cron="* * * * *")
@app.task(name="auditlog.schedule_acts", queue=QUEUE)
def schedule_acts(timestamp: int) -> None:
    """Say in the controllers' logs once a minute what Obhut did."""
    _defer("auditlog.acts", timestamp)


@app.periodic(cron="31 2 * * *")
@app.task(name="auditlog.schedule_retain", queue=QUEUE)
def schedule_retain(timestamp: int) -> None:
    """Let months of logs go once a day."""
    _defer("auditlog.retain", timestamp)


@app.task(name="auditlog.acts", queue=QUEUE)
def say_acts(database: str) -> None:
    """Put what Obhut did into the logs of those it concerns."""
    _do("acts", database, lambda: upkeep.say_acts(_Surroundings.settings, database, _Surroundings.clock))


@app.task(name="auditlog.retain", queue=QUEUE)
def retain_logs(database: str) -> None:
    """Remove months of logs whose retention has ended."""
    number = _do("retain", database, lambda: upkeep.end_periods(_Surroundings.settings, database, _Surroundings.clock))
    _log.info("auditlog.retained", database=database, count=number)


@app.task(name="erasure.tidy", queue=QUEUE)
def tidy(database: str) -> None:
    """Finish what a crash interrupted, erase kept rows whose period is over, keep one canary alive."""
    _do("tidy", database, lambda: _tidy(database))


@app.task(name="erasure.retire", queue=QUEUE)
def retire(database: str) -> None:
    """Forget people whom no existing copy can still hold."""
    number = _do("retire", database, lambda: inventory.retire(_Surroundings.settings, database, _Surroundings.clock))
    _log.info("erasure.retired", database=database, count=number)


def _tidy(database: str) -> None:
    settings, clock = _Surroundings.settings, _Surroundings.clock
    with guarding(settings, database, clock) as guard:
        finish(settings, database, clock, older_than=INTERRUPTED, guard=guard)
    sweep_kept(settings, database, clock)
    with Eraser(settings, database) as eraser:
        if eraser.rules.canary is not None:
            canary.rotate(eraser, ACTOR, clock)


@app.task(name="backups.backup", queue=QUEUE)
def backup(database: str) -> None:
    """Take the base backup that is due."""
    _do("backup", database, lambda: backups.run(_Surroundings.settings, database, backups.Wanted.AUTO, ACTOR, _Surroundings.clock))


@app.task(name="backups.expire", queue=QUEUE)
def expire(database: str) -> None:
    """Remove what is too old."""
    _do("expire", database, lambda: backups.expire(_Surroundings.settings, database, ACTOR, _Surroundings.clock))


@app.task(name="backups.check", queue=QUEUE)
def check(database: str) -> None:
    """Look for conditions that need somebody."""
    found = _do("check", database, lambda: backups.check(_Surroundings.settings, database, _Surroundings.clock))
    for finding in found:
        _log.warning("backup.finding", database=database, code=finding.code, level=finding.severity.value)


def _defer(task: str, _timestamp: int) -> None:
    for database in sorted(_Surroundings.settings.databases):
        try:
            app.configure_task(task, queueing_lock=f"{task}:{database}", lock=f"{task}:{database}").defer(database=database)
        except AlreadyEnqueued:
            _log.info("job.still-queued", task=task, database=database)


def _do(name: str, database: str, use_case: Callable[[], T]) -> T:
    try:
        return use_case()
    except ObhutError as error:
        code = error.code
    # Outside the except block: neither cause nor context keeps other words.
    _log.error("job.failed", job=name, database=database, code=code)
    raise JobFailedError(code)
