"""``obhut backup``: continuous backups of one protected database."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from obhut.backups import run as use_cases
from obhut.backups.catalogue import Backup
from obhut.backups.errors import BackupError
from obhut.backups.findings import Severity
from obhut.backups.plan import Action
from obhut.backups.seal import Progress
from obhut.cli.context import Context
from obhut.cli.controllers import opened
from obhut.cli.exits import UsageError
from obhut.cli.output import Bar, size
from obhut.cli.phases import Database

app = App(name="backup", help="Back up continuously, keep the restorable window, let nothing grow too old.")


class BackupUnhealthyError(BackupError):
    """The check found a condition that breaks the promise."""

    code = "backup-unhealthy"


@app.command
def start(database: Database = None) -> None:
    """Begin to back up: replication slot, WAL receiver in the background, first full base backup.

    Repeating it is harmless: what runs already is left alone. "obhut serve" keeps the receiver running and takes base backups on schedule.
    """
    here = opened()
    name = here.database(database)
    with here.output.progress("Base backup", unit="bytes") as bar:
        taken = use_cases.start(here.settings, name, here.actor, here.clock, _moving(bar))
    _taken(here, name, taken)


@app.command
def run(
    database: Database = None,
    *,
    full: Annotated[bool, Parameter(help="Take a full base backup, due or not.")] = False,
    incremental: Annotated[bool, Parameter(help="Take an incremental one (PostgreSQL 17 or later, summarize_wal on).")] = False,
) -> None:
    """Take the base backup that is due: full, incremental or none.

    What a killed run left is swept first. The base backup is compared with the server's manifest while it is sealed.
    """
    if full and incremental:
        raise UsageError("--full and --incremental exclude each other")
    wanted = use_cases.Wanted.FULL if full else use_cases.Wanted.INCREMENTAL if incremental else use_cases.Wanted.AUTO
    here = opened()
    name = here.database(database)
    with here.output.progress("Base backup", unit="bytes") as bar:
        taken = use_cases.run(here.settings, name, wanted, here.actor, here.clock, _moving(bar))
    _taken(here, name, taken)


@app.command(name="list")
def list_(database: Database = None) -> None:
    """List the sealed base backups, oldest first, with their chains and whether each can be restored."""
    here = opened()
    found = use_cases.listed(here.settings, here.database(database))
    here.output.result(
        [_document(backup) for backup in found],
        lambda: here.output.table(
            ["backup", "kind", "builds on", "state", "ended", "end position", "size", "server"],
            [
                (
                    one.id,
                    one.kind,
                    one.parent,
                    one.state,
                    one.end_time,
                    one.end_lsn,
                    size(one.size),
                    f"{one.major}, {one.system_identifier}",
                )
                for one in found
            ],
            empty="There is no base backup.",
        ),
    )


@app.command
def check(
    database: Database = None,
    *,
    deep: Annotated[bool, Parameter(help="Also read and authenticate every sealed byte.")] = False,
) -> None:
    """Check files, server, slot, schedule and disk; the exit status is not 0 when the promise is broken.

    Each finding has a stable code and is kept as an alarm until a check no longer finds it.
    """
    here = opened()
    name = here.database(database)
    found = use_cases.check(here.settings, name, here.clock, deep=deep)
    here.output.result(
        found,
        lambda: here.output.table(
            ["severity", "code", "finding", "what to do"],
            [(one.severity, one.code, one.fact, one.hint) for one in found],
            empty="Everything is in order.",
        ),
    )
    broken = [one for one in found if one.severity is Severity.CRITICAL]
    if broken:
        raise BackupUnhealthyError(f"{len(broken)} findings break the backup promise of {name}, first {broken[0].code}", broken[0].hint)


@app.command
def expire(
    database: Database = None,
    *,
    dry_run: Annotated[bool, Parameter(help="Show what would go and why, and change nothing.")] = False,
) -> None:
    """Remove what is no longer needed or too old, whatever its status; destroy the keys of what is gone."""
    here = opened()
    name = here.database(database)
    plan = (
        use_cases.preview(here.settings, name, here.clock)
        if dry_run
        else use_cases.expire(here.settings, name, here.actor, here.clock).plan
    )
    rows = [
        {"kind": one.item.kind, "item": one.item.ref, "action": one.action, "reason": one.reason}
        for one in plan.decisions
        if one.action is Action.REMOVE or dry_run
    ]
    here.output.result(
        {"dry_run": dry_run, "warnings": plan.warnings, "decisions": rows},
        lambda: here.output.table(
            ["kind", "item", "action", "reason"], [tuple(row.values()) for row in rows], empty="There is nothing to remove."
        ),
    )


@app.command
def stop(
    database: Database = None,
    *,
    drop_slot: Annotated[
        bool,
        Parameter(
            help="Also drop the replication slot: WAL from now on is lost. With the slot the server keeps it, and its disk may fill."
        ),
    ] = False,
) -> None:
    """End the WAL receiver that "obhut backup start" left in the background."""
    here = opened()
    name = here.database(database)
    ended = use_cases.stop(here.settings, name, drop_slot=drop_slot)
    here.output.result(
        {"database": name, "ended": ended, "slot_dropped": drop_slot},
        lambda: here.output.say("The WAL receiver has ended." if ended else "No WAL receiver ran in the background."),
    )


def _moving(bar: Bar) -> Progress:
    last = 0

    def move(done: int, total: int) -> None:
        nonlocal last
        if last == 0:
            bar.resize(total)
        bar.advance(done - last)
        last = done

    return move


def _taken(here: Context, name: str, taken: use_cases.Taken) -> None:
    backup = taken.backup
    here.output.result(
        {"database": name, "run": taken.run_id, "backup": _document(backup) if backup else None, "reason": taken.reason},
        lambda: (
            here.output.say(
                "Base backup {id} ({kind}) is sealed and {state}: {reason}.",
                id=backup.id,
                kind=backup.kind,
                state=backup.state,
                reason=taken.reason,
            )
            if backup
            else here.output.say("No base backup is due: {reason}.", reason=taken.reason)
        ),
    )


def _document(backup: Backup) -> dict[str, object]:
    return {
        "id": backup.id,
        "kind": backup.kind,
        "parent": backup.parent,
        "state": backup.state,
        "begin_time": backup.begin_time,
        "end_time": backup.end_time,
        "begin_lsn": backup.begin_lsn,
        "end_lsn": backup.end_lsn,
        "timeline": backup.timeline,
        "system_identifier": str(backup.system_identifier),
        "server_version": backup.server_version,
        "size": backup.size,
        "files": backup.files,
    }
