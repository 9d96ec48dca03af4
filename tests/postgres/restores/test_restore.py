"""A whole restore on real servers, from sealed backups to the certificate."""

from __future__ import annotations

import json

from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.journal.states import RunState
from obhut.postgres.connections import Session
from obhut.restores import run
from obhut.restores.plan import parse_target

ACTOR = Actor(Role.OPERATOR, "acc-7")
CLOCK = SystemClock()


def restore(story, to: str, **more) -> run.Outcome:
    """Restore up to the certificate."""
    return run.begin(story.settings, run.Request("courses", parse_target(to), **more), ACTOR, CLOCK)


def test_restore_leaves_out_the_erased_and_keeps_all_others(story) -> None:
    """A restore to before an erasure holds every row but the erased person's, the anonymised one anonymised again, with a proof."""
    outcome = restore(story, story.lsn)
    assert outcome.state is RunState.PARTIAL
    assert outcome.holds
    content = json.loads(outcome.certificate.read_text())["certificate"]
    failed = [s for s in content["statements"] if s["result"] != "passed"]
    assert [s["name"] for s in failed] == ["index-structure"]
