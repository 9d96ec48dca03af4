"""Epochs of controllers: the keys that wrap sealing keys, as the key table and the key store hold them.

An epoch key is made in the key store first and noted in the control database second: a crash in between leaves a key that wraps nothing,
under a name that the next attempt uses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from obhut.foundation.faultpoints import reach
from obhut.keystore.drivers.driver import Driver
from obhut.keystore.errors import KeyDestroyedError, KeyMissingError
from obhut.keystore.leases import SQL
from obhut.keystore.sealing import KEY_BYTES
from obhut.keystore.wrapping import EpochKey, epoch_context, key_name
from obhut.postgres.connections import Session

_LOST: Final = 'Was the control database restored to before the last rotation? Then "obhut keys renew --accept-loss" begins anew.'
_HELD_FOR: Final = 3600.0  # seconds that an unwrapped epoch key is kept: a key store service is asked once an hour


class Owner(NamedTuple):
    """A controller that has keys: its number in the key table, its lookup key, its open epoch."""

    number: int
    lookup: bytes
    epoch: EpochKey


class Epochs:
    """The epoch keys that this process has unwrapped."""

    def __init__(self, session: Session, driver: Driver) -> None:
        self._session = session
        self._driver = driver
        self._keys: dict[tuple[str, int], tuple[float, EpochKey]] = {}
        self._owners: dict[str, Owner] = {}

    def owners(self, controllers: Iterable[str], now: datetime) -> dict[str, Owner]:
        """Return controllers with their lookup keys and open epochs, making those that have none."""
        missing = [controller for controller in controllers if controller not in self._owners]
        if missing:
            self._read(missing)
            for controller in missing:
                if controller not in self._owners:
                    self._create(controller, now)
        return self._owners

    def known(self, controllers: Sequence[str]) -> dict[str, Owner]:
        """Return those controllers that have keys."""
        self._read([controller for controller in controllers if controller not in self._owners])
        return {controller: self._owners[controller] for controller in controllers if controller in self._owners}

    def keys(self, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], EpochKey]:
        """Return epoch keys by controller and number.

        Raises:
            KeyDestroyedError: the epoch's key was destroyed: the row comes from an older copy of the key table.
            KeyMissingError: the control database or the key store has no such epoch.
        """
        asked, moment = set(wanted), time.monotonic()
        for pair in [pair for pair in asked if pair not in self._keys or self._keys[pair][0] < moment]:
            self._keys.pop(pair, None)
            self._unwrap(pair, moment)
        return {pair: self._keys[pair][1] for pair in asked}

    def forget_owners(self) -> None:
        """Ask anew which epoch is open."""
        self._owners.clear()

    def forget_destroyed(self) -> None:
        """Drop epoch keys whose epoch was destroyed."""
        for pair in self._session.rows(SQL["gone_epochs"]) if self._keys else ():
            self._keys.pop((pair[0], pair[1]), None)

    def forget(self) -> None:
        """Drop everything."""
        self._keys.clear()
        self._owners.clear()

    def new_epoch(self, controller: str) -> tuple[EpochKey, bytes]:
        """Return the key of a controller's next epoch and the bytes to note; in use once it is noted."""
        number = int(self._session.value(SQL["last_epoch"], {"controller": controller})) + 1
        name, secret = key_name(controller, number), os.urandom(KEY_BYTES)
        self._driver.create(name)
        reach("keys.epoch.created")
        return EpochKey(controller, number, secret), self._driver.wrap(name, secret, epoch_context(controller, number))

    def _create(self, controller: str, now: datetime) -> None:
        epoch, wrapped = self.new_epoch(controller)
        with self._session.transaction():
            values = {"controller": controller, "number": epoch.number, "wrapped": wrapped, "now": now}
            if self._session.execute(SQL["open_epoch"], values):
                lookup = epoch.wrap_lookup(os.urandom(KEY_BYTES))
                self._session.execute(SQL["add_owner"], {"controller": controller, "lookup": lookup, "number": epoch.number})
        # Read back: another process may have been first, and its keys count.
        self._read([controller])

    def _read(self, controllers: Sequence[str]) -> None:
        rows = self._session.rows(SQL["owners"], {"controllers": list(controllers)}) if controllers else []
        keys = self.keys({(row[0], number) for row in rows for number in row[3:5] if number is not None})
        for controller, number, lookup, lookup_epoch, open_epoch in rows:
            if open_epoch is None:
                raise KeyMissingError("a controller has no open epoch", 'Was the key table restored in parts? Run "obhut keys status".')
            found = keys[controller, lookup_epoch].unwrap_lookup(bytes(lookup))
            self._owners[controller] = Owner(number, found, keys[controller, open_epoch])

    def _unwrap(self, pair: tuple[str, int], moment: float) -> None:
        controller, number = pair
        row = self._session.row(SQL["epoch_keys"], {"controllers": [controller], "numbers": [number]})
        if row is None or row[2] is None:
            raise KeyDestroyedError(f"the key of epoch {number} of a controller was destroyed", _LOST)
        try:
            secret = self._driver.unwrap(key_name(controller, number), bytes(row[2]), epoch_context(controller, number))
        except (KeyDestroyedError, KeyMissingError) as error:
            raise type(error)(f"the key store has no key for epoch {number} of a controller any more", _LOST) from None
        self._keys[pair] = moment + _HELD_FOR, EpochKey(controller, number, secret)
