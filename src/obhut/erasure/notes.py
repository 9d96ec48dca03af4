"""Checkpoints as signed notes, and the anchor file (specification, sections 1 and 6)."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from obhut.erasure.errors import AnchorMissingError, ListSignatureError, MirrorUnwritableError
from obhut.foundation.clock import stamp

SIGNING_KEY_NAME: Final = "erasure-list"
NOTE_LINES: Final = 6
ANCHOR_NAME: Final = "erasure-list.anchor"
_ED25519: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head of the list, to be signed or just verified."""

    origin: str
    size: int
    hash: bytes
    signed_at: datetime

    def body(self) -> str:
        """Return the signed text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.hash).decode()}\ntime {stamp(self.signed_at)}\n"


def key_id(name: str, key: Ed25519PublicKey) -> bytes:
    """Return the four octets that name a key in a signature line."""
    return sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:4]


def verifier_key(name: str, key: Ed25519PublicKey) -> str:
    """Return the public key in the form of a C2SP verifier key, to be handed out."""
    encoded = base64.b64encode(_ED25519 + key.public_bytes_raw()).decode()
    return f"{name}+{key_id(name, key).hex()}+{encoded}"


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the checkpoint as a signed note."""
    body = checkpoint.body()
    signature = key_id(checkpoint.origin, key.public_key()) + key.sign(body.encode())
    return f"{body}\n\N{EM DASH} {checkpoint.origin} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, key: Ed25519PublicKey) -> Checkpoint:
    """Return the checkpoint of a signed note.

    Raises:
        ListSignatureError: it is not a note of this form, or not signed by this key.
    """
    refused = ListSignatureError(
        "a checkpoint of the erasure list is not signed by its key", "Which key store signed it? Compare the key ids."
    )
    body, _, signatures = note.partition("\n\n")
    lines = body.split("\n")
    words = signatures.removesuffix("\n").split(" ")
    if len(lines) != 4 or len(words) != 3 or words[0] != "\N{EM DASH}" or words[1] != lines[0] or not lines[3].startswith("time "):
        raise refused
    try:
        signature = base64.b64decode(words[2], validate=True)
        size = int(lines[1])
        moment = datetime.strptime(lines[3].removeprefix("time "), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        checkpoint = Checkpoint(lines[0], size, base64.b64decode(lines[2], validate=True), moment)
        if signature[:4] != key_id(lines[0], key) or checkpoint.body() != body + "\n":
            raise refused
        key.verify(signature[4:], checkpoint.body().encode())
    except (ValueError, binascii.Error, InvalidSignature):
        raise refused from None
    return checkpoint


def read_anchor(directory: Path, key: Ed25519PublicKey | None) -> Checkpoint | None:
    """Return the anchored checkpoint, or None when the state directory holds none.

    Raises:
        AnchorMissingError: the file is there but cannot be read.
        ListSignatureError: it is not signed by the list's key, or there is no such key.
    """
    try:
        note = (directory / ANCHOR_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise AnchorMissingError("the anchor of the erasure list cannot be read") from None
    if key is None:
        raise ListSignatureError(
            "there is an anchor but the key store holds no key of the erasure list",
            "Is this the key store of this installation? Bring it back from its own backup.",
        )
    return open_note(note, key)


def write_anchor(directory: Path, note: str) -> None:
    """Replace the anchor: a crash leaves the old one or the new one.

    Raises:
        MirrorUnwritableError: the state directory cannot be written.
    """
    temporary = directory / f".{ANCHOR_NAME}.{os.getpid()}"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, note.encode())
            os.fdatasync(handle)
        finally:
            os.close(handle)
        # The rename is left to the file system: losing it with the power leaves an older anchor, which is always legal.
        temporary.replace(directory / ANCHOR_NAME)
    except OSError as error:
        raise MirrorUnwritableError(f"the anchor of the erasure list cannot be written ({error.strerror})") from None
