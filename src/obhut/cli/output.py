"""What a person or a program reads: tables and progress on a terminal, one JSON document with ``--json``.

Results go to standard output, everything else to standard error. With ``--json`` the document is held back until the command has
ended, so that an error after the result cannot make two documents.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.table import Table
from rich.text import Text

from obhut.foundation.clock import stamp
from obhut.foundation.durations import format_duration
from obhut.foundation.errors import ObhutError
from obhut.foundation.language import text

_PLAIN_WIDTH = 160  # columns where no terminal gives a width
_MILESTONE = 10.0  # seconds between two lines of progress where nothing can be redrawn


class Bar:
    """One line of progress; safe to advance from several threads."""

    def __init__(self, advance: Callable[[float], None], resize: Callable[[float], None]) -> None:
        self._advance = advance
        self._resize = resize

    def advance(self, by: float = 1) -> None:
        """Count further units as done."""
        self._advance(by)

    def resize(self, total: float) -> None:
        """Set how many units there are, once that is known."""
        self._resize(total)


class Output:
    """The face of one run of a command.

    Args:
        as_json: print one JSON document and nothing else on standard output.
        quiet: print results and errors only.
        colour: False switches colour off; None decides by terminal, ``CI`` and ``NO_COLOR``.
        stdout: where results go.
        stderr: where everything else goes.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        colour: bool | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._out = _console(stdout or sys.stdout, colour=colour)
        self._err = _console(stderr or sys.stderr, colour=colour)
        self._document: object = None
        self._has_document = False
        self._progress: Progress | None = None
        self._bars = 0
        self._lock = threading.Lock()

    @property
    def interactive(self) -> bool:
        """Whether a person watches: a terminal, no ``CI``, no ``--json``, no ``--quiet``."""
        return self._err.is_terminal and not os.environ.get("CI") and not self.as_json and not self.quiet

    @property
    def coloured(self) -> bool:
        """Whether output may be in colour: not switched off by ``--no-colour``, ``CI`` or ``NO_COLOR``."""
        return not self._out.no_color

    # ---- results ----

    def result(self, document: object, render: Callable[[], None] | None = None) -> None:
        """Give the command's result.

        Args:
            document: what ``--json`` prints: a mapping, list, dataclass or pydantic model; called once a command.
            render: shows the same to a person; by default the document's top-level pairs are listed.
        """
        if self._has_document:
            raise AssertionError("a command has one result")
        self._document, self._has_document = plain(document), True
        if self.as_json:
            return
        if render:
            render()
        elif isinstance(self._document, Mapping):
            self.pairs(self._document)
        else:
            self._out.print_json(json.dumps(self._document))

    def say(self, sentence: str, /, *, style: str | None = None, **values: object) -> None:
        """Print a sentence of the result for a person (silent with ``--json``)."""
        if not self.as_json:
            self._out.print(Text(text(sentence, **values), style=style or ""), soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """Print a rich renderable of the result for a person (silent with ``--json``)."""
        if not self.as_json:
            self._out.print(renderable)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, empty: str | None = None
    ) -> None:
        """Print a table for a person; numbers stand right, headings are translated.

        Args:
            columns: headings in English.
            rows: one sequence of values a row.
            title: a line above the table.
            empty: the sentence to print when there is no row.
        """
        if self.as_json:
            return
        rows = list(rows)
        cells = [[_cell(value) for value in row] for row in rows]
        if not cells and empty:
            self.say(empty)
            return
        table = Table(box=SIMPLE_HEAD, title=text(title) if title else None, title_justify="left", title_style="bold", pad_edge=False)
        for index, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[index], int | float) and not isinstance(row[index], bool) for row in rows)
            table.add_column(text(column), justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            table.add_row(*row)
        self._out.print(table)

    def pairs(self, values: Mapping[str, object], *, title: str | None = None) -> None:
        """Print labelled values, one a line."""
        if self.as_json:
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for label, value in values.items():
            grid.add_row(text(label), _cell(value))
        if title:
            self.say(title, style="bold")
        self._out.print(grid)

    # ---- words beside the result ----

    def note(self, sentence: str, /, **values: object) -> None:
        """Print a remark on standard error (silent with ``--quiet`` or ``--json``)."""
        if not self.quiet and not self.as_json:
            self._err.print(Text(text(sentence, **values)), soft_wrap=True)

    def warn(self, sentence: str, /, **values: object) -> None:
        """Print a warning on standard error, also with ``--quiet`` and ``--json``."""
        self._err.print(Text.assemble((f"{text('WARNING')}: ", "bold yellow"), text(sentence, **values)), soft_wrap=True)

    def confirm(self, question: str, /, **values: object) -> bool:
        """Ask a yes-or-no question; without a person at a terminal the answer is no."""
        if not self.interactive or not sys.stdin.isatty():
            return False
        self._err.print(Text(f"{text(question, **values)} [{text('yes')}/{text('no')}] "), end="")
        return sys.stdin.readline().strip().lower() in {"yes", text("yes").lower()}

    @contextmanager
    def progress(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Bar]:
        """Show progress with rate and time left while the block runs; bars may be nested and run side by side.

        Args:
            title: what is being done; a relation's name or a sentence, never personal data.
            total: number of units, if known.
            unit: what is counted, such as ``rows`` or ``MB``.
        """
        label = text(title)
        if self.quiet or self.as_json:
            yield Bar(lambda _by: None, lambda _total: None)
        elif not self.interactive:
            yield from self._milestones(label, total, text(unit))
        else:
            yield from self._live(label, total, text(unit))

    def _live(self, label: str, total: float | None, unit: str) -> Iterator[Bar]:
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"), _Rate(),
                    TimeElapsedColumn(), TimeRemainingColumn(), console=self._err, transient=True,
                )  # fmt: skip
                self._progress.start()
            progress = self._progress
            self._bars += 1
        task: TaskID = progress.add_task(label, total=total, unit=unit)
        try:
            yield Bar(lambda by: progress.advance(task, by), lambda size: progress.update(task, total=size))
        finally:
            progress.remove_task(task)
            with self._lock:
                self._bars -= 1
                if not self._bars:
                    progress.stop()
                    self._progress = None

    def _milestones(self, label: str, total: float | None, unit: str) -> Iterator[Bar]:
        begun = last = time.monotonic()
        done, size, lock = 0.0, total, threading.Lock()

        def advance(by: float) -> None:
            nonlocal done, last
            with lock:
                done += by
                if time.monotonic() - last < _MILESTONE:
                    return
                last = time.monotonic()
            share = f" ({100 * done / size:.0f} %)" if size else ""
            self._err.print(Text(f"{label}: {done:,.0f} {unit}{share}, {done / (last - begun):,.0f} {unit}/s"), soft_wrap=True)

        def resize(wanted: float) -> None:
            nonlocal size
            size = wanted

        yield Bar(advance, resize)

    # ---- the end ----

    def finish(self) -> None:
        """Print the JSON document of a command that succeeded."""
        if self.as_json:
            self._write(self._document if self._has_document else {})

    def fail(self, error: ObhutError, code: str | None = None) -> None:
        """Print an error: ``obhut: fact`` and ``HINT: …`` on standard error, or the JSON document."""
        fact, hint = text(error.fact), text(error.hint) if error.hint else None
        if self.as_json:
            document: dict[str, object] = {"error": {"code": code or error.code, "fact": fact, "hint": hint}}
            if self._has_document:
                document["result"] = self._document
            self._write(document)
            return
        self._err.print(Text.assemble(("obhut: ", "bold red"), fact), soft_wrap=True)
        if hint:
            self._err.print(Text.assemble((f"{text('HINT')}: ", "bold"), hint), soft_wrap=True)

    def _write(self, document: object) -> None:
        self._out.file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        self._out.file.flush()


class _Rate(TextColumn):
    """Units a second, shown once there is a rate."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def plain(value: object) -> object:
    """Return the value in JSON's types: times as RFC 3339, spans as ISO 8601, enums by value, bytes as hex.

    Raises:
        TypeError: the value has no JSON form; better than printing its ``repr``, which may quote anything.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        return plain({name: getattr(value, name) for name in type(value).model_fields})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def size(number: float) -> str:
    """Return a number of bytes in the largest binary unit that keeps it above one, such as ``1.4 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def _cell(value: object) -> str:  # noqa: PLR0911 - one line a type
    if value is None:
        return "–"
    if isinstance(value, bool):
        return text("yes") if value else text("no")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, enum.Enum):
        return text(str(value.value))
    if isinstance(value, str):
        return text(value) if " " in value else value  # a single word may be the name of a table
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return json.dumps(plain(value), ensure_ascii=False) if isinstance(value, Mapping) else ", ".join(_cell(item) for item in value)
    return _scalar(value)


def _console(stream: TextIO, *, colour: bool | None) -> Console:
    fixed = {} if stream.isatty() else {"width": _PLAIN_WIDTH}
    off = colour is False or (colour is None and bool(os.environ.get("CI")))
    return Console(file=stream, no_color=off, color_system=None if off else "auto", highlight=False, markup=False, emoji=False, **fixed)  # type: ignore[arg-type]
