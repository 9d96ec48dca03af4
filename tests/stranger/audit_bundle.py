"""A stranger's verifier of an audit bundle, written from docs/spec/audit-log.md alone; imports nothing of Obhut.

Usage: audit_bundle.py BUNDLE-DIRECTORY PUBLIC-KEY-BASE64
Prints entries, periods and gaps; leaves with status 1 and a sentence when something does not verify.
"""

# ruff: noqa: BLE001 - sixty lines that a reader compares with the page

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def tree(hashes):
    """RFC 6962, section 2.1, as it is printed there."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256(b"").digest()
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree(hashes[:k]) + tree(hashes[k:])).digest()


def tile(folder, level, number, width):
    name = f"{number % 1000:03d}"
    while number >= 1000:
        number //= 1000
        name = f"x{number % 1000:03d}/{name}"
    return (folder / "tile" / str(level) / (name if width == 256 else f"{name}.p/{width}")).read_bytes()


def open_checkpoint(text, origin, public):
    body, _, lines = text.rpartition("\n\n")
    name, size, root = body.split("\n")
    assert name == origin, "a checkpoint of another log"
    key_id = hashlib.sha256(origin.encode() + b"\n\x01" + public).digest()[:4]
    for line in lines.rstrip("\n").split("\n"):
        _, signer, blob = line.split(" ")
        raw = base64.b64decode(blob, validate=True)
        if (signer, raw[:4]) == (origin, key_id):
            Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], (body + "\n").encode())
            return int(size), base64.b64decode(root, validate=True)
    raise AssertionError("no signature of the log's key")


def unframe(content):
    found = []
    while content:
        length = int.from_bytes(content[:2], "big")
        assert len(content) >= 2 + length, "cut short"
        found.append(content[2 : 2 + length])
        content = content[2 + length :]
    return found


def inclusion(digest, index, size, path):
    """Fold a path from the leaf upwards, RFC 6962, section 2.1.1."""
    last = size - 1
    for sibling in path:
        if index % 2 or index == last:
            digest = hashlib.sha256(b"\1" + sibling + digest).digest()
            while index % 2 == 0 and index:
                index, last = index // 2, last // 2
        else:
            digest = hashlib.sha256(b"\1" + digest + sibling).digest()
        index, last = index // 2, last // 2
    assert last == 0, "a path of another length"
    return digest


def check_log(root, log, public, lines, counts, previous):
    folder = root / "logs" / log["period"]
    size, top = open_checkpoint((folder / "checkpoint").read_text(), log["origin"], public)
    assert size == log["size"], "another size"
    hashes = []
    for number in range(-(-size // 256)):
        content = tile(folder, 0, number, min(256, size - number * 256))
        hashes += [content[at : at + 32] for at in range(0, len(content), 32)]
    assert tree(hashes) == top, "the leaf hashes do not give the root"
    wanted = {0, *range(log["first"] // 256, log["last"] // 256 + 1)}
    for number in sorted(wanted):
        width = min(256, size - number * 256)
        for index, octets in enumerate(unframe(tile(folder, "entries", number, width)), number * 256):
            assert leaf(octets) == hashes[index], f"entry {index} differs"
            entry = json.loads(octets)
            if index == 0 and previous:
                said = entry["detail"]
                assert said["previous_origin"] == previous[0] and said["previous_size"] == previous[1], "a broken chain of periods"
                assert base64.b64decode(said["previous_root"]) == previous[2], "another history before"
            if log["first"] <= index <= log["last"]:
                check_entry(folder, log, index, entry, json.loads(next(lines)), counts)
    return log["origin"], size, top


def check_entry(folder, log, index, entry, line, counts):
    assert (line["log"], line["index"], line["entry"]) == (log["period"], index, entry), "the readable line differs"
    counts["entries"] += 1
    counts["gaps"] += entry["kind"] == "gap"
    for at, part in enumerate(entry.get("sealed", [])):
        if "blob" in part:
            content = (folder / "blob" / part["blob"][:2] / part["blob"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == part["blob"] and len(content) == part["size"], "a swapped blob"
        value = line.get("values", [None] * 9)[at]
        if value is not None:
            digest = hashlib.sha256(b"obhut audit log v1 value\n" + value.encode()).digest()
            assert digest == base64.b64decode(part["digest"]), "another value"
            counts["values"] += 1


def check_proof(root, name, logs, public, line, counts):
    head, _, note = (root / name).read_text().partition("\n\n")
    rows = head.split("\n")
    octets = base64.b64decode(rows[1].removeprefix("extra "))
    index, path = int(rows[2].removeprefix("index ")), [base64.b64decode(row) for row in rows[3:]]
    period = name.removeprefix("proofs/").removesuffix(".tlog-proof").rpartition("-")[0]
    size, top = open_checkpoint(note, logs[period]["origin"], public)
    assert inclusion(leaf(octets), index, size, path) == top, f"{name}: not in the log"
    check_entry(root / "logs" / period, logs[period], index, json.loads(octets), json.loads(line), counts)


def main(folder, key):
    root, public = pathlib.Path(folder), base64.b64decode(key)
    cover = json.loads((root / "bundle.json").read_text())
    assert cover["format"] == "obhut audit bundle 1", "another format"
    counts, previous = {"entries": 0, "gaps": 0, "values": 0}, None
    lines = iter((root / "entries.jsonl").read_text().splitlines())
    logs = {log["period"]: log for log in cover["logs"]}
    for name in cover.get("proofs", []):
        check_proof(root, name, logs, public, next(lines), counts)
    for log in [] if cover.get("proofs") else cover["logs"]:
        previous = check_log(root, log, public, lines, counts, previous)
    assert next(lines, None) is None, "more lines than entries"
    print(json.dumps({**counts, "periods": len(logs)}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"does not verify: {error or type(error).__name__}")
