"""Commands that switch the audit log on and off, and run its capture."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from obhut.auditlog.capture import enable as switch
from obhut.auditlog.capture import follow
from obhut.auditlog.capture import status as looking
from obhut.auditlog.capture import stop as ending
from obhut.auditlog.capture.errors import CaptureUnhealthyError
from obhut.cli.audit import app
from obhut.cli.controllers import opened
from obhut.cli.output import size
from obhut.cli.phases import Database
from obhut.foundation.language import text
from obhut.jobs import loops


@app.command
def enable(
    database: Database = None,
    *,
    unlimited_wal: Annotated[bool, Parameter(help="Accept that the server keeps WAL without limit while nobody reads the stream.")] = False,
) -> None:
    """Switch the audit log of a database on; from then on no change of a personal table is missed.

    Adds to the database: the schema obhut (functions, no table), a statement trigger on each captured table, event triggers, a publication
    and a replication slot; captured tables get REPLICA IDENTITY FULL where the primary key alone would not tell old values. The server
    needs wal_level = logical and a limit in max_slot_wal_keep_size. Repeating it after a change of the data map is how new tables get in.
    What reads the stream is "obhut serve", or "obhut audit start".
    """
    here = opened()
    name = here.database(database)
    done = switch.enable(here.settings, name, here.actor, here.clock, unlimited_accepted=unlimited_wal)
    if not done.event_triggers:
        here.output.warn("The role may not create event triggers: rewrites and DDL are looked for once a minute.")
    if not done.unforgeable:
        here.output.warn("Any role may call pg_logical_emit_message: facts and claims about who acts can be forged.")
    here.output.result(done, lambda: here.output.say("The audit log of {name} is on: {count} tables.", name=name, count=len(done.tables)))


@app.command
def start(
    database: Database = None,
    *,
    until_caught_up: Annotated[
        bool, Parameter(help="End when everything that was committed before is in the logs, instead of waiting for more.")
    ] = False,
) -> None:
    """Put the changes of one database into the logs until Ctrl-C or SIGTERM, in the foreground.

    "obhut serve" does the same for all databases. One process reads a stream; a second one is refused.
    """
    here = opened()
    name = here.database(database)
    with loops.stopping() as asked:
        done = follow.follow(here.settings, name, here.clock, lambda: bool(asked), until_caught_up=until_caught_up)
    here.output.result(
        done,
        lambda: here.output.say(
            "{changes} changes and {gaps} gaps are in the logs; {unassigned} changes have no known controller.",
            changes=done.changes,
            gaps=done.gaps,
            unassigned=done.unassigned,
        ),
    )


@app.command
def status(database: Database = None) -> None:
    """Show how far the stream is read and what is wrong with it; exit status 5 when the promise is at risk."""
    here = opened()
    name = here.database(database)
    found = looking.status(here.settings, name, here.clock)

    def show() -> None:
        here.output.table(
            ["fact", "value"],
            [
                ("slot", found.slot),
                ("read by", "obhut" if found.active else None),
                ("behind", size(found.behind) if found.behind is not None else None),
                ("WAL kept", size(found.retained) if found.retained is not None else None),
                ("last change read", found.heard_at),
                ("changes", found.changes),
                ("gaps", found.gaps),
                ("without controller", found.unassigned),
            ],
        )
        for finding in found.findings:
            here.output.warn("{fact}. {todo}", fact=text(finding.fact), todo=text(finding.todo))

    here.output.result(found, show)
    critical = [finding for finding in found.findings if finding.critical]
    if critical:
        raise CaptureUnhealthyError(f"{critical[0].fact} ({len(critical)} in all)", critical[0].todo)


@app.command
def stop(database: Database = None) -> None:
    """Switch the audit log of a database off: the last changes are read, a gap entry says so, everything added is removed.

    The logs stay and can be searched, exported and verified. Changes that are made from now on are nobody's to prove.
    """
    here = opened()
    name = here.database(database)
    ending.stop(here.settings, name, here.clock)
    here.output.result({"stopped": name}, lambda: here.output.say("The audit log of {name} is off; its logs stay.", name=name))
