"""A vendor's tables may lie elsewhere: a restore reads their backups, and never a file of production, which the WAL names by its path.

Replaying the making of a tablespace leads a server to the directory where production has it. On one machine that is production itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import clinic, oracle
from support.installation import Installation
from support.lost import ANONYMISED, ERASED, Lost

pytestmark = [pytest.mark.fault, pytest.mark.postgres]


def _place(installation: Installation, name: str) -> Path:
    place = installation.folder / name
    place.mkdir()
    user = installation.cluster.user
    if user:
        os.chown(place, user.uid, user.gid)
    return place


def _bytes_of(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in place.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def moved() -> Iterator[tuple[Lost, Path]]:
    """Give a clinic whose patients lie in a tablespace that both backups know, and whose events lie in one that only the WAL knows."""
    with clinic.installed_clinic() as installation:
        early, late = _place(installation, "early"), _place(installation, "late")
        installation.sql(f"CREATE TABLESPACE early LOCATION '{early}'")
        installation.sql("ALTER TABLE patient SET TABLESPACE early")
        installation.backup()
        installation.sql("INSERT INTO status (word) VALUES ('between the backups')")
        installation.obhut("backup", "run", "clinic", "--incremental")
        # One whose place another has by now.
        installation.sql(f"CREATE TABLESPACE dropped LOCATION '{late}'")
        installation.sql("DROP TABLESPACE dropped")
        installation.sql(f"CREATE TABLESPACE late LOCATION '{late}'")
        installation.sql("ALTER TABLE event SET TABLESPACE late")
        with installation.session() as session:
            before = oracle.rows(session)
            expected = clinic.filtered(session, ERASED, ANONYMISED)
        point = installation.position()
        installation.commit_something()
        installation.erase("patient", *ERASED)
        installation.erase("patient", *ANONYMISED, anonymise=True)
        installation.sql("CHECKPOINT")
        installation.flush()
        yield Lost(installation, point, before, expected, {}, 0, ""), installation.folder


def test_tables_in_tablespaces(moved: tuple[Lost, Path]) -> None:
    """Every row comes back, nothing of production's directories is touched, and the certificate says that all lies in one place now."""
    lost, folder = moved
    kept = [_bytes_of(folder / name) for name in ("early", "late")]
    assert all(kept)
    run = lost.run()
    inside = list((lost.directory(run["run"]) / "quarantine/data/pg_tblspc").iterdir())
    assert len(inside) == 2 and not any(path.is_symlink() for path in inside)
    opened = lost.obhut("restore", "open", run["run"])
    lost.check(opened["url"])
    assert [_bytes_of(folder / name) for name in ("early", "late")] == kept
    assert lost.installation.value("SELECT count(*) FROM patient") > 0
