"""Examiner of test and staging databases: each that is declared must carry the mark of a masked copy made here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime

from obhut.clones import mark
from obhut.clones.errors import CloneMarkError
from obhut.clones.mark import Mark
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.keystore import open_keystore
from obhut.masking.verdict import Label
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.promises.model import Evidence, State


def databases(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """Look at the mark of every declared test and staging database; what is not declared cannot be looked at."""
    for name, database in settings.databases.items():
        if not database.staging:
            hint = "Declare them under [databases.<name>.staging] in the settings."
            yield Evidence("no test or staging database is declared", State.UNPROVEN, clock.now(), name, hint)
        for place, url in database.staging.items():
            yield _looked_at(settings, name, place, url, clock.now())


def _looked_at(settings: Settings, name: str, place: str, url: str, now: datetime) -> Evidence:
    try:
        with Session.connect(url, application_name="obhut promises") as session:
            found = mark.read(session, open_keystore(settings))
    except CloneMarkError as error:
        return Evidence(f"staging database {place}: {error.fact}", State.BROKEN, now, name, 'Fill it by "obhut clone run".')
    except DatabaseError as error:
        return Evidence(f"staging database {place} could not be looked at: {error.fact}", State.UNPROVEN, now, name, error.hint or "")
    return judged(found, name, place, now)


def judged(found: Mark, name: str, place: str, now: datetime) -> Evidence:
    """Say what a mark amounts to: the promise speaks of anonymised data, and a label below that does not keep it."""
    verify = f'"obhut clone verify {found.run}" checks it again.'
    if found.database != name:
        return Evidence(f"staging database {place} is a copy of another database", State.BROKEN, now, name, "Declare it there.")
    if found.label == Label.PSEUDONYMISED:
        return Evidence(
            f"staging database {place} is pseudonymised: its key is kept", State.BROKEN, now, name, "Make a copy without stable mode."
        )
    if found.label != Label.ANONYMISED:
        fact = f"staging database {place} is masked and was checked for leaks, and nobody has shown that it is anonymous"
        return Evidence(fact, State.UNPROVEN, now, name, verify)
    if date.fromisoformat(found.review_by) < now.date():
        return Evidence(
            f"staging database {place} was called anonymised until a date that has passed", State.UNPROVEN, now, name,
            f'Look at it again: "obhut clone sign {found.run}".',
        )  # fmt: skip
    return Evidence(f"staging database {place} is an anonymised copy made here", State.KEPT, now, name, verify)
