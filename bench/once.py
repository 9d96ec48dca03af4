"""One run of Obhut in a process of its own, as an operator would start it; prints what came of it.

``python -m bench.once restore SETTINGS QUARANTINE`` and ``python -m bench.once clone SETTINGS`` print the URL of the new database,
``python -m bench.once sweep SETTINGS`` how many people were anonymised, whether a rule failed, and in how many seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import house, shop
from bench.measure import Stopwatch
from obhut.clones import run as clones
from obhut.foundation.settings import Settings, load
from obhut.postgres.control import close_control, open_control
from obhut.restores import opening, run
from obhut.restores.plan import Form, RecoveryTarget
from obhut.retention import sweep


def main(verb: str, file: str, *rest: str) -> None:
    """Do the work; the clock of the caller runs until this process has ended."""
    settings = load(Path(file))
    open_control(settings)
    said = VERBS[verb](settings, *rest)
    close_control(settings)
    print(said)  # noqa: T201 - read by the process that started this one


def restored(settings: Settings, quarantine: str) -> str:
    """Restore everything that the quarantine holds through the filter, prove it, open it."""
    request = run.Request(shop.DATABASE, RecoveryTarget(Form.LATEST), quarantine=quarantine)
    outcome = run.begin(settings, request, house.ACTOR, house.CLOCK)
    return opening.open_database(settings, outcome.run, house.ACTOR, house.CLOCK).url


def cloned(settings: Settings) -> str:
    """Make a masked copy of the protected database, checked for leaks, marked and open."""
    return clones.run(settings, clones.Request(shop.DATABASE), house.ACTOR, house.CLOCK).url


def swept(settings: Settings) -> str:
    """Anonymise the inactive on connections that are open, as the hand-written side does."""
    with Stopwatch() as watch:
        report = sweep.run(settings, shop.DATABASE, house.ACTOR, house.CLOCK)
    return f"{sum(record.anonymised for record in report.records)} {int(report.failed)} {watch.seconds}"


VERBS: Final[dict[str, Callable[..., str]]] = {"restore": restored, "clone": cloned, "sweep": swept}

if __name__ == "__main__":
    main(*sys.argv[1:])
