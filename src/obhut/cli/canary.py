"""``obhut canary``: synthetic people, the positive control of every proof."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import context
from obhut.erasure import canary as canaries
from obhut.erasure import ledger
from obhut.erasure.canary import Canary
from obhut.erasure.erase import Eraser
from obhut.foundation.durations import parse_duration
from obhut.postgres.control import open_control

app = App(
    name="canary",
    help="Plant synthetic people that prove the filter in every restore. "
    "One always lives in production, hence in every backup; a restore shows it in the quarantine and not in the target.",
)
_COLUMNS = ["canary", "kind", "planted", "state"]

DatabaseName = Annotated[str, Parameter(help="Name of the protected database.")]


@app.command
def plant(database: DatabaseName) -> None:
    """Insert a synthetic person by the recipe in the data map (canary: …) and remember it."""
    here = context()
    open_control(here.settings)
    with Eraser(here.settings, database) as eraser:
        planted = canaries.plant(eraser, here.actor, here.clock)
    here.output.result(_document(planted), lambda: here.output.say("Planted {id} as {kind}.", id=planted.id, kind=planted.subject_kind))


@app.command
def rotate(
    database: DatabaseName,
    *,
    every: Annotated[str, Parameter(help="Age at which the youngest is replaced, as an ISO 8601 duration.")] = "P1D",
) -> None:
    """Plant a canary when the youngest is old enough, then erase the older ones, so that one always lives."""
    here = context()
    open_control(here.settings)
    with Eraser(here.settings, database) as eraser:
        planted, erased = canaries.rotate(eraser, here.actor, here.clock, every=parse_duration(every))
    gone = len(erased.tombstones) if erased else 0
    here.output.result(
        {"planted": _document(planted) if planted else None, "erased": gone},
        lambda: here.output.say("Planted {planted}, erased {erased}.", planted=1 if planted else 0, erased=gone),
    )


@app.command(name="list")
def list_(database: DatabaseName) -> None:
    """List the canaries of a database, oldest first."""
    here = context()
    open_control(here.settings)
    ledger.open_ledger(here.settings)
    found = canaries.all_of(database)
    here.output.result(
        [_document(canary) for canary in found],
        lambda: here.output.table(
            _COLUMNS,
            [(canary.id, canary.subject_kind, canary.planted_at, _state(canary)) for canary in found],
            empty="No canary was ever planted.",
        ),
    )


def _document(canary: Canary) -> dict[str, object]:
    return {
        "id": canary.id,
        "database": canary.database,
        "subject_kind": canary.subject_kind,
        "planted_at": canary.planted_at,
        "tombstone": canary.tombstone,
        "state": _state(canary),
    }


def _state(canary: Canary) -> str:
    if canary.tombstone is None:
        return "living"
    return "erased" if canary.tombstone else "never came to be"
