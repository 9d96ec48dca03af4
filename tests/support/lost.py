"""A clinic that has been backed up, has erased people, and needs its database back: the starting point of most fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obhut.postgres.connections import Session
from support import clinic, oracle
from support.installation import Installation

ERASED = (5, 8, 17)  # 5 and 17 live alone; 8 is of the other clinic
ANONYMISED = (7, 23)  # 7 shares an address with 6; 23 lives alone
LATER = (29, 31)  # erased while a restore is at work, by one test; 31 shares an address with 30


@dataclass
class Lost:
    """The installation, the point to go back to, and what must be there then.

    Attributes:
        point: a position before the erasures.
        before: rows of production at that point: what a plain restore brings back.
        expected: rows that a restore to it has to have.
        later: the same once the people of LATER are erased, too.
        token: in every text of the living canary.
    """

    installation: Installation
    point: str
    before: oracle.Rows
    expected: oracle.Rows
    later: oracle.Rows
    canary: int
    token: str

    @property
    def obhut(self) -> Any:
        """The command line."""
        return self.installation.obhut

    def run(self, *more: object, env: dict[str, str] | None = None) -> dict[str, Any]:
        """Restore to the point, up to the proof."""
        return dict(self.obhut("restore", "run", "clinic", "--to", self.point, *more, env=env))

    def runs(self) -> list[str]:
        """Return the restores there are, the youngest first."""
        return [one["run"] for one in self.obhut("restore", "list", "clinic")]

    def directory(self, run: str) -> Path:
        """Return where a restore lies."""
        return self.installation.state / "restores" / run

    def check(self, url: str) -> None:
        """Compare every row of a restored database with what must be there."""
        with Session.connect(url) as session:
            found = oracle.rows(session)
        assert oracle.differences(self.expected, found) == {}

    def forget(self, *patients: int) -> None:
        """Expect in every later restore that further people, who live alone and referred nobody, are not there."""
        for number in map(str, patients):
            for rows in (self.expected, self.later):
                for name in rows:
                    rows[name] = sorted("\t".join(line) for line in _without(name, [line.split("\t") for line in rows[name]], number))

    def abandon(self, run: str) -> None:
        """Give a restore up and see that nothing is left of it."""
        self.obhut("restore", "abandon", run)
        assert not self.directory(run).exists()


def _without(name: str, fields: list[list[str]], number: str) -> list[list[str]]:
    """Return the rows of a table that stay when one person goes."""
    if name == "public.letter":
        for line in fields:
            if line[1] == number:
                line[1], line[3], line[4] = ["\\N"] * 3
            if line[2] == number:
                line[2], line[4] = ["\\N"] * 2
        return fields
    if name == "public.event":
        return [line for line in fields if line[1:3] != ["patient", number]]
    column = {"public.patient": 0, "public.address": 0, "public.busy": 0, "public.visit_2025": 1, "public.visit_2026": 1}.get(name)
    return fields if column is None else [line for line in fields if line[column] != number]


@contextmanager
def lost_clinic(*, people: int = clinic.PEOPLE, major: int = 18) -> Iterator[Lost]:
    """Give a clinic with a full and an incremental backup, WAL, erased and anonymised people and a canary."""
    with clinic.installed_clinic(people=people, major=major) as installation:
        installation.obhut("canary", "plant", "clinic")
        installation.backup()
        installation.sql("INSERT INTO status (word) VALUES ('between the backups')")
        if major >= 17:
            installation.obhut("backup", "run", "clinic", "--incremental")
        installation.flush()
        installation.sql("INSERT INTO status (word) VALUES ('the last word')")
        with installation.session() as session:
            canary, token = session.row("SELECT id, first_name FROM patient WHERE first_name LIKE 'obhutcanary%%'") or (0, "")
            before = oracle.rows(session)
            expected = clinic.filtered(session, [*ERASED, canary], ANONYMISED)
            later = clinic.filtered(session, [*ERASED, *LATER, canary], ANONYMISED)
        assert set(before) == set(expected)
        point = installation.position()
        installation.commit_something()
        installation.erase("patient", *ERASED)
        installation.erase("patient", *ANONYMISED, anonymise=True)
        installation.flush()
        yield Lost(installation, point, before, expected, later, canary, token)
