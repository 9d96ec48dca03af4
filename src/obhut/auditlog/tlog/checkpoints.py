"""Checkpoints (C2SP *tlog-checkpoint*), cosignatures (*tlog-cosignature*) and proof files (*tlog-proof*)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from obhut.auditlog.tlog import proofs
from obhut.auditlog.tlog.merkle import SIZE
from obhut.foundation import notes
from obhut.foundation.notes import Kind, Note, NoteError, Signature, SignatureError, VerifierKey

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
_BODY: Final = re.compile(r"([^\n]+)\n(0|[1-9]\d{0,18})\n([A-Za-z0-9+/]{43}=)\n((?:[^\n]+\n)*)")
_TIME: Final = Struct(">Q")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of a log."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def of(cls, note: Note) -> Self:
        """Return what a note says; its signatures are not checked.

        Raises:
            NoteError: it is not a checkpoint.
        """
        match = _BODY.fullmatch(note.text)
        if not match:
            raise NoteError("not a checkpoint")
        return cls(match[1], int(match[2]), base64.b64decode(match[3]))


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> Signature:
    """Return the log's own signature line; the key's name is the origin."""
    public = VerifierKey(checkpoint.origin, Kind.ED25519, key.public_key().public_bytes_raw())
    return Signature(public.name, public.id, key.sign(checkpoint.text.encode()))


def cosign(checkpoint: Checkpoint, name: str, key: Ed25519PrivateKey | MLDSA44PrivateKey, timestamp: int) -> Signature:
    """Return a cosignature line: of a witness, or with ML-DSA-44 of the log itself under its origin.

    Args:
        checkpoint: what was seen.
        name: name of the cosigner.
        key: its key.
        timestamp: seconds since the epoch.
    """
    public = cosigner(name, key)
    value = key.sign(_cosigned(checkpoint, public, timestamp))
    return Signature(name, public.id, _TIME.pack(timestamp) + value)


def cosigner(name: str, key: Ed25519PrivateKey | MLDSA44PrivateKey) -> VerifierKey:
    """Return the verifier key of a cosigner."""
    kind = Kind.COSIGNATURE_MLDSA44 if isinstance(key, MLDSA44PrivateKey) else Kind.COSIGNATURE_ED25519
    return VerifierKey(name, kind, key.public_key().public_bytes_raw())


def cosigned_at(note: Note, key: VerifierKey) -> int:
    """Check a cosignature and return its time in seconds since the epoch.

    Raises:
        SignatureError: there is none of that key, or it does not verify.
    """
    value = note.signature_of(key)
    if value is None or len(value) <= _TIME.size:
        raise SignatureError("no cosignature of that key")
    timestamp: int = _TIME.unpack_from(value)[0]
    key.check(_cosigned(Checkpoint.of(note), key, timestamp, note.text), value[_TIME.size :])
    return timestamp


def _cosigned(checkpoint: Checkpoint, key: VerifierKey, timestamp: int, text: str | None = None) -> bytes:
    if key.kind is Kind.COSIGNATURE_ED25519:
        return f"cosignature/v1\ntime {timestamp}\n{text or checkpoint.text}".encode()
    name, origin = key.name.encode(), checkpoint.origin.encode()
    return b"".join(
        [
            b"subtree/v1\n\0", bytes([len(name)]), name, _TIME.pack(timestamp), bytes([len(origin)]), origin,
            _TIME.pack(0), _TIME.pack(checkpoint.size), checkpoint.root,
        ]
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProofFile:
    """That an entry is in a log, in one file."""

    index: int
    path: tuple[bytes, ...]
    note: Note
    extra: bytes = b""

    def __str__(self) -> str:
        extra = [f"extra {base64.b64encode(self.extra).decode()}"] if self.extra else []
        hashes = [base64.b64encode(item).decode() for item in self.path]
        return "\n".join([PROOF_HEADER, *extra, f"index {self.index}", *hashes, "", str(self.note)])

    def verify(self, leaf_hash: bytes) -> None:
        """Check that the entry is in the tree of the checkpoint; the checkpoint's signature is the caller's to check.

        Raises:
            ProofError: it is not shown.
        """
        checkpoint = Checkpoint.of(self.note)
        proofs.verify_inclusion(leaf_hash, self.index, checkpoint.size, self.path, checkpoint.root)


def parse_proof(content: str) -> ProofFile:
    """Return the parts of a proof file.

    Raises:
        NoteError: it is not one.
    """
    head, _, note = content.partition("\n\n")
    lines = head.split("\n")
    try:
        if lines.pop(0) != PROOF_HEADER:
            raise NoteError("not a proof file")
        extra = base64.b64decode(lines.pop(0).removeprefix("extra "), validate=True) if lines[0].startswith("extra ") else b""
        index = re.fullmatch(r"index (0|[1-9]\d{0,18})", lines.pop(0))
        path = tuple(base64.b64decode(line, validate=True) for line in lines)
    except (IndexError, binascii.Error, ValueError):
        raise NoteError("not a proof file") from None
    if not index or any(len(item) != SIZE for item in path):
        raise NoteError("not a proof file")
    return ProofFile(int(index[1]), path, notes.parse(note), extra)


def request(old: int, path: Sequence[bytes], note: Note) -> str:
    """Return the body that a witness is asked with (C2SP *tlog-witness*, ``add-checkpoint``)."""
    return "\n".join([f"old {old}", *(base64.b64encode(item).decode() for item in path), "", str(note)])
