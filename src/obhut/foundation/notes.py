"""Signed notes (C2SP *signed-note*): texts with signature lines of named keys, Ed25519 and ML-DSA-44."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

_NAME: Final = re.compile(r"[^\s+]+")
_ID: Final = 4
_DASH: Final = "\N{EM DASH} "


class NoteError(Exception):
    """A note does not have the form of one."""


class SignatureError(Exception):
    """No signature of the asked key, or one that does not verify."""


class Kind(IntEnum):
    """Signature types that a log or a witness here may have."""

    ED25519 = 0x01
    COSIGNATURE_ED25519 = 0x04
    COSIGNATURE_MLDSA44 = 0x06


_KEY_SIZE: Final = {Kind.ED25519: 32, Kind.COSIGNATURE_ED25519: 32, Kind.COSIGNATURE_MLDSA44: 1312}


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name, as a verifier is configured with it."""

    name: str
    kind: Kind
    public: bytes

    @property
    def id(self) -> bytes:
        """First four octets of the hash over name, type and key."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:_ID]

    def __str__(self) -> str:
        """Return ``name+id+base64``, C2SP's form of a verifier key."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    def check(self, message: bytes, signature: bytes) -> None:
        """Check a plain signature over a message.

        Raises:
            SignatureError: it does not verify.
        """
        try:
            if self.kind is Kind.COSIGNATURE_MLDSA44:
                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise SignatureError("a signature does not verify") from None


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends with a line feed, and who signed it."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(map(str, self.signatures))

    def signature_of(self, key: VerifierKey) -> bytes | None:
        """Return the value of the key's signature line, if there is one."""
        return next((line.value for line in self.signatures if (line.name, line.id) == (key.name, key.id)), None)

    def signed_by(self, key: VerifierKey) -> None:
        """Check the signature of an Ed25519 log key over the text.

        Raises:
            SignatureError: there is none of that key, or it does not verify.
        """
        value = self.signature_of(key)
        if value is None:
            raise SignatureError("no signature of that key")
        key.check(self.text.encode(), value)


def parse_key(text: str) -> VerifierKey:
    """Return the key of a line ``name+id+base64``.

    Raises:
        NoteError: it is not one, or its id is not that of the key.
    """
    name, _, rest = text.strip().partition("+")
    identifier, _, encoded = rest.partition("+")
    try:
        raw = base64.b64decode(encoded, validate=True)
        key = VerifierKey(name, Kind(raw[0]), raw[1:])
    except (binascii.Error, ValueError, IndexError):
        raise NoteError("not a verifier key") from None
    if not _NAME.fullmatch(name) or key.id.hex() != identifier or len(key.public) != _KEY_SIZE[key.kind]:
        raise NoteError("not a verifier key")
    return key


def parse(content: str) -> Note:
    """Return the parts of a note; signatures are not checked.

    Raises:
        NoteError: it is not a note.
    """
    text, blank, lines = content.rpartition("\n\n")
    if not blank or not lines.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", content):
        raise NoteError("not a signed note")
    return Note(text + "\n", tuple(_signature(line) for line in lines[:-1].split("\n")))


def with_signatures(note: Note, more: Iterable[Signature]) -> Note:
    """Return the note with further signature lines; one of a key that has signed already takes the place of the old one."""
    kept: dict[tuple[str, bytes], Signature] = {(line.name, line.id): line for line in note.signatures}
    kept.update({(line.name, line.id): line for line in more})
    return Note(note.text, tuple(kept.values()))


def parse_signatures(lines: str) -> Sequence[Signature]:
    """Return signature lines without a text, as a witness answers with them.

    Raises:
        NoteError: a line is not one.
    """
    return [_signature(line) for line in lines.strip("\n").split("\n") if line]


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("not a signature line") from None
    if not line.startswith(_DASH) or not _NAME.fullmatch(name) or len(raw) <= _ID:
        raise NoteError("not a signature line")
    return Signature(name, raw[:_ID], raw[_ID:])
