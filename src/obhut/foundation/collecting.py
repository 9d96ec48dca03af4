"""The collector of cyclic garbage looks at every young object again and again; a batch makes hundreds of thousands that hold no cycle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = 200_000  # objects made and not yet gone


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Let the collector run seldom while the block works on a batch; what no cycle holds goes at once all the same."""
    before = gc.get_threshold()
    gc.set_threshold(_RARELY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
