"""Keys inside values: the items of an array and of a JSON document, read from PostgreSQL's text output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def array_items(text: str) -> Iterator[str | None]:
    """Yield the items of a one-dimensional array such as ``{1,"a,b",NULL}``; None for NULL.

    Raises:
        ValueError: the text is no array of one dimension.
    """
    body = text[text.index("=") + 1 :] if text.startswith("[") else text  # [0:1]={…} names its bounds
    if len(body) < 2 or body[0] != "{" or body[-1] != "}" or "{" in _unquoted(body[1:-1]):
        raise ValueError("not an array of one dimension")
    at, end = 1, len(body) - 1
    while at < end:
        if body[at] == '"':
            item, at = _quoted(body, at + 1)
            yield item
        else:
            stop = body.find(",", at)
            stop = end if stop < 0 else stop
            word, at = body[at:stop], stop
            yield None if word.upper() == "NULL" else word
        at += 1


def json_items(text: str, path: tuple[str | None, ...]) -> Iterator[str]:
    """Yield the scalars at a path of a JSON document as text; ``None`` in the path stands for every item of a list."""
    try:
        document = json.loads(text, parse_float=str, parse_int=str)
    except ValueError:
        return
    yield from _walk(document, path)


def _walk(value: Any, path: tuple[str | None, ...]) -> Iterator[str]:
    if not path:
        if isinstance(value, str):
            yield value
        elif isinstance(value, bool):
            yield "true" if value else "false"
        return
    step, rest = path[0], path[1:]
    if step is None:
        for item in value if isinstance(value, list) else ():
            yield from _walk(item, rest)
    elif isinstance(value, dict) and step in value:
        yield from _walk(value[step], rest)


def _quoted(body: str, at: int) -> tuple[str, int]:
    found: list[str] = []
    while body[at] != '"':
        if body[at] == "\\":
            at += 1
        found.append(body[at])
        at += 1
    return "".join(found), at + 1


def _unquoted(body: str) -> str:
    """Return the text without what stands in quotation marks."""
    kept: list[str] = []
    at = 0
    while at < len(body):
        if body[at] == '"':
            _, at = _quoted(body, at + 1)
        else:
            kept.append(body[at])
            at += 1
    return "".join(kept)
