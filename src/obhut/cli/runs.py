"""``obhut runs``: what Obhut has done, is doing, and can resume."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.controllers import opened
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState

app = App(name="runs", help="Look at journalled runs and their steps.")


@app.command(name="list")
def list_(
    *,
    kind: Annotated[RunKind | None, Parameter(help="Only runs of this kind.")] = None,
    database: Annotated[str | None, Parameter(help="Only of this protected database.")] = None,
    state: Annotated[RunState | None, Parameter(help="Only in this state.")] = None,
    limit: Annotated[int, Parameter(help="At most so many, the youngest first.")] = 50,
) -> None:
    """List runs; "interrupted" means that the process of a running one is gone and it can be resumed."""
    here = opened()
    found = [(run, shown_state(run)) for run in runs.list_runs(kind=kind, database=database, state=state, limit=limit)]
    here.output.result(
        [document(run, word) for run, word in found],
        lambda: here.output.table(
            ["run", "kind", "database", "state", "started", "finished", "error"],
            [(run.id, run.kind, run.database, word, run.started_at, run.finished_at, run.error_code or None) for run, word in found],
            empty="There is no run.",
        ),
    )


@app.command
def show(run_id: Annotated[str, Parameter(help="Id of the run.", name="run")]) -> None:
    """Show a run with its steps."""
    here = opened()
    run = runs.get(run_id)
    word = shown_state(run)
    steps = runs.list_steps(run_id)

    def render() -> None:
        here.output.pairs({name: value for name, value in document(run, word).items() if value not in ("", None)})
        here.output.table(
            ["step", "name", "state", "attempts", "started", "finished", "facts", "error"],
            [
                (one.ordinal, one.name, one.state, one.attempts, one.started_at, one.finished_at, one.facts, one.error_code or None)
                for one in steps
            ],
            empty="It has no step yet.",
        )

    here.output.result({**document(run, word), "steps": steps}, render)


def shown_state(run: runs.Run) -> str:
    """Return the state in one word, telling a run at work from one whose process is gone."""
    return runs.standing(run)


def document(run: runs.Run, state: str) -> dict[str, object]:
    """Return what is shown of a run."""
    return {
        "run": run.id,
        "kind": run.kind,
        "database": run.database,
        "state": state,
        "actor": run.actor,
        "instruction": run.instruction_id,
        "parameters": run.parameters,
        "plan_hash": run.plan_hash,
        "error_code": run.error_code,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "heartbeat_at": run.heartbeat_at,
        "pid": run.owner.pid,
    }
