"""Examiner of the bytes that erasures leave: part of the promise *erasure*."""

from __future__ import annotations

from collections.abc import Iterator

from obhut.erasure import known
from obhut.erasure.entries import State as TombstoneState
from obhut.finality.look import look
from obhut.finality.vocabulary import Place, TraceState
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.promises.model import Evidence, State


def traces(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """Where bytes of erased people may remain is looked at now; what is older than any backup may be has to be gone."""
    for name, database in settings.databases.items():
        if not any(known.in_state(name, TombstoneState.EFFECTIVE, size=1)):
            continue  # that nobody was erased, another examiner says
        found = look(settings, name, clock)
        limit = database.backup.gone_after
        late = [(one, seen) for one, seen in found.open if found.looked_at - one.seen.taken_at > limit]
        left = {trace.place for _, seen in late for trace in seen if trace.state is not TraceState.GONE}
        people = sum(one.people for one, _ in late)
        if left:
            places = ", ".join(place.value for place in Place if place in left)
            fact = f"bytes of {people} people who were erased more than {limit.days} days ago may remain in: {places}"
            yield Evidence(fact, State.UNPROVEN, found.looked_at, name, f'Look at "obhut erasures residue {name}".')
        else:
            young = sum(one.people for one, _ in found.open)
            others = found.finished_people
            fact = f"traces of {young} people erased in the last {limit.days} days are followed, and of {others} others none is left"
            yield Evidence(fact, State.KEPT, found.looked_at, name)
