"""Which driver the settings name; its library is imported only then."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Final

from obhut.foundation.settings import Settings
from obhut.keystore.drivers.driver import Driver
from obhut.keystore.drivers.local import LocalDriver
from obhut.keystore.errors import DriverMissingError
from obhut.keystore.local import LocalKeystore, open_keystore

_EXTRAS: Final = {"pkcs11": "pkcs11", "boto3": "aws"}


def open_driver(settings: Settings, *, keystore: LocalKeystore | None = None) -> Driver:
    """Return the driver that the settings name.

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


def library(name: str) -> ModuleType:
    """Return an optional library.

    Raises:
        DriverMissingError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise DriverMissingError(
            f"the key store driver needs the library {name}, which is not installed",
            f'Install it with "pip install obhut[{_EXTRAS[name]}]".',
        ) from None
