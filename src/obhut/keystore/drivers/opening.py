"""Which driver the settings name; its module, and with it its library, is imported only then."""

from __future__ import annotations

from obhut.foundation.settings import Settings
from obhut.keystore.drivers.driver import Driver
from obhut.keystore.drivers.local import LocalDriver
from obhut.keystore.local import LocalKeystore, open_keystore


def open_driver(settings: Settings, *, keystore: LocalKeystore | None = None) -> Driver:
    """Return the driver that the settings name.

    Args:
        settings: the installation.
        keystore: Obhut's own key store, if this process has it open.

    Raises:
        DriverMissingError: its library is not installed.
        KeystoreError: it cannot be opened.
    """
    match settings.keystore.driver:
        case "local":
            return LocalDriver(keystore or open_keystore(settings))
        case "pkcs11":
            from obhut.keystore.drivers.token import TokenDriver

            return TokenDriver(settings.keystore.pkcs11)
        case "aws":
            from obhut.keystore.drivers.aws import AwsDriver

            return AwsDriver(settings.keystore.aws)
        case "transit":
            from obhut.keystore.drivers.transit import TransitDriver

            return TransitDriver(settings.keystore.transit)
