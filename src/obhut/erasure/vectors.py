"""Test vectors of the specification: a small list with made-up keys, the same bytes every time (``docs/spec/vectors``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.erasure import chain, entries, notes
from obhut.erasure.entries import Action, Decision, Epoch, Inventory, Members, NewTombstone, Private, canonical
from obhut.erasure.fingerprints import fingerprint, judge
from obhut.erasure.mirror import LABEL_PREFIX, associated_data, frame, private_lines
from obhut.foundation.clock import stamp
from obhut.foundation.ids import RunId

FILE_NAME: Final = "erasure-list.json"
_ORIGIN: Final = chain.ORIGIN_PREFIX + "01m800000000000000000vect0"
_SIGNING_KEY: Final = bytes(range(32))
_MAC_KEY: Final = bytes(range(32, 64))
_DATA_KEY: Final = bytes(range(64, 96))
_START: Final = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
_CREATED: Final = "2024-02-29 10:00:00.123456+00"
_LATER: Final = "2026-12-01 08:00:00+00"


def render() -> str:
    """Return the vectors as the text of :data:`FILE_NAME`."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def document() -> dict[str, Any]:
    """Return the vectors."""
    key = Ed25519PrivateKey.from_private_bytes(_SIGNING_KEY)
    listed, privates = _entries()
    texts = [canonical(members) for members in listed]
    heads = [chain.start(_ORIGIN)]
    for text in texts:
        heads.append(chain.extend(heads[-1], text))
    segments = [_segment(texts[:3], heads, privates, 1, key), _segment(texts[3:], heads, privates, 4, key)]
    return {
        "about": "docs/spec/erasure-list.md; every key in this file is made up",
        "origin": _ORIGIN,
        "public_key": key.public_key().public_bytes_raw().hex(),
        "verifier_key": str(notes.verifier_key(_ORIGIN, key.public_key())),
        "mac_key": _MAC_KEY.hex(),
        "data_keys": {LABEL_PREFIX + "2026-11-23": _DATA_KEY.hex()},
        "start": heads[0].hex(),
        "entries": [{"text": text, "head": head.hex()} for text, head in zip(texts, heads[1:], strict=True)],
        "private": [{"seq": item.seq, "salt": item.salt.hex(), "text": item.text} for item in privates],
        "states": {"1": "retired", "4": "lifted"},
        "fingerprints": _fingerprints(),
        "mirror": {"2026-11.segments": "".join(segments)},
        "anchor": notes.sign(notes.Checkpoint(_ORIGIN, len(texts), heads[-1], _at(7)), key),
        "canonical": [
            {"json": '{ "b": ["\\u00e4", 1], "a": "\\u001F\\n\\/\\"" }', "text": canonical({"b": ["ä", 1], "a": '\x1f\n/"'})},
            {"json": '{"z": 9007199254740991, "a": []}', "text": canonical({"z": 2**53 - 1, "a": []})},
        ],
    }


def _at(seq: int) -> datetime:
    return _START + timedelta(seconds=seq, microseconds=seq)


def _salt(seq: int) -> bytes:
    return bytes([seq]) * chain.SALT_BYTES


def _entries() -> tuple[list[Members], list[Private]]:
    print_of_first = fingerprint(_MAC_KEY, "courses", "user", [_CREATED])
    first = NewTombstone("courses", "ctl_1", "user", ("17",), Action.ERASE, "2026-11-01", "ins_1", print_of_first)
    fourth = NewTombstone("courses", 'ctl "2"', "seat", ("A\\7", "ß\n"), Action.ANONYMISE, "2026-11-01", "ins_2")
    privates = [
        Private(1, _salt(1), entries.private_of_tombstone(first.key, first.fingerprint)),
        Private(4, _salt(4), entries.private_of_tombstone(fourth.key, fourth.fingerprint)),
        Private(5, _salt(5), entries.private_of_resolution(fingerprint(_MAC_KEY, "courses", "user", [_LATER]))),
    ]
    commitments = [chain.commit(item.salt, item.text) for item in privates]
    inventory = Inventory("courses", complete=True, copies_since=_at(6), taken_at=_at(7))
    listed = [
        entries.tombstone(1, _at(1), "ts_1", first, 0, commitments[0]),
        entries.effective(2, _at(2), "courses", RunId("run_1"), "0/16B3748", [1]),
        entries.epoch(3, Epoch("courses", 1, RunId("run_2"), "7575000000000000001", 2, _at(3))),
        entries.tombstone(4, _at(4), "ts_4", fourth, 1, commitments[1]),
        entries.resolved(5, _at(5), 1, Decision.OTHER_PERSON, "ins_3", commitments[2]),
        entries.lifted(6, _at(6), "ins_4", [4]),
        entries.retired(7, _at(7), inventory, [1]),
    ]
    return listed, privates


def _segment(texts: Sequence[str], heads: Sequence[bytes], privates: Sequence[Private], first: int, key: Ed25519PrivateKey) -> str:
    last = first + len(texts) - 1
    inside = [item for item in privates if first <= item.seq <= last]
    nonce = bytes([first]) * 12
    sealed = nonce + AESGCM(_DATA_KEY).encrypt(nonce, private_lines(inside), associated_data(_ORIGIN, first, len(texts)))
    note = notes.sign(notes.Checkpoint(_ORIGIN, last, heads[last], _at(last)), key)
    return b"".join(frame(first, texts, (LABEL_PREFIX + "2026-11-23", sealed), note)).decode()


def _fingerprints() -> list[dict[str, Any]]:
    erased_at = _at(1)
    mine = fingerprint(_MAC_KEY, "courses", "user", [_CREATED])
    cases: list[tuple[str, list[str | None], str | None]] = [
        (mine, [_CREATED], _CREATED),
        (mine, [_LATER], _LATER),
        (mine, ["2024-03-01 10:00:00+00"], "2024-03-01 10:00:00+00"),
        (mine, ["2024-03-01 10:00:00+00"], None),
        (mine, [None], None),
        ("", [_CREATED], None),
    ]
    return [
        {
            "tombstone": expected,
            "erased_at": stamp(erased_at),
            "row": ["courses", "user", values],
            "created_at": created,
            "fingerprint": found,
            "verdict": judge(
                expected, found, erased_at=erased_at, created_at=datetime.fromisoformat(created) if created else None
            ).name.lower(),
        }
        for expected, values, created in cases
        for found in [fingerprint(_MAC_KEY, "courses", "user", values)]
    ]


def example(width: int = 130) -> str:
    """Return the first segment for the first screen of the specification, long lines shortened by ``…``."""
    lines = document()["mirror"]["2026-11.segments"].split("end 1 3 ")[0].split("\n")[:-1]
    footer = document()["mirror"]["2026-11.segments"].split("\n")[len(lines)]
    return "\n".join(_short(line, width) for line in [*lines, footer])


def _short(line: str, width: int) -> str:
    for value in sorted({part for part in line.replace('"', " ").split() if len(part) > 48}, key=len, reverse=True):
        line = line.replace(value, value[:12] + "…")
    return line if len(line) <= width or line.startswith("{") else line[: width - 1] + "…"
