"""``obhut restore``: restore through the filter, prove it, open it, and let anybody check the certificate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cyclopts import App, Parameter

from obhut.cli.context import Context, context
from obhut.cli.controllers import key_values, opened
from obhut.cli.exits import UsageError
from obhut.cli.phases import Database, Phases
from obhut.controllers.vocabulary import Action
from obhut.foundation.errors import ObhutError
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.restores import opening, plan, preflight, side, store
from obhut.restores import run as use_cases
from obhut.restores import verify as verification
from obhut.restores.errors import VerificationError

app = App(name="restore", help="Restore through the filter and prove that erased people stay erased.")

To = Annotated[
    str,
    Parameter(help="The point in time: 2026-03-01T09:00:00Z (with its zone), an LSN such as 0/3000148, name:<restore point>, or latest."),
]
RunId = Annotated[str, Parameter(help="Id of the restore; obhut restore list shows it.")]


@app.command(name="plan")
def plan_(
    database: Database = None,
    *,
    to: To,
    backup: Annotated[str | None, Parameter(help="Base backup to start from; by default the newest that fits.")] = None,
) -> None:
    """Show from what a restore would start and what speaks against it; changes nothing.

    What only the recovered database itself can tell (its data map, prepared transactions, extensions) is looked at by "run", before
    anything is written.
    """
    here = opened()
    name = here.database(database)
    target = plan.parse_target(to)
    facts, sources = preflight.survey(here.settings, name, target, here.actor, here.clock, backup_id=backup, action=Action.RESTORE)
    decision = plan.judge_repository(facts)
    document = {
        "database": name,
        "to": str(target),
        "allowed": decision.allowed,
        "backups": [link.id for link in sources.chain] if sources else [],
        "tombstones": sources.tombstones if sources else None,
        "erasure_list_size": sources.list_size if sources else None,
        "server": facts.major,
        "needed_bytes": facts.needed_bytes,
        "free_bytes": facts.free_bytes,
        "refusals": [{"code": reason.code, "fact": reason.fact, "todo": reason.todo} for reason in decision.refusals],
    }

    def render() -> None:
        here.output.pairs({key: value for key, value in document.items() if key != "refusals"})
        here.output.table(
            ["code", "what speaks against it", "what to do"],
            [(reason.code, reason.fact, reason.todo) for reason in decision.refusals],
            empty="Nothing speaks against it.",
        )

    here.output.result(document, render)
    preflight.refuse(decision, f"restore of {name} would be refused")


@app.command
def run(
    database: Database = None,
    *,
    to: To,
    target: Annotated[
        str, Parameter(help="Connection string of an empty database to restore into; by default a new private cluster.")
    ] = "",
    quarantine: Annotated[
        str, Parameter(help="Connection string of a read-only restore made elsewhere (a managed service), used instead of backups.")
    ] = "",
    backup: Annotated[str, Parameter(help="Base backup to start from; by default the newest that fits.")] = "",
    workers: Annotated[int, Parameter(help="Streams side by side.")] = 0,
    leave_out: Annotated[
        tuple[str, ...], Parameter(help='A definition that is not made again, as the refusal names it: "INDEX public.people_email".')
    ] = (),
    controller: Annotated[str, Parameter(help="Restore one controller's rows only, into a side schema; its key.")] = "",
    subject: Annotated[str, Parameter(help="Restore one person's rows only, into a side schema: kind:key.")] = "",
    schema: Annotated[str, Parameter(help="Name of the side schema; by default obhut_restored.")] = "obhut_restored",
    open_: Annotated[bool, Parameter(name="--open", help="Open the database right after the proof.")] = False,
) -> None:
    """Restore a database, without the people on the erasure list, and prove it; it stays closed until "open".

    A killed restore goes on with "resume". With --controller or --subject the rows go into a side schema of the protected database (or of
    --target), where the vendor takes them from.
    """
    here = opened()
    name = here.database(database)
    count = workers or max(2, min(8, os.cpu_count() or 2))
    if controller or subject:
        if (controller and subject) or open_ or leave_out:
            raise UsageError("--controller and --subject stand alone, without --open and --leave-out")
        wanted = side.SideRequest(
            name, plan.parse_target(to), schema=schema, target=target, quarantine=quarantine, backup=backup, workers=count,
            controller=key_values(controller, "--controller") if controller else (),
            subject_kind=_subject(subject)[0] if subject else "", subject=_subject(subject)[1] if subject else (),
        )  # fmt: skip
        _shown(here, side.begin(here.settings, wanted, here.actor, here.clock, Phases(here.output)))
        return
    request = use_cases.Request(name, plan.parse_target(to), target, quarantine, backup, count, leave_out)
    outcome = use_cases.begin(here.settings, request, here.actor, here.clock, Phases(here.output))
    if open_:
        _opened(here, opening.open_database(here.settings, outcome.run, here.actor, here.clock, Phases(here.output)))
    else:
        _shown(here, outcome)


@app.command
def resume(run_id: RunId) -> None:
    """Go on with a restore that was killed or that failed; what is finished is not done again."""
    here = opened()
    scope = runs.get(run_id).parameters.get("scope")
    going_on = use_cases.resume if scope == "database" else side.resume
    _shown(here, going_on(here.settings, run_id, here.actor, here.clock, Phases(here.output)))


@app.command(name="open")
def open_(run_id: RunId) -> None:
    """Open the database of a proved restore: only now can anybody but Obhut reach it.

    Whoever was erased since the proof is taken out first, and the proof is made anew. The quarantine is removed, and a new restore epoch
    stands in the erasure list.
    """
    here = opened()
    _opened(here, opening.open_database(here.settings, run_id, here.actor, here.clock, Phases(here.output)))


@app.command
def start(run_id: RunId) -> None:
    """Start the server of an opened restore, for instance after the machine was booted.

    Only for a restore without --target: its server is Obhut's own, on a socket in the state directory.
    """
    here = opened()
    url = opening.start(here.settings, run_id)
    here.output.result({"run": run_id, "database": url}, lambda: here.output.say("The server runs: {url}", url=url))


@app.command
def stop(run_id: RunId) -> None:
    """Stop the server of an opened restore; its data stay, and "start" starts it again."""
    here = opened()
    opening.stop(here.settings, run_id)
    here.output.result({"run": run_id, "stopped": True}, lambda: here.output.say("The server of restore {run} is stopped.", run=run_id))


@app.command
def abandon(run_id: RunId) -> None:
    """Give a restore up: its quarantine and its new cluster are removed; a given target stays closed."""
    here = opened()
    use_cases.abandon(here.settings, run_id, here.clock)
    here.output.result(
        {"run": run_id, "state": "cancelled"}, lambda: here.output.say("Restore {run} is abandoned and removed.", run=run_id)
    )


@app.command(name="list")
def list_(database: Database = None, *, limit: Annotated[int, Parameter(help="How many at the most.")] = 50) -> None:
    """List restores, the youngest first: what was asked for, how far each is, and whether it was proved."""
    here = opened()
    found = runs.list_runs(kind=RunKind.RESTORE, database=database, limit=limit)
    certificates = {kept.run: kept for kept in store.listed(database)}
    documents = [
        {
            "run": one.id,
            "database": one.database,
            "to": one.parameters.get("to"),
            "scope": one.parameters.get("scope"),
            "state": _state(one, certificates.get(one.id)),
            "started_at": one.started_at,
            "error": one.error_code or None,
        }
        for one in found
    ]
    here.output.result(
        documents,
        lambda: here.output.table(
            ["restore", "database", "to", "scope", "state", "started", "error"],
            [tuple(document.values()) for document in documents],
            empty="There is no restore.",
        ),
    )


@app.command
def show(run_id: RunId) -> None:
    """Show the steps of a restore and every statement of its proof."""
    here = opened()
    found = runs.get(run_id)
    kept = store.find(run_id)
    steps = runs.list_steps(run_id)
    statements: list[dict[str, Any]] = kept.document["certificate"]["statements"] if kept else []
    document = {
        "run": run_id,
        "state": _state(found, kept),
        "database": found.database,
        "parameters": found.parameters,
        "steps": [{"name": step.name, "state": step.state, "attempts": step.attempts, "facts": step.facts} for step in steps],
        "statements": statements,
        "certificate": str(store.paths(here.settings, run_id)[0]) if kept else None,
    }

    def render() -> None:
        here.output.pairs({key: document[key] for key in ("run", "state", "database", "certificate")})
        here.output.table(["step", "state", "attempts"], [(step.name, step.state, step.attempts) for step in steps])
        here.output.table(
            ["statement", "result", "numbers", "places"],
            [(one["name"], one["result"], one["numbers"], one["places"]) for one in statements],
            empty="Nothing is proved yet.",
        )

    here.output.result(document, render)


@app.command
def verify(
    certificate: Annotated[Path, Parameter(help="File of the certificate.")],
    *,
    target: Annotated[
        str | None, Parameter(help="Connection string of the restored database; by default where this installation restored it.")
    ] = None,
    key: Annotated[
        Path | None, Parameter(help="File with the Ed25519 public key to trust (32 bytes or hex); by default the key store's.")
    ] = None,
) -> None:
    """Check a certificate against its database: signature, counts, sums and absence, each counted anew by other code.

    What cannot be checked is said and never counts as passed: the exit status is 0 only when everything was checked and nothing differs.
    """
    here = _with_installation(needed=key is None or target is None)
    known = here is not None
    url = target or (_url_of(here, certificate) if here else None)
    found = verification.verify(certificate, key=_key(key) if key else None, settings=here.settings if here else None, url=url)
    output = here.output if here else context().output
    output.result(
        {"run": found.run, "passed": found.passed, "findings": list(found.findings)},
        lambda: output.table(
            ["statement", "result", "where", "said", "found", "why"],
            [(one.statement, one.result, one.where, one.said, one.found, one.why) for one in found.findings],
        ),
    )
    del known
    if found.failed:
        first = found.failed[0]
        raise VerificationError(
            f"{len(found.failed)} statements of the certificate do not hold, first: {first.statement} {first.where}".rstrip(),
            "Was the database used since it was opened? Then rows differ for that reason; otherwise keep it closed.",
        )
    if found.unchecked:
        raise VerificationError(
            f"{len(found.unchecked)} statements could not be checked, first: {found.unchecked[0].statement}",
            "Give --target, and --config of the installation that holds the erasure list.",
        )


def _with_installation(*, needed: bool) -> Context | None:
    """Return the context with its control database, or None where there is no installation and none is needed."""
    try:
        return opened()
    except ObhutError:
        if needed:
            raise
        return None


def _url_of(here: Context, file: Path) -> str | None:
    kept = next((kept for kept in store.listed() if store.paths(here.settings, kept.run)[0].name == file.name), None)
    return opening.url_of(here.settings, kept.run) if kept else None


def _key(path: Path) -> Ed25519PublicKey:
    try:
        content = path.read_bytes()
        raw = content if len(content) == 32 else bytes.fromhex(content.decode("ascii").strip())
        return Ed25519PublicKey.from_public_bytes(raw)
    except (OSError, ValueError):
        raise UsageError("--key: no Ed25519 public key in that file", "It holds 32 bytes, or their hexadecimal digits.") from None


def _subject(text: str) -> tuple[str, tuple[str, ...]]:
    kind, separator, key = text.partition(":")
    if not separator or not kind:
        raise UsageError("--subject: not of the form kind:key", "For example participant:4711.")
    return kind, key_values(key, "--subject")


def _state(run_: runs.Run, kept: store.Kept | None) -> str:
    if run_.state is RunState.PARTIAL and kept is not None and kept.holds:
        return "proved"
    if run_.state is RunState.DONE:
        return "opened" if run_.parameters.get("scope") == "database" else "done"
    return runs.standing(run_)


def _shown(here: Context, outcome: use_cases.Outcome) -> None:
    def render() -> None:
        here.output.pairs(
            {
                "restore": outcome.run,
                "proved": outcome.holds,
                "certificate": outcome.certificate,
                "page": outcome.page,
                "target": outcome.url,
            }
        )
        for note in outcome.notes:
            here.output.say(note)
        if outcome.state is RunState.PARTIAL:
            here.output.say('The database is proved and closed. Open it with "obhut restore open {run}".', run=outcome.run)

    here.output.result(outcome, render)


def _opened(here: Context, opened_: opening.Opened) -> None:
    def render() -> None:
        here.output.pairs(
            {"restore": opened_.run, "database": opened_.url, "epoch": opened_.epoch, "system identifier": opened_.system_identifier}
        )
        here.output.say("Next: lead the application there, and set the URL of the database in obhut.toml.")
        here.output.say('It is a new server: take a base backup at once with "obhut backup start". Subscribers and replicas begin anew.')

    here.output.result(opened_, render)
