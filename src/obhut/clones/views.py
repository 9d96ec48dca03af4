"""Materialised views of a copy: filled from its own masked rows, and searched all the same.

A view may read more than tables: a function that holds a value, a file, another server. What it shows is in files of its own, so it is
searched like a table; a column that has the name of one that the view reads is judged by that column's rule.
"""

from __future__ import annotations

from dataclasses import replace

from obhut.clones.originals import Originals
from obhut.datamap.surroundings import Surroundings
from obhut.postgres.catalogue import Catalogue, MaterialisedView, Table


def searched(catalogue: Catalogue) -> Catalogue:
    """Return a catalogue in which every filled materialised view stands as a table."""
    views = {view.oid: _table(view) for view in catalogue.materialised_views if view.populated}
    return replace(catalogue, tables={**catalogue.tables, **views})


def judged(found: Originals, catalogue: Catalogue, around: Surroundings) -> Originals:
    """Return the originals with the columns of views beside those that they repeat.

    Args:
        found: the source's values.
        catalogue: of the copy.
        around: of the copy: what its views read.
    """
    values, invented, tables, kept = dict(found.values), dict(found.invented), dict(found.tables), set(found.kept)
    for view in catalogue.materialised_views:
        name, below = f"{view.schema}.{view.name}", _below(view.oid, catalogue, around)
        for column in view.columns:
            place, repeated = f"{name}.{column.name}", [f"{table}.{column.name}" for table in below]
            rules = [other for other in repeated if other in found.invented]
            if len(rules) == 1:
                invented[place], values[place] = found.invented[rules[0]], found.values[rules[0]]
                tables[name] = found.tables[rules[0].rsplit(".", 1)[0]]
            kept |= {place} if found.kept & set(repeated) else set()
    return replace(found, values=values, invented=invented, tables=tables, kept=kept)


def _below(view: int, catalogue: Catalogue, around: Surroundings) -> list[str]:
    """Return the tables that a view reads, also through other views."""
    reached, waiting = set[int](), [view]
    while waiting:
        reads = around.views[oid].reads if (oid := waiting.pop()) in around.views else frozenset()
        waiting += reads - reached
        reached |= reads
    return sorted({catalogue.root(oid).full_name for oid in reached if oid in catalogue.tables})


def _table(view: MaterialisedView) -> Table:
    return Table(
        view.oid, view.schema, view.name, "r", "p", is_partition=False, parent=None, inherits=False, estimated_rows=0, pages=0,
        heap_bytes=0, total_bytes=0, extension=None, row_security=False, comment=None, has_toast=False, columns=view.columns,
    )  # fmt: skip
