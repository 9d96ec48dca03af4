"""Rules on a live database: who is inactive, who is told, who is left alone, how many a day."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import timedelta

import pytest
from support.club import Receiver, webhook
from support.studio import ACTOR, Club

from obhut.controllers import register
from obhut.erasure import known, ledger
from obhut.erasure.entries import State
from obhut.retention import cases, holds, rules, sweep
from obhut.retention.candidates import Inactivity
from obhut.retention.errors import RuleInvalidError, SweepBusyError
from obhut.retention.survey import moments
from obhut.retention.vocabulary import CaseState, HoldReason, Obstacle

pytestmark = pytest.mark.postgres
DAY = timedelta(days=1)


def test_without_a_notice_the_inactive_are_anonymised_and_nobody_else(club: Club) -> None:
    """Ten of forty lose every personal value in every table, each with an effective tombstone; the others keep all, and a second run finds nobody."""
    rule = club.rule()
    done = club.run(rule)
    assert (done.people, done.due, done.anonymised, done.error_code) == (40, 10, 10, "")
    assert club.personal() == club.everybody() - club.gone()
    listed = known.by_keys("club", "member", [(str(number),) for number in club.everybody()])
    assert {int(one.key[0]) for one in listed} == club.gone()
    assert {(one.state, one.instruction, one.controller) for one in listed} == {(State.EFFECTIVE, club.instruction, club.controller)}
    again = club.run(rule)
    assert (again.people, again.due, again.anonymised) == (30, 0, 0)
    assert cases.counts(rule) == {}


def test_everything_that_the_map_declares_counts_as_activity(club: Club) -> None:
    """A check-in, a call that only SQL finds, a recent registration: each keeps a member who has not signed in for years."""
    by_checkin, by_call, new, never = (club.member(n) for n in (30, 31, 32, 33))
    club.installation.sql(f"INSERT INTO checkin (member_id, at) VALUES ({by_checkin}, current_date - 100)")
    club.installation.sql(f"INSERT INTO call (member_id, at) VALUES ({by_call}, now() - interval '1 year')")
    club.installation.sql(f"UPDATE member SET signed_in_at = NULL, created_at = now() - interval '1 month' WHERE id = {new}")
    club.installation.sql(f"DELETE FROM checkin WHERE member_id IN ({new}, {never})")
    club.installation.sql(f"UPDATE member SET signed_in_at = NULL WHERE id = {never}")  # never active, registered five years ago
    club.run(club.rule())
    assert club.personal() & {by_checkin, by_call, new, never} == {by_checkin, by_call, new}


def test_days_are_those_of_the_controllers_zone(club: Club) -> None:
    """The same moment is another day in Kathmandu than on the Marquesas: the same member is due in one zone and not in the other."""
    now = club.clock.now()
    with club.installation.session() as session:
        graph = club.graph(session)
        two = [club.rule(zone=zone) for zone in ("Asia/Kathmandu", "Pacific/Marquesas")]
        earlier, later = sorted(two, key=lambda rule: moments(rule, now).due)
        seen = moments(later, now).due - timedelta(minutes=30)  # the last half hour of the youngest day that is due there
        session.execute("UPDATE member SET signed_in_at = %s WHERE id = %s", (seen, club.member(0)))
        session.execute("DELETE FROM checkin WHERE member_id = %s", (club.member(0),))
        session.execute("DELETE FROM call WHERE member_id = %s", (club.member(0),))
        key = (str(club.member(0)),)
        assert Inactivity(session, graph, "member", later.zone).still(moments(later, now).due, [key]) == {key}
        assert Inactivity(session, graph, "member", earlier.zone).still(moments(earlier, now).due, [key]) == set()


def test_nobody_without_any_moment_is_taken(club: Club) -> None:
    """Somebody about whom nothing is known is counted as unknown and left alone."""
    club.installation.sql("ALTER TABLE member ALTER created_at DROP NOT NULL")
    try:
        number = club.member(35)
        club.installation.sql(f"UPDATE member SET signed_in_at = NULL, created_at = NULL WHERE id = {number}")
        club.installation.sql(f"DELETE FROM checkin WHERE member_id = {number}")
        club.installation.sql(f"DELETE FROM call WHERE member_id = {number}")
        rule = club.rule()
        planned = next(plan for plan in sweep.plan(club.settings, "club", ACTOR, club.clock).plans if plan.rule.id == rule.id)
        assert (planned.situation.unknown, planned.take) == (1, 9)
        assert "1 have neither registration nor activity on record" in planned.reasons
        club.run(rule)
        assert number in club.personal()
        club.installation.sql(f"UPDATE member SET created_at = now() WHERE id = {number}")
    finally:
        club.installation.sql("ALTER TABLE member ALTER created_at SET NOT NULL")


@pytest.fixture
def receiver(club: Club):
    """Give a webhook that the club's notices go to."""
    with webhook() as running:
        secret = club.installation.folder / "webhook-secret"
        secret.write_bytes(b"0123456789abcdef0123456789abcdef")
        club.tell_by(webhook=running.url, webhook_secret=secret)
        yield running


def test_people_are_told_have_time_and_may_come_back(club: Club, receiver: Receiver) -> None:
    """A notice first, nobody before the grace is over, and whoever came back is left alone and forgotten."""
    rule = club.rule(notice="P30D", grace="P14D")
    first = club.run(rule)
    assert (first.told, first.anonymised) == (10, 0)
    club.clock.move(14 * DAY)
    assert club.run(rule).anonymised == 0, "the day of the notice and fourteen more are not over"
    back = club.member(30)
    club.installation.sql(f"UPDATE member SET signed_in_at = now() WHERE id = {back}")
    club.clock.move(DAY)
    last = club.run(rule)
    assert (last.told, last.returned, last.anonymised) == (0, 1, 9)
    assert club.personal() == (club.everybody() - club.gone()) | {back}
    assert cases.counts(rule) == {}


def test_the_webhook_gets_keys_and_nothing_else(club: Club, receiver: Receiver) -> None:
    """The signed document names kind, keys and day; no value of a person is in it, nor in the control database."""
    club.run(club.rule(notice="P30D"))
    (body,), (headers,) = receiver.bodies, receiver.headers
    assert headers["Obhut-Signature"] == "sha256=" + hmac.new(b"0123456789abcdef" * 2, body, hashlib.sha256).hexdigest()
    document = json.loads(body)
    assert {tuple(one["key"]) for one in document["notices"]} == {(str(number),) for number in club.gone()}
    assert set(document) == {"kind", "version", "database", "controller", "subject_kind", "anonymised_from", "notices"}
    assert all(set(one) == {"id", "key"} for one in document["notices"])
    assert b"ecret" not in body


def test_who_could_not_be_told_is_not_anonymised(club: Club, receiver: Receiver) -> None:
    """A webhook that answers 500 fails the rule; the grace begins with the notice that was taken."""
    rule = club.rule(notice="P30D", grace="P1D")
    receiver.answer = 500
    assert club.run(rule).error_code == "retention-notice-failed"
    club.clock.move(3 * DAY)
    assert (club.run(rule).anonymised, cases.counts(rule)) == (0, {CaseState.WAITING: 10})
    receiver.answer = 202
    assert club.run(rule).told == 10
    club.clock.move(2 * DAY)
    assert club.run(rule).anonymised == 10


def test_people_are_told_before_the_period_is_over(club: Club, receiver: Receiver) -> None:
    """Told a month ahead, anonymised on the first day after the period and no day earlier."""
    rule = club.rule(period="P3Y6M", notice="P1M", grace="P1D")
    assert club.run(rule).told == 0
    club.clock.move(timedelta(days=153 + 5))  # five months and five days later: last seen three years ago, due in less than a month
    assert club.run(rule).told == 10
    club.clock.move(10 * DAY)
    assert club.run(rule).anonymised == 0, "the period is not over"
    club.clock.move(30 * DAY)
    assert club.run(rule).anonymised == 10


def test_without_a_channel_nobody_is_taken(club: Club) -> None:
    """A rule with a notice and no way to send it raises an alarm instead of skipping the notice."""
    done = club.run(club.rule(notice="P30D"))
    assert (done.obstacle, done.anonymised) == (Obstacle.NO_CHANNEL, 0)
    assert club.personal() == club.everybody()


def test_the_daily_cap_holds_over_several_runs_a_day(club: Club) -> None:
    """Four a day, however often it runs; the rest waits for the next day of the controller's zone."""
    rule = club.rule(daily_cap=4, zone="UTC")
    numbers = []
    for step in (timedelta(0), timedelta(0), DAY, DAY, DAY):
        club.clock.move(step)
        numbers.append(club.run(rule).anonymised)
    assert numbers == [4, 0, 4, 2, 0]


def test_an_implausible_share_stops_the_rule_until_somebody_accepts_it(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of activity that was emptied makes many people look inactive: nobody is told, nobody is taken, and the run says so."""
    monkeypatch.setattr("obhut.retention.plan.FLOOR", 5)
    club.installation.sql(f"UPDATE member SET signed_in_at = NULL WHERE studio_id = {club.studio}")
    club.installation.sql("DELETE FROM checkin")
    club.installation.sql("DELETE FROM call")
    rule = club.rule(alarm_share=0.2)
    done = club.run(rule)
    assert (done.obstacle, done.due, done.anonymised) == (Obstacle.IMPLAUSIBLE, 40, 0)
    rules.accept_share(rule.id, 0.9, club.clock.now() + DAY, actor=ACTOR, clock=club.clock)
    assert club.run(rule).obstacle is Obstacle.IMPLAUSIBLE, "all of them is more than what was accepted"
    club.installation.sql(f"UPDATE member SET signed_in_at = now() WHERE studio_id = {club.studio} AND id % 4 = 0")
    assert club.run(rule).anonymised == 30
    club.clock.move(2 * DAY)
    assert rules.get_rule(rule.id).share(club.clock.now()) == 0.2, "an acceptance ends by itself"


def test_holds_and_their_end(club: Club) -> None:
    """A held member is left alone until the hold is lifted or over; a hold on everybody stops the rule."""
    rule = club.rule()
    one, two = club.member(30), club.member(31)
    first = holds.place(
        club.controller, "member", (str(one),), reason=HoldReason.LITIGATION, reference="case-7", until=None, actor=ACTOR, clock=club.clock
    )
    holds.place(
        club.controller, "member", (str(two),), reason=HoldReason.REQUEST, reference="dsr-1", until=club.clock.now() + DAY, actor=ACTOR, clock=club.clock
    )  # fmt: skip
    done = club.run(rule)
    assert (done.held, done.anonymised, club.personal() & club.gone()) == (2, 8, {one, two})
    club.clock.move(2 * DAY)
    club.run(rule)
    assert club.personal() & club.gone() == {one}
    holds.lift(first.id, actor=ACTOR, clock=club.clock)
    everybody = holds.place(
        club.controller, "member", None, reason=HoldReason.CONTROLLER, reference="mail-1", until=None, actor=ACTOR, clock=club.clock
    )
    assert club.run(rule).anonymised == 0
    holds.lift(everybody.id, actor=ACTOR, clock=club.clock)
    assert club.run(rule).anonymised == 1
    with ledger.places().session() as session:
        assert session.value("SELECT count(*) FROM retention_hold WHERE key IS NOT NULL AND lifted_at IS NOT NULL") == 0


def test_nothing_happens_without_the_instruction(club: Club) -> None:
    """A revoked instruction stops its rule and no other; a rule cannot be recorded on a single one, or for another controller."""
    rule = club.rule()
    register.revoke_instruction(club.instruction, actor=ACTOR, clock=club.clock)
    club.clock.move(timedelta(seconds=1))
    done = club.run(rule)
    assert (done.obstacle, done.anonymised, club.personal()) == (Obstacle.NOT_INSTRUCTED, 0, club.everybody())
    with pytest.raises(RuleInvalidError, match="is revoked"):
        club.rule()
    club.instruct()


def test_two_sweeps_of_one_database_exclude_each_other(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one is refused while the first works."""
    club.rule()
    refused = []

    def meanwhile(*_: object) -> int:
        with pytest.raises(SweepBusyError):
            sweep.run(club.settings, "club", ACTOR, club.clock)
        refused.append(True)
        return 0

    monkeypatch.setattr("obhut.retention.records.interrupt", meanwhile)
    sweep.run(club.settings, "club", ACTOR, club.clock)
    assert refused == [True]


def test_rows_go_so_long_after_their_event(club: Club) -> None:
    """Entries at the door go after ninety days, whoever came, and younger ones stay; what refers to nobody goes, too."""
    club.rule()
    club.installation.sql("INSERT INTO door (member_id, ip, opened_at) VALUES (NULL, '192.0.2.9', now() - interval '91 days')")
    club.installation.sql("INSERT INTO door (member_id, ip, opened_at) VALUES (NULL, '192.0.2.9', now() - interval '89 days')")
    before = club.installation.value("SELECT count(*) FROM door WHERE opened_at > now() - interval '89 days 1 hour'")
    register.revoke_instruction(club.instruction, actor=ACTOR, clock=club.clock)
    (planned,) = sweep.plan(club.settings, "club", ACTOR, club.clock).rows
    assert (planned.rows > 0, planned.obstacle) == (True, Obstacle.NOT_INSTRUCTED), "the rows of a table belong to every controller"
    club.instruct()
    report = sweep.run(club.settings, "club", ACTOR, club.clock)
    record = next(one for one in report.records if one.rule == "public.door")
    assert record.rows_changed == record.due > 0
    assert club.installation.value("SELECT count(*) FROM door WHERE opened_at < now() - interval '91 days'") == 0
    assert club.installation.value("SELECT count(*) FROM door WHERE opened_at > now() - interval '89 days 1 hour'") == before
