"""List the English sentences of the source that the German catalogue lacks (``python tools/sentences.py``)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from obhut.foundation.language import Language, catalogue, speaking, text

SOURCE = Path(__file__).parent.parent / "src" / "obhut"
# Callables whose sentences people read, and which of their arguments are sentences (None: all that are text).
SPEAKING = {
    "text",
    "tell",
    "verdict",
    "phase",
    "say",
    "note",
    "warn",
    "confirm",
    "progress",
    "done",
    "opening",
    "act",
    "step",
    "Evidence",
    "Reason",
    "Promise",
    "Finding",
    "critical",
    "warning",
}
COLUMNS = {"table", "pairs"}


def sentences() -> Iterator[tuple[str, str]]:
    """Yield place and sentence; a value formatted in becomes a placeholder named for it."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "migrations" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                place = f"{path.relative_to(SOURCE)}:{node.lineno}"
                for argument in _candidates(name, node):
                    for sentence in _texts(argument):
                        yield place, sentence


def _candidates(name: str, node: ast.Call) -> Iterator[ast.expr]:
    if name in SPEAKING or name.endswith("Error"):
        yield from node.args
        yield from (keyword.value for keyword in node.keywords if keyword.arg in {"hint", "title", "empty", "sentence", "unit"})
    elif name in COLUMNS:
        for argument in [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg in {"title", "empty"})]:
            if isinstance(argument, ast.List | ast.Tuple):
                yield from argument.elts
            elif isinstance(argument, ast.Dict):
                yield from (key for key in argument.keys if key is not None)
            else:
                yield argument


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        taken: set[str] = set()
        yield "".join(part.value if isinstance(part, ast.Constant) else _hole(part, taken) for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value)


def _hole(part: ast.expr, taken: set[str]) -> str:
    names = [
        node.attr if isinstance(node, ast.Attribute) else node.id for node in ast.walk(part) if isinstance(node, ast.Attribute | ast.Name)
    ]
    wanted = next((name for name in names if name.isidentifier() and name not in {"len", "str", "self", "join", "sorted"}), "value").lstrip(
        "_"
    )
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}{number}", number + 1
    taken.add(name)
    return "{" + name + "}"


def known(sentence: str) -> bool:
    """Whether the catalogue has the sentence, or recognises it with other names of placeholders."""
    if sentence in catalogue() or not any(letter.isalpha() for letter in sentence):
        return True
    with speaking(Language.GERMAN):
        return text(sentence) != sentence


def main() -> int:
    """Print what is missing, each sentence once."""
    seen: set[str] = set()
    for place, sentence in sentences():
        if sentence not in seen and not known(sentence):
            print(f"{place}\t{sentence}")
        seen.add(sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
