"""What is known and decided before anything is made: map, masks, instructions, erased people, the part that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from obhut.clones import subset
from obhut.clones.errors import CloneRefusedError
from obhut.clones.source import Source
from obhut.clones.subset import Wanted
from obhut.controllers import gate
from obhut.controllers.gate import Permission
from obhut.controllers.vocabulary import Action, canonical_key
from obhut.datamap.check import examine, require_clean
from obhut.datamap.graph import Graph
from obhut.datamap.load import load as load_map
from obhut.datamap.surroundings import read_surroundings
from obhut.erasure import ledger, reading
from obhut.erasure.addresses import RowAddresses
from obhut.erasure.closure import resolve
from obhut.erasure.entries import Tombstone
from obhut.erasure.subjects import find
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.masking.model import MaskPlan
from obhut.masking.plan import plan as plan_masks
from obhut.postgres.sql import SQL
from obhut.restores import people, preflight
from obhut.restores.filter import Filter
from obhut.restores.load import tables_to_load
from obhut.restores.progress import Progress


@dataclass(frozen=True, slots=True)
class Size:
    """What is carried of a table: rows of the snapshot, those that are wanted, those that the erasure list leaves out."""

    table: str
    rows: int
    wanted: int
    erased: int


@dataclass(frozen=True)
class Prepared:
    """Everything that is decided.

    Attributes:
        graph: the map resolved against the source.
        masks: the plan of every column.
        rows: what the erasure list and the wanted part leave.
        head: size of the erasure list that was applied.
        notes: what the copy lacks on purpose.
    """

    graph: Graph
    masks: MaskPlan
    rows: Filter
    head: int
    notes: tuple[str, ...]


def masks_for(settings: Settings, database: str, source: Source, locale: str, *, of_backup: bool = False) -> tuple[Graph, MaskPlan]:
    """Return the map resolved against the source and the plan of every column; a backup may fit an earlier version of the map.

    Raises:
        DataMapError: the map does not fit, or a column is not classified.
        MaskingRefusedError: a rule does not fit its column.
    """
    surroundings = read_surroundings(source.session)
    if of_backup:
        graph, reasons, unknown = preflight.fitting_map(settings, database, source.catalogue)
        if graph is None:
            fact = (reasons or unknown or ["it names other tables"])[0]
            raise CloneRefusedError(
                f"no known version of the data map fits the backup: {fact}", "Copy a later moment, or the live database."
            )
    else:
        graph, findings = examine(load_map(settings.database(database).map), database, source.catalogue, surroundings)
        require_clean(findings)
        if graph is None:
            raise CloneRefusedError("the data map does not fit the database", 'Run "obhut datamap check".')
    masks = plan_masks(graph, surroundings, locale=locale)
    masks.require()
    return graph, masks


def instructed(source: Source, graph: Graph, wanted: Wanted, actor: Actor, clock: Clock, run_id: str | None) -> list[Permission]:
    """Ask for the instruction of every controller whose people are copied.

    Raises:
        NotInstructedError: one of them has not instructed it.
    """
    keys = [canonical_key(wanted.controller)] if wanted.controller else preflight.controllers_in(source.session, graph)
    return gate.permit_all(Action.CLONE, database=graph.database, controller_keys=keys, actor=actor, clock=clock, run_id=run_id)


def prepare(
    settings: Settings, source: Source, graph: Graph, masks: MaskPlan, wanted: Wanted, clock: Clock, progress: Progress
) -> Prepared:
    """Apply the erasure list and choose the wanted part, in the source's snapshot.

    Raises:
        ErasureListError: the list does not verify.
        CloneSubsetError: nobody is in the part.
    """
    ledger.verify_list(settings, settle_at=clock)
    head = reading.head().size
    listed = _listed(source, graph, head, clock, progress)
    chosen = subset.select(source.session, graph, wanted)
    rows = _narrowed(listed, chosen)
    return Prepared(graph, masks, rows, head, tuple(_notes(source)))


def _listed(source: Source, graph: Graph, head: int, clock: Clock, progress: Progress) -> Filter:
    with progress.phase("looking up erased people", None, "people") as advance:

        def counted() -> Iterator[Sequence[Tombstone]]:
            for chunk in people.relevant(source.session, graph, head):
                yield chunk
                advance(len(chunk))

        decisions = reading.resolutions(graph.database)
        found = find(source.session, graph, counted(), ledger.fingerprint_key(), clock.now(), decisions)
        return Filter.of_effects(resolve(source.session, graph, found.seeds))


def _narrowed(listed: Filter, chosen: dict[int, RowAddresses] | None) -> Filter:
    if chosen is None:
        return listed
    tables = dict(listed.tables)
    for oid, rows in chosen.items():
        tables[oid] = replace(listed.of(oid), only=rows)
    return Filter(tables, listed.settings)


def _notes(source: Source) -> Iterator[str]:
    tables = source.catalogue.tables.values()
    if unlogged := [table for table in tables if table.persistence == "u" and table.kind == "r"]:
        yield f"{len(unlogged)} unlogged tables come empty"
    if foreign := [table for table in tables if table.kind == "f"]:
        yield f"{len(foreign)} foreign tables lead nowhere: options of servers and user mappings are left out"
    if objects := int(source.session.value("SELECT count(*) FROM pg_largeobject_metadata")):
        yield f"{objects} large objects: those that rows name hold random bytes, the others are left out"


def sizes(source: Source, prepared: Prepared) -> list[Size]:
    """Return what is carried of every table, counted in the snapshot."""
    totals: dict[str, Size] = {}
    for table in tables_to_load(source.catalogue):
        rows = prepared.rows.of(table.oid)
        total = int(source.session.value(SQL("SELECT count(*) FROM {}").format(table.relation)))
        wanted = total if rows.only is None else rows.only.count
        erased = len(rows.deleted if rows.only is None else rows.deleted & rows.only)
        name = source.catalogue.root(table.oid).full_name
        before = totals.get(name, Size(name, 0, 0, 0))
        totals[name] = Size(name, before.rows + total, before.wanted + wanted, before.erased + erased)
    return sorted(totals.values(), key=lambda size: size.table)
