"""Kill a masked copy at every instant, fill its disk, take its source away: nothing plain is left, and the next run makes a whole copy."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.clinic import installed_clinic
from support.commands import Result
from support.installation import Installation, programs
from support.lost import ANONYMISED, ERASED, Lost
from support.sweep import names_of, sweep

from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.slow]

PLAIN = "secret[0-9]"  # in every personal value of the clinic
ROOM = 2 << 20  # bytes that a file may have on the full disk


@dataclass
class Staging:
    """A clinic and an empty database on another server, into which copies go."""

    clinic: Installation
    server: Cluster

    @property
    def url(self) -> str:
        """The database."""
        return self.server.url("qa")

    def run(self, **options: object) -> Result:
        """Make a copy."""
        return self.clinic.obhut.run("clone", "run", "--target", self.url, **options)  # type: ignore[arg-type]

    def plain(self, below: str = "") -> list[str]:
        """Return files of the staging server with something that only the clinic knows."""
        with Session.connect(self.server.url()) as session:
            session.execute("CHECKPOINT")
        return _with_plain(self.server.data / below)

    def forget_role(self) -> None:
        """Drop the role that a copy has left to the server, so that the next one brings it again."""
        with Session.connect(self.server.url()) as session:
            session.execute("DROP ROLE IF EXISTS clinic_app")

    def emptied(self, below: str = "") -> None:
        """See that nothing of a copy is left: no table, no role, no byte below a directory of the server's data."""
        with Session.connect(self.url) as session:
            assert session.value("SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind <> 't'") == 0
            assert session.value("SELECT count(*) FROM pg_roles WHERE rolname = 'clinic_app'") == 0
            assert session.value("SELECT count(*) FROM pg_largeobject_metadata") == 0
        assert self.plain(below) == []


def _with_plain(directory: Path) -> list[str]:
    found = subprocess.run(["grep", "-rlaiE", PLAIN, str(directory)], capture_output=True, text=True, check=False)
    assert found.returncode in {0, 1}, found.stderr
    return found.stdout.split()


@pytest.fixture(scope="module")
def staging() -> Iterator[Staging]:
    """Give the clinic, with a role and a large object, beside a staging server whose WAL comes in small files."""
    with installed_clinic() as clinic:
        clinic.sql("CREATE ROLE clinic_app; GRANT SELECT ON price TO clinic_app")
        clinic.sql("ALTER TABLE price ADD scan oid; UPDATE price SET scan = lo_from_bytea(0, 'secret1 is on it') WHERE code = 'p1'")
        server = Cluster(clinic.folder / "qa-server", programs(18), clinic.cluster.user)
        server.init(wal_segsize_mb=1)
        server.start()
        with Session.connect(server.url()) as session:
            session.execute("CREATE DATABASE qa")
        clinic.sql("CHECKPOINT")
        assert _with_plain(clinic.cluster.data / "base"), "the search finds nothing where everything is"
        yield Staging(clinic, server)


def test_killed_at_one_instant_after_the_other(staging: Staging) -> None:
    """Each run is killed one instant later than the one before, whose rest it throws away first; no plain byte is ever there."""
    clean: list[str] = []

    def run(env: dict[str, str]) -> None:
        made = staging.run(env=env)
        assert made.status == 0, str(made)
        clean.append(made.document["run"])

    names = names_of(run)
    assert {"clone.prepare.before", "clone.load.before", "restore.part.after", "clone.check.after", "clone.open.before"} <= set(names)
    with Session.connect(staging.url) as copy:
        assert copy.value("SELECT count(*) FROM pg_roles WHERE rolname = 'clinic_app'") == 1
        assert b"secret" not in copy.value("SELECT lo_get(scan) FROM price WHERE code = 'p1'")
    assert staging.plain() == []
    staging.clinic.obhut("clone", "drop", clean[0])
    last = [name for name in names if name.startswith(("clone.open.after", "clone.finish"))]

    def case(name: str) -> None:
        staging.clinic.obhut.killed_at(name, "clone", "run", "--target", staging.url)
        assert staging.plain() == []
        assert len(list((staging.clinic.state / "clones").iterdir())) <= 1, "what the run before left is still there"

    sweep([name for name in names if name not in last], case)
    run({})
    assert staging.clinic.obhut("clone", "verify", clean[-1])["holds"]
    staging.clinic.obhut("clone", "drop", clean[-1])


def test_the_disk_of_the_target_is_full(staging: Staging) -> None:
    """Files of the staging server cannot grow beyond two megabytes: refused in words, emptied; with room again the same run works."""
    staging.forget_role()
    staging.clinic.sql("INSERT INTO event (about, about_id, words) SELECT 'price', 1, repeat('x', 900) FROM generate_series(1, 4000)")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    staging.server.stop()
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))  # servers inherit it
    try:
        staging.server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    try:
        # What a file size limit is called differs by server.
        said = staging.clinic.obhut.refused("clone", "run", "--target", staging.url, code={"database-no-room", "database-error"})
        staging.emptied()
    finally:
        staging.server.stop()
        staging.server.start()
    staging.clinic.sql("DELETE FROM event WHERE words LIKE 'xxx%'")
    assert "secret" not in said.said.lower()
    made = staging.run()
    assert made.status == 0, str(made)
    staging.clinic.obhut("clone", "drop", made.document["run"])


def test_the_source_restarts_in_the_middle(staging: Staging) -> None:
    """The source goes away while its snapshot is held: the run fails in words, what it made is dropped, and the next one works."""
    staging.forget_role()
    trace = staging.clinic.folder / "trace"
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(staging.run(env={"OBHUT_TRACE_FAULTPOINTS": str(trace)}, patience=380)))
    thread.start()
    deadline = time.monotonic() + 120
    while "clone.target.after" not in (trace.read_text(encoding="utf-8") if trace.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.002)
    staging.clinic.cluster.stop("immediate")
    thread.join(400)
    staging.clinic.cluster.start()
    (said,) = results
    assert said.status not in {0, 2} and said.error and "Traceback" not in said.said, str(said)
    staging.emptied()
    assert staging.clinic.obhut("clone", "list")[0]["state"].startswith("failed")
    made = staging.run()
    assert made.status == 0, str(made)
    staging.clinic.obhut("clone", "drop", made.document["run"])


def test_a_copy_that_fails_takes_its_roles_along(staging: Staging) -> None:
    """A leak is found in the finished copy: tables, large objects and the role that it brought to the server are gone."""
    staging.forget_role()
    staging.clinic.sql("INSERT INTO status (word) VALUES ('call secret9@mail.invalid')")
    staging.clinic.obhut.refused("clone", "run", "--target", staging.url, code="clone-leak", status=5)
    staging.clinic.sql("DELETE FROM status WHERE word LIKE 'call%'")
    # What is called not personal is copied as it stands, so the WAL of a given server has held this row.
    staging.emptied("base")
    made = staging.run()
    assert staging.clinic.obhut("clone", "drop", made.document["run"])["roles_left"] == []
    staging.emptied("base")


def test_roles_that_are_used_stay(staging: Staging) -> None:
    """A role that a finished copy brought and that owns something in another database by now is told, and keeps what it has there."""
    made = staging.run()
    with Session.connect(staging.server.url()) as session:
        session.execute("CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO clinic_app")
        assert staging.clinic.obhut("clone", "drop", made.document["run"])["roles_left"] == ["clinic_app"]
        assert session.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'theirs'") == "clinic_app"
        session.execute("DROP TABLE theirs")


def test_a_copy_of_a_moment_that_is_gone(lost: Lost) -> None:
    """From a backup from before the erasures: nobody who was erased or anonymised since is in it, and no byte of anybody else."""
    known = {one["run"] for one in lost.obhut("clone", "list", "clinic")}
    lost.obhut.killed_at("clone.recover.after", "clone", "run", "--at", lost.point)
    lost.obhut.killed_at("clone.load.after", "clone", "run", "--at", lost.point)
    planned = lost.obhut("clone", "plan", "--at", lost.point)
    made = lost.obhut("clone", "run", "--at", lost.point)
    clones = lost.installation.state / "clones"
    assert [path.name for path in clones.iterdir()] == [made["run"]]
    assert sorted(path.name for path in (clones / made["run"]).iterdir()) == ["target"], "the quarantine is gone"
    assert _with_plain(clones / made["run"]) == []
    with Session.connect(made["url"]) as copy:
        stay = len(lost.before["public.patient"]) - len(ERASED)
        # A restore of another test may have condemned the canary, who has neither photo nor device.
        assert copy.value("SELECT count(*) FROM patient") in {stay, stay - 1}
        assert copy.value("SELECT count(*) FROM patient WHERE photo IS NULL AND device IS NULL") in {len(ANONYMISED), len(ANONYMISED) + 1}
        assert copy.value("SELECT count(*) FROM status") == len(lost.before["public.status"])
        assert copy.value("SELECT moment < now() FROM obhut.copy")
        sizes = {one["table"]: one["wanted"] - one["erased"] for one in planned["tables"]}
        assert sizes["public.patient"] == copy.value("SELECT count(*) FROM patient")
        assert sizes["public.status"] == copy.value("SELECT count(*) FROM status")
    listed = {one["run"]: one for one in lost.obhut("clone", "list", "clinic") if one["run"] not in known}
    assert [one["state"] for one in listed.values()].count("done") == 1 and len(listed) == 3
    lost.obhut("clone", "drop", made["run"])
    for verb in ("run", "plan"):
        lost.obhut.refused("clone", verb, "--at", "2020-01-01T00:00:00Z")
    lost.obhut.refused("clone", "run", "--backup", "x", status=2)
