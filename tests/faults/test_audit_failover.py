"""Failover to a standby that has no slot, as before PostgreSQL 17: what the old primary logged stays, what nobody could read is declared."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import datetime

import pytest
from support.audit import SERVER, Read, logs_of
from support.clinic import installed_clinic
from support.installation import Installation
from support.standbys import standby_of

from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session

pytestmark = [pytest.mark.fault, pytest.mark.postgres]
UNTIL = ("audit", "start", "--until-caught-up")


def rename(session: Session, word: str) -> None:
    """Change one patient of each controller."""
    session.execute("UPDATE patient SET first_name = %s WHERE id IN (1, 2)", (word,))


def received(clinic: Installation, standby: Cluster) -> None:
    """Wait until the standby has everything."""
    position = clinic.position()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with Session.connect(standby.url(clinic.name)) as session:
            if session.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (position,)):
                return
        time.sleep(0.1)
    raise AssertionError("the standby did not follow")


def named(reads: list[Read]) -> list[tuple[str, int]]:
    """Return new first name and timeline of each change, in the order of the logs."""
    return [(read.row["new"]["first_name"], read.entry.position.timeline) for read in reads if read.entry.position]


def set_back(clinic: Installation, server: Cluster) -> None:
    """Put an older copy of the server's files in their place: what it writes next would get places that are taken, so capture refuses it."""
    server.stop()
    copy = server.data.with_name("copy")
    subprocess.run(["cp", "-a", server.data, copy], check=True, timeout=60)
    server.start()
    clinic.sql("UPDATE patient SET first_name = 'taken back' WHERE id = 1")
    clinic.obhut(*UNTIL)
    server.stop()
    shutil.rmtree(server.data)
    copy.rename(server.data)
    server.start()
    refused = clinic.obhut.refused(*UNTIL, code="audit-server-unsuitable", status=3)
    assert "older copy" in refused.said


def test_promoted_standby_without_a_slot() -> None:
    """The primary dies with changes that only it had; each log says with one gap what was missed, no change comes twice, capture goes on.

    An older copy of the new primary is refused.
    """
    with installed_clinic(people=4, major=15, server=SERVER) as clinic:
        clinic.obhut("audit", "enable")
        standby = standby_of(clinic, keeps_slots=False)
        try:
            with clinic.session() as session:
                rename(session, "on both")
            clinic.obhut(*UNTIL)
            received(clinic, standby)
            standby.stop()
            with clinic.session() as session:
                rename(session, "only on the old primary")
            clinic.obhut(*UNTIL)
            clinic.cluster.kill(hard=True)
            standby.start()
            with Session.connect(standby.url(clinic.name)) as session:
                assert session.value("SELECT pg_promote(true, 60)")
                rename(session, "unseen")
                unseen_at: datetime = session.value("SELECT clock_timestamp()")
                assert session.value("SELECT count(*) FROM pg_replication_slots") == 0
            clinic.move(standby.url(clinic.name))
            for step in ("gap-pending", "slot-made", "gap-appended"):
                clinic.obhut.killed_at(f"audit-follow.{step}", *UNTIL)
            clinic.obhut(*UNTIL)
            clinic.sql("UPDATE patient SET first_name = 'seen' WHERE id IN (1, 2)")
            clinic.obhut(*UNTIL)
            with logs_of(clinic) as logs:
                for controller in clinic.controllers.values():
                    mine = [read for read in logs.changes() if read.controller == controller]
                    assert named(mine) == [("on both", 1), ("only on the old primary", 1), ("seen", 2)]
                gaps = [read for read in logs.all() if read.entry.kind == "gap"]
            assert len({read.controller for read in gaps}) == len(gaps) == 3, "one in every controller's log, and in the vendor's"
            for gap in (read.entry for read in gaps):
                assert gap.operation == "slot-lost"
                assert {"cause": "dropped", "before": 1, "beyond_fork": "yes"}.items() <= gap.detail.items()
                assert gap.at < unseen_at < datetime.fromisoformat(str(gap.detail["until"]))
            north = clinic.controllers["1"]
            clinic.obhut("audit", "export", north, clinic.folder / "bundle")
            assert clinic.obhut("audit", "verify", clinic.folder / "bundle")["gaps"]
            set_back(clinic, standby)
        finally:
            standby.remove()
