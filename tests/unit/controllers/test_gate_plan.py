"""What permits an action and what is missing, decided without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from obhut.controllers.plan import REMEDIES, WORDS, ContractFacts, Granted, InstructionFacts, Question, Refusal, contract_in_force, decide
from obhut.controllers.vocabulary import Action, InstructionKind, SubjectRef, canonical_key, parse_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ANNA = SubjectRef("participant", ("42",))
CONTRACT = ContractFacts("dpa_1", NOW - 10 * DAY, None)
STANDING = InstructionFacts("ins_1", InstructionKind.STANDING, frozenset({"erase"}), "courses", "", None, NOW - DAY, None, None, "")
SINGLE = replace(STANDING, id="ins_2", kind=InstructionKind.SINGLE, subject_kind="participant", subject_keys=frozenset({'["42"]'}))
ASKED = Question(Action.ERASE, "courses", ANNA, "run_1", NOW)


def test_a_standing_instruction_permits_under_a_contract_in_force() -> None:
    """The verdict names the instruction and the contract."""
    assert decide(ASKED, [CONTRACT], [STANDING]) == Granted(STANDING, "dpa_1")


@pytest.mark.parametrize(
    ("contracts", "instructions", "refusal"),
    [
        ([], [STANDING], Refusal.NO_CONTRACT),
        ([replace(CONTRACT, valid_from=NOW + DAY)], [STANDING], Refusal.CONTRACT_NOT_YET),
        ([replace(CONTRACT, valid_until=NOW)], [STANDING], Refusal.CONTRACT_ENDED),
        ([CONTRACT], [], Refusal.NO_INSTRUCTION),
        ([CONTRACT], [replace(STANDING, actions=frozenset({"restore"}))], Refusal.NO_INSTRUCTION),
        ([CONTRACT], [replace(STANDING, database="shop")], Refusal.WRONG_DATABASE),
        ([CONTRACT], [replace(STANDING, subject_kind="teacher")], Refusal.WRONG_SUBJECT_KIND),
        ([CONTRACT], [replace(SINGLE, subject_keys=frozenset({'["43"]'}))], Refusal.WRONG_SUBJECT),
        ([CONTRACT], [replace(STANDING, revoked_at=NOW)], Refusal.REVOKED),
        ([CONTRACT], [replace(STANDING, valid_until=NOW)], Refusal.EXPIRED),
        ([CONTRACT], [replace(STANDING, valid_from=NOW + DAY)], Refusal.NOT_YET),
        ([CONTRACT], [replace(SINGLE, used_by_run="run_0")], Refusal.ALREADY_USED),
    ],
)
def test_each_lack_has_its_own_word(contracts: list[ContractFacts], instructions: list[InstructionFacts], refusal: Refusal) -> None:
    """A refusal says which one thing is missing."""
    assert decide(ASKED, contracts, instructions) is refusal


def test_the_nearest_miss_is_named() -> None:
    """An expired instruction tells the operator more than one for another database."""
    misses = [replace(STANDING, database="shop"), replace(STANDING, valid_until=NOW), replace(STANDING, subject_kind="teacher")]
    assert decide(ASKED, [CONTRACT], misses) is Refusal.EXPIRED


def test_an_instruction_about_some_people_never_covers_everybody() -> None:
    """Restoring a whole controller is not permitted by a word about one person, or about one kind of people."""
    everybody = replace(ASKED, subject=None)
    assert decide(everybody, [CONTRACT], [SINGLE]) is Refusal.WRONG_SUBJECT_KIND
    assert decide(everybody, [CONTRACT], [replace(STANDING, subject_kind="participant")]) is Refusal.WRONG_SUBJECT_KIND
    assert isinstance(decide(everybody, [CONTRACT], [STANDING]), Granted)


def test_the_run_that_used_a_single_instruction_may_use_it_again() -> None:
    """A resume after a crash is the same run; a dry run (no run) is not."""
    used = replace(SINGLE, used_by_run="run_1")
    assert isinstance(decide(ASKED, [CONTRACT], [used]), Granted)
    assert decide(replace(ASKED, run_id=None), [CONTRACT], [used]) is Refusal.ALREADY_USED


def test_the_most_specific_instruction_is_chosen_and_the_used_one_kept() -> None:
    """What names the person documents the act best; a resumed run stays with the instruction it took."""
    assert decide(ASKED, [CONTRACT], [STANDING, SINGLE]) == Granted(SINGLE, "dpa_1")
    later = replace(SINGLE, id="ins_3")
    assert decide(ASKED, [CONTRACT], [replace(SINGLE, used_by_run="run_1"), later]) == Granted(
        replace(SINGLE, used_by_run="run_1"), "dpa_1"
    )


def test_of_overlapping_contracts_the_youngest_counts() -> None:
    """A renewal may begin before the old version ends."""
    younger = ContractFacts("dpa_2", NOW - DAY, NOW + DAY)
    assert contract_in_force([CONTRACT, younger], NOW) == younger
    assert contract_in_force([CONTRACT, younger], NOW + 2 * DAY) == CONTRACT


def test_keys_have_one_spelling() -> None:
    """Numbers and texts of a key compare equal however they were given; a separator inside a value confuses nothing."""
    assert parse_key("42") == ("42",)
    assert parse_key('[4, "a"]') == ("4", "a")
    assert canonical_key(("4", 'a","b')) != canonical_key(("4", "a", "b"))
    assert parse_key(canonical_key(("ä", '"'))) == ("ä", '"')
    for bad in ("", "[]", "[true]", "[1.5]", "[[1]]"):
        with pytest.raises(ValueError):
            parse_key(bad)


def test_every_refusal_has_words() -> None:
    """No lack is without a sentence, and every remedy belongs to a lack."""
    assert set(WORDS) == set(Refusal)
    assert set(REMEDIES) <= set(Refusal)
