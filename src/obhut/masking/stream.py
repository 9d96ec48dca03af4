"""Masking of a stream: chunks of whole COPY text lines in, chunks of as many lines out.

A line is taken apart only as far as the masked columns reach (they come first), the rest is one piece. Columns, not rows, are worked on:
one digest a value or person, word lists by index, everything else in bulk. Memory is one chunk and bounded caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import eq

from obhut.datamap.transformers import Place
from obhut.masking.errors import MaskingStreamError
from obhut.masking.facts import Facts
from obhut.masking.keys import RunKey
from obhut.masking.make.base import Maker, Rows
from obhut.masking.make.moves import forget_dates
from obhut.masking.make.registry import Context, maker
from obhut.masking.model import TablePlan

NULL = rb"\N"
_NOTHING = frozenset({NULL, b"", b"{}", b"[]"})  # cells in which there is nothing to mask
CHUNK = 1 << 19  # bytes
Watched = Callable[[str, Sequence[bytes], Sequence[bytes]], None]


@dataclass(slots=True)
class Count:
    """Cells of a column: how many there were, how many were NULL, how many came out as they went in (NULL and empty ones left out)."""

    cells: int = 0
    nulls: int = 0
    unchanged: int = 0


class Masker:
    """Masks the rows of one table (or partition of it); not for two threads at once, one for each worker.

    Args:
        table: the plan; rows come in the order of ``table.columns``.
        key: of the run.
        facts: ranges and distributions, read from the source.
        locale: language of the word lists.
        watched: is given every masked column's name with its cells as they came and as they go.
    """

    def __init__(self, table: TablePlan, key: RunKey, facts: Facts, *, locale: str = "de", watched: Watched | None = None) -> None:
        self._table = table
        self._watched = watched
        self._leading = table.leading
        self._whole = table.leading == len(table.columns)
        # Search vectors come last: they are made from columns that are masked by then.
        order = sorted(range(table.leading), key=lambda index: table.columns[index].transformer == "tsvector")
        self._makers: list[tuple[int, str, Maker]] = [
            (index, table.columns[index].name, maker(Context(table, table.columns[index], key, facts, locale)))
            for index in order
            if table.columns[index].place is Place.CLIENT
        ]
        self.counts: dict[str, Count] = {name: Count() for _, name, _ in self._makers}
        self._closed = False

    def mask(self, chunk: bytes) -> bytes:
        """Return the chunk masked; both hold whole lines, each with its line feed.

        Raises:
            MaskingStreamError: a line has another number of columns than the plan.
        """
        if self._closed:
            raise MaskingStreamError("the masker is closed", "Make one for each stream.")
        if not self._makers or not chunk:
            return chunk
        if not chunk.endswith(b"\n"):
            raise MaskingStreamError(f"a chunk of {self._table.name} does not end with a whole line", "Cut the stream at line feeds.")
        rows = Rows(self._columns(chunk))
        for index, name, make in self._makers:
            before = rows.columns[index]
            after = make(rows, before)
            rows.masked[index] = after
            self._counted(name, before, after)
            if self._watched is not None:
                self._watched(name, before, after)
        out = [rows.masked.get(index, column) for index, column in enumerate(rows.columns)]
        return b"\n".join(map(b"\t".join, zip(*out, strict=True))) + b"\n"

    def _counted(self, name: str, before: Sequence[bytes], after: Sequence[bytes]) -> None:
        count = self.counts[name]
        count.cells += len(before)
        nulls = before.count(NULL)
        count.nulls += nulls
        same = sum(map(eq, before, after))
        if same:
            same -= sum(1 for old, new in zip(before, after, strict=True) if old == new and old in _NOTHING)
        count.unchanged += same

    def _columns(self, chunk: bytes) -> list[tuple[bytes, ...]]:
        wanted = self._leading - 1 if self._whole else self._leading
        lines = chunk[:-1].split(b"\n")
        try:
            columns = list(zip(*[line.split(b"\t", wanted) for line in lines], strict=True))
        except ValueError:
            columns = []
        if len(columns) != wanted + 1 or (self._whole and any(b"\t" in cell for cell in columns[-1])):
            raise MaskingStreamError(f"a row of {self._table.name} has another number of columns than the plan", "Was a column added?")
        return columns

    def close(self) -> None:
        """Forget sub-keys and caches; the masker cannot be used any more."""
        self._makers = []
        self._closed = True
        forget_dates()


def stream(blocks: Iterable[bytes | memoryview], masker: Masker, *, size: int = CHUNK) -> Iterator[bytes]:
    """Yield masked chunks of about ``size`` bytes from the blocks of a ``COPY … TO STDOUT`` in text format, cut anywhere."""
    waiting: list[bytes | memoryview] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= size and b"\n" in bytes(block):  # a value of a gigabyte is not joined again with every block
            text = b"".join(waiting)
            cut = text.rfind(b"\n") + 1
            yield masker.mask(text[:cut])
            waiting, held = [text[cut:]], len(text) - cut
    if rest := b"".join(waiting):
        yield masker.mask(rest)
