"""Names of definitions, as they may be said: a name that itself holds an erased person's identifier is never printed or kept.

An index or a partition may be named after a person. Such a definition is called by its kind and a keyed digest of its name, which is the
same in every restore of this installation and tells nobody else anything. In the journal all names are kept that way, because what a
command line says is written down before anybody knows who is erased.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable

from obhut.restores.schema import Entry

_OPAQUE = re.compile(r"(?:[A-Z ]+ )?#([0-9a-f]{16})")
_WORD = re.compile(r"[^\W_]{4,}")


def digest(name: str, key: bytes) -> str:
    """Return the digest of a definition's name, or the one that an opaque name holds."""
    found = _OPAQUE.fullmatch(name)
    return found[1] if found else hmac.new(key, f"name of a definition: {name}".encode(), hashlib.sha256).hexdigest()[:16]


class Names:
    """What each definition may be called."""

    def __init__(self, entries: Iterable[Entry], key: bytes) -> None:
        self._kinds = {entry.name: entry.kind for entry in entries}
        self._key = key
        self._hidden: dict[str, str] = {}

    def hide(self, names: Iterable[str], values: Collection[str]) -> None:
        """Give those names an opaque one that hold (a part of) one of the values: under an underscore a dot may hide."""
        words = {word for value in values for word in [value.lower(), *_WORD.findall(value.lower())]}
        for name in names:
            kind = self._kinds.get(name)
            if kind is not None and any(word in name.removeprefix(kind).lower() for word in words):
                self._hidden[name] = f"{kind} #{digest(name, self._key)}"

    def digest(self, name: str) -> str:
        """Return the digest of a name."""
        return digest(name, self._key)

    def said(self, name: str) -> str:
        """Return the name, or the opaque one in its place."""
        return self._hidden.get(name, name)

    def among(self, digests: Collection[str]) -> set[str]:
        """Return the names with one of these digests."""
        return {name for name in self._kinds if digest(name, self._key) in digests} if digests else set()
