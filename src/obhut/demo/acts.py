"""The story until the loss: vendor, data map, contracts, backups, erasure.

Every act calls the use case that the command shown beside it calls.
"""

from __future__ import annotations

import shutil
import time
from datetime import timedelta

from rich.text import Text

from obhut.backups import heartbeat
from obhut.backups import run as backups
from obhut.controllers import register
from obhut.controllers.errors import NotInstructedError
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action as Permitted
from obhut.controllers.vocabulary import Channel, InstructionKind, SubjectRef
from obhut.datamap.check import errors, examine
from obhut.datamap.findings import Severity
from obhut.datamap.load import load
from obhut.datamap.models import Verb
from obhut.datamap.surroundings import probe, read_surroundings
from obhut.demo import vendor
from obhut.demo.errors import DemoFailedError
from obhut.demo.scene import Scene, Traces
from obhut.demo.stage import megabytes, number
from obhut.demo.vendor import CONTROLLERS, DATABASE, PERSON
from obhut.erasure import canary
from obhut.erasure.entries import Action
from obhut.erasure.erase import Eraser
from obhut.erasure.plan import ErasurePlan
from obhut.foundation.language import text
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.postgres.control import open_control

KIND = "participant"
WORD = "Leuchtturm"
_TRACES = """
SELECT (SELECT count(*) FROM participants WHERE id = %(key)s::bigint),
       (SELECT count(*) FROM bookings WHERE participant_id = %(key)s::bigint),
       (SELECT count(*) FROM course_runs WHERE waitlist @> ARRAY[%(key)s::bigint]),
       (SELECT count(*) FROM invoices WHERE participant_id = %(key)s::bigint)
"""
_STYLES = {Verb.DELETE: "red", Verb.ANONYMISE: "yellow", Verb.UNLINK: "blue", Verb.KEEP: "magenta"}


def traces(session: Session) -> Traces:
    """Count what a database holds of the person."""
    return Traces(*(int(count) for count in session.row(_TRACES, {"key": PERSON}) or (0, 0, 0, 0)))


def fill(scene: Scene) -> None:
    """Act: the vendor and its customers."""
    stage = scene.stage
    stage.act(
        "The vendor",
        "Kursblick books courses for five companies. They are the controllers of their participants' data; Kursblick is the processor.",
    )
    with stage.step("Filling the vendor's database", vendor.steps()) as step, scene.vendor.session() as session:
        vendor.fill(session, step.bar.advance)
        figures = vendor.figures(session)
        step.done(
            "PostgreSQL 18: {people} participants of {controllers} companies, {rows} rows in {tables} tables, {size}",
            people=number(figures["participants"]),
            controllers=figures["controllers"],
            rows=number(figures["rows"]),
            tables=figures["tables"],
            size=megabytes(figures["bytes"]),
        )


def check_map(scene: Scene) -> None:
    """Act: the data map against the live schema."""
    stage = scene.stage
    stage.act(
        "Whose data is where",
        "The data map says it for every column: keys, arrays, ids in JSON, two people in one row. "
        "A column that it does not know would stop everything.",
    )
    stage.command(f"obhut datamap check {DATABASE}")
    with stage.step("Checking the data map against the live schema") as step, Session.connect(scene.vendor.url) as session:
        loaded = load(scene.settings.database(DATABASE).map)
        catalogue, around = read_catalogue(session), read_surroundings(session)
        graph, findings = examine(loaded, DATABASE, catalogue, around)
        if graph is None or errors(findings):
            raise DemoFailedError("the data map of the sample vendor has errors", 'Run "obhut datamap check" with its settings.')
        findings = [*findings, *probe(session, graph, around)]
        step.done(
            "{tables} tables, {columns} columns: every one classified, 0 errors, {warnings} warnings to read",
            tables=len(catalogue.roots),
            columns=sum(len(table.columns) for table in catalogue.roots),
            warnings=sum(1 for finding in findings if finding.severity is Severity.WARNING),
        )


def sign(scene: Scene) -> None:
    """Act: controllers, contracts, standing instructions."""
    stage = scene.stage
    stage.act(
        "On whose instruction",
        "Nothing touches personal data without a contract and a documented instruction. "
        "They are kept on a PostgreSQL apart, which no restore can turn back.",
    )
    with stage.step("Starting the control database") as step:
        open_control(scene.settings)
        step.done("The control database runs")
    stage.command(f'obhut controllers add --database {DATABASE} --key 1 --name "Volkshochschule Nordhafen"')
    stage.command("obhut controllers contract add ctl_… --version 2026-1 --document dpa-1.txt …")
    stage.command("obhut instructions give ctl_… --kind standing --action backup --action restore --action canary …")
    with stage.step("Recording contracts and standing instructions") as step:
        with scene.vendor.session() as session:
            names: dict[str, str] = dict(session.rows("SELECT id::text, name FROM tenants"))
        for key in CONTROLLERS:
            _sign(scene, key, str(names[key]))
        step.done("{count} controllers: contract, standing instruction to back up and to restore; none to erase", count=len(names))


def _sign(scene: Scene, key: str, name: str) -> None:
    controller = register.add_controller(DATABASE, [key], name, actor=scene.actor, clock=scene.clock)
    terms = ContractTerms(
        "booking of courses", "storage, retrieval and erasure in a hosted application", "running the controller's courses", "term",
        ("user.name", "user.contact", "user.financial", "user.behavior", "user.content"), (KIND, "trainer"),
    )  # fmt: skip
    since = scene.clock.now() - timedelta(days=30)
    paper = scene.document(f"dpa-{key}.txt", f"Data processing agreement 2026-1 between Kursblick and {name}.\n")
    register.add_contract(
        controller.id, version="2026-1", terms=terms, document_hash=paper, valid_from=since, actor=scene.actor, clock=scene.clock
    )
    scene.instruct(controller, f"account-{key}", [Permitted.BACKUP, Permitted.RESTORE, Permitted.CANARY], paper)
    scene.controllers.append(controller)


def back_up(scene: Scene) -> None:
    """Act: continuous backups, a canary, a word on the status page."""
    stage = scene.stage
    stage.act("Backups, all day", "A base backup, then every change as it happens; encrypted at rest, and gone after 35 days.")
    stage.command(f"obhut canary plant {DATABASE}")
    with stage.step("Planting a canary") as step, Eraser(scene.settings, DATABASE) as eraser:
        canary.plant(eraser, scene.actor, scene.clock)
        step.done("A canary is planted: a made-up person whom every restore must find, and leave out")
    stage.command(f"obhut backup start {DATABASE}")
    with stage.step("Taking, verifying and sealing a full base backup") as step:
        taken = backups.start(scene.settings, DATABASE, scene.actor, scene.clock, step.bar.reach)
        if taken.backup is None:
            raise DemoFailedError("no base backup was taken", taken.reason)
        step.done("Base backup {id}: {size} sealed, WAL streams on", id=taken.backup.id, size=megabytes(taken.backup.size))


def write_word(scene: Scene) -> None:
    """Write a word on the status page, note the person's traces and the moment."""
    stage = scene.stage
    with stage.step("Writing a word into the database") as step, scene.vendor.session() as session:
        session.execute("INSERT INTO status_words (word) VALUES (%s)", (WORD,))
        scene.word, scene.before = WORD, traces(session)
        heartbeat.beat(DATABASE, scene.vendor.url)
        time.sleep(0.2)
        scene.moment = scene.clock.now()
        time.sleep(0.2)
        step.done('The word "{word}" stands in a status row. It is {time} UTC', word=WORD, time=f"{scene.moment:%H:%M:%S}")


def erase(scene: Scene) -> None:
    """Act: refused, instructed, planned, erased."""
    stage = scene.stage
    stage.act(
        "A person goes",
        "Participant {key} wants to be forgotten. Kursblick may not decide that: the Volkshochschule has to.",
        key=PERSON,
    )
    with Eraser(scene.settings, DATABASE) as eraser:
        stage.command(f"obhut erase {DATABASE} {KIND} {PERSON}")
        try:
            eraser.erase(KIND, [(PERSON,)], Action.ERASE, scene.actor, scene.clock)
        except NotInstructedError as error:
            stage.refusal(error)
        else:
            raise DemoFailedError("the person was erased without an instruction", "The gate did not hold: do not use this version.")
        _instruct(scene)
        stage.command(f"obhut erase {DATABASE} {KIND} {PERSON} --dry-run")
        with stage.step("Working out what an erasure reaches") as step:
            plan = eraser.plan(KIND, [(PERSON,)], Action.ERASE, scene.clock)
            tables = {effect.table for effect in plan.effects}
            step.done("The plan, before anything runs: {tables} of 19 tables are concerned", tables=len(tables))
        _show(scene, plan)
        stage.command(f"obhut erase {DATABASE} {KIND} {PERSON}")
        with stage.step("Erasing: tombstone, one transaction, a second look") as step:
            outcome = eraser.erase(KIND, [(PERSON,)], Action.ERASE, scene.actor, scene.clock)
            questions = len(outcome.verification.answers) if outcome.verification else 0
            step.done(
                "First the tombstone, in two places; then {deleted} rows deleted, {changed} changed; {questions} questions: nothing left",
                deleted=outcome.deleted,
                changed=outcome.changed,
                questions=questions,
            )
    backups.archive_wal(scene.settings, DATABASE, scene.clock)


def _instruct(scene: Scene) -> None:
    controller = scene.controllers[0]
    paper = scene.document("ticket-2088.txt", f"Please erase participant {PERSON}. Volkshochschule Nordhafen, account-1.\n")
    scene.stage.command(f"obhut instructions give ctl_… --action erase --subject-kind {KIND} --subject {PERSON} …")
    with scene.stage.step("Recording the controller's instruction") as step:
        register.give_instruction(
            controller.id,
            kind=InstructionKind.SINGLE,
            actions=[Permitted.ERASE],
            database=DATABASE,
            given_by="account-1",
            channel=Channel.TICKET,
            document_hash=paper,
            actor=scene.actor,
            clock=scene.clock,
            subject_kind=KIND,
            subjects=[SubjectRef(KIND, (PERSON,))],
        )
        step.done("The controller instructs it, for this one person and this one time")


def _show(scene: Scene, plan: ErasurePlan) -> None:
    rows = [
        (_bare(effect.table), Text(text(effect.verb.value), style=_STYLES.get(effect.verb, "")), effect.rows, _bare(effect.reason))
        for effect in plan.effects
    ]
    scene.stage.table(["table", "treatment", "rows", "why"], rows, styles=["bold", "", "", "dim"])


def _bare(words: str) -> str:
    return words.replace("public.", "")


def lose(scene: Scene) -> None:
    """Act: the vendor's server and all its files are gone."""
    stage = scene.stage
    stage.act("The loss", "The next morning somebody cleans up a disk. The wrong one.")
    stage.command(f"rm -rf {scene.vendor.cluster.data}")
    with stage.step("Losing the database") as step:
        heartbeat.beat(DATABASE, scene.vendor.url)
        time.sleep(1.0)  # the stream is asynchronous: what was committed in the last instant before a loss may be lost with it
        scene.vendor.cluster.kill(hard=True)
        shutil.rmtree(scene.vendor.cluster.data)
        step.done("Server and files are gone. What is left: the backups and the WAL streamed until now")
