"""Keys of data subjects: one random key a person and controller, found by a keyed fingerprint, wrapped by the controller's epoch.

Written for a stream of changes: tens of thousands of subjects a second, asked for in batches. Keys are kept in memory under a lease, so
that a destruction is reported only when no process can hold the key any more (:mod:`obhut.keystore.leases`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, Self

from obhut.controllers.vocabulary import SubjectRef
from obhut.foundation.clock import Clock, SystemClock
from obhut.foundation.settings import Settings
from obhut.keystore import anchor
from obhut.keystore.drivers import Driver, open_driver
from obhut.keystore.epochs import Epochs, Owner
from obhut.keystore.errors import KeystoreError, KeyTableRolledBackError, SubjectErasedError
from obhut.keystore.leases import SQL, Lease
from obhut.keystore.sealing import NONCE_BYTES, Key, new_key, new_keys
from obhut.keystore.wrapping import CONTROLLER, EpochKey, fingerprint
from obhut.postgres.connections import Row, Session
from obhut.postgres.control import control_session

CHUNK: Final = 10_000  # subjects a statement
_TRIES: Final = 8  # a writer that loses every race against rotation and erasure gives up
_HELD: Final = 200_000  # keys in memory at the most, in two generations
_NAMED: Final = 20_000  # destroyed keys that are forgotten one by one; beyond, all are


@dataclass(frozen=True, slots=True)
class Erased:
    """What is left of a destroyed key.

    Attributes:
        id: of the key; None when the person was erased before there was one.
    """

    id: bytes | None


Held = Key | Erased


class Ended(NamedTuple):
    """A person who was erased, and when: lives that began later are somebody else's."""

    ref: SubjectRef
    at: datetime


_Wanted = tuple[str, SubjectRef]


def unassigned(database: str) -> str:
    """Return the name under which the vendor itself keeps what no controller of a database could be found for."""
    return f"unassigned:{database}"


def controller_ref(moment: datetime) -> SubjectRef:
    """Return the subject under whose key values of no person are sealed: a key a day, for a key seals 2^32 values at the most."""
    return SubjectRef(CONTROLLER, (f"{moment:%Y-%m-%d}",))


class Keyring:
    """The sealing keys of all controllers, as one process uses them. Usable from several threads; they take turns."""

    def __init__(
        self, settings: Settings, *, driver: Driver | None = None, session: Session | None = None, clock: Clock | None = None
    ) -> None:
        """Open the key table; the control database must be open.

        Args:
            settings: the installation.
            driver: key store; that of the settings by default.
            session: on the control database; one of its own by default.
            clock: tells when epochs are opened.
        """
        self.directory: Path = settings.keystore.directory
        self.session = session or control_session("obhut keys")
        self._own_session = session is None
        self.clock = clock or SystemClock()
        self.driver = driver or open_driver(settings)
        self.epochs = Epochs(self.session, self.driver)
        self.lease = Lease(settings.keystore.cache.total_seconds())
        self.lock = threading.RLock()
        self._young: dict[_Wanted, Held] = {}
        self._old: dict[_Wanted, Held] = {}
        self._turned = 0.0
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        """Return the keyring; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget all keys, end the lease, close the session."""
        self.close()

    def close(self) -> None:
        """Forget all keys, end the lease, close the session."""
        with self.lock:
            self.forget()
            if self._timer is not None:
                self._timer.cancel()
            if not self.session.closed:
                self.lease.release(self.session)
                if self._own_session:
                    self.session.close()

    def start(self) -> None:
        """From now on erasures leave fences; to be called before changes are captured for the first time."""
        self.session.execute(SQL["use"])

    def keys(self, wanted: Mapping[str, Iterable[SubjectRef]]) -> dict[str, dict[SubjectRef, Held]]:
        """Return the keys of subjects by controller, making those that never had one; durable when it returns.

        The result must not be kept longer than one batch of work: the lease covers what is asked for again.

        Raises:
            KeyTableRolledBackError: the key table is older than it was.
            KeyDestroyedError, KeyMissingError: an epoch's key has gone.
        """
        with self.lock:
            self._ready()
            found: dict[str, dict[SubjectRef, Held]] = {}
            missing: list[_Wanted] = []
            for controller, refs in wanted.items():
                mine = found[controller] = {}
                for ref in refs:
                    held = self._young.get((controller, ref)) or self._old.get((controller, ref))
                    if held is None:
                        missing.append((controller, ref))
                    else:
                        mine[ref] = held
            missing = list(dict.fromkeys(missing))
            for start in range(0, len(missing), CHUNK):
                for (controller, ref), held in self._load(missing[start : start + CHUNK]).items():
                    found[controller][ref] = held
            return found

    def by_id(self, ids: Collection[bytes]) -> dict[bytes, Held]:
        """Return keys by id, for readers; an id that is not in the result never had a key here.

        Raises:
            KeyTableRolledBackError: the key table is older than it was.
        """
        with self.lock:
            self._ready()
            rows = self.session.rows(SQL["by_id"], {"ids": list(ids)})
            epochs = self.epochs.keys({(row[1], row[3]) for row in rows if row[2] is not None})
            return {
                bytes(row[0]): Erased(bytes(row[0])) if row[2] is None else epochs[row[1], row[3]].unwrap(bytes(row[0]), bytes(row[2]))
                for row in rows
            }

    def begin(self, controller: str, ref: SubjectRef, committed_at: datetime) -> Held:
        """Give a subject that was erased a new life, and return its key; without effect on one that is active.

        Args:
            controller: whose person it is.
            ref: the subject.
            committed_at: when the transaction committed that inserted the subject's own row anew; the life begins only if the former
                one ended more than a minute before, since the clocks of two servers differ.
        """
        with self.lock:
            held = self.keys({controller: [ref]})[controller][ref]
            if isinstance(held, Key):
                return held
            owner, key = self.epochs.owners([controller], self.clock.now())[controller], new_key()
            values = {"owner": owner.number, "print": fingerprint(owner.lookup, ref), "id": key.id, "wrapped": owner.epoch.wrap(key)}
            self.session.execute(SQL["begin"], {**values, "epoch": owner.epoch.number, "at": committed_at})
            self._young.pop((controller, ref), None)
            self._old.pop((controller, ref), None)
            return self.keys({controller: [ref]})[controller][ref]

    def forget(self) -> None:
        """Drop every key from memory."""
        with self.lock:
            self._young, self._old = {}, {}
            self.epochs.forget()

    def evict(self, before: int, counter: int) -> None:
        """Drop what was destroyed between two readings of the counter."""
        if counter < before or not (self._young or self._old):
            self._young, self._old = {}, {}
        else:
            ids = [row[0] for row in self.session.rows(SQL["destroyed_ids"], {"number": before, "limit": _NAMED})]
            gone = {bytes(key_id) for key_id in ids}
            if len(ids) == _NAMED:
                self._young, self._old = {}, {}
            elif gone:
                self._young = {wanted: held for wanted, held in self._young.items() if held.id not in gone}
                self._old = {wanted: held for wanted, held in self._old.items() if held.id not in gone}
        self.epochs.forget_destroyed()

    def _ready(self) -> None:
        """Renew the lease, forget what was destroyed or is too old, and refuse a key table that was rolled back."""
        if self.lease.fresh:
            return
        if time.monotonic() >= self.lease.until:
            self._young, self._old = {}, {}
        if self.lease.seen < 0:
            self.start()
        self.require_present(lambda: self.lease.renew(self.session, self.evict))
        if self._timer is None:
            self._arm(self.lease.until - time.monotonic())
        if time.monotonic() - self._turned > self.lease.seconds / 2 or len(self._young) > _HELD // 2:
            self._old, self._young, self._turned = self._young, {}, time.monotonic()

    def require_present(self, count: Callable[[], int]) -> None:
        """Refuse a key table that has forgotten destructions.

        Args:
            count: asks the table how many it knows.

        Raises:
            KeyTableRolledBackError: the anchor knows more of them.
        """
        # The anchor first: it follows the table, so in the other order a destruction in between would look like a rollback.
        known = anchor.read(self.directory)
        counter = count()
        if counter < known:
            self.forget()
            self.lease.doubt()
            raise KeyTableRolledBackError(
                f"the key table knows {counter} destructions, its anchor {known}: it was restored from an older copy",
                'Run "obhut erasures recover", then "obhut keys reconcile": it destroys again what had been destroyed.',
            )

    def _arm(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._lapse)
        self._timer.daemon = True
        self._timer.start()

    def _lapse(self) -> None:
        """Drop the keys when the lease has ended without a renewal."""
        with self.lock:
            left = self.lease.until - time.monotonic()
            if left > 0:
                self._arm(left)
                return
            self._timer = None
            self._young, self._old = {}, {}

    def _load(self, wanted: Sequence[_Wanted]) -> dict[_Wanted, Held]:
        loaded: dict[_Wanted, Held] = {}
        todo = list(wanted)
        for _ in range(_TRIES):
            owners = self.epochs.owners({controller for controller, _ in todo}, self.clock.now())
            prints = [fingerprint(owners[controller].lookup, ref) for controller, ref in todo]
            numbers = [owners[controller].number for controller, _ in todo]
            rows = self.session.rows(SQL["find"], {"owners": numbers, "prints": b"".join(prints)}, binary=True)
            loaded.update(self._opened(todo, rows))
            absent = [place for place, item in enumerate(todo) if item not in loaded]
            if absent:
                loaded.update(self._add([todo[place] for place in absent], [prints[place] for place in absent], owners))
            todo = [item for item in todo if item not in loaded]
            if not todo:
                self._young.update(loaded)
                return loaded
            # Another process was first, or a rotation closed the epoch: its state is read anew.
            self.epochs.forget_owners()
        raise KeystoreError("the key table changed in every attempt", "Do several rotations run at once?")

    def _opened(self, wanted: Sequence[_Wanted], rows: Sequence[Row]) -> dict[_Wanted, Held]:
        named = [(wanted[int(row[0]) - 1], row) for row in rows]
        epochs = self.epochs.keys({(item[0], row[3]) for item, row in named if row[2] is not None})
        return {
            item: Erased(key_id) if wrapped is None else epochs[item[0], epoch].unwrap(key_id, wrapped)
            for item, (_, key_id, wrapped, epoch) in named
        }

    def _add(self, wanted: Sequence[_Wanted], prints: Sequence[bytes], owners: Mapping[str, Owner]) -> dict[_Wanted, Held]:
        keys = new_keys(len(wanted))
        drawn = os.urandom(NONCE_BYTES * len(wanted))
        mine: list[tuple[int, EpochKey]] = [(owners[controller].number, owners[controller].epoch) for controller, _ in wanted]
        values = {
            "distinct": list({number for number, _ in mine}),
            "owners": [number for number, _ in mine],
            "prints": b"".join(prints),
            "epochs": [epoch.number for _, epoch in mine],
            "ids": b"".join([key.id for key in keys]),
            "wrapped": b"".join(
                [
                    epoch.wrap_with(key, drawn[at : at + NONCE_BYTES])
                    for (_, epoch), key, at in zip(mine, keys, range(0, len(drawn), NONCE_BYTES), strict=True)
                ]
            ),
        }
        added = {row[0] for row in self.session.rows(SQL["add"], values, binary=True)}
        return {item: key for item, key in zip(wanted, keys, strict=True) if key.id in added}


class SubjectKeys:
    """The sealing keys of one controller."""

    def __init__(self, keyring: Keyring, controller: str) -> None:
        self._keyring = keyring
        self.controller = controller

    def of(self, refs: Iterable[SubjectRef]) -> dict[SubjectRef, Held]:
        """Return the keys of subjects, making those that never had one; see :meth:`Keyring.keys`."""
        return self._keyring.keys({self.controller: refs})[self.controller]

    def one(self, ref: SubjectRef) -> Key:
        """Return the key of one subject.

        Raises:
            SubjectErasedError: it was destroyed.
        """
        held = self.of([ref])[ref]
        if isinstance(held, Erased):
            raise SubjectErasedError(
                "the key of this person was destroyed", "Nothing can be sealed under it any more; that was the purpose."
            )
        return held
