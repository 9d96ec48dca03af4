"""Plain values from YAML with the line of every one of them.

The file is composed to nodes and read off by hand instead of being constructed: no tag ever becomes an object, duplicate keys are found,
and an alias cannot grow into more values than a map could hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from yaml.error import MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from obhut.datamap import parser

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_VALUES: Final = 1_000_000  # a map of 10,000 tables stays well below
MAX_DEPTH: Final = 60

Path = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_PLAIN = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Line and column, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of the file itself, found before its meaning is looked at."""

    position: Position
    path: Path
    fact: str
    todo: str


class Positions:
    """Positions by path; a path that is not in the file stands where its nearest written ancestor stands."""

    def __init__(self, places: Mapping[Path, Position], value: object) -> None:
        self._places = places
        self._value = value

    def of(self, path: Sequence[str | int]) -> Position:
        """Return where a path is written.

        A step that the file does not have is skipped (pydantic names the members of unions that way); one that is a name within a list, or
        within a short form, is looked for there.
        """
        current: Any = self._value
        found: Path = ()
        for step in path:
            if has(current, step):
                current, found = current[step], (*found, step)
            elif isinstance(step, str) and (nearer := _named(current, step)) is not None:
                found = (*found, *nearer)
                break
        while found and found not in self._places:
            found = found[:-1]
        return self._places.get(found, Position(1, 1))


def has(value: object, step: object) -> bool:
    """Whether a mapping has the key, or a list the place."""
    return (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int) and step < len(value))


def _named(value: object, name: str, depth: int = 4) -> Path | None:
    """Return the path below a value to the key or the scalar that is this name."""
    pairs: list[tuple[str | int, Any]] = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, content in pairs:
        if name in (key, content):
            return (key,)
    if depth:
        for key, content in pairs:
            if (found := _named(content, name, depth - 1)) is not None:
                return (key, *found)
    return None


def read(text: str) -> tuple[object, Positions, list[Problem]]:
    """Return the values of a YAML document, their positions, and what is wrong with it.

    Args:
        text: the whole file.
    """
    try:
        root = parser.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        return (
            None,
            Positions({}, None),
            [Problem(position, (), f"this is not YAML: {_words(error)}", "Correct the line; is it indented like its neighbours?")],
        )
    except (YAMLError, ValueError):
        return None, Positions({}, None), [Problem(Position(1, 1), (), "this is not YAML", "Is it a text file in UTF-8?")]
    if root is None:
        return (
            None,
            Positions({}, None),
            [Problem(Position(1, 1), (), "the file is empty", 'Let "obhut datamap suggest" write a first one.')],
        )
    reader = _Reader()
    value = reader.value(root, (), 0)
    return value, Positions(reader.places, value), reader.problems


def _words(error: MarkedYAMLError) -> str:
    """Return the parser's problem without the text that it quotes."""
    return re.sub(r"\s+", " ", re.sub(r"(['\"]).*?\1", "…", str(error.problem or "cannot be parsed"))).strip()


class _Reader:
    def __init__(self) -> None:
        self.places: dict[Path, Position] = {}
        self.problems: list[Problem] = []
        self._count = 0
        self._full = False

    def _fail(self, node: Node, path: Path, fact: str, todo: str) -> None:
        self.problems.append(Problem(_position(node), path, fact, todo))

    def value(self, node: Node, path: Path, depth: int) -> Any:
        if self._full:
            return None
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            self._full = True
            self._fail(node, path, "the file holds more values than a data map can have", "Do aliases (*name) repeat one another?")
            return None
        self.places.setdefault(path, _position(node))
        tag = str(node.tag or "")
        if tag.removeprefix(_TAG) not in _PLAIN:
            self._fail(node, path, "a tag (!name) is not allowed here", "Remove it; a data map holds plain values.")
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._fail(key_node, path, "a key must be a name", "Write the key as plain text.")
                continue
            if key_node.tag == _TAG + "merge":
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                continue
            key = str(key_node.value)
            if key in found:
                self._fail(key_node, (*path, key), f"{key} is written twice", "Keep one of the two.")
                continue
            self.places[*path, key] = _position(key_node)
            found[key] = self.value(value_node, (*path, key), depth + 1)
        for source in merged:
            if not isinstance(source, MappingNode):
                self._fail(source, path, "<< takes a mapping", "Point it to an anchor of a mapping.")
                continue
            for key, content in self._mapping(source, path, depth + 1).items():
                found.setdefault(key, content)
        return found


def _scalar(node: Node) -> object:
    kind, text = str(node.tag).removeprefix(_TAG), str(node.value)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    try:
        if kind == "int":
            return int(text.replace("_", ""), 0 if re.match(r"[-+]?0[box]", text) else 10)
        if kind == "float":
            return float(text.replace("_", ""))
    except ValueError:
        return text
    return text


def _position(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def walk(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Yield every value with its path, the outer ones first."""
    yield path, value
    items: Sequence[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, content in items:
        yield from walk(content, (*path, key))
