"""Values that concern several people at once: shares of a piece of a row, one in the part of each (specification, section 3).

All shares but one are random, the last is their exclusive or with the piece: whoever misses one has nothing, so destroying the key of any
of these people makes the value unreadable.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_ID: Final = 16  # octets that tell which shares belong together


def split(members: Mapping[str, Any], count: int) -> list[dict[str, str]]:
    """Return the shares of a piece of a row."""
    piece = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    name = os.urandom(_ID).hex()
    shares = [os.urandom(len(piece)) for _ in range(count - 1)]
    last = int.from_bytes(piece, "big")
    for share in shares:
        last ^= int.from_bytes(share, "big")
    return [{"id": name, "share": share.hex()} for share in (*shares, last.to_bytes(len(piece), "big"))]


def joined(shares: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the piece of a row from all of its shares.

    Raises:
        ValueError: a share is missing, or they do not belong together.
    """
    if len({share["id"] for share in shares}) != 1:
        raise ValueError("shares of several pieces")
    octets = [bytes.fromhex(share["share"]) for share in shares]
    whole = 0
    for part in octets:
        whole ^= int.from_bytes(part, "big")
    found = json.loads(whole.to_bytes(len(octets[0]), "big"))
    if not isinstance(found, dict):
        raise ValueError("a share is missing")  # noqa: TRY004 - random octets that happen to be JSON
    return found


def together(parts: Iterable[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """Return the pieces of an entry of which every share could be opened.

    Args:
        parts: what its sealed parts say; None for one that is erased or closed.
    """
    of: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for part in parts:
        for share in (part or {}).get("split", ()):
            of[share["id"]].append(share)
    found = []
    for shares in of.values():
        try:
            found.append(joined(shares))
        except ValueError:
            continue  # of a share that is gone nothing can be told, not even that it was the last
    return found
