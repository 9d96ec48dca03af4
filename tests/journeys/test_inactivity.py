"""Promise *inactivity*: users inactive for more than 2 years are anonymised.

One story through the command line: a rule, a notice, the time of grace, a killed run and its resumption, and a restore from before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.club import Receiver, inactive, installed_club, instructed, notices_by_webhook, personal, webhook
from support.installation import Installation

from obhut.postgres.connections import Session

pytestmark = [pytest.mark.journey, pytest.mark.postgres, pytest.mark.slow]
TOLD = {"OBHUT_CLOCK_OFFSET": "-P20D"}  # the notices went out twenty days ago
DUE = inactive(1) | inactive(2)


@dataclass
class Story:
    """What has happened."""

    club: Installation
    receiver: Receiver
    before: str = ""
    first: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)

    @property
    def obhut(self) -> Any:
        """The command line."""
        return self.club.obhut


def _promise(story: Story) -> dict[str, Any]:
    result = story.obhut.run("promises", "inactivity")
    assert result.status in {0, 5}, str(result)
    return result.document["promises"][0]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """Tell everybody in studios 1 and 2 twenty days ago; studio 3 has no rule."""
    with webhook() as receiver, installed_club(prefix="obhut-i") as club:
        file = club.folder / "obhut.toml"
        file.write_text(file.read_text(encoding="utf-8") + notices_by_webhook(receiver, club.folder), encoding="utf-8")
        told = Story(club, receiver)
        instructions = instructed(club)
        for studio in ("1", "2"):
            told.rules[studio] = club.obhut(
                "retention", "rules", "set", club.controllers[studio], "--kind", "member", "--instruction", instructions[studio],
                "--alarm-share", "0.5", "--grace", "P14D", env=TOLD,
            )["id"]  # fmt: skip
        club.sql("DELETE FROM door")  # the rule for rows is another test's
        told.first = club.obhut("retention", "run", "club", env=TOLD)
        club.backup()
        club.commit_something()
        told.before = club.position()
        club.flush()
        yield told


def test_the_notices_were_handed_over_and_nobody_was_touched(story: Story) -> None:
    """Twenty days ago twenty people were told, and nothing else happened; the promise is broken for those whose studio has no rule."""
    assert [(one["told"], one["anonymised"]) for one in story.first["records"] if one["rule"] in story.rules.values()] == [(10, 0), (10, 0)]
    keys = [int(one["key"][0]) for body in story.receiver.bodies for one in json.loads(body)["notices"]]
    assert sorted(keys) == sorted(DUE)
    assert personal(story.club, *DUE) == DUE
    verdict = _promise(story)
    assert verdict["state"] == "broken"
    broken = {item["fact"] for item in verdict["evidence"] if item["state"] == "broken"}
    assert "10 people are inactive for more than two years, and their controllers have no rule" in broken


def test_a_plan_shows_counts_and_reasons_and_changes_nothing(story: Story) -> None:
    """The dry run names how many would be anonymised, and whom no rule covers."""
    planned = story.obhut("retention", "plan", "club")
    assert (planned["due"], planned["take"], planned["tell"]) == (20, 20, 0)
    assert [(one["controller_key"], one["due"]) for one in planned["uncovered"]] == [('["3"]', 10)]
    assert personal(story.club, *DUE) == DUE


def test_killed_anywhere_and_resumed_everybody_is_anonymised_once(story: Story) -> None:
    """The run dies at each instant in turn; the last one finishes what is left, and each of the twenty has one tombstone."""
    for name in ("retention.taken", "guard.recorded", "erase.committed", "retention.anonymised"):
        story.obhut.killed_at(name, "retention", "run", "club")
        assert personal(story.club) >= set(range(100, 130)), "somebody active was anonymised"
    story.obhut("retention", "run", "club")
    assert personal(story.club, *DUE) == set()
    listed = story.obhut("erasures", "list", "club", "--limit", 1000)
    assert sorted({one["state"] for one in listed}) == ["effective"]
    assert len([one for one in listed if one["action"] == "anonymise"]) == 20
    assert story.obhut("retention", "run", "club")["resumed"] == 0
    with story.club.control_session() as session:
        left = session.row("SELECT (SELECT count(*) FROM retention_case), (SELECT count(*) FROM retention_part)")
        assert left == (0, 0), "cases are forgotten with their end"


def test_the_promise_is_kept_once_everybody_is_covered(story: Story) -> None:
    """With a rule for the third studio and its people anonymised, all are looked at and nobody is left; a new laggard breaks it."""
    instruction = story.club.instruct("3", ("anonymise",), "--valid-from", "2019-01-01")
    story.obhut(
        "retention", "rules", "set", story.club.controllers["3"], "--kind", "member", "--instruction", instruction, "--notice", "none", "--alarm-share", "0.5"
    )  # fmt: skip
    assert _promise(story)["state"] == "broken"
    story.obhut("retention", "run", "club")
    verdict = _promise(story)
    assert verdict["state"] == "kept", verdict
    assert verdict["age_seconds"] < 60
    story.club.sql(
        "INSERT INTO member VALUES (399, 3, 'Secret399name', 'secret399@mail.invalid', 'de', NULL, now() - interval '9 years')".replace(
            "399", "398"
        )
    )
    try:
        assert _promise(story)["state"] == "broken"
    finally:
        story.club.sql("DELETE FROM member WHERE id = 398")


def test_their_bytes_are_followed_until_they_are_gone(story: Story) -> None:
    """After a rewrite no file of a table, index or statistics holds an old value; copies in backups have a date, and the promise stays kept."""
    places = {trace["place"]: trace for trace in story.obhut("erasures", "residue", "club")["open"][-1]["traces"]}
    assert (places["heap"]["state"], places["index"]["state"]) == ("remains", "remains")
    done = story.obhut("erasures", "clean", "club", "--rewrite")
    assert {"public.member", "public.checkin"} <= set(done["rewritten"])
    (opened,) = done["residue"]["open"]
    assert opened["people"] == 30, "twenty of the story and ten of the third studio"
    places = {trace["place"]: trace for trace in opened["traces"]}
    assert [places[place]["state"] for place in ("heap", "index", "statistics", "backups")] == ["gone", "gone", "gone", "until"]
    values = "\n".join(f"secret{number}@mail.invalid" for number in sorted(DUE))
    searched = story.obhut.run("erasures", "residue", "club", "--values-from", "-", stdin=values).document["searched"]
    assert {one["place"] for one in searched} == {"heap", "index", "statistics", "wal"}
    assert [one["name"] for one in searched if one["hits"] and one["place"] != "wal"] == []


def test_a_restore_from_before_anonymises_them_again(story: Story) -> None:
    """The backup knows the twenty by name; what the restore opens does not, and keeps everybody else as they were."""
    story.club.lose()
    restored = story.obhut("restore", "run", "club", "--to", story.before, patience=240)
    opened = story.obhut("restore", "open", restored["run"])
    with Session.connect(opened["url"]) as session:
        left = session.rows("SELECT id FROM member WHERE name LIKE 'Secret%' OR email LIKE 'secret%'")
        assert {int(number) for (number,) in left} == {n for s in (1, 2, 3) for n in range(s * 100, s * 100 + 30)}
        assert session.value("SELECT count(*) FROM member") == 120
        assert session.value("SELECT count(*) FROM checkin c WHERE member_id = ANY(%s) AND remark IS NOT NULL", (sorted(DUE),)) == 0


def test_no_word_of_a_person_was_said(story: Story) -> None:
    """Nothing that the commands printed, and nothing that the jobs and tables of retention hold, names anybody."""
    said = "".join(result.said for result in story.obhut.log)
    assert "ecret" not in said.replace("webhook_secret", "")
    with story.club.control_session() as session:
        for table in ("retention_rule", "retention_case", "retention_part", "retention_hold", "retention_sweep", "procrastinate_jobs"):
            assert "ecret" not in (session.value(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t"))
