"""Cells of PostgreSQL's COPY text format and the text form of arrays: as bytes, as little touched as can be."""

from __future__ import annotations

import re
from collections.abc import Sequence

NULL = rb"\N"
_UNESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPES = {8: rb"\b", 9: rb"\t", 10: rb"\n", 11: rb"\v", 12: rb"\f", 13: rb"\r", 92: rb"\\"}
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL = re.compile(rb"[\x08-\x0d\\]")
# An element of an array: quoted with backslashes, or bare up to the next comma or brace.
_ELEMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)


def unescape(cell: bytes) -> bytes:
    """Return what a cell means; NULL is the caller's business."""
    return cell if b"\\" not in cell else _ESCAPED.sub(lambda found: _UNESCAPES.get(found[1], found[1]), cell)


def escape(value: bytes) -> bytes:
    """Return a value as a cell."""
    return value if _SPECIAL.search(value) is None else _SPECIAL.sub(lambda found: _ESCAPES[found[0][0]], value)


def elements(array: bytes) -> tuple[list[bytes | None], list[bytes]]:
    """Return an array's elements (None for NULL) and what stands around them, one piece more than there are elements.

    Args:
        array: its text form, such as ``{a,"b c",NULL}``; nested arrays and bounds keep their braces in the pieces around.
    """
    start = array.find(b"=") + 1 if array.startswith(b"[") else 0  # [2:3]={a,b}: the bounds are no elements
    found: list[bytes | None] = []
    around: list[bytes] = []
    last = 0
    for match in _ELEMENT.finditer(array, start):
        around.append(array[last : match.start()])
        last = match.end()
        if match[1] is not None:
            found.append(_ESCAPED.sub(rb"\1", match[1]))
        else:
            found.append(None if match[2].upper() == b"NULL" else match[2])
    around.append(array[last:])
    return found, around


def array_of(values: Sequence[bytes | None], around: Sequence[bytes]) -> bytes:
    """Return the text form of an array: the opposite of :func:`elements`; every value is quoted, whatever its type."""
    pieces = [around[0]]
    for value, after in zip(values, around[1:], strict=True):
        pieces += (_quoted(value), after)
    return b"".join(pieces)


def _quoted(value: bytes | None) -> bytes:
    if value is None:
        return b"NULL"
    return b'"' + value.replace(b"\\", rb"\\").replace(b'"', rb"\"") + b'"'
