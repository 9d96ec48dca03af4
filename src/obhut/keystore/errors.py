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


class SealedValueError(KeystoreError):
    """A sealed value of an audit log does not open: changed, moved to another entry, or another key."""

    code = "audit-seal-broken"


class CommitmentError(KeystoreError):
    """A key is not the one that an entry of the audit log commits to."""

    code = "audit-key-commitment"


class KeyTableRolledBackError(KeystoreError):
    """The key table is older than it was: erased people have keys in it again, so none is handed out."""

    code = "audit-keys-rolled-back"


class SubjectErasedError(KeystoreError):
    """The person's key was destroyed; nothing can be sealed or opened under it."""

    code = "audit-subject-erased"


class EvictionTimeoutError(KeystoreError):
    """Another process may still hold a destroyed key in memory."""

    code = "audit-keys-held"


class DriverMissingError(KeystoreError):
    """The library of a key store driver is not installed."""

    code = "keystore-driver-missing"


class DriverError(KeystoreError):
    """The key store service or device failed or refused the call."""

    code = "keystore-driver-failed"
