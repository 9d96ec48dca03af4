"""``obhut clone``: masked copies for test and staging, checked for leaks before anybody gets in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from obhut.cli.context import Context
from obhut.cli.controllers import key_values, opened
from obhut.cli.exits import UsageError
from obhut.cli.phases import Database, Phases
from obhut.clones import fixture as fixtures
from obhut.clones import gate, subset
from obhut.clones import run as use_cases
from obhut.clones import target as places
from obhut.clones.errors import CloneLeakError, CloneNotAnonymousError
from obhut.clones.findings import Statement, failed
from obhut.clones.fixture import Form
from obhut.clones.run import Request
from obhut.clones.verify import verify as verify_copy
from obhut.controllers.vocabulary import REFERENCE, fits
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.masking.verdict import Verdict
from obhut.restores.plan import parse_target

app = App(name="clone", help="Make masked copies for test and staging, checked for leaks before they open.")

People = Annotated[
    str,
    Parameter(help="A part of the people: a number (500) or a share (5%) of each kind, with everything that their rows reference."),
]
Controller = Annotated[str, Parameter(help="Only the people of one controller; its key, as obhut controllers list shows it.")]
These = Annotated[
    tuple[str, ...],
    Parameter(help="A person by kind and key (patient:4711), with everything that their rows reference; as often as there are people."),
]
Locale = Annotated[Literal["de", "en"], Parameter(help="Language of the invented names, streets and texts.")]
At = Annotated[
    str, Parameter(help="Copy a moment of the backups, as obhut restore names it: 2026-03-01T09:00:00Z, an LSN, name:<point>, latest.")
]
Backup = Annotated[str, Parameter(help="With --at: base backup to start from; by default the newest that fits.")]
RunId = Annotated[str, Parameter(help="Id of the run that made the copy; obhut clone list shows it.")]


@app.command(name="plan")
def plan_(
    database: Database = None,
    *,
    people: People = "",
    controller: Controller = "",
    these: These = (),
    locale: Locale = "de",
    at: At = "",
    backup: Backup = "",
) -> None:
    """Show what a copy would hold: rows of every table, and what becomes of every personal column and why; writes nothing.

    What would stop a run stops this command, too: a column without a category, a rule that does not fit its column, a controller that has
    not instructed copies (action "clone"). Rows are counted in one snapshot of the live database. With --at they are counted in a backup:
    it is recovered into a quarantine, which takes its time and space, looked at, and thrown away.
    """
    here = opened()
    wanted = _request(here, database, people=people, controller=controller, these=these, locale=locale, **_of_backup(at, backup))
    planned = use_cases.plan(here.settings, wanted, here.actor, here.clock, Phases(here.output))
    document = {
        "database": wanted.database,
        "moment": planned.moment,
        "map": planned.map_version,
        "tables": [{"table": one.table, "rows": one.rows, "wanted": one.wanted, "erased": one.erased} for one in planned.sizes],
        "columns": [{"column": place, "transformer": name, "where": where, "why": why} for place, name, where, why in planned.columns],
        "notes": list(planned.notes),
    }

    def render() -> None:
        here.output.table(
            ["table", "rows", "wanted", "erased people's"], [(one.table, one.rows, one.wanted, one.erased) for one in planned.sizes]
        )
        here.output.table(["column", "becomes", "where", "why"], planned.columns, empty="No column is personal.")
        for note in planned.notes:
            here.output.say(note)

    here.output.result(document, render)


@app.command
def run(
    database: Database = None,
    *,
    target: Annotated[str, Parameter(help="Connection string of an empty database to copy into; by default a new private cluster.")] = "",
    people: People = "",
    controller: Controller = "",
    these: These = (),
    workers: Annotated[int, Parameter(help="Streams side by side; by default one for each processor, eight at the most.")] = 0,
    leave_out: Annotated[
        tuple[str, ...], Parameter(help='A definition that is not made, as the leak check names it: "COMMENT public.TABLE people".')
    ] = (),
    locale: Locale = "de",
    at: At = "",
    backup: Backup = "",
) -> None:
    """Make a masked copy of the live database or of a backup, check it for leaks, and open it; a copy that leaks is dropped.

    Rows are masked between two servers: no plain row reaches the target's disk, WAL or statistics. Erased people are not in it. The copy
    stays closed until the leak check has passed. With --at a backup is recovered into a quarantine, copied from there through the erasure
    list as it is today, and the quarantine is thrown away; the live database is not read.

    The copy carries a mark (table obhut.copy) with its moment, map and label: "deidentified" says that it was masked and checked, and not
    that it is anonymous.

    A run that was killed leaves nothing that counts: the next one drops what is there and begins anew, because the key of a run lives in
    memory only. The exit status is 5 when the check failed.
    """
    here = opened()
    wanted = _request(
        here, database, people=people, controller=controller, these=these, locale=locale, target=target, workers=workers,
        left_out=leave_out, **_of_backup(at, backup),
    )  # fmt: skip
    try:
        made = use_cases.run(here.settings, wanted, here.actor, here.clock, Phases(here.output))
    except CloneLeakError as error:
        _statements(here, error.statements)
        raise
    document = {
        "run": made.run,
        "url": made.url,
        "label": made.label,
        "rows": made.rows,
        "statements": [statement.document() for statement in made.statements],
        "notes": list(made.notes),
    }

    def render() -> None:
        here.output.pairs({"run": made.run, "copy": made.url, "label": made.label.value, "rows": made.rows})
        _statements(here, made.statements)
        for note in made.notes:
            here.output.say(note)

    here.output.result(document, render)


@app.command(name="list")
def list_(database: Database = None, *, limit: Annotated[int, Parameter(help="How many at the most.")] = 50) -> None:
    """List copies, the youngest first: of what moment, under which label, and where each is."""
    here = opened()
    made = runs.list_runs(kind=RunKind.CLONE, database=database, limit=limit)
    documents = [_listed(here, one) for one in made if not one.parameters.get(use_cases.PLAN_ONLY)]
    here.output.result(
        documents,
        lambda: here.output.table(
            ["run", "database", "moment", "label", "people", "state", "copy"],
            [tuple(document.values()) for document in documents],
            empty="There is no copy.",
        ),
    )


def _listed(here: Context, one: runs.Run) -> dict[str, Any]:
    steps = {step.name: step.facts for step in runs.list_steps(one.id)}
    state = runs.standing(one)
    target = places.target_of(here.settings, one)
    if one.state is RunState.DONE and target.cluster is not None and not target.cluster.initialised:
        state = "dropped"
    return {
        "run": one.id,
        "database": one.database,
        "moment": steps.get("prepare", {}).get("moment"),
        "label": steps.get("open", {}).get("label"),
        "people": one.parameters.get("subset"),
        "state": state if not one.error_code else f"{state} ({one.error_code})",
        "url": target.url if state == "done" else None,
    }


@app.command
def verify(
    run_id: Annotated[str, Parameter(help="Id of the run that made the copy; or give --url.")] = "",
    *,
    url: Annotated[str, Parameter(help="Connection string of a database that ought to be a copy.")] = "",
) -> None:
    """Check a copy again by its mark: signature, place, rows, rules, definitions and statistics against today's source.

    A database without a mark of this installation, or with the mark of another database, fails; so does a copy in which a value of the
    source is found. The exit status is 0 only when nothing failed; what could not be looked at is said.
    """
    here = opened()
    if bool(run_id) == bool(url):
        raise UsageError("give the run's id or --url, and not both", 'Look at "obhut clone list".')
    found = verify_copy(here.settings, run_id=run_id, url=url)
    document = {
        "run": found.mark.run,
        "database": found.mark.database,
        "moment": found.mark.moment,
        "map": found.mark.map_version,
        "label": found.mark.label,
        "people": found.mark.subset,
        "holds": found.holds,
        "statements": [statement.document() for statement in found.statements],
    }

    def render() -> None:
        here.output.pairs({key: document[key] for key in ("run", "database", "moment", "map", "label", "people", "holds")})
        _statements(here, found.statements)

    here.output.result(document, render)
    if not found.holds:
        first = failed(found.statements)[0]
        where = first.leaks[0].place if first.leaks else first.why
        raise CloneLeakError(
            f"the copy does not hold: {first.name}, {where}", "Drop it, repair the data map, and make another.", found.statements
        )


@app.command
def sign(
    run_id: RunId,
    *,
    person: Annotated[str, Parameter(help="Who answers for it: an opaque reference, such as an account number.")],
    review_by: Annotated[date, Parameter(help="Until when the word holds: a date such as 2027-06-30.")],
) -> None:
    """Judge a copy anew, and call it anonymised if every criterion is met and a person answers for it until a date.

    The leak check is made again; k (the smallest class of rows that look alike, inside one controller) and l (the fewest different
    sensitive values in a class) are measured in the copy. Where classes, noise or kept values of the originals are left, three attacks
    (singling out, linkability, inference) are carried out on a sample of the source, against a control set. What could not be measured is
    not met. docs/explanation/anonymised.md explains each criterion.
    """
    here = opened()
    if not fits(REFERENCE, person):
        raise UsageError(
            "--person: not an opaque reference", "Use an account or ticket id of letters, digits, dots, dashes and colons; no address."
        )
    try:
        found = gate.sign(here.settings, run_id, person, review_by, here.clock)
    except CloneNotAnonymousError as error:
        if error.verdict is not None:
            _criteria(here, error.verdict)
        raise
    document = {
        "run": run_id,
        "label": found.label,
        "k": found.k,
        "l": found.l,
        "review_by": review_by,
        "criteria": [{"id": one.id, "met": one.met, "fact": one.fact} for one in found.verdict.criteria],
    }

    def render() -> None:
        here.output.pairs({"run": run_id, "label": found.label.value, "k": found.k, "l": found.l})
        _criteria(here, found.verdict)

    here.output.result(document, render)


def _criteria(here: Context, verdict: Verdict) -> None:
    here.output.table(
        ["criterion", "met", "what was seen", "source"],
        [(one.id, "unchecked" if one.met is None else one.met, one.fact, one.source) for one in verdict.criteria],
    )


@app.command
def fixture(
    run_id: RunId,
    *,
    out: Annotated[Path, Parameter(help="File to write (or directory, for csv); a fixture that is there already is replaced.")],
    form: Annotated[Literal["sql", "csv"], Parameter(help="One file of INSERT statements, or a directory with one file a table.")] = "sql",
) -> None:
    """Write the rows of a small copy as a data set for unit tests, safe to commit.

    Only a copy that a named person calls anonymised ("obhut clone sign") and that holds today is written, because nobody can take back what
    was committed. Tables come in the order of foreign keys and rows in that of their primary key, so the same copy gives the same file. Its
    head tells label, person, date of review, moment and map. The schema is the vendor's own: load the file into an empty one.

    A copy for it: obhut clone run --people 20. More than 10,000 rows are refused.
    """
    here = opened()
    made = fixtures.write(here.settings, run_id, out, Form(form), here.clock)
    document = {
        "run": run_id,
        "path": str(made.path),
        "form": made.form,
        "label": made.mark.label,
        "signed_by": made.mark.signed_by,
        "review_by": made.mark.review_by,
        "tables": [{"table": name, "rows": rows} for name, rows in made.tables],
    }

    def render() -> None:
        here.output.table(["table", "rows"], made.tables)
        here.output.pairs({key: document[key] for key in ("path", "label", "signed_by", "review_by")})

    here.output.result(document, render)


@app.command
def drop(run_id: RunId) -> None:
    """Throw a copy away: its own cluster with every file, or everything that was put into the given database.

    Roles that the copy brought to a given server go with it, unless somebody owns something, is a member or is connected by that name;
    those are told.
    """
    here = opened()
    found = runs.get(run_id)
    if found.kind is not RunKind.CLONE or runs.alive(found):
        raise UsageError("that run made no copy, or is still making it", 'Look at "obhut clone list".')
    left = places.drop(here.settings, found)

    def render() -> None:
        here.output.say("The copy of run {run} is gone.", run=run_id)
        if left:
            here.output.warn("The server keeps roles that came with it, because they are used elsewhere: {roles}", roles=", ".join(left))

    here.output.result({"run": run_id, "state": "dropped", "roles_left": left}, render)


def _request(
    here: Context, database: str | None, *, people: str, controller: str, these: Sequence[str], locale: str, **more: Any
) -> Request:
    name = here.database(database)
    part = subset.parse(people, key_values(controller, "--controller") if controller else (), [_person(one) for one in these])
    workers = more.pop("workers", 0) or max(1, min(8, os.cpu_count() or 1))
    return Request(name, wanted=part, locale=locale, workers=workers, **more)


def _person(written: str) -> tuple[str, tuple[str, ...]]:
    kind, _, key = written.partition(":")
    if not kind or not key:
        raise UsageError("--these: not kind and key", "Write patient:4711.")
    return kind, tuple(key_values(key, "--these"))


def _of_backup(at: str, backup: str) -> dict[str, Any]:
    if backup and not at:
        raise UsageError("--backup goes with --at", "Name the moment, too: --at latest.")
    return {"at": parse_target(at) if at else None, "backup": backup}


def _statements(here: Context, statements: Sequence[Statement]) -> None:
    here.output.table(
        ["statement", "result", "looked at", "places", "why"],
        [
            (one.name, one.result.value, one.looked_at, [f"{leak.place} ({leak.cells})" for leak in one.leaks], one.why)
            for one in statements
        ],
    )
