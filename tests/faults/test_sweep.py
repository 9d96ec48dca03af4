"""A sweep that dies, whose server dies or whose disk is full: nobody is anonymised without a tombstone, nobody active at all, the next run ends it."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.club import installed_club
from support.installation import Installation
from support.studio import Club, opened
from support.sweep import names_of, sweep

pytestmark = [pytest.mark.fault, pytest.mark.postgres]


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    """Give the club without a studio."""
    with installed_club(studios={}) as installation:
        yield installation


@contextmanager
def _studio(installed: Installation) -> Iterator[Club]:
    """Give a new studio with a rule; ten of its forty members are inactive."""
    with opened(installed) as club:
        club.rule()
        yield club


def _tombstones(club: Club) -> dict[str, int]:
    with club.installation.control_session() as control:
        query = "SELECT state, count(*) FROM erasure_tombstone WHERE controller = %s GROUP BY state"
        return dict(control.rows(query, (club.controller,)))  # type: ignore[arg-type]  # pairs


def _all_or_nothing(club: Club) -> None:
    left = club.personal()
    assert left >= club.everybody() - club.gone(), "somebody active was anonymised"
    assert left in (club.everybody(), club.everybody() - club.gone()), "half of a sweep is visible"
    if left != club.everybody():
        assert sum(_tombstones(club).values()) == len(club.gone()), "values are gone whose tombstones nobody recorded"


def _ended(club: Club) -> None:
    club.installation.obhut("retention", "run", "club")
    assert club.personal() == club.everybody() - club.gone()
    assert _tombstones(club) == {"effective": len(club.gone())}
    with club.installation.control_session() as control:
        assert control.row("SELECT (SELECT count(*) FROM retention_case), (SELECT count(*) FROM retention_part)") == (0, 0)


def test_killed_anywhere_all_are_anonymised_or_none(installed: Installation) -> None:
    """After SIGKILL at each instant: all ten or none, none of them without a tombstone; the next run anonymises each once."""
    with _studio(installed):
        names = names_of(lambda env: installed.obhut("retention", "run", "club", env=env))
    assert {"guard.locked", "erase.applied", "erasure-list.anchored", "guard.recorded", "erase.committed"} <= set(names)
    overlapping = names[names.index("retention.taken") :]

    def case(name: str) -> None:
        with _studio(installed) as club:
            installed.obhut.killed_at(name, "retention", "run", "club")
            _all_or_nothing(club)
            _ended(club)

    sweep([name for name in overlapping if name != "erasure-list.created"], case)
    installed.obhut("erasures", "verify")


def test_the_source_is_restarted_under_a_sweep(installed: Installation) -> None:
    """The vendor's server dies while the rows change and the tombstones are recorded: the rule fails, no value is gone, the next run ends it."""
    with _studio(installed) as club:
        with installed.session() as blocker:
            blocker.execute("BEGIN")
            blocker.row("SELECT 1 FROM checkin WHERE member_id = %s FOR UPDATE", (club.member(35),))
            process = installed.obhut.begin("retention", "run", "club")
            deadline = time.monotonic() + 60
            while sum(_tombstones(club).values()) < len(club.gone()) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert _tombstones(club) == {"recorded": len(club.gone())}
            installed.cluster.kill(hard=True)
            assert process.wait(60) not in {0, -signal.SIGKILL}
        installed.cluster.start()
        assert club.personal() == club.everybody()
        _ended(club)


def test_no_room_for_the_tombstones_of_a_sweep(installed: Installation) -> None:
    """The mirror's disk is full in the middle of a segment: the rule fails, no value is gone, and with room again the next run ends it."""
    with _studio(installed) as first:
        _ended(first)  # there is a mirror
    with _studio(installed) as club:
        size = max((installed.folder / "mirror").iterdir()).stat().st_size + 16
        done = subprocess.run(
            installed.obhut.line(["retention", "run", "club"]), env=installed.obhut.environment(), cwd="/", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=180, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        )  # fmt: skip
        assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
        assert "erasure-mirror" in done.stdout
        assert club.personal() == club.everybody(), "nobody is anonymised whose tombstone is not safe"
        _ended(club)
        installed.obhut("erasures", "verify")
