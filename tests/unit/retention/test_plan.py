"""What a rule does on a day."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obhut.retention.plan import FLOOR, Situation, decide
from obhut.retention.rules import Rule
from obhut.retention.vocabulary import Obstacle

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULE = Rule(
    "ret_1", "d", "ctl_1", '["1"]', "member", "ins_1", "P2Y", "P30D", "P14D", "Europe/Berlin", 100, 0.2, None, None, None
)  # fmt: skip
CALM = Situation(people=10_000, unknown=0, due=0, soon=0, held=0, cases=0, ripe=0, today=0, instructed=True, channel=True)


@pytest.mark.parametrize(
    ("seen", "obstacle", "tell", "take", "capped"),
    [
        ({}, Obstacle.NONE, 0, 0, 0),
        ({"soon": 30, "due": 10}, Obstacle.NONE, 30, 0, 0),
        ({"soon": 30, "due": 10, "cases": 30, "ripe": 10}, Obstacle.NONE, 0, 10, 0),
        ({"soon": 500, "due": 400, "cases": 500, "ripe": 400}, Obstacle.NONE, 0, 100, 300),
        ({"soon": 500, "due": 400, "cases": 500, "ripe": 400, "today": 70}, Obstacle.NONE, 0, 30, 370),
        ({"soon": 500, "due": 400, "cases": 500, "ripe": 400, "today": 130}, Obstacle.NONE, 0, 0, 400),
        ({"soon": 2_001, "cases": 10}, Obstacle.IMPLAUSIBLE, 0, 0, 0),
        ({"soon": 30, "instructed": False}, Obstacle.NOT_INSTRUCTED, 0, 0, 0),
        ({"soon": 30, "channel": False}, Obstacle.NO_CHANNEL, 0, 0, 0),
        ({"people": FLOOR - 1, "soon": FLOOR - 1}, Obstacle.NONE, FLOOR - 1, 0, 0),
        ({"soon": 30, "held": 12}, Obstacle.NONE, 18, 0, 0),
    ],
)
def test_what_happens_today(seen, obstacle, tell, take, capped):
    """Cap, alarm, hold, instruction and channel each keep people out, and the plan says so."""
    plan = decide(RULE, replace(CALM, **seen), NOW)
    assert (plan.obstacle, plan.tell, plan.take, plan.capped) == (obstacle, tell, take, capped)
    if obstacle or capped or seen.get("held"):
        assert plan.reasons


@given(
    st.builds(
        Situation,
        people=st.integers(0, 5_000), unknown=st.integers(0, 50), due=st.integers(0, 5_000), soon=st.integers(0, 5_000), held=st.integers(0, 500),
        cases=st.integers(0, 5_000), ripe=st.integers(0, 5_000), today=st.integers(0, 300), instructed=st.booleans(), channel=st.booleans(),
    ),
    st.sampled_from(["", "P30D"]),
)  # fmt: skip
def test_no_day_goes_beyond_the_cap_and_no_obstacle_is_passed(seen, notice):
    """Whatever was seen: nobody is taken or told against an obstacle, and those taken with those of today are within the cap."""
    plan = decide(replace(RULE, notice=notice), seen, NOW)
    assert plan.tell >= 0 and plan.take >= 0 and plan.capped >= 0
    assert plan.take + min(seen.today, RULE.daily_cap) <= RULE.daily_cap
    if plan.obstacle:
        assert (plan.tell, plan.take) == (0, 0)
    if seen.people and seen.soon >= FLOOR and seen.soon / seen.people > RULE.alarm_share and notice:
        assert plan.obstacle


def test_an_accepted_share_counts_until_its_end():
    """A higher share that a person accepted holds for its time, and never lowers the limit."""
    accepted = replace(RULE, accepted_share=0.6, accepted_until=NOW + timedelta(days=1))
    assert decide(accepted, replace(CALM, soon=5_000), NOW).obstacle is Obstacle.NONE
    assert decide(accepted, replace(CALM, soon=6_001), NOW).obstacle is Obstacle.IMPLAUSIBLE
    assert decide(accepted, replace(CALM, soon=5_000), NOW + timedelta(days=2)).obstacle is Obstacle.IMPLAUSIBLE
    assert replace(accepted, accepted_share=0.1).share(NOW) == 0.2
