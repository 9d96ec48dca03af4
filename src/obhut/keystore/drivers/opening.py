"""Which driver an installation has."""

from __future__ import annotations

from obhut.foundation.settings import Settings
from obhut.keystore.drivers.driver import Driver
from obhut.keystore.drivers.local import LocalDriver
from obhut.keystore.local import LocalKeystore, open_keystore


def open_driver(settings: Settings, *, keystore: LocalKeystore | None = None) -> Driver:
    """Return the driver that the settings name.

    Raises:
        KeystoreError: it cannot be opened.
    """
    return LocalDriver(keystore or open_keystore(settings))
