"""``obhut erasures``: look after the erasure list."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from obhut.cli.context import Context, context
from obhut.cli.exits import Exit, UsageError
from obhut.controllers import register
from obhut.erasure import canary, ledger, notes, reading, vectors
from obhut.erasure.entries import Decision, State, Tombstone
from obhut.finality import clean as cleaning
from obhut.finality import look, prove
from obhut.foundation.language import text
from obhut.postgres.connections import Session
from obhut.postgres.control import open_control
from obhut.restores.inventory import inventory_of

app = App(
    name="erasures",
    help="Look after the erasure list: who must stay erased, in the control database, the mirror and the anchor. "
    "The format is specified in docs/spec/erasure-list.md.",
)
_COLUMNS: Final = ["number", "tombstone", "database", "kind", "action", "state", "epoch", "erased at", "instruction"]
# A WAL segment is as old as its first record, a file's time tells its last one; and clocks differ.

DatabaseArgument = Annotated[str, Parameter(help="Name of the protected database.")]
TombstoneIdArgument = Annotated[str, Parameter(help='Id of the tombstone, as "obhut erasures list" shows it.')]
InstructionOption = Annotated[str, Parameter(help="Id of the controller's documented instruction to do so.")]


@app.command(name="list")
def list_(
    database: Annotated[str | None, Parameter(help="Only this protected database.")] = None,
    *,
    state: Annotated[State | None, Parameter(help="Only tombstones in this state.")] = None,
    after: Annotated[int, Parameter(help="Only tombstones behind this number.")] = 0,
    limit: Annotated[int, Parameter(help="How many at the most.")] = 100,
) -> None:
    """List tombstones, oldest first, without saying who they are about."""
    here = _opened()
    found = reading.page(database=database, state=state, after=after, limit=limit)
    here.output.result([_document(item) for item in found], lambda: _table(here, found))


@app.command
def show(
    tombstone: TombstoneIdArgument,
    *,
    reveal: Annotated[
        reading.Purpose | None, Parameter(help="Also show the key, for this purpose; the look is recorded with your name.")
    ] = None,
) -> None:
    """Show one tombstone."""
    here = _opened()
    (found,) = reading.find([tombstone])
    document = _document(found)
    if reveal is not None:
        private = reading.reveal(tombstone, here.actor, reveal, here.clock)
        document["key"] = None if private is None else list(private[0])
        document["fingerprint"] = None if private is None else private[1]
    here.output.result(document)


@app.command
def verify() -> None:
    """Recompute the whole list, the mirror with its signatures, and compare both with the anchor.

    A restore does the same before it begins, and refuses after any finding. Every finding has its own code.
    """
    here = _opened()
    report = ledger.verify_list(here.settings)
    here.output.result(
        {
            "origin": report.origin,
            "size": report.size,
            "head": report.hash.hex(),
            "anchored": report.anchored,
            "signed_at": report.signed_at,
            "segments": report.segments,
            "segments_forgotten": report.forgotten_segments,
            **{str(state): number for state, number in report.states.items()},
        }
    )


@app.command
def recover(
    *,
    accept_missing_anchor: Annotated[
        bool, Parameter(help="Set a new anchor where the old one is lost; only when you know what happened to the state directory.")
    ] = False,
) -> None:
    """Make list, mirror and anchor whole again from each other, for instance after the control database was lost.

    Copies forward only. When list and mirror are both behind the anchor, or differ, it refuses.
    """
    here = _opened()
    done = ledger.recover(here.settings, here.clock, accept_missing_anchor=accept_missing_anchor)
    here.output.result(done)


@app.command
def lift(tombstone: TombstoneIdArgument, *, instruction: InstructionOption) -> None:
    """Lift a tombstone that was recorded in error or whose instruction was reversed.

    A restore no longer applies it, and the list forgets who it was about. What was erased does not come back by that.
    """
    here = _opened()
    _require_instruction(reading.find([tombstone])[0], instruction, here.clock.now())
    ledger.lift([tombstone], instruction, here.clock)
    here.output.result({"tombstone": tombstone, "state": State.LIFTED})


@app.command
def resolve(
    tombstone: TombstoneIdArgument,
    decision: Annotated[Decision, Parameter(help="Whether the row is the erased person or another one.")],
    *,
    fingerprint: Annotated[str, Parameter(help="Fingerprint of the row, as the refusal names it.")],
    instruction: InstructionOption,
) -> None:
    """Settle a conflict: a row has the tombstone's key, another fingerprint, and was not created after the erasure."""
    here = _opened()
    _require_instruction(reading.find([tombstone])[0], instruction, here.clock.now())
    ledger.resolve(tombstone, fingerprint, decision, instruction, here.clock)
    here.output.result({"tombstone": tombstone, "decision": decision})


@app.command
def retire(
    database: Annotated[str, Parameter(help="Name of the protected database.")],
    *,
    dry_run: Annotated[bool, Parameter(help="Only say what the repository holds.")] = False,
) -> None:
    """Retire every tombstone that no existing copy can still hold, and forget who they were about.

    Looks at what really lies in the backup repository, in whatever state, never at a configured period. When the last tombstone of a
    day has retired, the key that opens its part of the mirror is destroyed.
    """
    here = _opened()
    inventory = inventory_of(here.settings, database, here.clock)
    retired = 0 if dry_run else ledger.retire(inventory, here.clock)
    here.output.result({"database": database, "copies_since": inventory.copies_since, "retired": retired})


@app.command
def residue(
    database: DatabaseArgument,
    *,
    values_from: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="File with values that were erased, one a line; - reads standard input. Their bytes are searched for.",
        ),
    ] = None,
    canaries: Annotated[bool, Parameter(negative="", help="Search for the bytes of canaries that were erased.")] = False,
    run: Annotated[str | None, Parameter(help='Only the erasure or sweep of this run, as "obhut erase" named it.')] = None,
) -> int:
    """Show where bytes of erased people may remain, and by which date they are gone.

    In heap, indexes, planner statistics, WAL and backups, for every confirmed erasure and sweep of which something may be left. A file
    counts as clean once it was built anew after no snapshot could see the old rows; nothing needs to be known about the values. With
    --values-from or --canaries the server's files are read through the server and searched, where the role may do so: exit status 5 when
    something is found. The values go nowhere else.
    """
    here = _opened()
    found = look.look(here.settings, database, here.clock)
    found = look.only(found, run) if run else found
    hits = _search(database, _values(database, values_from, canaries=canaries)) if values_from or canaries else []
    document = {**_residue(found), "searched": [asdict(one) for one in hits]}
    here.output.result(document, lambda: _show_residue(here, found, hits))
    return Exit.UNPROVEN if any(one.hits for one in hits) else Exit.OK


@app.command
def clean(
    database: DatabaseArgument,
    *,
    rewrite: Annotated[
        bool, Parameter(negative="", help="Also rewrite tables: nobody can use a table while it is being rewritten.")
    ] = False,
) -> None:
    """Remove what erasures have left as bytes: vacuum, rebuild indexes, renew statistics; rewrite tables when asked.

    Nobody waits for the first three. "obhut serve" does them once a day, and rewrites tables in the window of the settings
    (databases.<name>.finality.window). Base backups copy what remains in tables, so their clock starts with the rewrite.
    """
    here = _opened()
    done = cleaning.clean(here.settings, database, here.clock, rewrite=rewrite)
    here.output.result({**asdict(done.work), "residue": _residue(done.residue)}, lambda: _show_cleaned(here, done))


def _values(database: str, source: Path | None, *, canaries: bool) -> list[str]:
    found = [one.token for one in canary.all_of(database) if one.tombstone] if canaries else []
    if source is None:
        return found
    try:
        content = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise UsageError(f"--values-from: {source} cannot be read as text", "Give a file with one value a line, or -.") from None
    return [*found, *(line.strip() for line in content.splitlines() if line.strip())]


def _search(database: str, values: list[str]) -> list[prove.Hits]:
    here = context()
    with Session.connect(here.settings.database(database).url, application_name="obhut finality") as session:
        return prove.search(look.take_in(here.settings, database, session), values)


def _residue(found: look.Residue) -> dict[str, object]:
    return {
        "database": found.database,
        "looked_at": found.looked_at,
        "finished": found.finished,
        "finished_people": found.finished_people,
        "open": [
            {
                "observation": one.seen.id,
                "entries": [one.first_entry, one.last_entry],
                "erasures": one.runs,
                "people": one.people,
                "observed_at": one.seen.taken_at,
                "settled_at": one.seen.settled_at,
                "traces": [asdict(trace) for trace in traces],
            }
            for one, traces in found.open
        ],
    }


def _show_residue(here: Context, found: look.Residue, hits: Sequence[prove.Hits]) -> None:
    here.output.table(
        ["erasures", "people", "observed at", "place", "state", "gone by", "objects", "why"],
        [
            (one.runs, one.people, one.seen.taken_at, trace.place, trace.state, trace.when, len(trace.objects), text(trace.why) or None)
            for one, traces in found.open
            for trace in traces
        ],
        empty="Nothing of any confirmed erasure may be left anywhere.",
    )
    here.output.say("{runs} erasures of {people} people have left nothing anywhere.", runs=found.finished, people=found.finished_people)
    if hits:
        found_in = [(one.place, one.name, one.bytes_read, one.hits) for one in hits if one.hits]
        here.output.table(["place", "object", "bytes read", "hits"], found_in, empty="No byte of these values was found.")


def _show_cleaned(here: Context, done: cleaning.Cleaned) -> None:
    work = done.work
    here.output.pairs(
        {
            "vacuumed": len(work.vacuumed),
            "indexes rebuilt": len(work.rebuilt),
            "statistics renewed": len(work.analysed),
            "rewritten": len(work.rewritten),
        }
    )
    _show_residue(here, done.residue, ())


@app.command
def head() -> None:
    """Show size and head of the list with the signed checkpoint, to be handed to a third party: it names nobody."""
    here = _opened()
    places = ledger.places()
    found, anchor, key = reading.head(), places.anchor(), places.verifying_key()
    path = places.state_directory / notes.ANCHOR_NAME
    here.output.result(
        {
            "size": found.size,
            "head": found.hash.hex(),
            "signed_at": found.signed_at,
            "checkpoint": path.read_text(encoding="utf-8") if anchor else None,
            "verifier_key": str(notes.verifier_key(anchor.origin, key)) if anchor and key else None,
        }
    )


@app.command(name="export-spec")
def export_spec(
    directory: Annotated[Path, Parameter(help="Where the test vectors go; created when missing.")],
) -> None:
    """Write the test vectors of the erasure list's specification, for whoever writes a verifier of their own."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / vectors.FILE_NAME
    path.write_text(vectors.render(), encoding="utf-8")
    context().output.result({"written": path})


def _opened() -> Context:
    here = context()
    open_control(here.settings)
    ledger.open_ledger(here.settings)
    return here


def _require_instruction(tombstone: Tombstone, instruction: str, now: datetime) -> None:
    """Refuse an instruction of another controller, or one that is not in force."""
    given = register.get_instruction(instruction)
    missing = None
    if given.controller_id != tombstone.controller:
        missing = "is of another controller than the tombstone"
    elif (state := given.state(now)) not in {"valid", "used"}:
        missing = f"is {state}"
    if missing:
        raise UsageError(f"instruction {instruction} {missing}", 'Run "obhut instructions list".')


def _document(item: Tombstone) -> dict[str, object]:
    return {
        "number": item.seq,
        "id": item.id,
        "database": item.database,
        "controller": item.controller,
        "subject_kind": item.subject_kind,
        "action": item.action,
        "state": item.state,
        "map_version": item.map_version,
        "instruction": item.instruction,
        "epoch": item.epoch,
        "erased_at": item.erased_at,
    }


def _table(here: Context, found: Sequence[Tombstone]) -> None:
    rows = [
        (item.seq, item.id, item.database, item.subject_kind, item.action, item.state, item.epoch, item.erased_at, item.instruction)
        for item in found
    ]
    here.output.table(_COLUMNS, rows, empty="The erasure list holds no such tombstone.")
