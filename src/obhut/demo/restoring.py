"""The story after the loss: what a plain restore does, what Obhut's does, the proof, and the promises.

The plain restore uses the same backups, the same recovery and the same moment; only the filter is missing.
"""

from __future__ import annotations

from obhut.backups.repository import Repository
from obhut.demo.acts import traces
from obhut.demo.errors import DemoFailedError
from obhut.demo.scene import Scene, Traces
from obhut.demo.vendor import DATABASE, PERSON
from obhut.postgres.clusters import binaries
from obhut.postgres.connections import Session
from obhut.promises.model import State
from obhut.restores import quarantine
from obhut.restores.plan import Form, RecoveryTarget

_GONE = Traces(person=0, bookings=0, waiting=0, invoices=2)  # the law keeps the two invoices
_STYLES = {State.KEPT: "green", State.BROKEN: "bold red", State.UNPROVEN: "yellow"}


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
