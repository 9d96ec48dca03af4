"""Crowds are anonymised in two lanes: as many as in one, each once, and a failure stops both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from support.studio import ACTOR, Club, opened

from obhut.erasure import guarded, known, ledger
from obhut.erasure.entries import State
from obhut.erasure.erase import Eraser
from obhut.foundation.errors import ObhutError
from obhut.retention import cases, lanes, sweep
from obhut.retention.vocabulary import CaseState

pytestmark = pytest.mark.postgres


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take two people at a time."""
    monkeypatch.setattr(sweep, "CHUNK", 2)


def _states(club: Club) -> list[State]:
    return [one.state for one in known.by_keys("club", "member", [(str(number),) for number in club.gone()])]


@pytest.mark.usefixtures("in_small_parts")
def test_two_lanes_work_at_the_same_time(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane waits until the other has begun, too; in the end ten are anonymised, each with one effective tombstone, and the list is whole."""
    both, seen = threading.Barrier(lanes.LANES, timeout=30), set()

    def meet(name: str) -> None:
        if name == "guard.locked" and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait()

    monkeypatch.setattr(guarded, "reach", meet)
    done = club.run(club.rule())
    assert (done.anonymised, done.spared, done.error_code, len(seen)) == (10, 0, "", lanes.LANES)
    assert club.personal() == club.everybody() - club.gone()
    assert _states(club) == [State.EFFECTIVE] * 10
    assert cases.taken("club", "member", [(str(number),) for number in club.gone()]) == {}
    ledger.verify_list(club.settings, settle_at=club.clock)


@pytest.mark.usefixtures("in_small_parts")
def test_a_failure_stops_both_lanes_and_the_next_run_ends_it(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun is carried to its end, nothing more is begun, the record names the error and counts who was anonymised."""
    rule, begun = club.rule(), list[Sequence[tuple[str, ...]]]()
    original = sweep.anonymise_guarded

    def fails(eraser: Eraser, kind: str, keys: Sequence[tuple[str, ...]], *rest: object) -> guarded.Guarded:
        begun.append(keys)
        if len(begun) == 2:
            raise ObhutError("the second part fails")
        return original(eraser, kind, keys, *rest)  # type: ignore[arg-type]  # passed on as they are

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "anonymise_guarded", fails)
        done = club.run(rule)
    assert done.error_code and len(begun) < 5
    assert len(club.personal() & club.gone()) == 10 - done.anonymised
    club.run(rule)
    assert club.personal() == club.everybody() - club.gone()
    assert _states(club) == [State.EFFECTIVE] * 10


def test_whom_a_dead_sweep_had_taken_the_next_takes_with_the_others(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who were taken and not recorded each has a case; they are taken again in one part with people who have none, and nothing is left."""

    class Died(BaseException):
        pass

    def die(name: str) -> None:
        if name == "retention.taken":
            raise Died

    rule = club.rule()
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "CHUNK", 4)
        patch.setattr(sweep, "reach", die)
        with pytest.raises(Died):
            club.run(rule)
    assert cases.counts(rule)[CaseState.TAKEN] in {4, 8}, "one part a lane"
    assert cases.unfold("club") in {4, 8} and cases.unfold("club") == 0
    assert len(cases.of_rule(rule, CaseState.TAKEN)) == cases.counts(rule)[CaseState.TAKEN]
    done = club.run(rule)
    assert (done.anonymised, done.returned, cases.counts(rule)) == (10, 0, {})
    assert club.personal() == club.everybody() - club.gone()


def test_the_next_rule_chooses_meanwhile_and_a_failure_does_not_stop_it(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two rules fails before anybody is taken: the other is carried out, each has one record, and the next run ends the first."""
    with opened(club.installation) as other:
        listed = {club.rule().id, other.rule().id}
        original, failed = lanes.Lanes.each, list[str]()

        def fails_once(self: lanes.Lanes, *given: object) -> None:
            if not failed:
                failed.append("once")
                raise ObhutError("no lane opens")
            original(self, *given)  # type: ignore[arg-type]  # passed on as they are

        with monkeypatch.context() as patch:
            patch.setattr(lanes.Lanes, "each", fails_once)
            first = [one for one in sweep.run(club.settings, "club", ACTOR, club.clock).records if one.rule in listed]
        assert {one.rule for one in first} == listed and len(first) == 2
        assert sorted((bool(one.error_code), one.anonymised) for one in first) == [(False, 10), (True, 0)]
        again = [one for one in sweep.run(club.settings, "club", ACTOR, club.clock).records if one.rule in listed]
        assert sorted(one.anonymised for one in again) == [0, 10]
        assert (club.personal() & club.gone(), other.personal() & other.gone()) == (set(), set())


@pytest.mark.parametrize("way", ["short", "long"])
def test_both_ways_change_the_same_rows(club: Club, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Row by row or a statement a table: the same counts, the same values, the same tombstones; where the map asks for the long way there is one lane."""
    monkeypatch.setattr(sweep, "CHUNK", 4)
    if way == "long":
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731 - short
        monkeypatch.setattr(Eraser, "short_way", nothing)
        monkeypatch.setattr(lanes.Lanes, "_widen", lambda _: pytest.fail("a second lane was opened"))
    done = club.run(club.rule())
    assert (done.anonymised, done.rows_changed) == (10, 30)  # the member, the check-in, the door
    assert club.personal() == club.everybody() - club.gone()
    assert _states(club) == [State.EFFECTIVE] * 10


def test_a_trigger_asks_for_the_long_way(club: Club) -> None:
    """A trigger that writes the old value back is noticed: nobody counts as anonymised, and without it the next run ends it."""
    rule = club.rule()
    club.installation.sql(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.remark := OLD.remark; RETURN NEW; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON checkin FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    try:
        done = club.run(rule)
    finally:
        club.installation.sql("DROP FUNCTION keep() CASCADE")
    assert (done.error_code, done.anonymised) == ("erasure-incomplete", 0)
    assert club.personal() == club.everybody()
    club.run(rule)
    assert club.personal() == club.everybody() - club.gone()
