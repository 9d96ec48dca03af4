"""One run of Obhut in a process of its own, as an operator would start it; prints the URL of the new database.

``python -m bench.once restore SETTINGS QUARANTINE`` or ``python -m bench.once clone SETTINGS``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench import house, shop
from obhut.clones import run as clones
from obhut.foundation.settings import Settings, load
from obhut.postgres.control import close_control, open_control
from obhut.restores import opening, run
from obhut.restores.plan import Form, RecoveryTarget


def main(verb: str, file: str, *rest: str) -> None:
    """Make a new database; the clock of the caller runs until this process has ended."""
    settings = load(Path(file))
    open_control(settings)
    url = restored(settings, *rest) if verb == "restore" else cloned(settings)
    close_control(settings)
    print(url)  # noqa: T201 - read by the process that started this one


def restored(settings: Settings, quarantine: str) -> str:
    """Restore everything that the quarantine holds through the filter, prove it, open it."""
    request = run.Request(shop.DATABASE, RecoveryTarget(Form.LATEST), quarantine=quarantine)
    outcome = run.begin(settings, request, house.ACTOR, house.CLOCK)
    return opening.open_database(settings, outcome.run, house.ACTOR, house.CLOCK).url


def cloned(settings: Settings) -> str:
    """Make a masked copy of the protected database, checked for leaks, marked and open."""
    return clones.run(settings, clones.Request(shop.DATABASE), house.ACTOR, house.CLOCK).url


if __name__ == "__main__":
    main(*sys.argv[1:])
