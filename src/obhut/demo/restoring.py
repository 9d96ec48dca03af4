"""The story after the loss: what a plain restore does, what Obhut's does, and the proof.

The plain restore uses the same backups, the same recovery and the same moment; only the filter is missing.
"""

from __future__ import annotations

from obhut.backups.repository import Repository
from obhut.demo.acts import traces
from obhut.demo.errors import DemoFailedError
from obhut.demo.scene import Scene
from obhut.demo.vendor import DATABASE, PERSON
from obhut.foundation.clock import stamp
from obhut.foundation.language import text
from obhut.postgres.clusters import binaries
from obhut.postgres.connections import Session
from obhut.restores import opening, quarantine, run, store, verify
from obhut.restores.plan import Form, RecoveryTarget


def restore_plainly(scene: Scene) -> None:
    """Act: any backup tool's restore, in a quarantine that is thrown away."""
    stage = scene.stage
    stage.act(
        "What everybody else would do",
        "The same backups, the same moment, no filter. In a quarantine: a private socket, thrown away afterwards.",
    )
    repository = Repository(scene.settings, DATABASE)
    with stage.step("Restoring to the moment before the erasure") as step:
        backup = repository.choose(scene.moment)
        chain = repository.chain(backup.id)
        target = RecoveryTarget(Form.TIME, time=scene.moment)
        recovery = quarantine.Recovery(
            scene.settings, repository, chain, target, scene.folder / "plain", binaries(scene.settings, backup.major)
        )
        try:
            quarantine.unseal(recovery, stage)
            held = quarantine.recover(recovery, quarantine.stage_wal(recovery), stage)
            with Session.connect(held.url, application_name="obhut demo") as session:
                found = traces(session)
        finally:
            recovery.cluster.remove()
        step.done("Restored to {time} UTC", time=f"{scene.moment:%H:%M:%S}")
    if found != scene.before:
        raise DemoFailedError("the plain restore is not the database as it was before the erasure", "Do not use this version.")
    stage.verdict(
        "Participant {key} is back: {person} person, {bookings} bookings, on {waiting} waiting lists",
        good=False,
        key=PERSON,
        person=found.person,
        bookings=found.bookings,
        waiting=found.waiting,
    )
    stage.tell("With every backup tool of the field the story ends here: an erasure undone, and nobody notices.")


def restore(scene: Scene) -> None:
    """Act: the filtered restore, its certificate, and the database open again."""
    stage = scene.stage
    assert scene.moment is not None  # noqa: S101 - an earlier act has set it
    moment = stamp(scene.moment)
    stage.act(
        "What Obhut does",
        "The same again, but the rows stream through the erasure list into a new database: who was erased never reaches it. "
        "Nobody can connect before the proof holds.",
    )
    stage.command(f"obhut restore run {DATABASE} --to {moment}")
    with stage.step("Restoring through the filter, and proving it") as step:
        request = run.Request(DATABASE, RecoveryTarget(Form.TIME, time=scene.moment))
        outcome = run.begin(scene.settings, request, scene.actor, scene.clock, stage)
        step.done("Recovered, filtered, loaded, indexed, compared, searched")
    if not outcome.holds:
        raise DemoFailedError("the restore was not proved", f'See "obhut restore show {outcome.run}".')
    _certificate(scene, outcome)
    stage.command(f"obhut restore open {outcome.run}")
    with stage.step("Opening the database") as step:
        opened = opening.open_database(scene.settings, outcome.run, scene.actor, scene.clock, stage)
        step.done("Open. From here on a new epoch of the erasure list counts")
    stage.command(f"obhut restore verify {outcome.certificate}")
    with stage.step("Verifying the certificate with code of its own") as step:
        checked = verify.verify(outcome.certificate, key=None, settings=scene.settings, url=opened.url)
        if not checked.passed:
            raise DemoFailedError("the certificate does not hold against its target", f'Run "obhut restore verify {outcome.certificate}".')
        step.done("{count} statements of the certificate hold against the open database", count=len(checked.findings))
    scene.url = opened.url
    _compare(scene)


def _certificate(scene: Scene, outcome: run.Outcome) -> None:
    kept = store.find(outcome.run)
    assert kept is not None  # noqa: S101 - it holds
    content = kept.document["certificate"]
    tables = content["tables"]
    passed = [one for one in content["statements"] if one["result"] == "passed"]
    canaries = content["canaries"]
    scene.stage.tell("The signed certificate (to be read: {page}):", page=outcome.page)
    scene.stage.table(
        ["statement", "figure"],
        [
            ("people left out, a canary among them", content["erasure_list"]["people_left_out"]),
            ("rows in the recovered database", sum(one["source"] for one in tables)),
            ("rows left out", sum(one["deleted"] for one in tables)),
            ("rows without their personal values", sum(one["changed"] for one in tables)),
            ("rows in the restored database, checksums equal", sum(one["target"] for one in tables)),
            ("canaries found before, and absent after", sum(1 for one in canaries if one["rows_before"] and not one["rows_after"])),
            ("statements proved", len(passed)),
            ("statements not checked", sum(1 for one in content["statements"] if one["result"] == "unchecked")),
        ],
    )
    scene.rows = sum(one["target"] for one in tables)


def _compare(scene: Scene) -> None:
    with Session.connect(scene.url, application_name="kursblick") as session:
        found = traces(session)
        word = str(session.value("SELECT word FROM status_words ORDER BY id DESC LIMIT 1"))
    before = scene.before
    if (
        before is None
        or (found.person, found.bookings, found.waiting) != (0, 0, 0)
        or found.invoices != before.invoices
        or word != scene.word
    ):
        raise DemoFailedError("the restored database is not what the certificate says", "Do not use this version.")
    scene.stage.table(
        [text("participant {key}", key=PERSON), "before", "plain restore", "Obhut's restore"],
        [
            ("person", before.person, before.person, found.person),
            ("bookings", before.bookings, before.bookings, found.bookings),
            ("waiting lists", before.waiting, before.waiting, found.waiting),
            ("invoices, kept: § 147 AO", before.invoices, before.invoices, found.invoices),
        ],
    )
    scene.stage.verdict('Participant {key} stays erased, and the word is there: "{word}"', good=True, key=PERSON, word=word)
