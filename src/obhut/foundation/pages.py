"""Pieces of the pages that Obhut hands out: one file each, that explains itself and loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """Return a table that scrolls by itself on a narrow screen.

    Args:
        heads: of the columns, as HTML.
        rows: cells, as HTML: the caller escapes.
        numeric: positions of the columns that are aligned to the right.
    """
    right = set(numeric)
    mark = [' class="n"' if number in right else "" for number in range(len(heads))]
    top = "".join(f"<th{mark[number]}>{head}</th>" for number, head in enumerate(heads))
    body = "".join("<tr>" + "".join(f"<td{mark[number]}>{cell}</td>" for number, cell in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
