"""The page of a bundle that explains the bundle: one file, German and English; nothing is loaded from elsewhere, no script runs.

Holds counts and names of tables only, never an entry's values.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Final

from obhut.foundation.pages import table

if TYPE_CHECKING:
    from obhut.auditlog.export import Contents

Words = dict[str, dict[str, str]]
_SHOWN: Final = 100  # gaps that the page spells out


def render(contents: Contents) -> str:
    """Return a single HTML file; the reader changes the language on the page."""
    body = "".join(
        [
            _head(contents),
            _check(),
            _files(contents),
            _months(contents),
            _changes(contents),
            _gaps(contents),
            _parts(contents),
            _limits(),
        ]
    )
    page = Template(resources.files("obhut.auditlog").joinpath("page.html").read_text(encoding="utf-8"))
    title = _words()["title_history" if contents.cover.proofs else "title"]["de"].format(name=escape(contents.cover.name))
    return page.substitute(title=title, body=body)


@cache
def _words() -> Words:
    words: Words = tomllib.loads(resources.files("obhut.auditlog").joinpath("page.toml").read_text(encoding="utf-8"))
    return words


def _both(word: str, **values: object) -> str:
    entry = _words()[word]
    shown = {name: value if isinstance(value, _Html) else escape(_text(value)) for name, value in values.items()}
    return "".join(f'<span class="{tongue}" lang="{tongue}">{entry[tongue].format(**shown)}</span>' for tongue in ("de", "en"))


class _Html(str):
    """Text that is markup already."""

    __slots__ = ()


def _text(value: object) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _head(contents: Contents) -> str:
    cover = contents.cover
    history = bool(cover.proofs)
    span = {
        "since": _moment(cover.since) if cover.since else _Html(_both("beginning")),
        "until": _moment(cover.until) if cover.until else _Html(_both("end")),
        "made": _moment(cover.made_at),
    }
    values = "with_values" if cover.values else "without_values"
    return (
        f"<h1>{_both('title_history' if history else 'title', name=cover.name)}</h1><p class='soft'>{_both('span', **span)}</p>"
        f"<div class='claim'>{_both('claim_history' if history else 'claim', entries=contents.entries, periods=len(cover.logs))}</div>"
        f"<div class='claim{' warn' if cover.values else ''}'>{_both(values)}</div>"
    )


def _check() -> str:
    # No key stands here: one that comes with the bundle would be as trustworthy as the bundle.
    command = f"obhut audit verify BUNDLE --key '{_both('key_place')}' --remember obhut-seen.json"
    return (
        f"<h2>{_both('check_title')}</h2><p>{_both('check')}</p><pre>{command}</pre><p>{_both('check_other')}</p>"
        f"<p class='soft'>{_both('limit.first')}</p>"
    )


def _files(contents: Contents) -> str:
    names = ["entries.csv", "entries.jsonl", "proofs" if contents.cover.proofs else "logs", "key.txt"]
    items = "".join(f"<dt class='mono'>{name}</dt><dd>{_both('file.' + name)}</dd>" for name in names)
    return f"<h2>{_both('files_title')}</h2><dl>{items}</dl>"


def _months(contents: Contents) -> str:
    history = bool(contents.cover.proofs)
    rows = [
        [stretch.period, _text(stretch.size), "" if history else _text(max(0, stretch.last - stretch.first + 1)), _mono(stretch.origin)]
        for stretch in contents.cover.logs
    ]
    return f"<h2>{_both('months_title')}</h2>" + _table(["month", "entries", "here", "origin"], rows, numeric=(1, 2))


def _changes(contents: Contents) -> str:
    changes = [[escape(table), _operation(operation), _text(count)] for (table, operation), count in sorted(contents.operations.items())]
    actions = [[_mono(name), _text(count)] for name, count in sorted(contents.actions.items())]
    found = f"<h2>{_both('changes_title')}</h2>" + _table(["table", "operation", "count"], changes, numeric=(2,)) if changes else ""
    return found + (f"<h2>{_both('actions_title')}</h2>" + _table(["operation", "count"], actions, numeric=(1,)) if actions else "")


def _operation(name: str) -> str:
    return _both(f"op.{name}") if f"op.{name}" in _words() else escape(name)


def _gaps(contents: Contents) -> str:
    title = f"<h2>{_both('gaps_title')}</h2>"
    if not contents.gaps:
        return title + f"<p>{_both('gaps_none')}</p>"
    rows = [[_moment(at), escape(reason), escape(table) or "–"] for _, _, at, reason, table in contents.gaps[:_SHOWN]]
    more = len(contents.gaps) - len(rows)
    rest = f"<p class='soft'>{_both('gaps_more', count=more)}</p>" if more else ""
    return title + f"<p>{_both('gaps_note')}</p>" + _table(["at", "reason", "table"], rows) + rest


def _parts(contents: Contents) -> str:
    rows = [[_both(f"part.{state.value}"), _text(count)] for state, count in sorted(contents.parts.items())]
    return f"<h2>{_both('parts_title')}</h2>" + _table(["state", "count"], rows, numeric=(1,)) if rows else ""


def _limits() -> str:
    items = "".join(f"<li>{_both('limit.' + name)}</li>" for name in ("reads", "claim", "remains"))
    return f"<h2>{_both('limits_title')}</h2><ul>{items}</ul>"


def _mono(text: str) -> str:
    return f'<span class="mono">{escape(text)}</span>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    return table([_both(f"head.{head}") for head in heads], rows, numeric)
