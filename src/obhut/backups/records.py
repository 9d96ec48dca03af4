"""Record-level check of staged WAL: every record from one position to another, each with its checksum, linked to the one before.

Pages tell that a segment is in its place; only the chain of records tells that recovery will get to the target. PostgreSQL's own reader
follows it, where its program is at hand.
"""

from __future__ import annotations

from pathlib import Path

from obhut.backups.errors import WalError
from obhut.foundation.ids import Lsn
from obhut.postgres.programs import Binaries


def check(directory: Path, timeline: int, start: Lsn, end: Lsn, programs: Binaries) -> None:
    """Read all records between two positions of one timeline.

    Args:
        directory: plain segments, from :meth:`obhut.backups.repository.Repository.stage_wal`.
        timeline: of the segments.
        start: where a record begins, such as a base backup's ``begin_lsn``.
        end: position that must be reached.
        programs: of the server's major version.

    Raises:
        WalError: a record before ``end`` is missing, damaged or not linked to the one before.
        MissingComponentError: there is no pg_waldump.
    """
    command = ["pg_waldump", "--quiet", f"--path={directory}", f"--timeline={timeline}", f"--start={start}", f"--end={end}"]
    if programs.run(command, check=False).returncode != 0:
        raise WalError(
            f"the records of the WAL do not lead from {start} to {end}",
            "Choose an earlier target: recovery would stop at the record that is damaged or missing.",
        )
