"""Libraries that only some installations need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Final

from obhut.keystore.errors import DriverMissingError

_EXTRAS: Final = {"pkcs11": "pkcs11", "boto3": "aws"}


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
