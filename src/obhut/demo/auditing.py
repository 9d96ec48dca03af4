"""The audit log in the story: who changed what, provable to the controller, and still forgotten with the person.

The stream is read up to its end at each look; from the restore on, a thread of the demo reads it as "obhut serve" does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from obhut.auditlog import acts, log, reading
from obhut.auditlog.capture import enable, follow
from obhut.auditlog.disclosure import disclosed
from obhut.auditlog.entries import Kind
from obhut.auditlog.export import Exporter
from obhut.auditlog.people import key_ids
from obhut.auditlog.reading import Opened, PartState
from obhut.auditlog.search import Found, Query, search
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import open_store
from obhut.auditlog.verify import verify
from obhut.controllers.vocabulary import Action, SubjectRef
from obhut.demo.acts import KIND
from obhut.demo.errors import DemoFailedError
from obhut.demo.scene import Scene
from obhut.demo.vendor import DATABASE, PERSON
from obhut.foundation.language import text
from obhut.keystore import open_keystore
from obhut.keystore.subjects import Keyring
from obhut.postgres.connections import Session
from obhut.postgres.control import control_session

_BUNDLE = "log-for-the-controller"
_CLAIM = "SELECT obhut.context('account-17', 'moved, called us', 'req-5')"
_BY_APPLICATION = "UPDATE participants SET locale = 'de-CH', phone = '+49 30 23125 999' WHERE id = %s"
_BY_HAND = "UPDATE bookings SET note = 'needs a chair with arms' WHERE id = (SELECT min(id) FROM bookings WHERE participant_id = %s)"
_BY_JOB = "DELETE FROM sessions WHERE participant_id = %s"
_SHOWN = ("phone", "locale", "note", "user_agent")  # columns of the table in the story: no name, no address
_LINES = 3  # of the table
_LOOKS = 1_000  # entries


def log_changes(scene: Scene) -> None:
    """Act: the audit log is on; an application, psql and a job change a person's data; the log says who did what."""
    stage = scene.stage
    stage.act(
        "Who changed what",
        "The audit log reads every committed change from the WAL, whoever made it. It belongs to the controller: one log each, every value "
        "sealed under a key of the person it is about.",
    )
    stage.command(f"obhut audit enable {DATABASE}")
    with stage.step("Switching the audit log on") as step:
        done = enable.enable(scene.settings, DATABASE, scene.actor, scene.clock)
        step.done("{tables} tables are captured", tables=len(done.tables))
    with stage.step("Letting the application, a colleague in psql and a job at night change data of participant {key}", key=PERSON) as step:
        _change(scene)
        step.done("Three changes: by the application, which says who acts; in psql; by a job at night")
    stage.command(f"obhut audit start {DATABASE} --until-caught-up")
    _read_to_the_end(scene)
    paper = scene.document("export-1.txt", "Standing instruction: show us our log. account-1\n")
    scene.instruct(scene.controllers[0], "account-1", [Action.EXPORT], paper)
    if _show(scene) != {PartState.OPEN}:
        raise DemoFailedError("values in the audit log do not open", 'See "obhut audit status".')


def look_again(scene: Scene) -> None:
    """Act: the person is gone from the log, too; the controller verifies it without anybody's help."""
    stage = scene.stage
    stage.act(
        "And in the log?",
        "A log must not forget, a person must be forgotten. The key went with the rows: what happened still stands there and still proves, "
        "what it was about nobody can read any more, in no copy.",
    )
    _read_to_the_end(scene)
    if _show(scene) != {PartState.ERASED}:
        raise DemoFailedError("values of an erased person still open", "Do not use this version.")
    _hand_over(scene)


def go_on(scene: Scene) -> None:
    """Let the stream go on at the restored database, and keep reading it to the end of the story."""
    stage = scene.stage
    stage.command("obhut serve")
    with stage.step("Letting the audit log go on at the restored database") as step:
        read = follow.follow(scene.settings, DATABASE, scene.clock, lambda: False, until_caught_up=True)
        step.done("It goes on, and says itself that there was a gap: {gaps} entry in every log", gaps=read.gaps)
    if not read.gaps:
        raise DemoFailedError("the audit log does not say that the database was restored", "Do not use this version.")
    stopping = threading.Event()
    reader = threading.Thread(target=_read_on, args=(scene, stopping), name="obhut audit", daemon=True)
    reader.start()
    scene.ending.callback(reader.join, 30)
    scene.ending.callback(stopping.set)


def _read_to_the_end(scene: Scene) -> None:
    with scene.stage.step("Reading the stream to its end") as step:
        read = follow.follow(scene.settings, DATABASE, scene.clock, lambda: False, until_caught_up=True)
        step.done("{changes} changes are in the logs", changes=read.changes)


def _read_on(scene: Scene, stopping: threading.Event) -> None:
    follow.follow(scene.settings, DATABASE, scene.clock, stopping.is_set)


def _change(scene: Scene) -> None:
    with scene.vendor.session() as application, application.transaction():
        application.execute(_CLAIM)
        application.execute(_BY_APPLICATION, (PERSON,))
    for name, statement in (("psql", _BY_HAND), ("kursblick-nightly", _BY_JOB)):
        with Session.connect(scene.vendor.url, application_name=name) as session:
            session.execute(statement, (PERSON,))


def _show(scene: Scene) -> set[PartState]:
    """Show what the log of the person's controller says about the person, and return how the parts about rows can be read."""
    record, settings = scene.controllers[0], scene.settings
    person = SubjectRef(KIND, (PERSON,))
    scene.stage.command(f"obhut audit search ctl_… --person {KIND} {PERSON} --values")
    with control_session("obhut demo") as session:
        with Keyring(settings, clock=scene.clock) as keyring:
            query = Query(kind=Kind.CHANGE, subjects=key_ids(keyring, record.id, person), limit=_LOOKS)
        with disclosed(settings, session, record, "search", scene.actor, scene.clock, subject=person) as keys:
            found = search(session, open_store(settings), record.id, query)
            parts = reading.open_parts(record.id, [(one.files, one.entry) for one in found], keys)
    rows = [_row(one, opened) for one, opened in zip(reversed(found), reversed(parts), strict=True)]
    scene.stage.table(["table", "action", "by", "before", "after"], rows[:_LINES], styles=["bold"])
    if len(rows) > _LINES:
        scene.stage.tell("… and {count} more: the erasure itself.", count=len(rows) - _LINES)
    mine = set(query.subjects or ())
    return {part.state for opened in parts for part in opened if part.part == "row" and part.key in mine}


def _row(found: Found, parts: Sequence[Opened]) -> tuple[object, ...]:
    row = next((part for part in parts if part.part == "row"), None)
    claim: dict[str, str] = next((json.loads(part.plaintext) for part in parts if part.part == "actor" and part.plaintext), {})
    fact = found.entry.fact
    by = claim.get("actor") or (fact.application if fact else "–")
    return (Text(found.entry.table.removeprefix("public.")), found.entry.operation, Text(by), *_values(row))


def _values(row: Opened | None) -> tuple[Text, Text]:
    if row is None or row.plaintext is None:
        gone = Text(text("erased"), style="red")
        return gone, gone
    values = json.loads(row.plaintext)
    return _picked(values.get("old", {})), _picked(values.get("new", {}))


def _picked(values: dict[str, str | None]) -> Text:
    return Text(", ".join(str(values[name] or "–") for name in _SHOWN if name in values) or "–")


def _hand_over(scene: Scene) -> None:
    record, stage = scene.controllers[0], scene.stage
    bundle = scene.folder / _BUNDLE
    stage.command(f"obhut audit export ctl_… {bundle.name}")
    with stage.step("Handing the controller its log") as step:
        contents = _export(scene, bundle)
        step.done("{entries} entries with their tree, signed; every value is ciphertext", entries=contents)
    stage.command(f"obhut audit verify {bundle.name}")
    with stage.step("Verifying it as the controller does: no database, no network") as step:
        report = verify(bundle)
        step.done("Every entry is in the signed tree; {sealed} sealed values", sealed=report.sealed)
    if report.entries != contents or report.controller != record.id or report.disclosed:
        raise DemoFailedError("the exported log does not verify", 'See "obhut audit verify".')
    stage.verdict("The log proves what happened, and nobody can read in it who participant {key} was", good=True, key=PERSON)


def _export(scene: Scene, bundle: Path) -> int:
    """Write the whole log of the person's controller into a bundle and return how many entries it holds."""
    record, keys = scene.controllers[0], open_keystore(scene.settings)
    store = open_store(scene.settings)
    with control_session("obhut demo") as session:
        acts.drain(session, log.Log(session, store, keys, DATABASE, scene.clock), DATABASE)
        signer = Signer.of(keys, record.id)
        return Exporter(session, store, signer, record.id, record.name, scene.clock).export(bundle).entries
