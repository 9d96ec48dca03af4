"""Commands that find, show, hand out, verify and keep the controllers' logs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from obhut.auditlog import acts, entries, reading, recover, retain, vectors, witness
from obhut.auditlog import log as logs
from obhut.auditlog.disclosure import disclosed
from obhut.auditlog.entries import Kind
from obhut.auditlog.export import Contents, Exporter
from obhut.auditlog.people import key_ids
from obhut.auditlog.pieces import together
from obhut.auditlog.reading import Opened
from obhut.auditlog.search import Cursor, Found, Query, search
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import Store, open_store
from obhut.auditlog.tlog import proofs
from obhut.auditlog.tlog.checkpoints import Checkpoint, ProofFile
from obhut.auditlog.verify import Report, verify
from obhut.cli.audit import app
from obhut.cli.context import Context, context
from obhut.cli.controllers import key_values, moment, opened
from obhut.cli.exits import UsageError
from obhut.cli.phases import Database
from obhut.controllers import register
from obhut.controllers.records import ControllerRecord
from obhut.controllers.vocabulary import SubjectRef
from obhut.foundation.durations import parse_duration
from obhut.keystore import open_keystore
from obhut.keystore.subjects import Keyring
from obhut.keystore.wrapping import STAFF
from obhut.postgres.connections import Session
from obhut.postgres.control import control_session

Controller = Annotated[str, Parameter(help='Id of the controller, as "obhut controllers list" shows it.')]
Since = Annotated[str | None, Parameter(name="--from", help="From this day or moment on.")]
Until = Annotated[str | None, Parameter(name="--to", help="Until this day or moment, itself excluded.")]
Open = Annotated[bool, Parameter(negative="", help="Also show the values; needs the controller's instruction to export, and is logged.")]
Target = Annotated[Path, Parameter(help="Directory that does not exist yet, or a file name ending in .zip.")]
PeriodArgument = Annotated[str, Parameter(help="Month of the log, such as 2026-11.")]
_COLUMNS = ["log", "index", "at", "kind", "table", "operation", "by", "parts"]

witnesses = App(name="witness", help="Let somebody else sign that checkpoints were seen: declare a key, ask, take the answer.")
app.command(witnesses)


@dataclass(frozen=True, slots=True)
class _Place:
    """What every command about one controller's log needs."""

    here: Context
    session: Session
    store: Store
    record: ControllerRecord

    @property
    def signer(self) -> Signer:
        return Signer.of(open_keystore(self.here.settings), self.record.id)


@contextmanager
def _place(controller: str) -> Iterator[_Place]:
    """Open the log of a controller, with everything in it that Obhut has done until now."""
    here = opened()
    record = register.get_controller(controller)
    with control_session("obhut audit") as session:
        store = open_store(here.settings)
        writer = logs.Log(session, store, open_keystore(here.settings), record.database, here.clock)
        acts.drain(session, writer, record.database)
        yield _Place(here, session, store, record)


@contextmanager
def _keys(place: _Place, subject: SubjectRef | None, *, wanted: bool, what: str) -> Iterator[Keyring | None]:
    """Give the keys that open values, after the gate has said yes and the disclosure is noted; None where none are wanted."""
    if not wanted:
        yield None
        return
    here = place.here
    with disclosed(here.settings, place.session, place.record, what, here.actor, here.clock, subject=subject) as keyring:
        yield keyring


@app.command(name="logs")
def logs_(controller: Annotated[str | None, Parameter(help="Only those of this controller.")] = None) -> None:
    """List the logs, one a controller and month, the youngest first."""
    here = opened()
    with control_session("obhut audit") as session:
        found = reading.logs(session, [controller] if controller else None)
    here.output.result(
        [
            {
                "controller": one.controller,
                "period": one.period,
                "origin": one.origin,
                "size": one.size,
                "root": one.root.hex(),
                "opened_at": one.opened_at,
                "grown_at": one.grown_at,
                "removed_at": one.removed_at,
            }
            for one in found
        ],
        lambda: here.output.table(
            ["controller", "period", "entries", "last entry", "removed"],
            [(one.controller, one.period, one.size, one.grown_at, one.removed_at) for one in found],
            empty="No log has been opened yet.",
        ),
    )


@app.command(name="search")
def search_(
    controller: Controller,
    *,
    since: Since = None,
    until: Until = None,
    table: Annotated[str | None, Parameter(help="Only this table, as schema.name.")] = None,
    operation: Annotated[
        str | None, Parameter(help="Only this: insert, update, delete, a gap's reason, or an action such as erase.effective.")
    ] = None,
    kind: Annotated[Kind | None, Parameter(help="Only entries of this kind.")] = None,
    person: Annotated[tuple[str, str] | None, Parameter(help="Only about this person: kind of the data map, and key.")] = None,
    actor: Annotated[str | None, Parameter(help="Only what this person did, by the reference the application gives.")] = None,
    limit: Annotated[int, Parameter(help="Entries a page.")] = 50,
    after: Annotated[str | None, Parameter(help="Go on behind this entry: the cursor that the page before ended with.")] = None,
    values: Open = False,
) -> None:
    """Find entries of a controller's logs, the youngest first.

    The index names candidates; every entry that is shown was read from the signed log. Values are ciphertext until --values opens those
    whose keys still exist.
    """
    with _place(controller) as place:
        query = Query(moment(since, "--from"), moment(until, "--to"), table, operation, kind, None, limit, _cursor(after))
        subject = _subject(person, actor)
        if subject:
            with Keyring(place.here.settings, clock=place.here.clock) as keyring:
                query = _about(query, key_ids(keyring, controller, subject))
        with _keys(place, subject if person else None, wanted=values, what="search") as keyring:
            found = search(place.session, place.store, controller, query)
            opened_parts = reading.open_parts(controller, [(one.files, one.entry) for one in found], keyring)
        document = {
            "entries": [_document(one, parts) for one, parts in zip(found, opened_parts, strict=True)],
            "next": str(found[-1].cursor) if len(found) == limit else None,
        }
        place.here.output.result(document, lambda: _show_found(place.here, found, opened_parts, document))


@app.command
def show(
    controller: Controller,
    period: PeriodArgument,
    index: Annotated[int, Parameter(help="Number of the entry, from 0.")],
    *,
    values: Open = False,
    proof: Annotated[Path | None, Parameter(help="Also write the proof that it is in the log (C2SP tlog-proof) to this file.")] = None,
) -> None:
    """Show one entry, compared with its hash in the tree, and the sealed parts that can still be opened."""
    with _place(controller) as place:
        head = reading.log_of(place.session, controller, period)
        files = head.files(place.store)
        octets = files.entry(index, head.size)
        found = Found(controller, period, index, octets, entries.decode(octets), files)
        with _keys(place, None, wanted=values, what="entry") as keyring:
            (parts,) = reading.open_parts(controller, [(files, found.entry)], keyring)
        if proof is not None:
            path = proofs.inclusion(files.reader(head.size), index, head.size)
            note = place.signer.hand_out(Checkpoint(head.origin, head.size, head.root), place.here.clock.now())
            _write(proof, str(ProofFile(index, tuple(path), note, octets)))
        place.here.output.result(_document(found, parts))


@app.command
def export(
    controller: Controller,
    target: Target,
    *,
    since: Since = None,
    until: Until = None,
    values: Open = False,
) -> None:
    """Hand a controller its log: a bundle of tiles, checkpoints, entries, CSV and JSON Lines, and a page that explains it.

    Anybody can check it without this system ("obhut audit verify"). Without --values it holds ciphertext only, and an erasure reaches it:
    the keys go. With --values it holds personal data in clear, needs the controller's instruction to export, and its receiver answers
    for it.
    """
    with _place(controller) as place, _keys(place, None, wanted=values, what="export") as keyring:
        contents = _exporter(place, keyring).export(target, since=moment(since, "--from"), until=moment(until, "--to"))
        _exported(place, contents, target, "export.done")


@app.command
def history(
    controller: Controller,
    kind: Annotated[str, Parameter(help="Kind of data subject, as the data map names it.")],
    key: Annotated[str, Parameter(help="The person's key: the plain value, or a JSON array for several columns.")],
    target: Target,
) -> None:
    """Write one person's history as a controller hands it over (Art. 15): every entry that concerns it, in clear, each with its proof.

    Other people's parts of the same entries stay sealed. Needs the controller's instruction to export.
    """
    subject = SubjectRef(kind, key_values(key, "KEY"))
    with _place(controller) as place, _keys(place, subject, wanted=True, what="history") as keyring:
        ids = key_ids(keyring, controller, subject) if keyring else []
        _exported(place, _exporter(place, keyring).history(target, ids), target, "history.done")


@app.command(name="verify")
def verify_(
    bundle: Annotated[Path, Parameter(help="The bundle: a directory or a ZIP file.")],
    *,
    key: Annotated[str | None, Parameter(help="The controller's log key (base64), as it came with the contract.")] = None,
    remember: Annotated[
        Path | None,
        Parameter(help="File of what was seen before: read, and written when everything holds. Keep it; it uncovers a rewritten past."),
    ] = None,
) -> None:
    """Verify a bundle with no database, no network and no settings: signatures, the whole tree, every entry, blobs and disclosed values.

    Whatever does not hold has an error of its own, and the exit status is 5. Gaps are listed: what could not be seen is part of the truth.
    """
    here = context()
    report = verify(bundle, key=key, remember=remember)
    document = {**asdict(report), "tables": dict(report.tables)}
    here.output.result(document, lambda: _show_report(here, report))


@app.command(name="key")
def key_(controller: Controller) -> None:
    """Show the public key of a controller's logs, to be handed over with the contract: whoever has it can verify every bundle."""
    here = opened()
    record = register.get_controller(controller)
    signer = Signer.of(open_keystore(here.settings), record.id)
    ed25519, mldsa44 = signer.verifier_keys("-")
    import base64

    document = {
        "controller": record.id,
        "ed25519": base64.b64encode(ed25519.public).decode(),
        "ml_dsa_44": base64.b64encode(mldsa44.public).decode(),
    }
    here.output.result(document, lambda: here.output.pairs({"controller": record.id, "key": document["ed25519"]}))


@app.command(name="retain")
def retain_(
    *,
    controller: Annotated[str | None, Parameter(help="With --keep: whose logs.")] = None,
    keep: Annotated[str | None, Parameter(help="Keep this controller's logs for this time, such as P3Y; nothing is removed now.")] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say what would go.")] = False,
) -> None:
    """Remove whole periods whose retention has ended; their checkpoints stay.

    The default is audit_log.retention of the settings (12 months). "obhut serve" does this once a day.
    """
    here = opened()
    with control_session("obhut audit") as session:
        if keep is not None:
            if controller is None:
                raise UsageError("--keep needs --controller", "The default for all is audit_log.retention in the settings.")
            retain.set_retention(session, register.get_controller(controller).id, _duration(keep), here.actor, here.clock)
            here.output.result({"controller": controller, "keep": keep})
            return
        due = retain.plan(reading.logs(session), retain.retentions(session), here.settings.audit_log.retention, here.clock.now())
        if not dry_run:
            retain.remove(session, open_store(here.settings), open_keystore(here.settings), due, here.clock)
    rows = [(one.head.controller, one.head.period, one.head.size, one.ended + one.kept) for one in due]
    here.output.result(
        {
            "removed": not dry_run,
            "periods": [dict(zip(("controller", "period", "entries", "due_since"), row, strict=True)) for row in rows],
        },
        lambda: here.output.table(["controller", "period", "entries", "due since"], rows, empty="No period is past its retention."),
    )


@app.command(name="recover")
def recover_(database: Database = None) -> None:
    """Bring the control database up to what was published, after it was restored from an older copy.

    Until then nothing is signed. Copies forward only, believes only what the log keys have signed, and compares every entry with its hash.
    """
    here = opened()
    name = here.database(database)
    keys, store = open_keystore(here.settings), open_store(here.settings)
    with control_session("obhut audit") as session:
        writer = logs.Log(session, store, keys, name, here.clock)
        owners = [one.id for one in register.list_controllers(name)]
        done = recover.recover(session, store, keys, writer, name, [*owners, f"unassigned:{name}"])
    here.output.result(
        [asdict(one) for one in done],
        lambda: here.output.table(
            ["controller", "period", "entries before", "entries now"],
            [(one.controller, one.period, one.before, one.after) for one in done],
            empty="The control database knows everything that was published.",
        ),
    )


@witnesses.command
def declare(controller: Controller, key: Annotated[str, Parameter(help="Verifier key of the witness: name+id+key.")]) -> None:
    """Accept the cosignatures of a witness on a controller's checkpoints from now on."""
    with _place(controller) as place:
        found = witness.declare(place.session, controller, key, place.here.actor, place.here.clock)
        place.here.output.result({"controller": controller, "witness": found.name, "id": found.id.hex()})


@witnesses.command
def request(
    controller: Controller,
    period: PeriodArgument,
    target: Annotated[Path, Parameter(help="File that the question is written to.")],
    *,
    old: Annotated[int, Parameter(help="Number of entries the witness saw last; 0 for none.")] = 0,
) -> None:
    """Write what a witness is asked with (C2SP tlog-witness, add-checkpoint) to a file, to be posted to the witness."""
    with _place(controller) as place:
        head = reading.log_of(place.session, controller, period)
        body = witness.request(place.session, place.store, place.signer, head, old, place.here.clock)
        _write(target, body)
        place.here.output.result({"written": target, "size": head.size})


@witnesses.command(name="accept")
def accept_(
    controller: Controller,
    period: PeriodArgument,
    answer: Annotated[Path, Parameter(help="File with the signature lines of the witness.")],
) -> None:
    """Add a witness's cosignature to the checkpoint it was asked about; bundles of that size carry it from then on."""
    with _place(controller) as place:
        head = reading.log_of(place.session, controller, period)
        try:
            lines = answer.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"{answer} cannot be read as text", "Give the file with the witness's answer.") from None
        seen = witness.accept(place.session, head, lines)
        place.here.output.result({"cosigned": [{"witness": name, "at": at} for name, at in seen]})


@app.command(name="export-spec")
def export_spec(directory: Annotated[Path, Parameter(help="Where the test vectors go; created when missing.")]) -> None:
    """Write the test vectors of the audit log's specification, for whoever writes a verifier of their own."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / vectors.FILE_NAME
    path.write_text(vectors.render(), encoding="utf-8")
    context().output.result({"written": path})


def _exporter(place: _Place, keyring: Keyring | None) -> Exporter:
    return Exporter(place.session, place.store, place.signer, place.record.id, place.record.name, place.here.clock, keyring)


def _exported(place: _Place, contents: Contents, target: Path, name: str) -> None:
    record, here = place.record, place.here
    detail: dict[str, str | int] = {"actor": str(here.actor), "entries": contents.entries, "values": int(contents.cover.values)}
    acts.note(place.session, controller=record.id, database=record.database, name=name, detail=detail, clock=here.clock)
    periods = [stretch.period for stretch in contents.cover.logs]
    document = {
        "written": target,
        "entries": contents.entries,
        "periods": periods,
        "gaps": len(contents.gaps),
        "values": contents.cover.values,
    }
    here.output.result(document)


def _subject(person: tuple[str, str] | None, actor: str | None) -> SubjectRef | None:
    if person and actor:
        raise UsageError("--person and --actor exclude each other", "Ask for one of them, and look through the result.")
    if person:
        return SubjectRef(person[0], key_values(person[1], "--person"))
    return SubjectRef(STAFF, (actor,)) if actor else None


def _about(query: Query, ids: Sequence[bytes]) -> Query:
    return Query(query.since, query.until, query.table, query.operation, query.kind, ids, query.limit, query.after)


def _cursor(text: str | None) -> Cursor | None:
    if text is None:
        return None
    try:
        return Cursor.parse(text)
    except ValueError:
        raise UsageError("--after: not a cursor", "Give the text that the page before ended with.") from None


def _duration(text: str) -> Any:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--keep: {error}", "Use a duration such as P1Y or P36M.") from None


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "May this account write there?") from None


def _document(found: Found, parts: Sequence[Opened]) -> dict[str, object]:
    shown = _together(parts)
    return {
        "log": found.period,
        "index": found.index,
        "entry": json.loads(found.octets),
        "parts": [
            {
                "part": one.part,
                "key": one.key.hex(),
                "state": one.state.value,
                "value": json.loads(one.plaintext) if one.plaintext else None,
            }
            for one in parts
        ],
        **({"together": shown} if shown else {}),
    }


def _together(parts: Sequence[Opened]) -> list[dict[str, Any]]:
    """Return the values that concern several people at once, where the keys of all of them are there."""
    return together(json.loads(one.plaintext) if one.plaintext else None for one in parts)


def _show_found(here: Context, found: Sequence[Found], opened_parts: Sequence[Sequence[Opened]], document: dict[str, Any]) -> None:
    rows = []
    for one, parts in zip(found, opened_parts, strict=True):
        entry = one.entry
        by = entry.fact.session_user if entry.fact else str(entry.detail.get("actor", ""))
        said = ", ".join(f"{part.part} {part.state.value}" for part in parts)
        rows.append((one.period, one.index, entry.at, entry.kind.value, entry.table or None, entry.operation, by or None, said or None))
    here.output.table(_COLUMNS, rows, empty="No entry fits.")
    for one, parts in zip(found, opened_parts, strict=True):
        for part in parts:
            if part.plaintext:
                here.output.say(
                    "{log} {index} {part}: {value}", log=one.period, index=one.index, part=part.part, value=part.plaintext.decode()
                )
        for piece in _together(parts):
            here.output.say(
                "{log} {index} of several people: {value}", log=one.period, index=one.index, value=json.dumps(piece, ensure_ascii=False)
            )
    if document["next"]:
        here.output.say("There is more: --after {cursor}", cursor=document["next"])


def _show_report(here: Context, report: Report) -> None:
    here.output.say("Everything in this bundle holds.")
    here.output.pairs(
        {
            "controller": report.controller,
            "periods": ", ".join(report.periods),
            "leaves of the trees": report.leaves,
            "entries": report.entries,
            "sealed parts": report.sealed,
            "disclosed values": report.disclosed,
            "dropped because erased": report.dropped,
            "blobs": report.blobs,
            "cosignatures": report.cosignatures,
            "logs seen before": report.compared_with_memory,
            "key": report.key,
        }
    )
    if report.new_key:
        here.output.warn(
            "The key was not known before: compare it with the one from the contract. It is remembered where --remember says so."
        )
    gaps = [(one.period, one.index, one.at, one.reason, one.table or None) for one in report.gaps]
    here.output.table(["log", "index", "at", "reason", "table"], gaps, title="Gaps", empty="No gap is noted.")
