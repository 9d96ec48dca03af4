"""Promise *backup*: backups are made continuously all day, and every byte of them is gone after 35 days."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clinic import installed_clinic
from support.installation import Installation

pytestmark = [pytest.mark.journey, pytest.mark.postgres]


@pytest.fixture(scope="module")
def clinic() -> Iterator[Installation]:
    """Give an installation whose backups have begun."""
    with installed_clinic() as installation:
        installation.backup()
        yield installation


def _critical(clinic: Installation) -> set[str]:
    result = clinic.obhut.run("backup", "check", "clinic")
    document = result.document
    findings = document["result"] if isinstance(document, dict) else document
    found = {finding["code"] for finding in findings if finding["severity"] == "critical"}
    assert (result.status != 0) == bool(found), str(result)
    return found


def _receivers(clinic: Installation) -> list[int]:
    """Return the processes that stream WAL into this repository, by the directory on their command line."""
    wanted = str(clinic.archive).encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"pg_receivewal" in words and wanted in words:
            found.append(int(entry.name))
    return found


def _stored(clinic: Installation) -> list[Path]:
    return [path for path in clinic.repository.rglob("*") if path.is_file()]


def _backups(clinic: Installation) -> list[dict[str, Any]]:
    return list(clinic.obhut("backup", "list", "clinic"))


def test_a_day_of_backups(clinic: Installation) -> None:
    """Starting takes a full backup, starting again harms nothing, an incremental one builds on it, and a check finds nothing wrong."""
    assert [(one["kind"], one["state"]) for one in _backups(clinic)] == [("full", "usable")]
    clinic.obhut("backup", "start", "clinic")
    assert len(_backups(clinic)) == 1
    clinic.sql("INSERT INTO price VALUES ('new', 1)")
    clinic.obhut("backup", "run", "clinic", "--incremental")
    full, incremental = _backups(clinic)
    assert (incremental["kind"], incremental["parent"], incremental["state"]) == ("incremental", full["id"], "usable")
    assert incremental["size"] < full["size"] / 2
    assert _critical(clinic) == set()
    assert not any(finding["severity"] == "critical" for finding in clinic.obhut("backup", "check", "clinic", "--deep"))
    verdict = clinic.obhut("promises", "backup")["promises"][0]
    assert verdict["state"] != "broken", verdict


def test_a_dead_receiver_is_noticed_and_loses_nothing(clinic: Installation) -> None:
    """With the receiver killed the check fails; after a new start the WAL that was written meanwhile is there without a hole."""
    streaming = _receivers(clinic)
    assert len(streaming) == 1
    os.kill(streaming[0], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while clinic.value("SELECT count(*) FROM pg_stat_replication") and time.monotonic() < deadline:
        time.sleep(0.05)
    clinic.sql("INSERT INTO status VALUES ('written while nobody listened')")
    assert "slot-inactive" in _critical(clinic)
    broken = clinic.obhut.run("promises", "backup")
    assert broken.status == 5 and broken.document["promises"][0]["state"] == "broken"
    clinic.obhut("backup", "start", "clinic")
    clinic.flush()
    assert _critical(clinic) == set()


def test_no_instruction_no_backup(clinic: Installation) -> None:
    """When one controller takes its instruction back, the next base backup is refused; what is there still expires."""
    instructions = clinic.obhut("instructions", "list", "--controller", clinic.controllers["2"])
    for instruction in instructions:
        clinic.obhut("instructions", "revoke", instruction["id"])
    clinic.obhut.refused("backup", "run", "clinic", "--full", code="not-instructed", status=4)
    clinic.obhut("backup", "expire", "clinic")
    clinic.instruct("2", ["backup", "erase", "restore", "canary"])


def test_every_byte_is_gone_after_35_days(clinic: Installation) -> None:
    """On the 36th day, with every full backup since then failed, expiry leaves no backup, no sealed WAL and no manifest; before, it keeps all."""
    before = _backups(clinic)
    kept = clinic.obhut("backup", "expire", "clinic", "--clock-offset", "P20D")
    assert kept["decisions"] == []
    assert _backups(clinic) == before
    clinic.obhut("backup", "stop", "clinic")
    clinic.cluster.stop()  # expiry does not need the server
    try:
        done = clinic.obhut("backup", "expire", "clinic", "--clock-offset", "P36D")
    finally:
        clinic.cluster.start()
    assert done["decisions"]
    assert _backups(clinic) == []
    too_old = [path for path in _stored(clinic) if path.stat().st_size > 16_384]
    assert too_old == [], "only small files that describe the repository may stay"
    # And not by hiding: nothing of the size of a backup lies anywhere else in the state directory.
    assert "nothing-restorable" in str(done["warnings"])
