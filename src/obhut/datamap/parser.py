"""YAML 1.2 to nodes, by libyaml: a map of a thousand tables is read while somebody waits.

libyaml knows YAML 1.1, where ``no`` and ``on`` are truth values and ``1:30`` is a number. So plain words are told apart by the rules of
1.2, under which a column may be called ``no``. It builds nodes by calling itself, so depth is limited before the stack is used up.
"""

from __future__ import annotations

import re
from typing import Any, Final

from yaml._yaml import CParser
from yaml.composer import ComposerError
from yaml.nodes import Node
from yaml.resolver import BaseResolver

MAX_DEPTH: Final = 200
_TAG: Final = "tag:yaml.org,2002:"
_WORDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("int", r"[-+]?0b[0-1_]+|[-+]?0o[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+", "-+0123456789"),
    (
        "float",
        r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|[-+]?\.(?:[0-9_]+(?:[eE][-+]?[0-9]+)?|inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("timestamp", r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}.*)?", "0123456789"),
    ("merge", r"<<", "<"),
)


class _Resolver(BaseResolver):
    """Tells what a plain word is by the rules of YAML 1.2."""


for _name, _pattern, _first in _WORDS:
    _Resolver.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), [*_first, ""] if _name == "null" else list(_first))


class _Composer(CParser, _Resolver):
    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        _Resolver.__init__(self)
        self._depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:  # noqa: ARG002 - the names are the caller's
        """Count a level; called before each node."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ComposerError(None, None, "it is nested too deeply", current_node.start_mark)

    def ascend_resolver(self) -> None:
        """Count a level less; called after each node."""
        self._depth -= 1


def compose(text: str) -> Node | None:
    """Return the only document's root node with the places of everything, or None when there is none.

    Raises:
        yaml.YAMLError: it is not YAML, or too deep.
    """
    node: Node | None = _Composer(text).get_single_node()
    return node
