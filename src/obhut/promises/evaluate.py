"""Evaluate the promises on the running system.

Each examiner looks at one thing and says what it saw. An examiner that cannot look (a server that does not answer, a list that does not
verify) yields evidence that is unproven or broken, never silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from obhut.erasure import ledger
from obhut.foundation.clock import Clock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.promises import examine, inactivity, logs, shredding, staging, traces
from obhut.promises.model import PROMISES, Evidence, Promise, State, Verdict

Examiner = Callable[[Settings, Clock], Iterator[Evidence]]

EXAMINERS: dict[str, tuple[Examiner, ...]] = {
    "instruction": (examine.instructions,),
    "at-rest": (examine.keys_at_rest, shredding.epochs, examine.backups_at_rest, examine.disks),
    "in-transit": (examine.connections,),
    "inactivity": (inactivity.inactivity,),
    "staging": (staging.databases,),
    "backup": (examine.backups,),
    "log": (logs.logs,),
    "erasure": (examine.erasure_list, examine.erasures, examine.absence, shredding.keys_of_erased, traces.traces, examine.restores),
}


def evaluate(settings: Settings, clock: Clock, only: str | None = None) -> list[Verdict]:
    """Return a verdict on each promise, in the order in which they are published.

    Args:
        settings: the installation; its control database is open.
        clock: the time of the evaluation.
        only: id of the one promise to evaluate.
    """
    ledger.open_ledger(settings)
    return [_verdict(promise, settings, clock) for promise in PROMISES if only in {None, promise.id}]


def _verdict(promise: Promise, settings: Settings, clock: Clock) -> Verdict:
    examiners = EXAMINERS.get(promise.id)
    if not examiners:
        reason = Evidence("not built yet: nothing checks this promise", State.UNPROVEN)
        return Verdict(promise, (reason,))
    found: list[Evidence] = []
    for look in examiners:
        try:
            found.extend(look(settings, clock))
        except ObhutError as error:
            found.append(Evidence(f"could not be checked: {error.fact}", State.UNPROVEN, None, hint=error.hint or ""))
    return Verdict(promise, tuple(found))
