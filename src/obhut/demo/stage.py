"""What the audience sees: acts, commands, steps with their seconds, tables.

On a terminal in colour with progress that moves; elsewhere the same lines as plain text. Sentences are English here and spoken in the
language in force (``foundation/german.toml``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from obhut.foundation.errors import ObhutError
from obhut.foundation.language import Language, current, text

WIDTH = 104  # columns at the most: a line should be read in one glance
INDENT = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """How long one step of the story took."""

    act: int
    step: str
    seconds: float


@dataclass
class Bar:
    """A moving line, or none."""

    progress: Progress | None = None
    task: TaskID | None = None

    def advance(self, by: float) -> None:
        """Count further units."""
        if self.progress and self.task is not None:
            self.progress.advance(self.task, by)

    def reach(self, done: float, total: float) -> None:
        """Set how far it is."""
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=done, total=total or None)


@dataclass
class Step:
    """One step while it runs; :meth:`done` gives the sentence that stays when it is over."""

    sentence: str
    bar: Bar

    def done(self, sentence: str, /, **values: object) -> None:
        """Say what the step came to."""
        self.sentence = text(sentence, **values)


class Stage:
    """The stage of one performance.

    Args:
        console: where it shows; decides about colour and width.
        live: whether lines may move (a terminal and no CI).
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._live = live
        self._width = min(console.width, WIDTH)
        self._act = 0
        self._begun = time.monotonic()
        self._progress: Progress | None = None
        self._tasks = 0
        self.figures: list[Figure] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the curtain rose."""
        return time.monotonic() - self._begun

    # ---- words ----

    def opening(self, title: str, *lines: str) -> None:
        """Show the title of the play."""
        words = Text.assemble((text(title), "bold"), *("\n" + line for line in lines))
        self._console.print(Panel(words, box=ROUNDED, width=self._width, padding=(0, 2), border_style="cyan"))

    def act(self, title: str, sentence: str, /, **values: object) -> None:
        """Begin an act: its number, title and what it is about."""
        self._act += 1
        self._console.print()
        self._console.print(Text.assemble((f" {self._act:>2} ", "bold reverse cyan"), " ", (text(title), "bold cyan")))
        self.tell(sentence, **values)

    def tell(self, sentence: str, /, **values: object) -> None:
        """Tell something, wrapped."""
        self._indented(Text(text(sentence, **values)))

    def command(self, line: str) -> None:
        """Show the command line that does what follows; it is what a person would type."""
        words = Text(line, style="bold", no_wrap=True, overflow="ignore")
        self._console.print(Text.assemble(" " * INDENT, ("$ ", "dim cyan"), words), soft_wrap=True)

    def refusal(self, error: ObhutError) -> None:
        """Show an error that is meant to happen, as the command line shows it."""
        self._indented(Text.assemble(("✋ ", "yellow"), ("obhut: ", "bold yellow"), text(error.fact)), by=INDENT)
        if error.hint:
            self._indented(Text.assemble((f"   {text('HINT')}: ", "bold"), text(error.hint)), by=INDENT)

    def verdict(self, sentence: str, /, *, good: bool, **values: object) -> None:
        """Show a line that the whole story is about."""
        sign, style = ("✔", "bold green") if good else ("✘", "bold red")
        self._indented(Text(f"{sign} {text(sentence, **values)}", style=style))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, styles: Sequence[str] = ()) -> None:
        """Show a table; numbers stand right, a cell may be a rich text."""
        rows = list(rows)
        shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for index, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
            style = styles[index] if index < len(styles) else ""
            shown.add_column(text(column), justify="right" if numeric else "left", style=style, overflow="fold")
        for row in rows:
            shown.add_row(*(cell if isinstance(cell, Text) else _cell(cell) for cell in row))
        self._console.print(Padding(shown, (0, 0, 0, INDENT), expand=False), width=self._width)

    def closing(self, lines: Sequence[str]) -> None:
        """Show the last words: what it took, where it lies, what to do next."""
        self._console.print()
        self._console.print(Panel(Text("\n".join(lines)), box=ROUNDED, width=self._width, padding=(0, 2), border_style="green"))

    # ---- steps ----

    @contextmanager
    def step(self, doing: str, total: float | None = None, **values: object) -> Iterator[Step]:
        """Run a step: it moves while it lasts and leaves one line with its seconds.

        Args:
            doing: what is being done, in words without values of data.
            total: number of units, if it counts.
            values: for placeholders in ``doing``.
        """
        label = text(doing, **values)
        begun = time.monotonic()
        with self._moving(label, total) as bar:
            step = Step(label, bar)
            yield step
        seconds = time.monotonic() - begun
        self.figures.append(Figure(self._act, label, seconds))
        self._line(("✔", "green"), step.sentence, seconds)

    @contextmanager
    def phase(self, title: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        """Show a phase of a longer step while it lasts (the progress that restores and backups report)."""
        del unit
        with self._moving(text(title[:1].upper() + title[1:]), total) as bar:
            yield bar.advance

    @contextmanager
    def _moving(self, label: str, total: float | None) -> Iterator[Bar]:
        if not self._live:
            yield Bar()
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn(" " * (INDENT - 1)), SpinnerColumn(style="cyan"), TextColumn("{task.description}"), BarColumn(bar_width=28),
                TaskProgressColumn(), TimeElapsedColumn(), console=self._console, transient=True,
            )  # fmt: skip
            self._progress.start()
        progress = self._progress
        self._tasks += 1
        task = progress.add_task(label, total=total)
        try:
            yield Bar(progress, task)
        finally:
            progress.remove_task(task)
            self._tasks -= 1
            if not self._tasks:
                progress.stop()
                self._progress = None

    def _line(self, sign: tuple[str, str], sentence: str, seconds: float) -> None:
        room = self._width - INDENT - 12
        first, *rest = Text(sentence).wrap(self._console, room)
        first.rstrip()
        gap = " " * max(1, room - first.cell_len + 1)
        self._console.print(Text.assemble(" " * INDENT, sign, " ", first, gap, (f"{number(seconds, 1)} s".rjust(8), "dim")), soft_wrap=True)
        for line in rest:
            self._indented(line, by=INDENT + 2)

    def _indented(self, words: Text, *, by: int = INDENT) -> None:
        for line in words.wrap(self._console, self._width - by):
            line.rstrip()
            self._console.print(Text(" " * by) + line, soft_wrap=True)


def number(value: float, digits: int = 0) -> str:
    """Return a number as the language in force writes it."""
    english = f"{value:,.{digits}f}"
    return english.translate(str.maketrans(",.", ".,")) if current() is Language.GERMAN else english


def megabytes(size: float) -> str:
    """Return a number of bytes in MB."""
    return f"{number(size / 1_000_000)} MB"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return text("yes") if value else text("no")
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return number(value, 1)
    return text(str(value)) if value is not None else "–"
