"""The master key: random in a private file, or random and sealed under a passphrase.

With a passphrase the file holds the master key encrypted under a key that scrypt derives, so the passphrase can be changed without
touching anything that the master key wraps. The passphrase is read from a systemd credential, a file named by an environment
variable or an inherited file descriptor; never from the argument list or the environment itself, which other processes can read.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from obhut.keystore.errors import MasterKeyError
from obhut.keystore.files import read_private, write_atomic, write_once

FILE_NAME = "master.key"
CREDENTIAL = "obhut-master"
FILE_VARIABLE = "OBHUT_MASTER_FILE"
DESCRIPTOR_VARIABLE = "OBHUT_MASTER_FD"
KEY_BYTES = 32
NONCE_BYTES = 12

# 64 MiB and about a quarter of a second: once per process, so slow is cheap here and dear for whoever guesses.
_SCRYPT = {"n": 2**16, "r": 8, "p": 1}
_FORMAT = "obhut-master-key/1"
_AAD = b"obhut keystore v1 master"
_MAX_PASSPHRASE = 1024  # bytes


def find_passphrase() -> bytes | None:
    """Return the passphrase of this process, or None when none is configured.

    Looks at ``$CREDENTIALS_DIRECTORY/obhut-master``, then the file that ``OBHUT_MASTER_FILE`` names, then the descriptor that
    ``OBHUT_MASTER_FD`` numbers. One trailing newline is dropped.

    Raises:
        MasterKeyError: a source is named but cannot be read, or is empty.
    """
    source: Path | int | None = None
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory and (Path(directory) / CREDENTIAL).exists():
        source = Path(directory) / CREDENTIAL
    elif named := os.environ.get(FILE_VARIABLE):
        source = Path(named)
    elif number := os.environ.get(DESCRIPTOR_VARIABLE):
        if not number.isdigit():
            raise MasterKeyError(f"{DESCRIPTOR_VARIABLE} is not the number of a file descriptor")
        source = int(number)
    if source is None:
        return None
    try:
        # The descriptor is left open and not re-read: find_passphrase is called once per process.
        content = source.read_bytes() if isinstance(source, Path) else os.read(source, _MAX_PASSPHRASE + 1)
    except OSError as error:
        raise MasterKeyError(
            f"the passphrase of the key store cannot be read ({error.strerror})",
            f"Check the credential {CREDENTIAL}, {FILE_VARIABLE} or {DESCRIPTOR_VARIABLE}.",
        ) from None
    passphrase = content.removesuffix(b"\n")
    if not passphrase or len(passphrase) > _MAX_PASSPHRASE:
        raise MasterKeyError(f"the passphrase of the key store is empty or longer than {_MAX_PASSPHRASE} bytes")
    return passphrase


def load_or_create(directory: Path, passphrase: bytes | None) -> bytes:
    """Return the master key of the directory, making one in an empty directory.

    Raises:
        MasterKeyError: it is damaged, or the passphrase is wrong, missing or superfluous.
    """
    path = directory / FILE_NAME
    if not path.exists():
        if any(directory.glob("*/*")):
            raise MasterKeyError(
                f"{path} is missing although wrapped keys exist",
                "Bring the master key back from its own backup; a new one cannot open what the old one wrapped.",
            )
        # Losing the race to another first user is fine: its key is read below.
        write_once(path, _encode(os.urandom(KEY_BYTES), passphrase))
    return _decode(path, passphrase)


def change_passphrase(directory: Path, old: bytes | None, new: bytes | None) -> None:
    """Seal the same master key under another passphrase, or under none; nothing that it wraps changes.

    Raises:
        MasterKeyError: the old passphrase does not open it.
    """
    write_atomic(directory / FILE_NAME, _encode(_decode(directory / FILE_NAME, old), new))


def _derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=KEY_BYTES, n=n, r=r, p=p).derive(passphrase)


def _encode(master: bytes, passphrase: bytes | None) -> bytes:
    fields: dict[str, str | int] = {"format": _FORMAT}
    if passphrase is None:
        fields |= {"kind": "random", "key": base64.b64encode(master).decode()}
    else:
        salt, nonce = os.urandom(16), os.urandom(NONCE_BYTES)
        sealed = nonce + AESGCM(_derive(passphrase, salt, **_SCRYPT)).encrypt(nonce, master, _AAD)
        fields |= {"kind": "scrypt", **_SCRYPT, "salt": base64.b64encode(salt).decode(), "key": base64.b64encode(sealed).decode()}
    return json.dumps(fields).encode() + b"\n"


def _decode(path: Path, passphrase: bytes | None) -> bytes:
    damaged = MasterKeyError(f"{path} is damaged or from another version", "Bring the master key back from its own backup.")
    try:
        fields = json.loads(read_private(path))
        if fields["format"] != _FORMAT or fields["kind"] not in {"random", "scrypt"}:
            raise damaged
        key = base64.b64decode(fields["key"], validate=True)
        if fields["kind"] == "random":
            if passphrase is not None:
                raise MasterKeyError(
                    "a passphrase is configured but the master key is not sealed under one",
                    'Seal it with "obhut keystore passphrase", or take the configured passphrase away.',
                )
            if len(key) != KEY_BYTES:
                raise damaged
            return key
        if passphrase is None:
            raise MasterKeyError(
                "the master key is sealed under a passphrase and none is configured",
                f"Give it as the systemd credential {CREDENTIAL}, or name its file in {FILE_VARIABLE}.",
            )
        derived = _derive(passphrase, base64.b64decode(fields["salt"], validate=True), fields["n"], fields["r"], fields["p"])
    except (KeyError, ValueError, TypeError, binascii.Error):
        raise damaged from None
    try:
        return AESGCM(derived).decrypt(key[:NONCE_BYTES], key[NONCE_BYTES:], _AAD)
    except InvalidTag:
        raise MasterKeyError("the passphrase does not open the master key", "Is it the passphrase of this key store?") from None
