"""The keys that sign checkpoints: one of each kind a controller, for all its periods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from obhut.auditlog.tlog import checkpoints
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.foundation import notes
from obhut.foundation.notes import Kind, Note, VerifierKey

_NAME: Final = "audit-log/"


class SigningKeys(Protocol):
    """What signing needs of a key store."""

    def signing_key(self, name: str) -> Ed25519PrivateKey:
        """Return the Ed25519 key of this name, made on first use."""
        ...

    def mac_key(self, name: str) -> bytes:
        """Return 32 secret octets of this name, made on first use."""
        ...


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one controller."""

    ed25519: Ed25519PrivateKey
    mldsa44: MLDSA44PrivateKey

    @classmethod
    def of(cls, keys: SigningKeys, controller: str) -> Signer:
        """Return the signer of a controller; the ML-DSA-44 key grows from a seed that the key store keeps."""
        name = _NAME + controller
        return cls(keys.signing_key(name), MLDSA44PrivateKey.from_seed_bytes(keys.mac_key(f"{name}/ml-dsa-44")))

    def sign(self, checkpoint: Checkpoint) -> Note:
        """Return the checkpoint with the log's Ed25519 signature: what every append publishes."""
        return Note(checkpoint.text, (checkpoints.sign(checkpoint, self.ed25519),))

    def hand_out(self, checkpoint: Checkpoint, now: datetime) -> Note:
        """Return the checkpoint with both signatures: what leaves the house (ML-DSA-44 takes a millisecond)."""
        timestamp = int(now.timestamp())
        second = checkpoints.cosign(checkpoint, checkpoint.origin, self.mldsa44, timestamp)
        return notes.with_signatures(self.sign(checkpoint), [second])

    def verifier_keys(self, origin: str) -> tuple[VerifierKey, VerifierKey]:
        """Return the public keys under the name of a log."""
        public = self.ed25519.public_key().public_bytes_raw()
        return VerifierKey(origin, Kind.ED25519, public), checkpoints.cosigner(origin, self.mldsa44)
