"""Beginning anew where a restored control database is older than the last rotation: its keys do not open, and never will.

What was sealed under them stays unreadable; that is what rotation is for. What matters is that new changes are logged again and that nobody
who was erased gets a key: fences stay, and the erasure list makes them anew under the new lookup key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from obhut.foundation.faultpoints import reach
from obhut.keystore.drivers import Stage
from obhut.keystore.leases import SQL
from obhut.keystore.sealing import KEY_BYTES
from obhut.keystore.subjects import Keyring
from obhut.keystore.wrapping import key_name


@dataclass(frozen=True, slots=True)
class Renewed:
    """A controller that began anew.

    Attributes:
        lost: people whose key does not open any more.
    """

    controller: str
    epoch: int
    lost: int


def lost_controllers(keyring: Keyring) -> list[str]:
    """Return the controllers whose open epoch has no key in the key store; asks the store once a controller."""
    found = keyring.session.rows(SQL["open_epochs"])
    return [controller for controller, number in found if keyring.driver.state(key_name(controller, number)).stage is not Stage.ACTIVE]


def renew(keyring: Keyring, controllers: list[str]) -> list[Renewed]:
    """Give lost controllers a new epoch and a new lookup key; the keys that do not open are taken from the table."""
    with keyring.lock:
        keyring.forget()
        return [_renew(keyring, controller, keyring.clock.now()) for controller in controllers]


def _renew(keyring: Keyring, controller: str, now: datetime) -> Renewed:
    session, values = keyring.session, {"controller": controller, "now": now}
    epoch, wrapped = keyring.epochs.new_epoch(controller)
    with session.transaction():
        lost = int(session.value(SQL["drop_lost"], values))
        for step in ("lose_open", "lose_closing"):
            session.execute(SQL[step], values)
        session.execute(SQL["drop_owner"], values)
        session.execute(SQL["open_epoch"], {**values, "number": epoch.number, "wrapped": wrapped})
        lookup = epoch.wrap_lookup(os.urandom(KEY_BYTES))
        session.execute(SQL["add_owner"], {"controller": controller, "lookup": lookup, "number": epoch.number})
    reach("keys.renewed")
    return Renewed(controller, epoch.number, lost)
