"""Keys in AWS KMS: one key a controller and epoch, found by alias. Credentials come from where AWS's own tools take them.

AWS waits 7 to 30 days before it deletes a key; until then an administrator can cancel it, so the destruction is final on AWS's date and
not before. A key that is scheduled is refused here, whatever the service would still do. Once it is deleted AWS forgets its alias; the
name is not used again because epochs are numbered in the control database.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import AwsSettings
from obhut.keystore.drivers.driver import KeyStatus, Stage, checked_name, checked_plaintext
from obhut.keystore.drivers.libraries import library
from obhut.keystore.errors import DriverError, KeyDestroyedError, KeyMissingError, KeyWrapError

_UNREADABLE: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException", "ValidationException"})


class _AbsentError(Exception):
    """AWS knows no such key; never leaves this module."""


class _UnreadableError(Exception):
    """AWS refuses a ciphertext; never leaves this module."""


class AwsDriver:
    """The driver of one account and region."""

    kind = "aws"

    def __init__(self, settings: AwsSettings) -> None:
        boto3 = library("boto3")
        self._errors: Any = library("botocore.exceptions")
        self._wait = settings.wait_days
        with self._safe():
            self._kms: Any = boto3.client("kms", region_name=settings.region or None, endpoint_url=settings.endpoint or None)

    def create(self, name: str) -> None:
        """Make a key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        if self._require(name, absent=True) is not None:
            return
        with self._safe():
            made = self._kms.create_key(
                Description="Obhut: wraps the keys of one controller's audit log",
                KeyUsage="ENCRYPT_DECRYPT",
                Tags=[{"TagKey": "obhut", "TagValue": name}],
            )["KeyMetadata"]["KeyId"]
            reach("keystore.aws.created")
            self._kms.create_alias(AliasName=_alias(name), TargetKeyId=made)

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt under the key; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        key = self._require(name)
        with self._safe():
            answer = self._kms.encrypt(KeyId=key, Plaintext=checked_plaintext(plaintext), EncryptionContext=_bound(context))
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, name: str, blob: bytes, context: bytes) -> bytes:
        """Decrypt; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        key = self._require(name)
        try:
            with self._safe():
                return bytes(self._kms.decrypt(KeyId=key, CiphertextBlob=blob or b"\0", EncryptionContext=_bound(context))["Plaintext"])
        except _UnreadableError:
            raise KeyWrapError("a wrapped key does not open", "Was it wrapped by this key, in this context?") from None

    def destroy(self, name: str) -> datetime:
        """Schedule the key's deletion; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        known = self.state(name)
        if known.stage is Stage.ABSENT:
            raise KeyMissingError(f"there is no key {name}")
        if known.final_on is not None:
            return known.final_on
        with self._safe():
            key = self._kms.describe_key(KeyId=_alias(name))["KeyMetadata"]["KeyId"]
            answer = self._kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=self._wait)
        final: datetime = answer["DeletionDate"]
        return final.astimezone(UTC)

    def state(self, name: str) -> KeyStatus:
        """Tell the state; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        try:
            with self._safe():
                found = self._kms.describe_key(KeyId=_alias(name))["KeyMetadata"]
        except _AbsentError:
            return KeyStatus(Stage.ABSENT)
        if found["KeyState"] == "PendingDeletion":
            return KeyStatus(Stage.DESTROYED, found["DeletionDate"].astimezone(UTC))
        if found["KeyState"] != "Enabled":
            raise DriverError(
                f"the key {name} is in state {found['KeyState']} in AWS KMS", "Who disabled it? It is neither usable nor destroyed."
            )
        return KeyStatus(Stage.ACTIVE)

    def check(self) -> None:
        """Ask for a key that is not there; see :class:`~obhut.keystore.drivers.driver.Driver`."""
        self.state("obhut-check")

    def _require(self, name: str, *, absent: bool = False) -> str | None:
        """Return the alias of an active key; None where it may be absent and is."""
        stage = self.state(name).stage
        if stage is Stage.DESTROYED:
            raise KeyDestroyedError(f"the key {name} was destroyed", "What it wrapped cannot be read any more; that was the purpose.")
        if stage is Stage.ABSENT:
            if absent:
                return None
            raise KeyMissingError(f"there is no key {name}")
        return _alias(name)

    @contextmanager
    def _safe(self) -> Iterator[None]:
        """Translate errors of AWS's library, without their words: they may quote a request."""
        code = ""
        try:
            yield
            return
        except self._errors.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
        except self._errors.BotoCoreError as error:
            code = type(error).__name__
        if code == "NotFoundException":
            raise _AbsentError
        if code in _UNREADABLE:
            raise _UnreadableError
        raise DriverError(f"AWS KMS refused a call ({code})", "Check region, credentials and key policy: AWS's own log names the call.")


def _alias(name: str) -> str:
    """Return the alias of a name: letters, digits, slashes and underscores; others as a hyphen and two hexadecimal digits."""
    return "alias/obhut/" + re.sub(r"[^A-Za-z0-9/_]", lambda found: f"-{ord(found[0]):02x}", checked_name(name))


def _bound(context: bytes) -> dict[str, str]:
    return {"obhut": base64.b64encode(context).decode()}
