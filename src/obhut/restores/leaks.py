"""What of a schema's text names an erased person: found before anything of it is made in the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from obhut.datamap.graph import Graph
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier
from obhut.restores import naming, scan
from obhut.restores.errors import SchemaLeakError
from obhut.restores.filter import Filter
from obhut.restores.schema import Entry, Section

_MAY_GO: Final = {"COMMENT"}  # kinds of entries that may go without changing what the database does


def to_leave_out(
    source: Session, graph: Graph, rows: Filter, entries: Mapping[Section, Sequence[Entry]], statements: Sequence[str],
    names: naming.Names, wanted: set[str],
) -> set[str]:  # fmt: skip
    """Return the entries that name an erased person and may be left out: comments, and what the operator wants to be left out.

    Args:
        source: a session on the quarantine.
        graph: the data map resolved against it.
        rows: the filter.
        entries: the dumped schema.
        statements: that make the roles.
        names: of the entries; those that hold an identifier are hidden in it.
        wanted: opaque names of entries that are not to be made.

    Raises:
        SchemaLeakError: something else names an erased person.
    """
    everything = [entry for section in Section for entry in entries[section]]
    kinds = {entry.name: entry.kind for entry in everything}
    found = _naming_somebody(source, graph, rows, scan.TextIndex(scan.schema_places(everything, statements)), names)
    # Without its table a partition's rows would be lost: the proof would fail, and name it.
    bad = sorted(
        name for name in found
        if kinds.get(name) == "TABLE" or (kinds.get(name) not in _MAY_GO and names.digest(name) not in wanted)
    )  # fmt: skip
    if bad:
        raise SchemaLeakError(
            f"the schema names an erased person in {len(bad)} places, the first is {names.said(bad[0])}",
            "A table cannot be left out: rename it at the source, and restore to a point after that."
            if kinds.get(bad[0]) == "TABLE"
            else f'Leave it out with --leave-out "{names.said(bad[0])}" and make it anew without the value.',
        )
    return found


def _naming_somebody(source: Session, graph: Graph, rows: Filter, index: scan.TextIndex, names: naming.Names) -> set[str]:
    found: set[str] = set()
    for values in scan.identifiers(source, graph, rows):
        if index.find(values):
            suspects = [value for value in values if index.find([value])]
            shared = _shared(source, graph, rows, suspects)
            alone = [value for value in suspects if value not in shared]
            places = index.find(alone)
            names.hide(places, alone)
            found |= places
    return found


def _shared(source: Session, graph: Graph, rows: Filter, values: Sequence[str]) -> set[str]:
    """Return values that somebody who stays has too, asked in the quarantine."""
    shared: set[str] = set()
    for subject in graph.subjects.values():
        for table in graph.catalogue.leaves(subject.table):
            gone = rows.of(table.oid).excluded
            for name in subject.identifiers:
                column = Identifier(name)
                where = SQL(" AND ctid <> ALL({})").format(gone.literal()) if gone else SQL("")
                query = SQL("SELECT DISTINCT lower({c}::text) FROM {t} WHERE lower({c}::text) = ANY(%s){w}").format(
                    c=column, t=table.relation, w=where
                )
                shared.update(str(value) for (value,) in source.rows(query, (list(values),)))
    return shared
