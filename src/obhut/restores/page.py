"""The certificate as a page to be read: one file, German and English, to be printed or handed to an authority.

Says nothing that the signed JSON does not say. Nothing is loaded from elsewhere, and no script runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import Any

from obhut.foundation.pages import table

Words = dict[str, dict[str, str]]


def render(document: Mapping[str, Any], language: str = "de") -> str:
    """Return a single HTML file; the reader changes the language on the page."""
    content = document["certificate"]
    body = "".join(
        [
            _head(content),
            _claim(content),
            _facts(content),
            _statements(content),
            _tables(content),
            _absence(content),
            _canaries(content),
            _list("left_out_title", [_same(item) for item in content["left_out"]]),
            _list("notes_title", [_same(item) for item in content["notes"]]),
            _list("limits_title", [_both(f"limit.{item}") for item in content["limits"]]),
            _foot(document),
        ]
    )
    page = Template(resources.files("obhut.restores").joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(f"{_words()['title']['de']} – {content['database']}"),
        body=body,
        de_checked=" checked" if language == "de" else "",
        en_checked=" checked" if language == "en" else "",
    )


@cache
def _words() -> Words:
    words: Words = tomllib.loads(resources.files("obhut.restores").joinpath("page.toml").read_text(encoding="utf-8"))
    return words


def _both(word: str, **values: object) -> str:
    entry = _words()[word]
    shown = {name: escape(_number(value) if isinstance(value, int) else str(value)) for name, value in values.items()}
    return "".join(f'<span class="{tongue}" lang="{tongue}">{entry[tongue].format(**shown)}</span>' for tongue in ("de", "en"))


def _same(text: str) -> str:
    return escape(text)


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")  # narrow spaces read the same in both languages


def _moment(text: str | None) -> str:
    return escape(text[:19].replace("T", " ") + " UTC") if text else "–"


def _head(content: Mapping[str, Any]) -> str:
    return f'<h1>{_both("title")}</h1><p class="soft">{_both("subtitle", database=content["database"])}</p>'


def _claim(content: Mapping[str, Any]) -> str:
    numbers = {
        "database": content["database"],
        "moment": _moment(content["point"]["last_commit"]) if content["point"]["last_commit"] else content["point"]["lsn"],
        "people": int(content["erasure_list"]["people_left_out"]),
        "tombstones": int(content["erasure_list"]["tombstones"]),
        "rows": sum(int(table["target"]) for table in content["tables"]),
        "tables": len(content["tables"]),
    }
    word = ("claim" if content["scope"] == "database" else "claim_side") if content["holds"] else "claim_failed"
    return f'<div class="claim{"" if content["holds"] else " bad"}">{_both(word, **numbers)}</div>'


def _facts(content: Mapping[str, Any]) -> str:
    listed = content["erasure_list"]
    pairs: list[tuple[str, str]] = [
        ("asked", _same(str(content["point"]["asked"]))),
        ("reached", f"{_moment(content['point']['last_commit'])} · LSN {_same(content['point']['lsn'])}"),
        ("issued", _moment(content["issued_at"])),
        ("backups", _same(", ".join(content["source"]["backups"]) or "–")),
        ("systems", f"{_same(content['source']['system_identifier'] or '–')} → {_same(content['target']['system_identifier'])}"),
        ("list", _both("list_value", size=int(listed["size"]), tombstones=int(listed["tombstones"]))),
        ("others", _both("others_value", count=int(listed["other_bearers"]))),
        ("map", f'<span class="mono">{_same(content["data_map"])}</span>'),
        ("gone_by", _moment(content["backups_gone_by"])),
        ("run", f'<span class="mono">{_same(content["run"])}</span>'),
    ]
    return f"<h2>{_both('facts_title')}</h2><dl>" + "".join(f"<dt>{_both(word)}</dt><dd>{value}</dd>" for word, value in pairs) + "</dl>"


def _statements(content: Mapping[str, Any]) -> str:
    rows = []
    for statement in content["statements"]:
        numbers = ", ".join(f"{_both(f'number.{name}')} {_number(int(value))}" for name, value in statement["numbers"].items())
        places = escape(", ".join(statement["places"]))
        result = f'<span class="{escape(statement["result"])}">{_both("result." + statement["result"])}</span>'
        rows.append([_both(f"statement.{statement['name']}"), result, numbers + (f"<br>{places}" if places else "")])
    return f"<h2>{_both('statements_title')}</h2>" + _table(["statement", "result", "numbers"], rows)


def _tables(content: Mapping[str, Any]) -> str:
    rows = [
        [
            _same(f"{table['schema']}.{table['name']}"),
            *(_number(int(table[name])) for name in ("source", "deleted", "changed", "target")),
            f'<span class="mono">{_same(str(table["checksum"]))}</span>',
        ]
        for table in content["tables"]
    ]
    heads = ["table", "source", "deleted", "changed", "target", "checksum"]
    return f"<h2>{_both('tables_title')}</h2><p class='soft'>{_both('tables_note')}</p>" + _table(heads, rows, numeric=range(1, 5))


def _absence(content: Mapping[str, Any]) -> str:
    if not content["absence"]:
        return ""
    rows = [
        [_same(asked["table"]), _same(asked["question"]), _number(asked["people"]), _number(asked["rows"]), _number(asked["others"])]
        for asked in content["absence"]
    ]
    return f"<h2>{_both('absence_title')}</h2>" + _table(["table", "question", "people", "found", "other"], rows, numeric=range(2, 5))


def _canaries(content: Mapping[str, Any]) -> str:
    if not content["canaries"]:
        return f"<h2>{_both('canaries_title')}</h2><p>{_both('canaries_none')}</p>"
    rows = [
        [
            f'<span class="mono">{_same(canary["id"])}</span>',
            _moment(canary["planted_at"]),
            *(_seen(canary[name]) for name in ("rows_before", "rows_after", "bytes_before", "bytes_after")),
        ]
        for canary in content["canaries"]
    ]
    heads = ["canary", "planted", "rows_before", "rows_after", "bytes_before", "bytes_after"]
    return f"<h2>{_both('canaries_title')}</h2><p class='soft'>{_both('canaries_note')}</p>" + _table(heads, rows)


def _seen(value: bool | None) -> str:  # noqa: FBT001 - what the certificate says
    return "–" if value is None else _both("seen" if value else "not_seen")


def _list(title: str, items: Sequence[str]) -> str:
    return f"<h2>{_both(title)}</h2><ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" if items else ""


def _foot(document: Mapping[str, Any]) -> str:
    signature = document["signature"]
    key, value = _same(signature["key"]), _same(signature["value"])
    return f'<footer><p>{_both("signed")}</p><p class="mono">Ed25519 {key}<br>{value}</p><p>{_both("verify")}</p></footer>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    return table([_both(f"head.{head}") for head in heads], rows, numeric)
