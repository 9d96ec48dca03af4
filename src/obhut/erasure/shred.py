"""The keys of erased people go in the same use case as their rows: tombstone, rows, key, proof.

Called between the look that finds no row and the mark that the tombstone is effective: a kill in between leaves a recorded tombstone, which
is finished later and destroys the key then. Where no change is captured there are no keys, and this costs one question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from obhut.controllers.vocabulary import SubjectRef
from obhut.erasure import ledger, reading
from obhut.erasure.entries import State, Tombstone
from obhut.erasure.refusals import ErasureIncompleteError
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.keystore.destruction import Destroyed, destroy, in_use, remaining
from obhut.keystore.drivers import open_driver
from obhut.keystore.subjects import Ended, Keyring, unassigned

_People = dict[str, list[Ended]]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What comparing the key table with the erasure list came to.

    Attributes:
        people: open tombstones.
        destroyed: keys that had come back, and are destroyed again.
    """

    people: int
    destroyed: int


class Shredder:
    """Destroys the keys of erased people; opened once, used for many erasures."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keyring: Keyring | None = None

    def close(self) -> None:
        """Forget keys and close what was opened."""
        if self._keyring is not None:
            self._keyring.close()
        self._keyring = None

    def shred(self, tombstones: Sequence[Tombstone], clock: Clock) -> Destroyed | None:
        """Destroy the keys of these people and look whether they are gone; None where no keys are in use.

        Raises:
            ErasureIncompleteError: a key is left; the tombstones stay recorded.
            KeystoreError: the key store or the key table cannot serve.
        """
        if not tombstones or not in_use(ledger.places().session()):
            return None
        people = _people(tombstones)
        keyring = self._opened(clock)
        # What belonged to nobody when it was captured is kept by the vendor itself, under keys of its own.
        for database in {one.database for one in tombstones}:
            if keyring.epochs.known([unassigned(database)]):
                people[unassigned(database)] = [ended for group in list(people.values()) for ended in group]
        done = destroy(keyring, people)
        if any(remaining(keyring, people)):
            raise ErasureIncompleteError(
                f"keys of {len(tombstones)} erased people are in the key table still",
                'Who writes there? The tombstones stay recorded; run "obhut erase --finish" when the writer is stopped.',
            )
        return done

    def reconcile(self, clock: Clock) -> Reconciled:
        """Destroy again what a restored key table has brought back: the erasure list says whose keys must not be there.

        Raises:
            ErasureListError: the list lost entries; recover it first.
            KeystoreError: the key store or the key table cannot serve.
        """
        ledger.verify_list(self._settings)
        count = destroyed = 0
        keyring = self._opened(clock)
        for tombstones in _listed():
            count += len(tombstones)
            destroyed += destroy(keyring, _people(tombstones), recovering=True).destroyed
        if not count:
            destroy(keyring, {}, recovering=True)  # the counter must pass the anchor all the same
        return Reconciled(count, destroyed)

    def left(self, clock: Clock) -> int:
        """Return how many people with an effective tombstone have a key, as a restored key table would show; reads only."""
        if not in_use(ledger.places().session()):
            return 0
        keyring = self._opened(clock)
        return sum(remaining(keyring, _people(effective))[0] for effective in _listed(effective=True))

    def _opened(self, clock: Clock) -> Keyring:
        if self._keyring is None:
            driver = open_driver(self._settings, keystore=ledger.places().keystore)
            self._keyring = Keyring(self._settings, driver=driver, session=ledger.places().session(), clock=clock)
        return self._keyring


def _listed(*, effective: bool = False) -> Iterator[list[Tombstone]]:
    for database in sorted({database for database, _, _ in reading.states()}):
        for tombstones in reading.open_list(database):
            yield [one for one in tombstones if one.state is State.EFFECTIVE] if effective else tombstones


def _people(tombstones: Sequence[Tombstone]) -> _People:
    people: _People = defaultdict(list)
    for one in tombstones:
        if one.key is not None:
            people[one.controller].append(Ended(SubjectRef(one.subject_kind, one.key), one.erased_at))
    return people
