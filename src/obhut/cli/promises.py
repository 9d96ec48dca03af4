"""``obhut promises``: what the privacy statement says, and what can be said about it today."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from cyclopts import App, Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from obhut.cli.context import context
from obhut.cli.exits import Exit, UsageError
from obhut.foundation.language import text
from obhut.postgres.control import open_control
from obhut.promises.evaluate import evaluate
from obhut.promises.model import PROMISES, State, Verdict, worst

app = App(name="promises")

_STYLES = {State.KEPT: "bold green", State.BROKEN: "bold red", State.UNPROVEN: "yellow"}


@app.default
def promises(
    only: Annotated[str | None, Parameter(help="Id of one promise, such as erasure.")] = None,
    *,
    evidence: Annotated[bool, Parameter(negative="", help="Show every piece of evidence, not only what does not hold.")] = False,
) -> int:
    """Evaluate every promise on the running system: kept, broken or unproven, with evidence and its age.

    A promise that is not or cannot be checked is unproven; it is never shown as kept. Exit status 5 when one is broken.
    """
    here = context()
    if only is not None and only not in {promise.id for promise in PROMISES}:
        raise UsageError("there is no such promise", f"Use one of: {', '.join(promise.id for promise in PROMISES)}.")
    open_control(here.settings)
    verdicts = evaluate(here.settings, here.clock, only)
    here.output.result(
        {"state": worst(verdicts), "promises": [_document(verdict) for verdict in verdicts]}, lambda: _show(verdicts, everything=evidence)
    )
    return Exit.UNPROVEN if any(verdict.state is State.BROKEN for verdict in verdicts) else Exit.OK


def _document(verdict: Verdict) -> dict[str, object]:
    age = verdict.age(context().clock.now())
    return {
        "id": verdict.promise.id,
        "sentence": verdict.promise.sentence,
        "package": verdict.promise.package,
        "state": verdict.state,
        "age_seconds": None if age is None else round(age.total_seconds()),
        "evidence": [
            {"fact": item.fact, "state": item.state, "at": item.at, "database": item.database, "hint": item.hint}
            for item in verdict.evidence
        ],
    }


def _show(verdicts: list[Verdict], *, everything: bool) -> None:
    output = context().output
    now = context().clock.now()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("promise", "state", "age", "evidence"):
        table.add_column(text(heading), overflow="fold", no_wrap=heading != "evidence")
    for verdict in verdicts:
        state = verdict.state
        shown = [item for item in verdict.evidence if everything or state is State.KEPT or item.state is not State.KEPT]
        seen = "\n".join(f"{item.database}: {text(item.fact)}" if item.database else text(item.fact) for item in shown)
        table.add_row(verdict.promise.id, Text(text(state), style=_STYLES[state]), _age(verdict.age(now)), Text(seen))
    output.show(table)
    counts = {state: sum(verdict.state is state for verdict in verdicts) for state in State}
    output.say(
        "{kept} kept, {broken} broken, {unproven} unproven.",
        kept=counts[State.KEPT],
        broken=counts[State.BROKEN],
        unproven=counts[State.UNPROVEN],
    )
    for verdict in verdicts:
        for item in verdict.evidence:
            if item.state is State.BROKEN and item.hint:
                output.note("{id}: {hint}", id=verdict.promise.id, hint=item.hint)


def _age(age: timedelta | None) -> str:
    if age is None:
        return "–"
    seconds = int(age.total_seconds())
    if seconds < 90:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 5400 else f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86400} d"
