"""Kill an erasure at every instant: afterwards it converges, and at no moment is somebody half erased or erased without a tombstone."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from support import oracle
from support.clinic import installed_clinic
from support.commands import children
from support.installation import Installation
from support.sweep import names_of, sweep

pytestmark = [pytest.mark.fault, pytest.mark.postgres]

LAST = 400
_fresh = itertools.count(5, 6)  # 5, 11, 17 …: patients of clinic 1, each alone at the address of the same number


@pytest.fixture(scope="module")
def clinic() -> Iterator[Installation]:
    """Give an installation with enough people to lose one a case."""
    with installed_clinic(people=LAST) as installation:
        yield installation


def _state(clinic: Installation) -> oracle.Rows:
    with clinic.session() as session:
        session.execute("REFRESH MATERIALIZED VIEW busy")
        return oracle.rows(session)


def _present(clinic: Installation, *patients: int) -> list[int]:
    with clinic.session() as session:
        return [number for (number,) in session.rows("SELECT id FROM patient WHERE id = ANY(%s) ORDER BY 1", (list(patients),))]


def _leaves_nobody_else_touched(before: oracle.Rows, after: oracle.Rows, gone: set[int]) -> None:
    """Check by hand which rows may differ: the gone people's own, letters to and from them, who was referred by them, shared addresses."""
    for name in ("public.price", "public.clinic", "public.status", "public.invoice"):
        assert before[name] == after[name], name  # invoices are kept on a legal ground
    lost = Counter(before["public.patient"]) - Counter(after["public.patient"])
    new = Counter(after["public.patient"]) - Counter(before["public.patient"])
    rows = {line.split("\t")[0]: line.split("\t") for line in new}
    for line in lost:
        fields = line.split("\t")
        if int(fields[0]) not in gone:
            changed = rows.pop(fields[0])
            assert [index for index, (old, now) in enumerate(zip(fields, changed, strict=True)) if old != now] == [11], (
                "only referred_by may go"
            )
            assert int(fields[11]) in gone and changed[11] == "\\N"
    assert not rows, "rows appeared"
    assert not {int(line.split("\t")[0]) for line in after["public.patient"]} & gone
    for leaf in ("public.visit_2025", "public.visit_2026"):
        assert after[leaf] == [line for line in before[leaf] if int(line.split("\t")[1]) not in gone]
    events = [line for line in before["public.event"] if not (line.split("\t")[1] == "patient" and int(line.split("\t")[2]) in gone)]
    assert after["public.event"] == events
    letters = {line.split("\t")[0]: line for line in after["public.letter"]}
    for line in before["public.letter"]:
        number, sender, receiver, *_ = line.split("\t")
        if not {int(one) for one in (sender, receiver) if one != "\\N"} & gone:
            assert letters[number] == line
    assert len(letters) == len(before["public.letter"])
    assert after["public.address"] == [line for line in before["public.address"] if int(line.split("\t")[0]) not in gone]


def test_killed_anywhere_an_erasure_converges(clinic: Installation) -> None:
    """After SIGKILL at each fault point: the tombstone is there if one row is gone; finishing and repeating leaves the person absent and others whole."""
    clinic.erase("patient", next(_fresh))  # the very first erasure makes the list; tests of the list kill it there
    names = names_of(lambda env: clinic.obhut("erase", "clinic", "patient", next(_fresh), env=env))
    assert {"erase.recorded", "erase.committed", "erase.effective"} <= set(names)

    def case(name: str) -> None:
        patient = next(_fresh)
        before = _state(clinic)
        clinic.obhut.killed_at(name, "erase", "clinic", "patient", patient)
        here = _present(clinic, patient)
        middle = _state(clinic)
        assert middle == before or not here, "half of an erasure is visible"
        clinic.obhut("erase", "clinic", "--finish")
        listed = clinic.obhut("erasures", "list", "clinic", "--limit", 1000)
        recorded = {one["state"] for one in listed} - {"effective"}
        assert not recorded, "an erasure is still recorded only after it was finished"
        if not here:
            assert not _present(clinic, patient), "finishing brought somebody back"
        done = clinic.obhut("erase", "clinic", "patient", patient)
        assert done["verified"] or done["already_erased"] == 1
        assert not _present(clinic, patient)
        _leaves_nobody_else_touched(before, _state(clinic), {patient})

    sweep(names, case)
    report = clinic.obhut("erasures", "verify")
    assert report["size"] >= 2 * len(names)


def test_a_killed_erasure_is_finished_by_the_next_one_of_the_same_person(clinic: Installation) -> None:
    """Nobody has to know of --finish: the same command once more is enough."""

    def case(name: str) -> None:
        patient = next(_fresh)
        clinic.obhut.killed_at(name, "erase", "clinic", "patient", patient)
        clinic.obhut("erase", "clinic", "patient", patient)
        assert not _present(clinic, patient)

    sweep(["erasure-list.committed", "erase.recorded", "erase.committed"], case)


def test_a_killed_anonymisation_converges(clinic: Installation) -> None:
    """The same for anonymising: the row stays, every personal value goes."""

    def case(name: str) -> None:
        patient = next(_fresh)
        clinic.obhut.killed_at(name, "erase", "clinic", "patient", patient, "--anonymise")
        clinic.obhut("erase", "clinic", "--finish")
        clinic.obhut("erase", "clinic", "patient", patient, "--anonymise")
        with clinic.session() as session:
            row = session.row("SELECT first_name, email, photo, device, tags, profile::text FROM patient WHERE id = %s", (patient,))
        assert row == ("Former", f"former-{patient}@clinic.invalid", None, None, [], '{"colour": "red"}')

    sweep(["erase.recorded", "erase.applied", "erase.committed"], case)


def test_a_batch_is_erased_whole_or_not_at_all(clinic: Installation) -> None:
    """Killed while its rows go, a batch of fifty loses nobody; finished, all fifty are gone in one run."""
    patients = list(itertools.islice(_fresh, 20))
    before = _state(clinic)
    clinic.obhut.killed_at("erase.applied", "erase", "clinic", "patient", *patients)
    assert _present(clinic, *patients) == patients
    assert clinic.obhut("erase", "clinic", "--finish")["finished"] == len(patients)
    assert _present(clinic, *patients) == []
    _leaves_nobody_else_touched(before, _state(clinic), set(patients))


def test_the_server_dies_under_an_erasure(clinic: Installation) -> None:
    """The vendor's server is killed while the rows go: the command fails with a stable code, the tombstone stays, finishing erases."""
    patient = next(_fresh)
    with clinic.session() as blocker:
        blocker.execute("BEGIN")
        blocker.row("SELECT 1 FROM visit WHERE patient_id = %s FOR UPDATE", (patient,))
        process = clinic.obhut.begin("erase", "clinic", "patient", patient)
        deadline = time.monotonic() + 60
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'obhut erase' AND wait_event_type = 'Lock'"
        while not clinic.value(waiting) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert clinic.value(waiting) == 1
        clinic.cluster.kill(hard=True)
        assert process.wait(60) not in {0, -signal.SIGKILL}
    clinic.cluster.start()
    assert _present(clinic, patient) == [patient]
    assert clinic.obhut("erase", "clinic", "--finish")["finished"] == 1
    assert _present(clinic, patient) == []


def test_the_control_database_dies_under_an_erasure(clinic: Installation) -> None:
    """Obhut's own server is killed while the rows go: the next command starts it again and carries the erasure to its end."""
    patient = next(_fresh)
    with clinic.session() as blocker:
        blocker.execute("BEGIN")
        blocker.row("SELECT 1 FROM visit WHERE patient_id = %s FOR UPDATE", (patient,))
        process = clinic.obhut.begin("erase", "clinic", "patient", patient)
        deadline = time.monotonic() + 60
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'obhut erase' AND wait_event_type = 'Lock'"
        while not clinic.value(waiting) and time.monotonic() < deadline:
            time.sleep(0.05)
        clinic.control_cluster().kill(hard=True)
        blocker.execute("ROLLBACK")
        assert process.wait(60) not in {0, -signal.SIGKILL}
    clinic.obhut("erase", "clinic", "--finish")
    assert _present(clinic, patient) == []
    clinic.obhut("erasures", "verify")


def test_two_finish_at_once(clinic: Installation) -> None:
    """Two processes that finish the same interrupted erasures end well, and the list is whole."""
    patients = [next(_fresh) for _ in range(4)]
    clinic.obhut.killed_at("erase.recorded", "erase", "clinic", "patient", *patients)
    both = [clinic.obhut.begin("erase", "clinic", "--finish") for _ in range(2)]
    statuses = sorted(process.wait(120) for process in both)
    assert statuses[0] == 0
    clinic.obhut("erase", "clinic", "--finish")
    assert _present(clinic, *patients) == []
    clinic.obhut("erasures", "verify")
    listed = clinic.obhut("erasures", "list", "clinic", "--limit", 1000)
    assert {one["state"] for one in listed} == {"effective"}


def test_nothing_is_left_running(clinic: Installation) -> None:
    """After all the kills no process of a command lives on below this one."""
    assert not [name for name in children(os.getpid()).values() if name == "obhut.cli.main"]
