"""``obhut erase``: people go, on the instruction of their controller."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import context
from obhut.cli.exits import UsageError
from obhut.controllers.vocabulary import parse_key
from obhut.erasure.entries import Action
from obhut.erasure.erase import Eraser, Outcome
from obhut.erasure.finish import finish, sweep_kept
from obhut.erasure.plan import ErasurePlan
from obhut.postgres.control import open_control
from obhut.retention.guard import guarding

app = App(name="erase")


@app.default
def erase(
    database: Annotated[str, Parameter(help="Name of the protected database.")],
    kind: Annotated[str | None, Parameter(help="Kind of data subject, as the data map calls it.")] = None,
    *keys: Annotated[str, Parameter(help='Primary keys; a JSON array for a composite one: \'["7","42"]\'.')],
    keys_from: Annotated[Path | None, Parameter(help="File with one key a line; - reads standard input.")] = None,
    anonymise: Annotated[bool, Parameter(negative="", help="Anonymise instead of erasing: the rows stay without personal values.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Show the plan with reasons and row counts, and change nothing.")] = False,
    allow_missing: Annotated[
        bool, Parameter(negative="", help="Leave out people who are not in the database instead of refusing.")
    ] = False,
    finish_recorded: Annotated[
        bool, Parameter(name="--finish", negative="", help="Carry erasures that were interrupted to their end; takes no keys.")
    ] = False,
    kept: Annotated[
        bool, Parameter(name="--kept", negative="", help="Erase rows that were kept on a legal ground whose period is over; takes no keys.")
    ] = False,
) -> None:
    """Erase or anonymise people: plan, tombstone, execute, verify.

    The tombstone is durable in the erasure list and its mirror before the first row goes, so whatever happens afterwards, no restore
    brings the person back. The rows go in one transaction, and a second look by other means finds nothing left before the erasure
    counts as done. Refused without a documented instruction of the controller.

    Examples: obhut erase courses participant 4711 --dry-run; obhut erase courses participant --keys-from leavers.txt
    """
    here = context()
    if finish_recorded or kept:
        if kind or keys or keys_from:
            raise UsageError("--finish and --kept take no keys", "Run the command with the name of the database only.")
        open_control(here.settings)
        _background(database, recorded=finish_recorded, kept=kept)
        return
    wanted = _keys(keys, keys_from)
    if kind is None or not wanted:
        raise UsageError("subject kind and at least one key are missing", 'See "obhut erase --help".')
    action = Action.ANONYMISE if anonymise else Action.ERASE
    open_control(here.settings)
    with Eraser(here.settings, database) as eraser:
        if dry_run:
            plan = eraser.plan(kind, wanted, action, here.clock)
            here.output.result(_plan_document(plan), lambda: _show_plan(plan))
            return
        outcome = eraser.erase(kind, wanted, action, here.actor, here.clock, allow_missing=allow_missing)
    here.output.result(_outcome_document(outcome), lambda: _show_outcome(outcome))


def _background(database: str, *, recorded: bool, kept: bool) -> None:
    here = context()
    finished = _finish(database) if recorded else []
    rows = sweep_kept(here.settings, database, here.clock) if kept else 0
    people = sum(len(outcome.tombstones) for outcome in finished)
    here.output.result(
        {"finished": people, "kept_rows_erased": rows},
        lambda: here.output.pairs({"interrupted erasures finished": people, "kept rows erased": rows}),
    )


def _finish(database: str) -> list[Outcome]:
    """Finish what is recorded; whoever was taken for inactivity and is active again is spared."""
    here = context()
    with guarding(here.settings, database, here.clock) as guard:
        return finish(here.settings, database, here.clock, guard=guard)


def _keys(given: tuple[str, ...], source: Path | None) -> list[tuple[str, ...]]:
    texts = list(given)
    if source is not None:
        try:
            content = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise UsageError(
                f"--keys-from: {source} cannot be read as text", "Give a file with one key a line, or - for standard input."
            ) from None
        texts.extend(line.strip() for line in content.splitlines() if line.strip())
    keys = []
    for number, text in enumerate(texts, 1):
        try:
            keys.append(parse_key(text))
        except ValueError:
            raise UsageError(
                f"key number {number} cannot be understood", "Write a plain value, or a JSON array for a composite key."
            ) from None
    return keys


def _plan_document(plan: ErasurePlan) -> dict[str, object]:
    return {
        "database": plan.database,
        "subject_kind": plan.subject_kind,
        "action": plan.action,
        "people": plan.found,
        "rows": plan.rows,
        "map_version": plan.map_version,
        "hash": plan.hash(),
        "effects": [{"table": e.table, "verb": e.verb, "rows": e.rows, "reason": e.reason} for e in plan.effects],
    }


def _show_plan(plan: ErasurePlan) -> None:
    output = context().output
    output.say(
        "Plan for {people} of kind {kind} in {database}; nothing has been changed.",
        people=plan.found,
        kind=plan.subject_kind,
        database=plan.database,
    )
    output.table(["table", "treatment", "rows", "why"], [(e.table, e.verb, e.rows, e.reason) for e in plan.effects])
    output.say("{rows} rows would be deleted or changed.", rows=plan.rows)


def _outcome_document(outcome: Outcome) -> dict[str, object]:
    return {
        "run": outcome.run,
        "people": outcome.people,
        "already_erased": outcome.already,
        "tombstones": outcome.tombstones if len(outcome.tombstones) <= 100 else [outcome.tombstones[0], "…", outcome.tombstones[-1]],
        "rows_deleted": outcome.deleted,
        "rows_changed": outcome.changed,
        "large_objects": outcome.large_objects,
        "lsn": outcome.lsn,
        "keys": outcome.keys,
        "verified": outcome.verification is not None and outcome.verification.passed,
        "questions": len(outcome.verification.answers) if outcome.verification else 0,
    }


def _show_outcome(outcome: Outcome) -> None:
    output = context().output
    if not outcome.tombstones:
        output.say("Already erased: {count} people; nothing was left to do.", count=outcome.already)
        return
    if outcome.plan:
        output.table(["table", "treatment", "rows", "why"], [(e.table, e.verb, e.rows, e.reason) for e in outcome.plan.effects])
    questions = len(outcome.verification.answers) if outcome.verification else 0
    output.say(
        "Erased {people} people: {deleted} rows deleted, {changed} changed; {questions} questions asked afterwards, nothing left.",
        people=len(outcome.tombstones),
        deleted=outcome.deleted,
        changed=outcome.changed,
        questions=questions,
    )
    if outcome.large_objects:
        output.say("{count} large objects unlinked, which no remaining row names.", count=outcome.large_objects)
    if outcome.keys and outcome.keys.destroyed:
        output.say(
            "{count} keys of the audit log destroyed; older copies of the key table open until the next rotation.",
            count=outcome.keys.destroyed,
        )
    output.note("Run {run}; committed before {lsn}. No restore brings them back.", run=outcome.run, lsn=outcome.lsn)
