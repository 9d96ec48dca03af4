"""JSON and arrays, element by element: leaves of one path are gathered over a whole chunk, masked in bulk, and put back.

A text leaf that no path names is replaced, a number or truth value goes to null, and so does a member whose very name looks like a value
(an address, a long number): what the map does not know never passes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from obhut.masking.fields import NULL, array_of, elements, escape, unescape
from obhut.masking.make.base import Cells, Maker, Rows

Path = tuple[str | None, ...]  # None stands for [*]
Leaf = Callable[[list[Any]], list[Any]]  # values of one path to new ones
Slot = tuple[Any, Any]  # the list or object that holds a leaf, and its place there
_NAME_IS_VALUE = re.compile(r"@|\d{5}|^.{65}", re.DOTALL)


def by_element(inner: Maker) -> Maker:
    """Return a maker for arrays: every element that is not NULL goes through ``inner``."""

    def make(_: Rows, cells: Cells) -> Cells:
        taken = [None if cell == NULL else elements(unescape(cell)) for cell in cells]
        flat = [escape(value) for found in taken if found for value in found[0] if value is not None]
        made = iter(inner(Rows([flat]), flat) if flat else ())
        return [
            NULL if found is None else escape(array_of([None if value is None else unescape(next(made)) for value in found[0]], found[1]))
            for found in taken
        ]

    return make


def documents(paths: Mapping[Path, Leaf | None], rest: Leaf | None, *, numbers: bool, names: bool) -> Maker:
    """Return a maker for JSON.

    Args:
        paths: what becomes of the leaves at a path (or below it); None keeps them.
        rest: what becomes of other text leaves; None keeps them, and everything else too.
        numbers: whether other numbers and truth values stay.
        names: whether members stay that no path names.
    """
    tree = _tree(paths)

    def make(_: Rows, cells: Cells) -> Cells:
        known = [index for index, cell in enumerate(cells) if cell != NULL]
        holders: list[list[Any]] = [[json.loads(unescape(cells[index]))] for index in known]
        gathered: dict[int, tuple[Leaf, list[Slot]]] = {}
        for holder in holders:
            _gather(holder, tree, rest, gathered, numbers=numbers or rest is None, names=names or rest is None)
        for leaf, slots in gathered.values():
            for (container, place), value in zip(slots, leaf([container[place] for container, place in slots]), strict=True):
                container[place] = value
        made = dict(zip(known, holders, strict=True))
        return [_written(made[index][0]) if index in made else NULL for index in range(len(cells))]

    return make


class _Node:
    """A step of the paths: what follows by name, what follows for elements, and what becomes of the leaves here."""

    __slots__ = ("elements", "leaf", "members", "named")

    def __init__(self) -> None:
        self.members: dict[str, _Node] = {}
        self.elements: _Node | None = None
        self.named = False
        self.leaf: Leaf | None = None


def _tree(paths: Mapping[Path, Leaf | None]) -> _Node:
    root = _Node()
    for path, leaf in paths.items():
        node = root
        for step in path:
            if step is None:
                node.elements = node.elements or _Node()
                node = node.elements
            else:
                node = node.members.setdefault(step, _Node())
        node.named, node.leaf = True, leaf
    return root


def _gather(
    holder: list[Any], tree: _Node, rest: Leaf | None, gathered: dict[int, tuple[Leaf, list[Slot]]], *, numbers: bool, names: bool
) -> None:
    """Sort the leaves of a document by what becomes of them; without recursion, so that depth is no limit."""
    waiting: list[tuple[Any, Any, _Node | None, _Node | None]] = [(holder, 0, tree, None)]  # container, place, node, the rule above
    while waiting:
        container, place, node, above = waiting.pop()
        value = container[place]
        rule = node if node is not None and node.named else above
        if isinstance(value, dict):
            for name in list(value):
                below = node.members.get(name) if node else None
                if below is None and rule is None and (not names or (rest is not None and _NAME_IS_VALUE.search(name))):
                    del value[name]
                else:
                    waiting.append((value, name, below, rule))
        elif isinstance(value, list):
            waiting += [(value, index, node.elements if node else None, rule) for index in range(len(value))]
        elif value is not None:
            _leaf(container, place, rule, rest, gathered, numbers=numbers)


def _leaf(
    container: Any, place: Any, rule: _Node | None, rest: Leaf | None, gathered: dict[int, tuple[Leaf, list[Slot]]], *, numbers: bool
) -> None:
    if rule is not None:
        chosen = rule.leaf
    elif isinstance(container[place], str):
        chosen = rest
    else:
        if not numbers:
            container[place] = None
        return
    if chosen is not None:
        gathered.setdefault(id(chosen), (chosen, []))[1].append((container, place))


def _written(value: Any) -> bytes:
    return escape(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8", "surrogatepass"))


def through(inner: Maker) -> Leaf:
    """Return what becomes of leaves that a column's maker masks: text stays text, a number a number where it can."""

    def leaf(values: list[Any]) -> list[Any]:
        cells = [escape(_text(value).encode("utf-8", "surrogatepass")) for value in values]
        made = inner(Rows([cells]), cells)
        return [
            _like(value, unescape(new).decode("utf-8", "replace")) if new != NULL else None for value, new in zip(values, made, strict=True)
        ]

    return leaf


def always(value: Any) -> Leaf:
    """Return what becomes of leaves that all get the same value."""
    return lambda values: [value] * len(values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _like(old: Any, new: str) -> Any:
    if isinstance(old, bool):
        return new in {"true", "t"}
    if isinstance(old, int | float):
        try:
            return int(new) if isinstance(old, int) else float(new)
        except ValueError:
            return new
    return new
