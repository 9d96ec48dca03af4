"""Whose the people's own rows are, as the stream has last shown them: a row that is led to one of them by its link alone needs no more.

Only what a row of the stream said is kept, so an answer is never newer than the change that asks. Where a person's row moved to another
controller, or did not tell all that matters, nothing is kept, and the owners find it out.
"""

from __future__ import annotations

from obhut.auditlog.capture.forms import Form, Raw, Whose
from obhut.auditlog.capture.pgoutput import Change


class Standing:
    """People by the table of their own rows and their key in it."""

    def __init__(self) -> None:
        self._people: dict[int, dict[Raw, Whose]] = {}

    def __len__(self) -> int:
        """Return how many people are known."""
        return sum(map(len, self._people.values()))

    def clear(self) -> None:
        """Forget everybody."""
        self._people.clear()

    def note(self, form: Form, change: Change, whose: Whose | None) -> None:
        """Remember whose a person's own row is from this change on; None where that is not known."""
        person, known = form.person, self._people.setdefault(form.oid, {})
        if person is None:
            return
        values = change.new if change.new is not None else change.old
        if whose is not None and values is not None:
            known[person(values)] = whose
            return
        for image in (change.old, change.new):
            if image is not None:
                known.pop(person(image), None)

    def of(self, form: Form, change: Change) -> Whose | None:
        """Return the person whom a row is led to; None where other rows have to be looked for, or people before and after may differ."""
        values = change.new if change.new is not None else change.old
        if form.parent is None or form.person is None or form.named or values is None or form.raw(change) is None:
            return None
        return self._people.get(form.parent, {}).get(form.person(values))
