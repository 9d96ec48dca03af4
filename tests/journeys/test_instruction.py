"""Promise *instruction*: personal data is processed only on a controller's documented instruction, under its contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from support import oracle
from support.clinic import installed_clinic
from support.installation import DOCUMENT, Installation

pytestmark = [pytest.mark.journey, pytest.mark.postgres]

NORTH, SOUTH = "1", "2"


@pytest.fixture(scope="module")
def clinic() -> Iterator[Installation]:
    """Give an installation in which nobody has instructed anything."""
    with installed_clinic(registered=False) as installation:
        yield installation


def _rows(clinic: Installation) -> oracle.Rows:
    with clinic.session() as session:
        return oracle.rows(session)


def test_from_nobody_knows_you_to_erased(clinic: Installation) -> None:
    """Every gap between a controller and an erasure refuses with exit status 4, says what is missing, changes no row, and lists nobody."""
    before = _rows(clinic)
    obhut = clinic.obhut

    def refused(*arguments: object, says: str) -> None:
        result = obhut.refused(*arguments, code="not-instructed", status=4)
        assert says in result.document["error"]["fact"], str(result)
        assert _rows(clinic) == before

    erase = ("erase", "clinic", "patient", "7")
    refused(*erase, says="controller")
    refused("backup", "start", "clinic", says="controller")

    for key, name in ((NORTH, "Clinic North"), (SOUTH, "Clinic South")):
        clinic.controllers[key] = obhut("controllers", "add", "--database", "clinic", "--key", key, "--name", name)["id"]
    refused(*erase, says="contract")
    assert obhut.run("promises", "instruction").status == 5, "a controller without a contract breaks the promise"

    yesterday, tomorrow = ((datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%d") for days in (-1, 1))
    coming = clinic.contract(NORTH, tomorrow)
    refused(*erase, says="contract")
    obhut.run("controllers", "contract", "end", coming, "--at", tomorrow)
    clinic.contract(NORTH, yesterday)
    clinic.contract(SOUTH, yesterday)
    refused(*erase, says="instruction")

    clinic.instruct(NORTH, ["backup"])
    refused(*erase, says="instruction")
    refused("backup", "start", "clinic", says=clinic.controllers[SOUTH])  # North's word is not South's

    clinic.instruct(SOUTH, ["erase"])
    refused(*erase, says="instruction")  # South cannot instruct about North's patient
    clinic.instruct(NORTH, ["erase"], "--subject-kind", "patient", "--subject", "9")
    refused(*erase, says="instruction")  # the instruction is about somebody else

    revoked = clinic.instruct(NORTH, ["erase"])
    obhut("instructions", "revoke", revoked)
    refused(*erase, says="revoked")

    assert obhut("erasures", "list", "clinic") == [], "refusals list nobody"
    obhut(
        "instructions", "give", clinic.controllers[NORTH], "--action", "erase", "--given-by", "acc-1", "--document", DOCUMENT,
        "--kind", "single", "--subject-kind", "patient", "--subject", "7",
    )  # fmt: skip
    assert obhut(*erase)["verified"] is True
    assert clinic.value("SELECT count(*) FROM patient WHERE id = 7") == 0
    assert clinic.value("SELECT count(*) FROM patient") == 59


def test_a_single_instruction_is_used_up(clinic: Installation) -> None:
    """A single instruction about everybody serves one run; the next one is refused."""
    if SOUTH not in clinic.controllers:
        pytest.fail("the first journey of this file has to run before")
    for instruction in clinic.obhut("instructions", "list", "--controller", clinic.controllers[SOUTH]):
        clinic.obhut("instructions", "revoke", instruction["id"])
    clinic.obhut(
        "instructions",
        "give",
        clinic.controllers[SOUTH],
        "--action",
        "erase",
        "--given-by",
        "acc-1",
        "--document",
        DOCUMENT,
        "--kind",
        "single",
    )
    clinic.erase("patient", 8)
    clinic.obhut.refused("erase", "clinic", "patient", "10", code="not-instructed", status=4)
    assert clinic.value("SELECT count(*) FROM patient WHERE id = 10") == 1


def test_the_promise_is_kept(clinic: Installation) -> None:
    """With contracts and instructions on record the promise is kept, and the evidence counts the erasures."""
    verdict = clinic.obhut("promises", "instruction")["promises"][0]
    assert verdict["state"] == "kept", verdict
    assert any("erasures follow" in item["fact"] for item in verdict["evidence"])
