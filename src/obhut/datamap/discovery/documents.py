"""Which paths JSON documents have, without telling what stands in them - not even in their keys.

A key is only named when it is written like an identifier, when several documents share it, when it is no first name, and when its level
does not have so many different keys that they must be values.
"""

from __future__ import annotations

import re
from typing import Any, Final

from obhut.datamap.discovery.values import is_first

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}")
_NUMBERED: Final = re.compile(r"\d{4,}")
_KEYS: Final = 60  # different keys of one level; more are values
_DEPTH: Final = 8
_TEXTS: Final = 3_000  # texts that are remembered of a path


class Inventory:
    """Counts paths over many documents. ``[*]`` stands for the elements of an array, as in the data map."""

    def __init__(self) -> None:
        self.documents = 0
        self.unruly = False
        self._seen: dict[str, int] = {}
        self._texts: dict[str, list[str]] = {}
        self._levels: dict[str, dict[str, bool]] = {}  # by path its keys, and whether each may be named

    def add(self, document: Any) -> None:
        """Take one document in."""
        self.documents += 1
        self._walk("$", document, 0, set())

    def _walk(self, path: str, value: Any, depth: int, counted: set[str]) -> None:
        if depth > _DEPTH:
            self.unruly = True
        elif isinstance(value, dict):
            for key, inner in value.items():
                if self._named(path, key):
                    self._walk(f"{path}.{key}", inner, depth + 1, counted)
        elif isinstance(value, list):
            for inner in value:
                self._walk(f"{path}[*]", inner, depth + 1, counted)
        elif value is not None:
            self._leaf(path, value, counted)

    def _named(self, path: str, key: str) -> bool:
        level = self._levels.setdefault(path, {})
        if key not in level:
            level[key] = bool(_IDENTIFIER.fullmatch(key)) and not _NUMBERED.search(key) and not is_first(key) and len(level) < _KEYS
            self.unruly = self.unruly or not level[key]
        return level[key]

    def _leaf(self, path: str, value: Any, counted: set[str]) -> None:
        if path not in counted:
            counted.add(path)
            self._seen[path] = self._seen.get(path, 0) + 1
        texts = self._texts.setdefault(path, [])
        if isinstance(value, str) and value and len(texts) < _TEXTS:
            texts.append(value)

    def paths(self) -> dict[str, int]:
        """Return the paths that may be named, with the number of documents that have them."""
        crowded = {path for path, keys in self._levels.items() if len(keys) > _KEYS}
        least = 1 if self.documents < 20 else 2
        found = {}
        for path, count in self._seen.items():
            if count >= least and not any(path.startswith(f"{level}.") for level in crowded):
                found[path] = count
            else:
                self.unruly = True
        return dict(sorted(found.items()))

    def texts(self) -> dict[str, list[str]]:
        """Return the texts below each path that may be named; they leave memory with the look at them."""
        return {path: self._texts[path] for path in self.paths()}
