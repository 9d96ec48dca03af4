"""The story after the restore: time passes, the developers want data to test with, and every promise is looked at."""

from __future__ import annotations

from rich.text import Text

from obhut.backups import heartbeat
from obhut.backups import run as backups
from obhut.clones import run as clones
from obhut.clones.subset import Wanted
from obhut.controllers.vocabulary import Action
from obhut.datamap.graph import require
from obhut.datamap.load import load as load_map
from obhut.demo import auditing, vendor
from obhut.demo.acts import KIND
from obhut.demo.errors import DemoFailedError
from obhut.demo.scene import Scene
from obhut.demo.stage import number
from obhut.demo.vendor import CONTROLLERS, DATABASE
from obhut.foundation.language import text
from obhut.foundation.settings import FILE_NAME, load
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.promises.evaluate import evaluate
from obhut.promises.model import State
from obhut.retention import rules, sweep
from obhut.retention.rules import Terms

_QUIET = CONTROLLERS[-1]  # the controller some of whose people have not come back
_PEOPLE = 500  # of each kind in the copy for tests
_STYLES = {State.KEPT: "green", State.BROKEN: "bold red", State.UNPROVEN: "yellow"}
# All others were here last month.
_LATER = """
UPDATE participants SET last_seen_at = now() - id / 100 %% 10 * interval '45 days' WHERE tenant_id = %s AND last_seen_at IS NOT NULL
"""
_UNSEEN = """
SELECT count(*) FROM participants
WHERE tenant_id = %s AND last_seen_at < now() - interval '1 year 1 day' AND created_at < now() - interval '1 year 1 day'
"""
_ADDRESSES = "SELECT email FROM participants ORDER BY email"


def go_on(scene: Scene) -> None:
    """Act: the vendor works on, and backups begin anew."""
    stage = scene.stage
    stage.act("The next day", "The vendor works on with the restored database; its backups begin anew.")
    (scene.folder / FILE_NAME).write_text(vendor.settings_text(scene.url), encoding="utf-8")
    scene.settings = load(scene.folder / FILE_NAME)
    stage.command(f"obhut backup start {DATABASE}")
    with stage.step("Taking a base backup of the restored database") as step:
        taken = backups.start(scene.settings, DATABASE, scene.actor, scene.clock, step.bar.reach)
        heartbeat.beat(DATABASE, scene.url)
        step.done("Base backup {id}; WAL streams again", id=taken.backup.id if taken.backup else "–")
    auditing.go_on(scene)


def anonymise_inactive(scene: Scene) -> None:
    """Act: people who have not been seen for a year are anonymised, by the rule of their controller."""
    stage = scene.stage
    stage.act(
        "A year later",
        "Some participants never came back. Their controller has instructed that such accounts are anonymised; "
        "by default people are told first and have time to return.",
    )
    with Session.connect(scene.url, application_name="kursblick") as session:
        session.execute(_LATER, (_QUIET,))
        graph = require(DATABASE, load_map(scene.settings.database(DATABASE).map).database(DATABASE), read_catalogue(session))
    stage.command(f"obhut retention rules set ctl_… --kind {KIND} --after P1Y --notice none --instruction ins_…")
    with stage.step("Recording the rule") as step:
        owner = scene.controllers[CONTROLLERS.index(_QUIET)]
        given = _instruct(scene, _QUIET, Action.ANONYMISE)
        rules.set_rule(owner.id, graph, KIND, Terms(period="P1Y", notice=""), given, actor=scene.actor, clock=scene.clock)
        step.done("Anonymised after a year without activity; at most 1,000 people a day, an alarm above a fifth of all")
    stage.command(f"obhut retention plan {DATABASE}")
    with stage.step("Looking who is due") as step:
        planned = sweep.plan(scene.settings, DATABASE, scene.actor, scene.clock).plans[0].situation
        step.done("{due} of {people} people are due", due=number(planned.due), people=number(planned.people))
    stage.command(f"obhut retention run {DATABASE}")
    with stage.step("Locking, looking once more, tombstones, anonymising") as step:
        report = sweep.run(scene.settings, DATABASE, scene.actor, scene.clock)
        done = sum(record.anonymised for record in report.records)
        step.done("{done} people anonymised, tombstoned: no restore turns it back", done=number(done))
    with Session.connect(scene.url, application_name="kursblick") as session:
        left = int(session.value(_UNSEEN, (_QUIET,)) or 0)
    if report.failed or report.hindered or left or not done:
        raise DemoFailedError("people who were inactive for a year are not anonymised", 'See "obhut retention status".')
    stage.verdict("Nobody of this controller has been inactive for more than a year and kept a name", good=True)


def copy_for_tests(scene: Scene) -> None:
    """Act: a masked copy of a part of the people for staging."""
    stage = scene.stage
    stage.act(
        "Data to test with",
        "The developers want data of the shape of production. They get a part of it, masked on the way: "
        "no row of a person is ever written to the staging server as it was.",
    )
    with stage.step("Recording the controllers' instruction to copy") as step:
        for key in CONTROLLERS:
            _instruct(scene, key, Action.CLONE)
        step.done("Every controller has instructed masked copies")
    stage.command(f"obhut clone run {DATABASE} --people {_PEOPLE}")
    with stage.step("Copying, masking, searching the copy for the originals") as step:
        request = clones.Request(DATABASE, wanted=Wanted(number=_PEOPLE))
        made = clones.run(scene.settings, request, scene.actor, scene.clock, stage)
        step.done("{rows} rows, closed under foreign keys, label: {label}", rows=number(made.rows), label=text(made.label.value))
    stage.table(
        ["leak check", "result", "looked at"],
        [(one.name, text(one.result.value), one.looked_at) for one in made.statements],
        styles=["bold"],
    )
    with (
        Session.connect(scene.url, application_name="kursblick") as session,
        Session.connect(made.url, application_name="kursblick") as copy,
    ):
        real = {str(email) for (email,) in session.rows(_ADDRESSES)}
        found = [str(email) for (email,) in copy.rows(_ADDRESSES)]
    if not found or real & set(found):
        raise DemoFailedError("the copy for tests holds addresses of real people", "Do not use this version.")
    stage.verdict("{count} participants in the copy, not one address of a real one", good=True, count=number(len(found)))


def judge(scene: Scene) -> None:
    """Act: every promise, on the running system."""
    stage = scene.stage
    stage.act("And the promises?", "What the vendor has published, looked at on the running system.")
    stage.command("obhut promises")
    with stage.step("Evaluating every promise on the running system") as step:
        verdicts = evaluate(scene.settings, scene.clock)
        states = [verdict.state for verdict in verdicts]
        step.done(
            "{kept} kept, {broken} broken, {unproven} unproven",
            kept=states.count(State.KEPT),
            broken=states.count(State.BROKEN),
            unproven=states.count(State.UNPROVEN),
        )
    stage.table(
        ["promise", "state", "what it says"],
        [(Text(v.promise.id), Text(text(v.state.value), style=_STYLES[v.state]), v.promise.sentence) for v in verdicts],
        styles=["bold", "", "dim"],
    )
    if State.BROKEN in states:
        raise DemoFailedError("a promise is broken", 'See "obhut promises --evidence".')


def _instruct(scene: Scene, key: str, action: Action) -> str:
    """Record a controller's standing instruction and return its id."""
    paper = scene.document(f"{action.value}-{key}.txt", f"Standing instruction: {action.value}. account-{key}\n")
    return scene.instruct(scene.controllers[CONTROLLERS.index(key)], f"account-{key}", [action], paper)
