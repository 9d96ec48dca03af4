"""A new epoch for a controller: survivors wrapped anew, the old wrapping key destroyed (docs/spec/audit-log-keys.md, section 7).

What makes an erasure final: older copies of the key table still hold the wrapped keys of erased people, and only the destruction of the
epoch key makes those copies worthless. The old key outlives its epoch for a while, so that a copy of the control database can be made that
opens under the new one. Every step may be killed and repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import KeystoreSettings
from obhut.keystore import anchor
from obhut.keystore.epochs import Owner
from obhut.keystore.errors import KeyMissingError
from obhut.keystore.leases import SQL, await_forgotten
from obhut.keystore.subjects import CHUNK, Keyring
from obhut.keystore.vocabulary import EpochState
from obhut.keystore.wrapping import key_name
from obhut.postgres.connections import Row, Session

_LOCK: Final = 0x0B_48_4B_52


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did.

    Attributes:
        epoch: number of the open epoch.
        survivors: keys wrapped anew.
        closed: epochs that wrap nothing alive any more.
        destroyed: epochs whose key was destroyed, with the moment from which that is final.
    """

    controller: str
    epoch: int
    survivors: int
    closed: tuple[int, ...]
    destroyed: tuple[tuple[int, datetime], ...]


@dataclass(frozen=True, slots=True)
class EpochStatus:
    """An epoch as ``obhut audit keys status`` shows it; times where they are known."""

    number: int
    state: EpochState
    opened_at: datetime
    closed_at: datetime | None
    destroy_after: datetime | None
    destroyed_at: datetime | None
    final_on: datetime | None


@dataclass(frozen=True, slots=True)
class Status:
    """The keys of a controller.

    Attributes:
        active: people with a key.
        erased: people whose key was destroyed, or who are fenced without one.
        not_final: of those, how many an older copy of the key table could still give back.
    """

    controller: str
    epoch: int | None
    since: datetime | None
    active: int
    erased: int
    not_final: int
    epochs: tuple[EpochStatus, ...]


def rotate(keyring: Keyring, controller: str, *, grace: timedelta, copies_kept: timedelta) -> Rotation:
    """Open a new epoch, wrap the survivors anew, close the old one, and destroy what is due. An interrupted rotation is continued.

    Args:
        keyring: the key table.
        controller: whose keys.
        grace: how long the old wrapping key stays, so that copies of the control database catch up; nothing destroys it at once.
        copies_kept: how long copies of the key store itself are kept elsewhere.

    Raises:
        KeyMissingError: the controller has no keys.
    """
    with keyring.lock, _alone(keyring.session):
        owner = keyring.epochs.known([controller]).get(controller)
        if owner is None:
            raise KeyMissingError("the controller has no keys", "They are made when its first change is logged.")
        if controller not in _interrupted(keyring.session):
            _open(keyring, controller)
        survivors = _move(keyring, controller)
        reach("keys.rotate.moved")
        now = keyring.clock.now()
        values = {"controller": controller, "owner": owner.number, "now": now, "after": now + grace}
        closed = tuple(sorted(row[0] for row in keyring.session.rows(SQL["emptied"], values)))
        reach("keys.rotate.closed")
        if not grace:
            keyring.session.execute(SQL["hasten"], {"controller": controller, "now": now})
        destroyed = _destroy_due(keyring, copies_kept, controller)
        keyring.epochs.forget_owners()
        epoch = keyring.epochs.known([controller])[controller].epoch.number
        return Rotation(controller, epoch, survivors, closed, tuple((number, final) for _, number, final in destroyed))


def rotate_due(keyring: Keyring, settings: KeystoreSettings) -> tuple[list[Rotation], list[tuple[str, int, datetime]]]:
    """Rotate whatever is due by the settings, and destroy the old keys whose grace is over; what runs once a day."""
    wanted = waiting(keyring, older_than=settings.rotate_every)
    done = [rotate(keyring, one, grace=settings.grace, copies_kept=settings.copies_kept) for one in wanted]
    return done, destroy_due(keyring, copies_kept=settings.copies_kept)


def destroy_due(keyring: Keyring, *, copies_kept: timedelta) -> list[tuple[str, int, datetime]]:
    """Destroy the keys of closed epochs that are due, of all controllers; return controller, epoch and when it is final."""
    with keyring.lock, _alone(keyring.session):
        return _destroy_due(keyring, copies_kept, None)


def waiting(keyring: Keyring, *, older_than: timedelta) -> list[str]:
    """Return controllers whose rotation was interrupted, or whose open epoch is this old and wrapped a key that was destroyed."""
    before = keyring.clock.now() - older_than
    due = {row[0] for row in keyring.session.rows(SQL["rotatable"], {"before": before})}
    return sorted(due | _interrupted(keyring.session))


def status(keyring: Keyring, controller: str | None = None) -> list[Status]:
    """Return the keys of one controller or all."""
    rows = keyring.session.rows(SQL["status"], {"controller": controller, "now": keyring.clock.now()})
    return [
        Status(owner, epoch, since, active, erased, not_final, tuple(_epochs(keyring.session, owner)))
        for owner, epoch, since, active, erased, not_final in rows
    ]


def _epochs(session: Session, controller: str) -> Iterator[EpochStatus]:
    for row in session.rows(SQL["epochs"], {"controller": controller}):
        yield EpochStatus(row[0], EpochState(row[1]), *row[2:])


def _interrupted(session: Session) -> set[str]:
    return {row[0] for row in session.rows(SQL["unfinished"])}


def _open(keyring: Keyring, controller: str) -> None:
    epoch, wrapped = keyring.epochs.new_epoch(controller)
    with keyring.session.transaction():
        # In one transaction: writers wrap under an open epoch only, so there must always be one.
        keyring.session.execute(SQL["close_epoch"], {"controller": controller})
        values = {"controller": controller, "number": epoch.number, "wrapped": wrapped, "now": keyring.clock.now()}
        keyring.session.execute(SQL["open_epoch"], values)
    keyring.epochs.forget_owners()
    reach("keys.rotate.opened")


def _move(keyring: Keyring, controller: str) -> int:
    """Wrap lookup key and survivors under the open epoch, chunk by chunk; return how many survivors."""
    keyring.epochs.forget_owners()
    owner = keyring.epochs.known([controller])[controller]
    values = {"controller": controller, "lookup": owner.epoch.wrap_lookup(owner.lookup), "number": owner.epoch.number}
    keyring.session.execute(SQL["move_lookup"], values)
    reach("keys.rotate.lookup")
    moved, position = 0, (b"", 0)
    while True:
        place = {"owner": owner.number, "print": position[0], "life": position[1], "number": owner.epoch.number, "size": CHUNK}
        rows = keyring.session.rows(SQL["survivors"], place, binary=True)
        if not rows:
            return moved
        position = (rows[-1][0], rows[-1][1])
        moved += _rewrap(keyring, controller, owner, rows)
        reach("keys.rotate.part")


def _rewrap(keyring: Keyring, controller: str, owner: Owner, rows: list[Row]) -> int:
    old = keyring.epochs.keys({(controller, row[4]) for row in rows})
    values = {
        "owner": owner.number,
        "number": owner.epoch.number,
        "prints": b"".join([row[0] for row in rows]),
        "lives": [row[1] for row in rows],
        "epochs": [row[4] for row in rows],
        "wrapped": b"".join([owner.epoch.wrap(old[controller, row[4]].unwrap(row[2], row[3])) for row in rows]),
    }
    return keyring.session.execute(SQL["move"], values)


def _destroy_due(keyring: Keyring, copies_kept: timedelta, controller: str | None) -> list[tuple[str, int, datetime]]:
    session, done = keyring.session, []
    for owner, number in session.rows(SQL["due"], {"now": keyring.clock.now(), "controller": controller}):
        # The key store first: a kill in between leaves an epoch that is destroyed again, never one that only looks destroyed.
        final = keyring.clock.now()
        with suppress(KeyMissingError):  # a service that forgets what it deleted
            final = keyring.driver.destroy(key_name(owner, number))
        reach("keys.rotate.destroyed")
        now = keyring.clock.now()
        final = max(final, now + copies_kept)
        with session.transaction():
            count = int(session.value(SQL["count_up"], {"floor": anchor.read(keyring.directory)}))
            session.execute(SQL["destroyed"], {"controller": owner, "number": number, "now": now, "final_on": final})
        reach("keys.rotate.noted")
        anchor.raise_to(keyring.directory, count)
        keyring.epochs.forget_destroyed()
        await_forgotten(session, count, keyring.lease.seconds, me=keyring.lease.id)
        done.append((owner, number, final))
    return done


@contextmanager
def _alone(session: Session) -> Iterator[None]:
    """Let rotations take turns."""
    session.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        yield
    finally:
        if not session.closed:
            session.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
