"""Looks for known strings in files, output and tables, in the forms in which PostgreSQL and Python may leave them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path

_BLOCK = 1 << 20


def variants(value: str) -> set[bytes]:
    """Return the forms of a string that a byte search can find."""
    forms = {value, value.lower(), value.upper()}
    found: set[bytes] = set()
    for form in forms:
        raw = form.encode()
        found |= {
            raw,
            raw.hex().encode(),
            raw.hex().upper().encode(),
            form.encode("utf-16-le"),
            json.dumps(form)[1:-1].encode(),
            repr(form)[1:-1].encode(),
        }
        # Inside a longer base64 text the string stands at one of three offsets; its first and last characters mix with the neighbours.
        found |= {base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)}
    return {form for form in found if len(form) >= 6}


def hits(path: Path, values: Iterable[str]) -> list[str]:
    """Return the files at or below a path that hold one of the strings; also in their names."""
    wanted = {form: value for value in values for form in variants(value)}
    longest = max(len(form) for form in wanted)
    found = []
    for file in sorted([path] if path.is_file() else path.rglob("*")):
        if any(form in file.name.encode() for form in wanted):
            found.append(f"name of {file}")
        if file.is_file() and not file.is_symlink() and (value := _first(file, wanted, longest)):
            found.append(f"{file}: {value}")
    return found


def in_text(text: str, values: Iterable[str]) -> list[str]:
    """Return which of the strings stand in a text."""
    raw = text.encode()
    return [value for value in values if any(form in raw for form in variants(value))]


def _first(file: Path, wanted: dict[bytes, str], longest: int) -> str | None:
    tail = b""
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            text = tail + block
            for form, value in wanted.items():
                if form in text:
                    return value
            tail = text[-longest:]
    return None
