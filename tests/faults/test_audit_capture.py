"""Capture dies between any two steps, the server restarts, slots vanish, disks are full: nothing is lost, nothing doubled, gaps are declared.

The oracle is another kind of audit: row triggers in the vendor's database that write down each change in a table, in the same transaction.
"""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.audit import SERVER, Logs, logs_of
from support.clinic import installed_clinic
from support.installation import Installation
from support.standbys import standby_of

from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session

ORACLE = """
CREATE TABLE oracle (n bigint GENERATED ALWAYS AS IDENTITY, relation text, operation text, key text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO oracle (relation, operation, key) VALUES ('public.' || TG_ARGV[0], lower(TG_OP), CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END);
  RETURN NULL;
END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON patient FOR EACH ROW EXECUTE FUNCTION note('patient');
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON visit FOR EACH ROW EXECUTE FUNCTION note('visit');
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON letter FOR EACH ROW EXECUTE FUNCTION note('letter');
"""
pytestmark = [pytest.mark.fault, pytest.mark.postgres]

STEPS = (
    "audit-follow.read",
    "audit-follow.sealed",
    "auditlog.append.written",
    "auditlog.append.committed",
    "audit-follow.appended",
    "audit-follow.recorded",
    "audit-follow.acknowledged",
)
SLOT = "obhut_audit_clinic"
UNTIL = ("audit", "start", "--until-caught-up")


@pytest.fixture(scope="module")
def clinic() -> Iterator[Installation]:
    """Give a clinic with the oracle's triggers, whose audit log is on; a kill at any step of that is made good by doing it again."""
    with installed_clinic(people=12, server=SERVER) as installation:
        installation.sql(ORACLE)
        for step in ("schema", "watched", "published", "slot"):
            installation.obhut.killed_at(f"audit-enable.{step}", "audit", "enable")
        installation.obhut("audit", "enable")
        yield installation


def work(clinic: Installation, number: int) -> None:
    """Change rows in several transactions, one of them rolled back in part, as an application, a job and a COPY do."""
    with clinic.session() as session:
        with session.transaction():
            session.execute("SELECT obhut.context(%s, 'matrix')", (f"u-{number}",))
            session.execute("UPDATE patient SET first_name = first_name || '+' WHERE id <= 4")
            session.execute("SAVEPOINT s")
            session.execute("DELETE FROM visit WHERE patient_id = 2")
            session.execute("ROLLBACK TO s")
        session.execute(
            f"INSERT INTO patient (id, clinic_id, first_name, email) VALUES ({1000 + number}, 2, 'New', 'n{number}@mail.invalid')"
        )
        session.execute(
            f"INSERT INTO visit (patient_id, at, finding) SELECT {1000 + number}, '2026-02-01', 'f' || i FROM generate_series(1, 20) i"
        )
        session.execute("UPDATE letter SET body = body || '!' WHERE id = 2")
        session.execute(f"DELETE FROM patient WHERE id = {1000 + number}")


def expected(clinic: Installation) -> Counter[tuple[str, str, str]]:
    """Return what the oracle saw."""
    with clinic.session() as session:
        return Counter(session.rows("SELECT relation, operation, key FROM oracle"))


def logged(logs: Logs) -> Counter[tuple[str, str, str]]:
    """Return the changes in the logs, each position once however many controllers it concerns; fails where one log has it twice."""
    places = logs.places()
    assert len(places) == len(set(places)), "a change is in one log twice"
    seen = {}
    for read in logs.changes():
        assert read.entry.position is not None
        if read.entry.table in {"public.patient", "public.visit", "public.letter"}:
            row = next(value for value, part in zip(read.values, read.entry.sealed, strict=True) if part.part == "row")
            assert row is not None
            seen[read.entry.position.order()] = (read.entry.table, read.entry.operation, row["key"]["id"])
    return Counter(seen.values())


def test_killed_at_every_step(clinic: Installation) -> None:
    """A kill between any two steps of capture or of the log loses nothing and doubles nothing."""
    for number, step in enumerate(STEPS):
        work(clinic, number)
        clinic.obhut.killed_at(step, *UNTIL)
    work(clinic, 99)
    done = clinic.obhut(*UNTIL)
    assert done["unassigned"] == 0
    with logs_of(clinic) as logs:
        assert logged(logs) == expected(clinic)
        assert not logs.gaps()
        actors = {read.actor["actor"] for read in logs.changes() if read.actor and "actor" in read.actor}
        assert "u-99" in actors


def outgrown(clinic: Installation) -> None:
    """Write more WAL than the server keeps for a slot that nobody reads: it gives up the slot, never its disk."""
    clinic.cluster.configure({"max_slot_wal_keep_size": "1MB"})
    clinic.cluster.reload()
    deadline = time.monotonic() + 30
    # More than once: a checkpoint also keeps what the summarizer of WAL has not read yet.
    while clinic.value("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'obhut_audit_clinic'") != "lost":
        assert time.monotonic() < deadline
        clinic.sql("UPDATE price SET amount = amount + 1")
        clinic.value("SELECT pg_switch_wal()")
        clinic.sql("CHECKPOINT")
    clinic.cluster.configure({"max_slot_wal_keep_size": SERVER["max_slot_wal_keep_size"]})
    clinic.cluster.reload()
    assert "slot-lost" in clinic.obhut.run("audit", "status").stdout


def test_lost_and_moved_slots_are_gaps(clinic: Installation) -> None:
    """A slot that was dropped, moved by somebody or outgrown, a trigger that was off: one gap in every log, also when capture dies while it says so."""
    clinic.obhut(*UNTIL)
    clinic.sql(f"SELECT pg_drop_replication_slot('{SLOT}')")
    clinic.sql("UPDATE patient SET first_name = 'unseen' WHERE id = 1")
    for step in ("gap-pending", "slot-made", "gap-appended"):
        clinic.obhut.killed_at(f"audit-follow.{step}", *UNTIL)
    clinic.sql("UPDATE patient SET first_name = 'seen' WHERE id = 1")
    clinic.obhut(*UNTIL)
    clinic.sql("UPDATE patient SET first_name = 'skipped' WHERE id = 1")
    clinic.sql(f"SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())")
    clinic.sql("UPDATE patient SET first_name = 'after' WHERE id = 1")
    assert clinic.obhut.run("audit", "status").status == 5
    clinic.obhut(*UNTIL)
    outgrown(clinic)
    clinic.obhut(*UNTIL)
    clinic.sql("ALTER TABLE letter DISABLE TRIGGER obhut_before_change")
    for step in ("look-noted", "look-appended"):
        clinic.obhut.killed_at(f"audit-follow.{step}", *UNTIL)
    clinic.obhut(*UNTIL)
    clinic.obhut("audit", "enable")
    with logs_of(clinic) as logs:
        found = [read for read in logs.all() if read.entry.kind == "gap"]
        each = Counter((read.controller, read.entry.operation, read.entry.detail.get("cause")) for read in found)
        assert len({controller for controller, _, _ in each}) == 3, "every controller's log, and the vendor's"
        assert set(each.values()) == {1}
        assert {one[1:] for one in each} == {("slot-lost", "dropped"), ("slot-lost", "limit"), ("slot-moved", None), ("unattributed", None)}
        names = [
            read.row["new"]["first_name"]
            for read in logs.changes()
            if read.brief == ("change", "public.patient", "update") and read.row["key"]["id"] == "1"
        ]
        assert names[-2:] == ["seen", "after"]


def test_a_server_that_restarts_and_a_disk_that_is_full(clinic: Installation) -> None:
    """The service goes on by itself after a restart of the server; entries that cannot be written are written later."""
    clinic.obhut(*UNTIL)
    before = expected(clinic).total()
    service = clinic.obhut.begin("serve", "audit")
    try:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (0, 0))  # every write to a file fails from now on
        work(clinic, 50)
        time.sleep(2)
        assert heard(clinic) <= before, "nothing is recorded that could not be written"
    finally:
        service.kill()
        service.wait(10)
    service = clinic.obhut.begin("serve", "audit")
    try:
        wait_for(clinic, expected(clinic))
        clinic.cluster.kill()
        clinic.cluster.start()
        work(clinic, 51)
        wait_for(clinic, expected(clinic))
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0


def synchronised(clinic: Installation, standby: Cluster, seconds: float = 60) -> bool:
    """Wait until the standby keeps the slot for good; it does once the stream has moved past what the standby remembers."""
    service = clinic.obhut.begin("serve", "audit")
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            clinic.sql("SELECT pg_log_standby_snapshot()")
            with Session.connect(standby.url("clinic")) as session:
                if session.value("SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = %s", (SLOT,)):
                    return True
            time.sleep(0.5)
        return False
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(30)


def heard(clinic: Installation) -> int:
    """Return how many changes of the oracle's tables are in the logs."""
    with logs_of(clinic) as logs:
        return logged(logs).total()


def wait_for(clinic: Installation, wanted: Counter[tuple[str, str, str]], seconds: float = 40) -> None:
    """Wait until the newest changes are in the logs. Those of the lost slot never come: they are the ones that are missing."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with logs_of(clinic) as logs:
            missing = wanted - logged(logs)
        if missing.total() <= 2:
            return
        time.sleep(0.5)
    raise AssertionError(f"{missing.total()} changes did not come")


def test_promoted_standby(clinic: Installation) -> None:
    """With a failover slot the stream goes on at the new primary, also where its copy lags: each change once, the promotion is a gap entry."""
    with clinic.control_session() as session:
        session.execute("UPDATE capture_capture SET database_oid = 0")  # as an installation has it that knew no oids
    clinic.obhut(*UNTIL)
    with clinic.control_session() as session:
        assert session.value("SELECT database_oid FROM capture_capture") > 0
    standby = standby_of(clinic, keeps_slots=True)
    try:
        assert synchronised(clinic, standby)
        standby.configure({"sync_replication_slots": False})
        standby.reload()
        clinic.sql("UPDATE patient SET first_name = 'read' WHERE id = 1")
        clinic.obhut(*UNTIL)  # the new primary's slot does not know it, and sends it again
        clinic.sql("UPDATE patient SET first_name = 'unread' WHERE id = 1")
        clinic.cluster.stop()  # a clean switch: the standby has everything
        with Session.connect(standby.url("clinic")) as session:
            assert session.value("SELECT pg_promote(true, 60)")
            session.execute("UPDATE patient SET first_name = 'new primary' WHERE id = 1")
        settings = clinic.folder / "obhut.toml"
        settings.write_text(settings.read_text().replace(clinic.url, standby.url("clinic")))
        clinic.obhut.killed_at("audit-follow.gap-appended", *UNTIL)
        clinic.obhut(*UNTIL)
        with logs_of(clinic) as logs:
            seen = [
                (read.row["new"]["first_name"], read.entry.position.timeline)
                for read in logs.changes()
                if read.entry.table == "public.patient" and read.row["key"]["id"] == "1" and read.entry.position
            ]
            assert seen[-3:] == [("read", 1), ("unread", 1), ("new primary", 2)]
            assert len(logs.places()) == len(set(logs.places()))
            (gap,) = [read for read in logs.gaps() if read.entry.operation == "timeline"]
            assert (gap.entry.detail["before"], gap.entry.detail["beyond_fork"]) == (1, "no")
    finally:
        standby.remove()


def test_the_store_keeps_no_plain_value(clinic: Installation) -> None:
    """No personal value stands in clear in any file of the logs."""
    words = [b"secret1", b"Secret1", b"u-99", b"matrix", b"unseen"]
    for path in Path(clinic.state / "audit").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in words if word in content], path.name
