"""Test vectors of the specification of audit log keys: made-up keys, the same bytes every time (``docs/spec/vectors``)."""

from __future__ import annotations

import json
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.controllers.vocabulary import SubjectRef
from obhut.keystore.sealing import VERSION, key_of, seal_with
from obhut.keystore.wrapping import EpochKey, epoch_context, fingerprint, key_name, subject_text

FILE_NAME: Final = "audit-log-keys.json"
_ID: Final = bytes(range(16))
_SECRET: Final = bytes([7]) * 32
_NONCE: Final = bytes(range(100, 112))
_LOOKUP: Final = bytes(range(32))
_EPOCH_KEY: Final = bytes(range(64, 96))
_CONTEXT: Final = b"obhut audit entry 1 0"
_SUBJECTS: Final = (SubjectRef("user", ("42",)), SubjectRef("seat", ("A\\7", "ß\n")), SubjectRef(":staff", ('a "b"',)))


def render() -> str:
    """Return the vectors as the text of :data:`FILE_NAME`."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def document() -> dict[str, Any]:
    """Return the vectors."""
    key, epoch = key_of(_ID, _SECRET), EpochKey("ctl_1", 3, _EPOCH_KEY)
    values = [b"", b'{"name":"Ada"}', bytes(60), bytes(61), bytes(range(256)) * 70]
    sealed = [seal_with(key, value, _CONTEXT, _NONCE) for value in values]
    return {
        "about": "docs/spec/audit-log-keys.md; every key in this file is made up",
        "key": {"id": key.id.hex(), "secret": key.secret.hex(), "commitment": key.commitment.hex()},
        "context": _CONTEXT.hex(),
        "sealed": [{"value": value.hex(), "sealed": text.hex()} for value, text in zip(values, sealed, strict=True)],
        "refused": _refused(sealed[1]),
        "lookup_key": _LOOKUP.hex(),
        "subjects": [
            {"kind": ref.kind, "key": list(ref.key), "text": subject_text(ref).decode(), "fingerprint": fingerprint(_LOOKUP, ref).hex()}
            for ref in _SUBJECTS
        ],
        "epoch": {
            "controller": "ctl_1",
            "number": 3,
            "key_store_name": key_name("ctl_1", 3),
            "key_store_context": epoch_context("ctl_1", 3).hex(),
            "secret": _EPOCH_KEY.hex(),
            "wrapped_key": epoch.wrap_with(key, _NONCE).hex(),
            "wrapped_lookup": epoch.wrap_lookup_with(_LOOKUP, _NONCE).hex(),
        },
    }


def _refused(sealed: bytes) -> list[dict[str, str]]:
    """Return what a reader must refuse though it is encrypted under the right key."""
    key = key_of(_ID, _SECRET)
    bound = b"obhut audit seal v1\n" + key.id + key.commitment + _CONTEXT

    def under(padded: bytes) -> str:
        return (VERSION + _NONCE + AESGCM(_SECRET).encrypt(_NONCE, padded, bound)).hex()

    return [
        {"why": "a bit of the tag was changed", "sealed": (sealed[:-1] + bytes([sealed[-1] ^ 1])).hex()},
        {"why": "version 2", "sealed": (b"\x02" + sealed[1:]).hex()},
        {"why": "cut off", "sealed": sealed[:40].hex()},
        {"why": "the length exceeds the bucket", "sealed": under((61).to_bytes(4, "big") + bytes(60))},
        {"why": "a byte behind the value is not zero", "sealed": under((1).to_bytes(4, "big") + b"a" + bytes(58) + b"b")},
        {"why": "a larger bucket than needed", "sealed": under((1).to_bytes(4, "big") + b"a" + bytes(123))},
        {"why": "no bucket at all", "sealed": under((1).to_bytes(4, "big") + b"a")},
    ]
