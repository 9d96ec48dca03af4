"""The outline as an SVG: columns of boxes from the person on the left to the furthest table on the right. No program beside this one.

Layout: a column a distance, however tall, because a line that passes behind a box would seem to start at it; within a column boxes stand
near the ones they hang on (barycentre, a few sweeps). Colours carry no meaning that the words in the boxes do not carry too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from obhut.datamap.models import Verb
from obhut.datamap.show import Outline, Stop, Way
from obhut.foundation.language import text

_BOX_WIDTH, _BOX_HEIGHT, _GAP_Y, _GAP_X, _MARGIN = 226, 42, 12, 190, 28
_HEAD = 76
_SWEEPS = 6
_FONT = 'font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="12" role="img"'
_LABEL = 19  # letters of a link's columns beside its arrow
_LETTERS = 30  # of the box's name at its size of type
# Fill and line for each treatment; chosen to be told apart in grey, too.
_COLOURS = {
    "delete": ("#fde8e6", "#b3261e"),
    "anonymise": ("#f1e6fb", "#6f3fa3"),
    "unlink": ("#fdf6d8", "#8a6d00"),
    "keep": ("#e3eefb", "#1f5fa8"),
    "delete_if_orphaned": ("#fdeedd", "#b35900"),
    "": ("#f2f2f2", "#777777"),
}


@dataclass
class _Box:
    stop: Stop
    layer: int
    column: int = 0
    x: float = 0
    y: float = 0


def svg(shown: Outline) -> str:
    """Return the picture of one subject kind as an SVG document."""
    boxes = {stop.table: _Box(stop, stop.distance) for stop in shown.stops}
    columns = _columns(boxes, shown.ways)
    wide, high = (round(length) for length in _place(columns, boxes))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {_FONT} width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">',
        f"<title>{escape(_title(shown))}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{_MARGIN}" y="34" font-size="17" font-weight="bold">{escape(_title(shown))}</text>',
        *_legend({stop.treatment for stop in shown.stops} | {way.treatment for way in shown.ways}),
    ]
    drawn: dict[tuple[str, str], list[Way]] = defaultdict(list)
    for way in shown.ways:
        drawn[way.near, way.far].append(way)
    entries: dict[str, list[str]] = defaultdict(list)  # who comes in, from top to bottom: each has a place of its own at the box
    for near, far in sorted(drawn, key=lambda pair: boxes[pair[0]].y):
        if near != far:
            entries[far].append(near)
    for (near, far), ways in drawn.items():
        place = (entries[far].index(near) + 1) / (len(entries[far]) + 1) if near != far else 0
        out.append(_edge(boxes[near], boxes[far], ways, boxes[far].y + _BOX_HEIGHT * place))
    out += [line for box in boxes.values() for line in _box(box, drawn)]
    return "\n".join([*out, "</svg>"]) + "\n"


def _title(shown: Outline) -> str:
    return f"{shown.kind}: {text('what an anonymisation does' if shown.anonymising else 'what an erasure does')}"


def _columns(boxes: dict[str, _Box], ways: Sequence[Way]) -> list[list[_Box]]:
    """Return the columns from left to right, each in order from top to bottom."""
    layers: dict[int, list[_Box]] = defaultdict(list)
    for box in boxes.values():
        layers[box.layer].append(box)
    near: dict[str, list[str]] = defaultdict(list)
    for way in ways:
        near[way.far].append(way.near)
        near[way.near].append(way.far)
    rank = {box.stop.table: index / max(1, len(layer)) for layer in layers.values() for index, box in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for number in sorted(layers, reverse=bool(sweep % 2)):
            layer = layers[number]
            wanted = {box.stop.table: _mean([rank[name] for name in near[box.stop.table]], rank[box.stop.table]) for box in layer}
            layer.sort(key=lambda box: (wanted[box.stop.table], box.stop.table))
            rank |= {box.stop.table: (index + 0.5) / len(layer) for index, box in enumerate(layer)}
    columns = [layers[number] for number in sorted(layers)]
    for index, column in enumerate(columns):
        for box in column:
            box.column = index
    return columns


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _place(columns: list[list[_Box]], boxes: dict[str, _Box]) -> tuple[float, float]:
    tallest = max(len(column) for column in columns)
    height = _HEAD + tallest * (_BOX_HEIGHT + _GAP_Y) + _MARGIN
    step = _BOX_HEIGHT + _GAP_Y
    x = float(_MARGIN)
    for number, column in enumerate(columns):
        x = _MARGIN + number * (_BOX_WIDTH + _GAP_X)
        top = _HEAD + (tallest - len(column)) * step / 2
        for index, box in enumerate(column):
            box.x, box.y = x, top + index * step
    bottom = max(box.y for box in boxes.values()) + _BOX_HEIGHT + _MARGIN
    return max(x + _BOX_WIDTH + _MARGIN + 60, 880), max(height, bottom)


def _box(box: _Box, drawn: dict[tuple[str, str], list[Way]]) -> list[str]:
    stop = box.stop
    fill, line = _COLOURS.get(stop.treatment, _COLOURS[""])
    ways = [way for (_, far), found in drawn.items() if far == stop.table for way in found]
    hint = "\n".join([stop.table, *(f"{way.near} ← {way.label}: {text(way.treatment or 'nothing')}" for way in ways), *stop.columns])
    dash = ' stroke-dasharray="5 3"' if stop.treatment == Verb.DELETE_IF_ORPHANED else ""
    paint = f'fill="{fill}" stroke="{line}" stroke-width="{2.4 if box.layer == 0 else 1.3}"'
    return [
        f"<g><title>{escape(hint)}</title>",
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" {paint}{dash}/>',
        f'<text x="{box.x + 10:.1f}" y="{box.y + 19:.1f}" font-weight="bold">{escape(_short(stop.table))}</text>',
        f'<text x="{box.x + 10:.1f}" y="{box.y + 36:.1f}" font-size="11" fill="{line}">{escape(_effect(stop))}</text></g>',
    ]


def _effect(stop: Stop) -> str:
    verb = text(stop.treatment or "nothing")
    if stop.detail:
        return f"{verb}: {stop.detail}"[: _LETTERS + 6]
    return f"{verb} ({text('{count} columns', count=len(stop.columns))})" if stop.columns else verb


def _short(name: str) -> str:
    name = name.removeprefix("public.")
    return name if len(name) <= _LETTERS - 3 else name[: _LETTERS - 4] + "…"


def _edge(near: _Box, far: _Box, ways: Sequence[Way], entry: float) -> str:
    _, colour = _COLOURS.get(ways[0].treatment, _COLOURS[""])
    dash = ' stroke-dasharray="5 3"' if ways[0].shared else ' stroke-dasharray="2 3"' if ways[0].treatment == Verb.UNLINK else ""
    label = " / ".join(way.label for way in ways)
    title = f"<title>{escape(f'{near.stop.table} ← {far.stop.table}: {label}')}</title>"
    lines = f'{title}<path d="{_curve(near, far, entry)}"{dash}/>{_arrow(near, far, entry, colour)}'
    return f'<g fill="none" stroke="{colour}" stroke-width="1.3" opacity="0.75">{lines}</g>{_label(near, far, entry, label)}'


def _curve(near: _Box, far: _Box, y2: float) -> str:
    y1 = near.y + _BOX_HEIGHT / 2
    if near is far:  # a self reference
        x = near.x + _BOX_WIDTH - 60
        return f"M {x:.1f} {near.y:.1f} c 0 -16, 40 -16, 40 0"
    if near.column == far.column:
        x = near.x + _BOX_WIDTH
        return f"M {x:.1f} {y1:.1f} C {x + 55:.1f} {y1:.1f}, {x + 55:.1f} {y2:.1f}, {x:.1f} {y2:.1f}"
    if near.column < far.column:
        x1, x2 = near.x + _BOX_WIDTH, far.x
        level = x1 + _GAP_X * 0.4  # level from here on, so that the label has a line to stand on
        middle = (x1 + level) / 2
        return f"M {x1:.1f} {y1:.1f} C {middle:.1f} {y1:.1f}, {middle:.1f} {y2:.1f}, {level:.1f} {y2:.1f} L {x2:.1f} {y2:.1f}"
    x1, x2 = near.x, far.x + _BOX_WIDTH
    return f"M {x1:.1f} {y1:.1f} C {x1 - 60:.1f} {y1:.1f}, {x2 + 60:.1f} {y2:.1f}, {x2:.1f} {y2:.1f}"


def _label(near: _Box, far: _Box, entry: float, label: str) -> str:
    if near.column + 1 != far.column:
        return ""  # the level part of other edges has no room; hovering shows the label
    short = label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
    return f'<text x="{far.x - 10:.1f}" y="{entry - 4:.1f}" font-size="9" fill="#555555" text-anchor="end">{escape(short)}</text>'


def _arrow(near: _Box, far: _Box, y: float, colour: str) -> str:
    if near is far:
        return ""
    right = near.column < far.column
    x = far.x if right else far.x + _BOX_WIDTH
    step = -7 if right else 7
    return f'<path d="M {x:.1f} {y:.1f} l {step} -4 l 0 8 z" fill="{colour}" stroke="none"/>'


def _legend(treatments: set[str]) -> list[str]:
    x = float(_MARGIN)
    out = []
    for treatment, (fill, line) in _COLOURS.items():
        if treatment not in treatments:
            continue
        word = text(treatment or "nothing")
        out.append(f'<rect x="{x:.0f}" y="47" width="14" height="14" rx="3" fill="{fill}" stroke="{line}"/>')
        out.append(f'<text x="{x + 20:.0f}" y="58">{escape(word)}</text>')
        x += 44 + 7.5 * len(word)
    return out
