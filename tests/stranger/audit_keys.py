"""A reader of sealed values written from docs/spec/audit-log-keys.md alone: imports nothing of Obhut.

Usage: audit_keys.py VECTORS. Opens every value, recomputes every derived byte, and refuses what must be refused; prints "accepted N refused M".
"""

import hashlib
import hmac
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def smallest_bucket(octets: int) -> int:
    for size in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384):
        if octets <= size:
            return size
    return (octets + 16383) // 16384 * 16384


def open_value(key: dict[str, bytes], sealed: bytes, context: bytes) -> bytes:
    commitment = hashlib.sha256(b"obhut audit key v1\n" + key["id"] + key["secret"]).digest()
    if commitment != key["commitment"]:
        raise ValueError("commitment")
    if len(sealed) < 1 + 12 + 64 + 16 or sealed[0] != 1:
        raise ValueError("form")
    bound = b"obhut audit seal v1\n" + key["id"] + commitment + context
    padded = AESGCM(key["secret"]).decrypt(sealed[1:13], sealed[13:], bound)
    length = int.from_bytes(padded[:4], "big")
    if length > len(padded) - 4 or set(padded[4 + length :]) - {0} or len(padded) != smallest_bucket(4 + length):
        raise ValueError("padding")
    return padded[4 : 4 + length]


def main() -> int:
    vectors = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    key = {name: bytes.fromhex(value) for name, value in vectors["key"].items()}
    context = bytes.fromhex(vectors["context"])
    accepted = refused = 0
    for item in vectors["sealed"]:
        assert open_value(key, bytes.fromhex(item["sealed"]), context).hex() == item["value"]
        accepted += 1
    others = [(key, item["sealed"], context) for item in vectors["refused"]]
    others.append((key, vectors["sealed"][1]["sealed"], context + b"x"))
    others.append(({**key, "secret": bytes(32)}, vectors["sealed"][1]["sealed"], context))
    for keys, sealed, bound in others:
        try:
            open_value(keys, bytes.fromhex(sealed), bound)
        except (ValueError, InvalidTag):
            refused += 1
        else:
            return 1
    lookup = bytes.fromhex(vectors["lookup_key"])
    for item in vectors["subjects"]:
        text = json.dumps([item["kind"], item["key"]], ensure_ascii=False, separators=(",", ":"))
        found = hmac.new(lookup, b"obhut audit subject v1\n" + text.encode(), "sha256").digest()[:16]
        assert (text, found.hex()) == (item["text"], item["fingerprint"])
    epoch = vectors["epoch"]
    head = f"{epoch['controller']}\n{epoch['number']}\n".encode()
    cipher = AESGCM(bytes.fromhex(epoch["secret"]))
    for name, role, tail, expected in (
        ("wrapped_key", b"subject\n", key["id"], key["secret"]),
        ("wrapped_lookup", b"lookup\n", b"", lookup),
    ):
        wrapped = bytes.fromhex(epoch[name])
        assert cipher.decrypt(wrapped[:12], wrapped[12:], b"obhut audit wrap v1\n" + role + head + tail) == expected
    assert epoch["key_store_name"] == f"audit/{epoch['controller']}/{epoch['number']}"
    assert bytes.fromhex(epoch["key_store_context"]) == f"obhut audit epoch v1\n{epoch['controller']}\n{epoch['number']}".encode()
    print(f"accepted {accepted} refused {refused}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
