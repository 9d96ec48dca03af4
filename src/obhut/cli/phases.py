"""What the commands that move rows share: which database, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from cyclopts import Parameter

from obhut.cli.output import Output
from obhut.restores.progress import Advance

Database = Annotated[str | None, Parameter(help="Name of the protected database; may be left out when the settings have one only.")]


class Phases:
    """Shows the phases of a restore or a copy."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @contextmanager
    def phase(self, title: str, total: float | None, unit: str) -> Iterator[Advance]:
        """Show one phase."""
        with self._output.progress(title[:1].upper() + title[1:], total, unit) as bar:
            yield bar.advance
