"""Test vectors of the specification: made-up keys, everything else computed by the code that is used."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from obhut.auditlog import entries
from obhut.auditlog.entries import Entry, Position, Sealed
from obhut.auditlog.signing import Signer
from obhut.auditlog.tlog import checkpoints, merkle, proofs, tiles
from obhut.auditlog.tlog.checkpoints import Checkpoint, ProofFile
from obhut.foundation import notes
from obhut.keystore.sealing import key_of, seal_with

FILE_NAME: Final = "audit-log.json"
_ORIGIN: Final = "obhut.audit-log/01m800000000000000000vect0"
_AT: Final = datetime(2026, 11, 23, 9, 30, 1, 1, tzinfo=UTC)


def render() -> str:
    """Return the vectors as JSON, the same octets every time (ML-DSA is randomised, so it is not among them)."""
    plaintext = entries.plain(bytes(range(16)), {"key": {"id": "4711"}, "old": {"email": None}, "new": {"email": "anna@example.org"}})
    found, bound, sealed = _entries(plaintext)
    octets = [entries.encode(entry) for entry in found]
    hashes = merkle.leaves(octets)
    read = proofs.of_leaves(b"".join(hashes))
    size = len(octets)
    checkpoint = Checkpoint(_ORIGIN, size, merkle.root(b"".join(hashes)))
    signer = Signer(Ed25519PrivateKey.from_private_bytes(b"\x11" * 32), MLDSA44PrivateKey.from_seed_bytes(b"\x22" * 32))
    witness = Ed25519PrivateKey.from_private_bytes(b"\x33" * 32)
    note = notes.with_signatures(signer.sign(checkpoint), [checkpoints.cosign(checkpoint, "witness.example/w", witness, 1_795_426_201)])
    document = {
        "origin": _ORIGIN,
        "log_key_seed": "11" * 32,
        "verifier_keys": [str(key) for key in signer.verifier_keys(_ORIGIN)],
        "witness_key_seed": "33" * 32,
        "witness_verifier_key": str(checkpoints.cosigner("witness.example/w", witness)),
        "entries": [one.decode() for one in octets],
        "leaf_hashes": [one.hex() for one in hashes],
        "roots": [merkle.root(b"".join(hashes[:count])).hex() for count in range(size + 1)],
        "inclusion": [[step.hex() for step in proofs.inclusion(read, index, size)] for index in range(size)],
        "consistency": [[step.hex() for step in proofs.consistency(read, old, size)] for old in range(size + 1)],
        "checkpoint": str(note),
        "proof": str(ProofFile(1, tuple(proofs.inclusion(read, 1, size)), note, octets[1])),
        "bundle_of_entries": base64.b64encode(tiles.frame(octets)).decode(),
        "tile_paths": {str(number): tiles.path(0, number) for number in (0, 67, 1_067, 1_234_067)} | {"0.p/5": tiles.path(0, 0, 5)},
        "sealed": {
            "key": "44" * 32,
            "associated": bound.decode(),
            "plaintext": plaintext.decode(),
            "digest": entries.digest(plaintext).hex(),
            "ciphertext": base64.b64encode(sealed).decode(),
        },
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _entries(plaintext: bytes) -> tuple[list[Entry], bytes, bytes]:
    place = Position("7575000000000000001", 1, "0/16B3748", 0)
    key = key_of(b"\x40" * 16, b"\x44" * 32)
    bound = entries.binding("ctl_1", "courses", "public.customer", "update", place, entries.Part.ROW)
    sealed = seal_with(key, plaintext, bound, b"\x55" * 12)
    part = Sealed("row", key.id, key.commitment, entries.digest(plaintext), sealed)
    change = entries.change(
        at=_AT, position=place, database="courses", table="public.customer", operation="update", sealed=[part],
        fact=entries.Fact("app", "web", "10.0.0.7"),
    )  # fmt: skip
    found = [
        entries.opening(at=datetime(2026, 11, 1, 0, 0, 3, tzinfo=UTC), controller="ctl_1", period="2026-11", previous=None),
        change,
        entries.gap(at=_AT, database="courses", reason="truncate", table="public.booking", detail={"rows": 12}, capture="wal"),
        entries.action(at=_AT, name="erase.effective", database="courses", detail={"outbox": 7, "people": 1, "instruction": "ins_1"}),
    ]
    return found, bound, sealed
