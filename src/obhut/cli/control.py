"""``obhut control``: the control database, the home of contracts, instructions, the erasure list and runs."""

from __future__ import annotations

from cyclopts import App

from obhut.cli.context import context
from obhut.postgres import control
from obhut.postgres.control import ControlSchemaError

app = App(name="control", help="Run and look after the control database.")


@app.command
def start() -> None:
    """Start the embedded control database and bring its schema up to date; one by URL is only checked."""
    here = context()
    control.open_control(here.settings)
    here.output.result({"running": True}, lambda: here.output.say("The control database is ready."))


@app.command
def stop() -> None:
    """Stop the embedded control database; the next command starts it again."""
    here = context()
    control.close_control(here.settings, stop=True)
    here.output.result({"running": False}, lambda: here.output.say("The control database is stopped."))


@app.command
def migrate() -> None:
    """Bring the schema of the control database up to date, also of one by URL."""
    here = context()
    applied: list[str] = []
    try:
        control.open_control(here.settings)
    except ControlSchemaError:
        applied = control.pending_migrations()
        control.migrate()
    here.output.result(
        {"applied": applied}, lambda: here.output.say("The schema is up to date; {count} migrations applied.", count=len(applied))
    )


@app.command
def status() -> None:
    """Show where the control database is and whether it runs; starts nothing."""
    here = context()
    if here.settings.control.embedded:
        cluster = control.control_cluster(here.settings)
        facts: dict[str, object] = {"kind": "embedded", "directory": cluster.directory, "running": cluster.ready, "log": cluster.log}
    else:
        facts = {"kind": "url", "url": here.settings.control.url}
    here.output.result(facts)
