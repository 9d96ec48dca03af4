"""Somebody who is active while the sweep is at work is left alone; what an interrupted sweep recorded about such a person is lifted."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from support.studio import ACTOR, Club

from obhut.erasure import guarded, known, ledger
from obhut.erasure.entries import State
from obhut.erasure.erase import Eraser
from obhut.erasure.finish import finish
from obhut.postgres.connections import Session
from obhut.retention import cases, rules, sweep
from obhut.retention.guard import guarding
from obhut.retention.records import SweepRecord

pytestmark = pytest.mark.postgres


def _waiting(session: Session) -> bool:
    return bool(session.value("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'club' AND wait_event_type = 'Lock')"))


def _swept_while(club: Club, change: str) -> SweepRecord:
    """Sweep while another transaction holds a change of a member, which it commits once the sweep waits for the row."""
    rule = club.rule()
    held, seen = threading.Event(), threading.Event()

    def member() -> None:
        with club.installation.session() as session, club.installation.session() as watcher, session.transaction():
            session.execute(change)
            held.set()
            deadline = time.monotonic() + 20
            while not _waiting(watcher) and time.monotonic() < deadline:
                time.sleep(0.02)
            if _waiting(watcher):
                seen.set()

    thread = threading.Thread(target=member)
    thread.start()
    assert held.wait(10)
    done = club.run(rule)
    thread.join(30)
    assert seen.is_set(), "the sweep did not wait for the row"
    return done


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE member SET signed_in_at = now() WHERE id = {number}",
        "INSERT INTO checkin (member_id, at) VALUES ({number}, current_date)",
        "INSERT INTO call (member_id, at) VALUES ({number}, now())",
    ],
    ids=["signs in", "checks in", "calls"],
)
def test_active_in_the_last_second(club: Club, change: str) -> None:
    """The sweep has chosen ten; one of them becomes active in a transaction that commits after the choice: nine are anonymised, no tombstone for the one."""
    number = club.member(34)
    done = _swept_while(club, change.format(number=number))
    assert (done.anonymised, done.spared, done.error_code) == (9, 1, "")
    assert club.personal() & club.gone() == {number}
    assert [one for one in known.by_keys("club", "member", [(str(number),)]) if one.state in {State.RECORDED, State.EFFECTIVE}] == []


def test_a_member_who_signs_in_behind_the_lock_waits_and_is_anonymous_then(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look under the lock and the commit nobody gets in: the sign-in waits until the row is anonymised."""
    number, waited = club.member(34), threading.Event()

    def locked(name: str) -> None:
        if name != "guard.locked":
            return

        def sign_in() -> None:
            with club.installation.session() as session:
                session.execute("UPDATE member SET signed_in_at = now() WHERE id = %s", (number,))
            waited.set()

        threading.Thread(target=sign_in, daemon=True).start()
        time.sleep(0.3)
        assert not waited.is_set(), "somebody signed in past the lock"

    monkeypatch.setattr(guarded, "reach", locked)
    assert club.run(club.rule()).anonymised == 10
    assert waited.wait(10)
    assert number not in club.personal()


def _recorded(club: Club, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Let a sweep die between its tombstones and its commit; return whom it had taken."""

    class Died(BaseException):
        pass

    def die(name: str) -> None:
        if name == "guard.recorded":
            raise Died

    with monkeypatch.context() as patch:
        patch.setattr(guarded, "reach", die)
        with pytest.raises(Died):
            club.run(club.rule())
    assert club.personal() == club.everybody(), "nothing was committed"
    keys = cases.taken("club", "member", [(str(number),) for number in club.everybody()])
    assert {int(key) for (key,) in keys} == club.gone()
    return club.gone()


def _lifted_and_effective(club: Club) -> tuple[int, int]:
    with ledger.places().session() as session:
        states = dict(
            session.rows("SELECT state, count(*) FROM erasure_tombstone WHERE controller = %s GROUP BY state", (club.controller,))
        )
    return states.get("lifted", 0), states.get("effective", 0)


@pytest.mark.parametrize("way", ["the next sweep", "finish"])
def test_whoever_came_back_after_a_crash_is_spared(club: Club, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Tombstones were durable, the process died, one member signs in: the others are finished, the one's tombstone is lifted."""
    _recorded(club, monkeypatch)
    number = club.member(36)
    club.installation.sql(f"UPDATE member SET signed_in_at = now() WHERE id = {number}")
    if way == "finish":
        with guarding(club.settings, "club", club.clock) as guard:
            finish(club.settings, "club", club.clock, guard=guard)
    sweep.run(club.settings, "club", ACTOR, club.clock)
    assert club.personal() & club.gone() == {number}
    assert _lifted_and_effective(club) == (1, 9)
    assert cases.taken("club", "member", [(str(one),) for one in club.gone()]) == {}
    assert ledger.verify_list(club.settings, settle_at=club.clock).size > 0


def test_an_ended_rule_takes_back_what_was_not_yet_done(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller ends the rule after a crash: nobody is anonymised by it any more, and no restore does so either."""
    _recorded(club, monkeypatch)
    (rule,) = [one for one in rules.list_rules("club") if one.controller == club.controller]
    rules.revoke_rule(rule.id, actor=ACTOR, clock=club.clock)
    sweep.run(club.settings, "club", ACTOR, club.clock)
    assert club.personal() == club.everybody()
    assert _lifted_and_effective(club) == (10, 0)


def test_a_manual_anonymisation_is_none_of_the_guards_business(club: Club) -> None:
    """Somebody active whose anonymisation was asked for by name is anonymised, guard or not."""
    club.rule()
    number = club.member(1)
    with Eraser(club.settings, "club") as eraser, guarding(club.settings, "club", club.clock) as guard:
        done = guarded.anonymise_guarded(eraser, "member", [(str(number),)], ACTOR, club.clock, guard)
    assert (done.spared, number in club.personal()) == ((), False)
    club.clock.move(timedelta(seconds=1))
