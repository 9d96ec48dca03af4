"""Who is left alone after all: active again, held, or under a rule that has ended. Asked while the people's rows are locked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from obhut.datamap.graph import require
from obhut.datamap.load import load
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.retention import cases, holds, rules
from obhut.retention.candidates import Inactivity
from obhut.retention.survey import moments

Key = tuple[str, ...]


class ActivityGuard:
    """Keeps those whom retention has taken and who must not be anonymised now; of everybody else it knows nothing.

    Args:
        session: of its own: each question sees what was committed up to it, whatever the erasing transaction sees.
        database: name of the protected database.
        clock: tells the time.
    """

    def __init__(self, session: Session, settings: Settings, database: str, clock: Clock) -> None:
        self._session = session
        self._database = database
        self._clock = clock
        rules_of_map = load(settings.database(database).map).database(database)
        self._graph = require(database, rules_of_map, read_catalogue(session))

    def __call__(self, kind: str, keys: Sequence[Key]) -> set[Key]:
        """Return the keys of those who must not be touched."""
        now = self._clock.now()
        taken = cases.taken(self._database, kind, keys)
        held = holds.held(self._database, kind, now)
        left = {key for key in taken if key in held.people}
        for rule_id in set(taken.values()):
            rule = rules.get_rule(rule_id)
            members = [key for key, other in taken.items() if other == rule_id]
            if rule.revoked_at is not None or rule.controller in held.controllers:
                left.update(members)
                continue
            inactivity = Inactivity(self._session, self._graph, kind, rule.zone)
            left |= inactivity.returned(moments(rule, now).due, members)
        return left


@contextmanager
def guarding(settings: Settings, database: str, clock: Clock) -> Iterator[ActivityGuard]:
    """Give a guard with a session of its own for the block."""
    with Session.connect(settings.database(database).url, application_name="obhut retention", settings={"jit": "off"}) as session:
        yield ActivityGuard(session, settings, database, clock)
