"""A stranger's verifier of an erasure list's mirror, written from docs/spec/erasure-list.md alone; imports nothing of Obhut.

Usage: erasure_list.py MIRROR-DIRECTORY ANCHOR-FILE PUBLIC-KEY-HEX [LABEL=DATA-KEY-HEX …]
Prints size, head and the states of the tombstones; leaves with status 1 and a sentence when something does not verify.
"""

# ruff: noqa: BLE001 - sixty lines that a reader compares with the page

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MOVES = {"effective": ["recorded"], "lifted": ["recorded", "effective"], "retired": ["effective"]}


def canonical(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def open_note(note, public):
    body, _, signature = note.partition("\n\n")
    origin, size, head, time = body.split("\n")
    dash, name, blob = signature.rstrip("\n").split(" ")
    raw = base64.b64decode(blob, validate=True)
    assert (dash, name) == ("\u2014", origin) and time.startswith("time "), "not a checkpoint"
    assert raw[:4] == hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4], "another key"
    Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], (body + "\n").encode())
    return origin, int(size), base64.b64decode(head, validate=True)


def apply(entry, states):
    if entry["kind"] == "tombstone":
        states[entry["seq"]] = "recorded"
    for low, high in entry.get("tombstones", []):
        for number in range(low, high + 1):
            assert states[number] in MOVES[entry["kind"]], f"illegal move in entry {entry['seq']}"
            states[number] = entry["kind"]


def verify(directory, anchor, public, keys):
    origin, anchored, anchored_head = open_note(anchor, public)
    head, size, states, heads = hashlib.sha256(b"obhut erasure list v1 origin\n" + origin.encode()).digest(), 0, {}, {}
    for path in sorted(directory.glob("*.segments")):
        rest = path.read_bytes()
        while rest:
            header, _, rest = rest.partition(b"\n")
            word, first, count, octets = header.decode().split(" ")
            block, rest = rest[: int(octets)], rest[int(octets) :]
            assert word == "segment" and int(first) == size + 1 and len(block) == int(octets), f"broken segment at {size + 1}"
            lines = block.decode().split("\n")
            texts, sealed, note, footer = lines[: int(count)], lines[int(count)], lines[int(count) + 1 : -2], lines[-2]
            assert footer == f"end {first} {count} {octets}", "broken footer"
            for text in texts:
                entry = json.loads(text)
                size += 1
                assert entry["seq"] == size and canonical(entry) == text, f"entry {size}"
                head = hashlib.sha256(b"obhut erasure list v1 entry\n" + head + text.encode()).digest()
                apply(entry, states)
            assert open_note("\n".join(note) + "\n", public) == (origin, size, head), "checkpoint"
            heads[size] = head
            label = sealed.split(" ")[1]
            if label in keys:
                blob = base64.b64decode(sealed.split(" ")[2], validate=True)
                data = f"obhut erasure list v1 sealed\n{origin}\n{first} {count}".encode()
                for line in AESGCM(keys[label]).decrypt(blob[:12], blob[12:], data).decode().split("\n")[:-1]:
                    seq, salt, private = line.split(" ", 2)
                    commitment = hashlib.sha256(b"obhut erasure list v1 private\n" + bytes.fromhex(salt) + private.encode()).hexdigest()
                    assert json.loads(texts[int(seq) - int(first)])["commitment"] == commitment, f"private part of {seq}"
    assert size >= anchored and (anchored == 0 or heads.get(anchored) == anchored_head), "behind the anchor, or another history"
    return {"size": size, "head": head.hex(), "states": {str(number): state for number, state in states.items()}}


if __name__ == "__main__":
    given = {label: bytes.fromhex(key) for label, _, key in (argument.partition("=") for argument in sys.argv[4:])}
    try:
        print(json.dumps(verify(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text(), bytes.fromhex(sys.argv[3]), given)))
    except Exception as error:
        sys.exit(f"does not verify: {error!r}")
