"""The gate before the word: each criterion alone keeps a copy from being called anonymised."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from datamap_schemas import HEAD, column
from masking_maps import patient, planned

from obhut.masking.model import MaskPlan
from obhut.masking.verdict import Attack, Evidence, Label, Risk, SignOff, Thresholds, judge, quasi_identifiers, sensitive_columns

TODAY = date(2026, 11, 23)
ATTACKS = {"singling_out": Attack(0.01), "linkability": Attack(0.02), "inference": Attack(not_applicable="no sensitive column is left")}
WELL = Evidence(
    key_destroyed=True, k=20, l=5, attacks=ATTACKS, leaks=0, residue=0, sign_off=SignOff("A. Person", date(2026, 11, 1), date(2027, 11, 1))
)


def made(rule: str = "user.name.last", kind: str = "text") -> MaskPlan:
    schema, head = patient(rule, column("x", kind), column("ill", "text"), column("since", "date"))
    head = head.replace(
        "        not_personal: [created_at]",
        "          ill: {category: user.health_and_medical, mask: {truncate: 3}}\n        not_personal: [created_at, since]",
    )
    return planned(schema, head=head)


def test_a_copy_that_meets_every_criterion_is_anonymised() -> None:
    """All met: the word; nothing is missing."""
    verdict = judge(made(), WELL, TODAY)
    assert verdict.missing == () and verdict.label is Label.ANONYMISED
    assert {criterion.id for criterion in verdict.criteria} == {
        "classified", "identifiers", "keys", "k", "l", "singling_out", "linkability", "inference", "leaks", "residue", "key-destroyed", "sign-off",
    }  # fmt: skip
    assert all(criterion.source and criterion.todo for criterion in verdict.criteria)


BROKEN = {
    "k": replace(WELL, k=10),
    "l": replace(WELL, l=2),
    "singling_out": replace(WELL, attacks={**ATTACKS, "singling_out": Attack(0.2)}),
    "linkability": replace(WELL, attacks={name: attack for name, attack in ATTACKS.items() if name != "linkability"}),
    "inference": replace(WELL, attacks={**ATTACKS, "inference": Attack()}),
    "leaks": replace(WELL, leaks=1),
    "residue": replace(WELL, residue=None),
    "sign-off": replace(WELL, sign_off=None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_criterion_that_is_not_met_is_enough(name: str) -> None:
    """Failed or not looked at: deidentified, and the criterion says which."""
    verdict = judge(made(), BROKEN[name], TODAY)
    assert verdict.label is Label.DEIDENTIFIED and [criterion.id for criterion in verdict.missing] == [name]


def test_nothing_looked_at_is_nothing_met() -> None:
    """Without evidence not even the end of the key is believed."""
    verdict = judge(made(), Evidence(), TODAY)
    assert verdict.label is Label.PSEUDONYMISED
    assert {criterion.id for criterion in verdict.missing} == set(BROKEN) | {"key-destroyed"}
    assert all(criterion.met is None for criterion in verdict.missing)


def test_a_kept_key_keeps_the_copy_pseudonymised() -> None:
    """Whatever the figures: with the key somebody can test guesses."""
    assert judge(made(), WELL, TODAY, stable=True).label is Label.PSEUDONYMISED
    assert judge(made(), replace(WELL, key_destroyed=False), TODAY).label is Label.PSEUDONYMISED


@pytest.mark.parametrize("mask", ["hash", "scramble", "partial", "{keep: a reason}"])
def test_a_mark_in_the_place_of_a_name_is_no_anonymisation(mask: str) -> None:
    """Hashing, scrambling, a partial mask and keeping do not qualify on a direct identifier."""
    verdict = judge(made(f"{{category: user.name.last, mask: {mask}}}"), WELL, TODAY)
    assert verdict.label is Label.DEIDENTIFIED and [criterion.id for criterion in verdict.missing] == ["identifiers"]
    assert "public.patient.x" in verdict.missing[0].fact
    assert next(one for one in verdict.columns if one.column == "x").singling_out is Risk.REMAINS


def test_an_identifier_of_the_map_counts_whatever_its_category() -> None:
    """A column that the map lists among the identifiers is one, though its category does not say so."""
    schema, head = patient("{category: user.behavior, mask: hash}", column("x", "text"))
    named = planned(schema, head=head.replace("identifiers: [email]", "identifiers: [email, x]"))
    assert [criterion.id for criterion in judge(named, replace(WELL, l=None), TODAY).missing] == ["identifiers"]
    assert "identifiers" not in [criterion.id for criterion in judge(planned(schema, head=head), WELL, TODAY).missing]


@pytest.mark.parametrize(("path", "missing"), [("hash", ["identifiers"]), ("{keep: two letters}", []), ("email", []), ("'null'", [])])
def test_a_mark_inside_a_document_counts(path: str, missing: list[str]) -> None:
    """A hash at a path is a mark like any other; a kept path is measured, and its column says that something is left."""
    verdict = judge(made(f"{{category: user, mask: {{json: {{'$.a': {path}}}}}}}", "jsonb"), WELL, TODAY)
    assert [criterion.id for criterion in verdict.missing] == missing
    found = next(one for one in verdict.columns if one.column == "x")
    assert (found.singling_out is Risk.GONE) == (path in {"email", "'null'"})
    if missing:
        assert "public.patient.x $.a" in verdict.missing[0].fact


def test_kept_keys_link_the_copy_to_production() -> None:
    """rekey: false costs the word."""
    kept = planned(
        patient("user", column("x", "text"))[0],
        head=patient("user")[1].replace("        erase: delete", "        rekey: false\n        erase: delete"),
    )
    assert "keys" in [criterion.id for criterion in judge(kept, WELL, TODAY).missing]


def test_a_word_holds_until_its_review() -> None:
    """A sign-off from tomorrow, one without a name and one that is due for review are none."""
    for signed in (
        SignOff("A", date(2026, 12, 1), date(2027, 1, 1)),
        SignOff(" ", TODAY, TODAY),
        SignOff("A", date(2025, 1, 1), date(2026, 1, 1)),
    ):
        assert judge(made(), replace(WELL, sign_off=signed), TODAY).label is Label.DEIDENTIFIED


def test_what_is_left_is_what_is_measured() -> None:
    """Quasi-identifiers are columns of which something is left, moments included; sensitive ones are measured by l, not by k."""
    plan = made("{category: user.demographic.date_of_birth, mask: {generalise: year}}", "date")
    (names,) = quasi_identifiers(plan).values()
    assert set(names) == {"x", "created_at", "since"}
    assert list(sensitive_columns(plan).values()) == [("ill",)]
    assert judge(plan, WELL, TODAY, thresholds=Thresholds(k=50)).label is Label.DEIDENTIFIED


def test_a_plan_with_refusals_is_no_anonymous_copy() -> None:
    """What the planner refused cannot be made good by figures."""
    refused = planned(patient("user")[0], head=HEAD.replace("not_personal: [created_at]", "not_personal: []"))
    assert "classified" in [criterion.id for criterion in judge(refused, WELL, TODAY).missing]


def test_every_column_is_explained_by_the_three_questions() -> None:
    """Invented by value: frequency is left; by person: rows belong together; a kept moment may link."""
    found = {one.column: one for one in judge(made(), WELL, TODAY).columns}
    assert (found["id"].linkability, found["email"].linkability, found["email"].singling_out) == (Risk.GONE, Risk.MEASURED, Risk.GONE)
    assert (found["x"].linkability, found["x"].inference, found["since"].linkability) == (Risk.MEASURED, Risk.GONE, Risk.MEASURED)
    assert all(one.why for one in found.values())
