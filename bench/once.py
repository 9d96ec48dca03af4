"""One restore in a process of its own, as an operator would start it: ``python -m bench.once SETTINGS QUARANTINE``; prints the new URL."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import house, shop
from obhut.foundation.settings import load
from obhut.postgres.control import close_control, open_control
from obhut.restores import opening, run
from obhut.restores.plan import Form, RecoveryTarget


def main(file: str, quarantine: str) -> None:
    """Restore everything that the quarantine holds through the filter, prove it, open it."""
    settings = load(Path(file))
    open_control(settings)
    request = run.Request(shop.DATABASE, RecoveryTarget(Form.LATEST), quarantine=quarantine)
    outcome = run.begin(settings, request, house.ACTOR, house.CLOCK)
    opened = opening.open_database(settings, outcome.run, house.ACTOR, house.CLOCK)
    close_control(settings)
    print(opened.url)  # noqa: T201 - read by the process that started this one


if __name__ == "__main__":
    main(*sys.argv[1:])
