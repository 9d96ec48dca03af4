"""Checkpoints as signed notes, and the anchor file (specification, sections 1 and 6)."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from obhut.erasure.errors import AnchorMissingError, ListSignatureError, MirrorUnwritableError
from obhut.foundation.clock import stamp
from obhut.foundation.notes import Kind, Note, NoteError, Signature, SignatureError, VerifierKey, parse

SIGNING_KEY_NAME: Final = "erasure-list"
NOTE_LINES: Final = 6
ANCHOR_NAME: Final = "erasure-list.anchor"


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


def verifier_key(name: str, key: Ed25519PublicKey) -> VerifierKey:
    """Return the public key under the list's name; as text it is C2SP's form, to be handed out."""
    return VerifierKey(name, Kind.ED25519, key.public_bytes_raw())


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the checkpoint as a signed note."""
    body = checkpoint.body()
    signer = verifier_key(checkpoint.origin, key.public_key())
    return str(Note(body, (Signature(signer.name, signer.id, key.sign(body.encode())),)))


def open_note(note: str, key: Ed25519PublicKey) -> Checkpoint:
    """Return the checkpoint of a signed note.

    Raises:
        ListSignatureError: it is not a note of this form, or not signed by this key alone.
    """
    try:
        signed = parse(note)
        checkpoint = _read(signed.text)
        signed.signed_by(verifier_key(checkpoint.origin, key))
        if str(Note(checkpoint.body(), signed.signatures[:1])) == note:
            return checkpoint
    except (ValueError, NoteError, SignatureError):
        pass
    raise ListSignatureError(
        "a checkpoint of the erasure list is not signed by its key", "Which key store signed it? Compare the key ids."
    ) from None


def _read(body: str) -> Checkpoint:
    origin, size, head, time = body.removesuffix("\n").split("\n")
    moment = datetime.strptime(time, "time %Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return Checkpoint(origin, int(size), base64.b64decode(head, validate=True), moment)


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
