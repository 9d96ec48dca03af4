"""What can go wrong with keys."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError


class KeystoreError(ObhutError):
    """The key store cannot serve the call."""

    code = "keystore-failed"


class KeystorePermissionsError(KeystoreError):
    """A key file or its directory can be read or written by somebody else."""

    code = "keystore-permissions"


class MasterKeyError(KeystoreError):
    """The master key is missing, damaged, or does not fit the passphrase."""

    code = "keystore-master"


class KeyWrapError(KeystoreError):
    """A wrapped key does not open: another master key, another purpose, or changed bytes."""

    code = "keystore-unwrap"


class KeyDestroyedError(KeystoreError):
    """The key existed and was destroyed; what it sealed cannot be read any more."""

    code = "key-destroyed"


class KeyMissingError(KeystoreError):
    """No key was ever made under this label."""

    code = "key-missing"
