"""``obhut retention``: who has been inactive for too long is told, and anonymised when nothing comes back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import Context, context
from obhut.cli.controllers import key_values, moment, opened
from obhut.cli.exits import Exit, UsageError
from obhut.controllers import register
from obhut.datamap.graph import require
from obhut.datamap.load import load
from obhut.erasure import ledger
from obhut.foundation.language import text
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.retention import concept as concepts
from obhut.retention import holds as holding
from obhut.retention import records, sweep
from obhut.retention import rules as ruling
from obhut.retention.plan import REMEDIES, WORDS, RulePlan, total
from obhut.retention.rules import Rule, Terms
from obhut.retention.survey import Uncovered
from obhut.retention.vocabulary import HoldReason, Obstacle

app = App(
    name="retention",
    help="Anonymise people who have been inactive for too long: by a rule of each controller, after a notice and a time of grace.",
)
rules = App(name="rules", help="Keep the rules: how long, how people are told, how many a day.")
holds = App(name="holds", help="Keep people out for now: a lawsuit, an investigation, an open request.")
app.command(rules)
app.command(holds)

DatabaseArgument = Annotated[str, Parameter(help="Name of the protected database.")]
RuleArgument = Annotated[str, Parameter(help='Id of the rule, as "obhut retention rules list" shows it.')]


@app.command
def plan(database: DatabaseArgument) -> None:
    """Show what a run would do now, with counts and reasons; changes nothing and tells nobody.

    For every rule: how many people it covers, how many are due, how many would be told or anonymised today, and why the others are not.
    Controllers with people whom no rule covers are listed, too.
    """
    here = _ready()
    planned = sweep.plan(here.settings, database, here.actor, here.clock)
    here.output.result(_planned(planned), lambda: _show_plan(here, planned))


@app.command
def run(database: DatabaseArgument) -> int:
    """Tell people who soon will have been inactive for too long, and anonymise those who were told in time and did not come back.

    Whoever is taken is looked at once more while the row is locked: somebody who signs in at the last second is left alone. A tombstone
    is durable before the rows change, so a restore anonymises the person again. A killed run is resumed by the next one. At most the
    daily cap of people a rule and day; an implausible share stops a rule before anybody is told. Exit status 6 when a rule could not be
    carried out to its end, 5 when an alarm or a missing instruction kept one from acting.

    "obhut serve" does this once a day.
    """
    here = _ready()
    report = sweep.run(here.settings, database, here.actor, here.clock)
    here.output.result(report, lambda: _show_report(here, report))
    if report.failed:
        return Exit.PARTIAL
    return Exit.UNPROVEN if report.hindered else Exit.OK


@app.command
def status(database: Annotated[str | None, Parameter(help="Only this protected database.")] = None) -> None:
    """Show each rule and what its last run did."""
    here = opened()
    listed = [(rule, records.latest(rule.database, rule.id)) for rule in ruling.list_rules(database)]
    here.output.result(
        [{"rule": asdict(rule), "last": asdict(last) if last else None} for rule, last in listed],
        lambda: here.output.table(
            ["rule", "controller", "kind", "last run", "state", "people", "due", "told", "anonymised", "left", "why"],
            [
                (
                    rule.id,
                    rule.controller,
                    rule.subject_kind,
                    last.started_at if last else None,
                    last.state if last else None,
                    last.people if last else None,
                    last.due if last else None,
                    last.told if last else None,
                    last.anonymised if last else None,
                    last.left if last else None,
                    (WORDS[last.obstacle] or last.error_code) if last else text("never run"),
                )
                for rule, last in listed
            ],
            empty='There is no rule yet. Record one with "obhut retention rules set".',
        ),
    )


@app.command
def concept(
    database: DatabaseArgument,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="File to write; standard output by default.")] = None,
) -> None:
    """Write the deletion concept of a database (DIN EN ISO/IEC 27555), from the data map, the rules and the settings, in Markdown.

    In English or German, as --lang says. It names classes of data, their periods with grounds and starting points, how they are deleted,
    and until when traces remain; and it says what is missing.
    """
    here = opened()
    page = concepts.render(concepts.gather(here.settings, database, here.clock))
    if output is not None:
        output.write_text(page, encoding="utf-8")
    here.output.result(
        {"database": database, "written": output} if output else {"database": database, "markdown": page},
        lambda: here.output.say("{path} is written.", path=output) if output else print(page, end=""),  # noqa: T201 - the document itself
    )


# -- rules ----------------------------------------------------------------------------------------------------------------------


@rules.command(name="set")
def set_(
    controller: Annotated[str, Parameter(help="Id of the controller that instructs.")],
    *,
    kind: Annotated[str, Parameter(help="Kind of data subject, as the data map calls it.")],
    instruction: Annotated[str, Parameter(help="Id of the controller's standing instruction to anonymise.")],
    after: Annotated[str, Parameter(help="How long without activity: calendar years, months, weeks, days.")] = ruling.PERIOD,
    notice: Annotated[str, Parameter(help='So long before its end the person is told; "none" tells nobody.')] = ruling.NOTICE,
    grace: Annotated[str, Parameter(help="So long after the notice the person is left alone at the least.")] = ruling.GRACE,
    zone: Annotated[str, Parameter(help="Time zone of the controller, as the IANA database names it.")] = "Europe/Berlin",
    daily_cap: Annotated[int, Parameter(help="People a day at the most.")] = ruling.DAILY_CAP,
    alarm_share: Annotated[float, Parameter(help="Above this share of the people nothing happens and an alarm is raised.")] = (
        ruling.ALARM_SHARE
    ),
) -> None:
    """Record a rule; one for the same controller and kind ends with it.

    Example: obhut retention rules set ctl_… --kind participant --instruction ins_… --after P2Y --notice P30D
    """
    here = opened()
    owner = register.get_controller(controller)
    terms = Terms(after, "" if notice == "none" else notice, grace, zone, daily_cap, alarm_share)
    url = here.settings.database(owner.database)
    with Session.connect(url.url) as session:
        graph = require(owner.database, load(url.map).database(owner.database), read_catalogue(session))
    rule = ruling.set_rule(controller, graph, kind, terms, instruction, actor=here.actor, clock=here.clock)
    here.output.result(rule, lambda: here.output.say("Rule {id} recorded.", id=rule.id))


@rules.command(name="list")
def list_rules(
    database: Annotated[str | None, Parameter(help="Only for this protected database.")] = None,
    *,
    ended: Annotated[bool, Parameter(negative="", help="Also those that have ended.")] = False,
) -> None:
    """List the rules in force."""
    here = opened()
    found = ruling.list_rules(database, revoked=ended)
    here.output.result(
        found,
        lambda: here.output.table(
            ["rule", "database", "controller", "kind", "after", "notice", "grace", "zone", "daily cap", "alarm share", "ended"],
            [
                (
                    r.id,
                    r.database,
                    r.controller,
                    r.subject_kind,
                    r.period,
                    r.notice or None,
                    r.grace,
                    r.zone,
                    r.daily_cap,
                    r.alarm_share,
                    r.revoked_at,
                )
                for r in found
            ],
            empty='There is no rule yet. Record one with "obhut retention rules set".',
        ),
    )


@rules.command
def accept(
    rule: RuleArgument,
    *,
    share: Annotated[float, Parameter(help="The share that is right, such as 0.45.")],
    until: Annotated[str, Parameter(help="Until when it is accepted: a date or a time with zone.")],
) -> None:
    """Accept a share of people that the alarm calls implausible, after having looked why: a backlog from before Obhut, say.

    Recorded with your name, and over at the given time.
    """
    here = opened()
    end = moment(until, "--until")
    if end is None:
        raise UsageError("--until: not a time", "Use a date such as 2026-03-01.")
    found = ruling.accept_share(rule, share, end, actor=here.actor, clock=here.clock)
    here.output.result(found, lambda: here.output.say("Accepted until {until}.", until=found.accepted_until))


@rules.command
def revoke(rule: RuleArgument) -> None:
    """End a rule now: nobody is told or anonymised by it any more; who was, stays so."""
    here = opened()
    found = ruling.revoke_rule(rule, actor=here.actor, clock=here.clock)
    here.output.result(found, lambda: here.output.say("Rule {id} has ended.", id=found.id))


# -- holds ----------------------------------------------------------------------------------------------------------------------


@holds.command
def place(
    controller: Annotated[str, Parameter(help="Id of the controller whose people they are.")],
    *,
    kind: Annotated[str, Parameter(help="Kind of data subject, as the data map calls it.")],
    reason: Annotated[HoldReason, Parameter(help="Why.")],
    reference: Annotated[str, Parameter(help="Opaque reference such as a ticket; no name.")],
    subject: Annotated[str | None, Parameter(help="Key of the one person; without it all of the controller's people of the kind.")] = None,
    until: Annotated[str | None, Parameter(help="Until when; until lifted by default.")] = None,
) -> None:
    """Hold one person, or all of a controller's people of a kind: nobody held is told or anonymised for inactivity.

    An erasure that is asked for by name is another matter and goes on.
    """
    here = opened()
    hold = holding.place(
        controller,
        kind,
        key_values(subject, "--subject") if subject is not None else None,
        reason=reason,
        reference=reference,
        until=moment(until, "--until"),
        actor=here.actor,
        clock=here.clock,
    )
    here.output.result(hold, lambda: here.output.say("Hold {id} placed.", id=hold.id))


@holds.command(name="list")
def list_holds(database: Annotated[str | None, Parameter(help="Only for this protected database.")] = None) -> None:
    """List the holds that were not lifted, without saying who they are about."""
    here = opened()
    found = holding.list_holds(database)
    here.output.result(
        found,
        lambda: here.output.table(
            ["hold", "controller", "kind", "everybody", "reason", "reference", "until"],
            [(h.id, h.controller, h.subject_kind, h.everybody, h.reason, h.reference, h.until) for h in found],
            empty="Nobody is held.",
        ),
    )


@holds.command
def lift(hold: Annotated[str, Parameter(help='Id of the hold, as "obhut retention holds list" shows it.')]) -> None:
    """End a hold, and forget whom it was about."""
    here = opened()
    found = holding.lift(hold, actor=here.actor, clock=here.clock)
    here.output.result(found, lambda: here.output.say("Hold {id} lifted.", id=found.id))


# -- what is shown --------------------------------------------------------------------------------------------------------------


def _ready() -> Context:
    here = opened()
    ledger.open_ledger(here.settings)
    return here


def _planned(planned: sweep.Planned) -> dict[str, object]:
    return {
        "database": planned.database,
        **total(planned.plans),
        "rules": [_plan_document(each) for each in planned.plans],
        "uncovered": [asdict(each) for each in planned.uncovered],
        "rows": [asdict(each) for each in planned.rows],
    }


def _plan_document(one: RulePlan) -> dict[str, object]:
    return {
        "rule": one.rule.id,
        "controller": one.rule.controller,
        "subject_kind": one.rule.subject_kind,
        "period": one.rule.period,
        **asdict(one.situation),
        "share": round(one.share, 4),
        "obstacle": one.obstacle,
        "tell": one.tell,
        "take": one.take,
        "capped": one.capped,
        "reasons": one.reasons,
    }


def _show_plan(here: Context, planned: sweep.Planned) -> None:
    here.output.table(
        ["rule", "controller", "kind", "after", "people", "due", "to tell", "to anonymise", "why not more"],
        [_row(one) for one in planned.plans],
        empty='There is no rule yet. Record one with "obhut retention rules set".',
    )
    if planned.rows:
        here.output.table(
            ["table", "after", "event", "then", "rows", "why not"],
            [(r.table, r.period, r.after, r.then, r.rows, _why(r.obstacle, "")) for r in planned.rows],
        )
    for one in planned.plans:
        if one.obstacle:
            here.output.warn(f"{text(WORDS[one.obstacle])}: {one.rule.id}. {text(REMEDIES[one.obstacle])}")
    _warn_uncovered(here, planned.uncovered)
    here.output.say("Nothing has been changed, nobody was told.")


def _row(one: RulePlan) -> tuple[object, ...]:
    rule: Rule = one.rule
    reasons = "; ".join(text(reason) for reason in one.reasons)
    seen = one.situation
    return rule.id, rule.controller, rule.subject_kind, rule.period, seen.people, seen.due, one.tell, one.take, reasons or None


def _warn_uncovered(here: Context, uncovered: tuple[Uncovered, ...]) -> None:
    overdue = [one for one in uncovered if one.due]
    if overdue:
        here.output.warn(
            "{people} people of {controllers} controllers are inactive for more than two years, and no rule covers them.",
            people=sum(one.due for one in overdue),
            controllers=len({one.controller_key for one in overdue}),
        )


def _show_report(here: Context, report: sweep.Report) -> None:
    here.output.table(
        ["rule", "people", "due", "told", "came back", "anonymised", "spared", "left", "rows", "why"],
        [
            (r.rule, r.people, r.due, r.told, r.returned, r.anonymised, r.spared, r.left, r.rows_changed, _why(r.obstacle, r.error_code))
            for r in report.records
        ],
        empty='There is no rule yet. Record one with "obhut retention rules set".',
    )
    if report.resumed:
        here.output.say("{count} anonymisations that an earlier run had begun are finished.", count=report.resumed)
    context().output.note("Run {run}. No restore brings back what was removed.", run=report.run)


def _why(obstacle: Obstacle, code: str) -> str | None:
    return text(WORDS[obstacle]) if obstacle else code or None
