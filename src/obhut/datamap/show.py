"""The way from a person to every table that an erasure touches: as a value, and as a tree in the terminal."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

from rich.text import Text
from rich.tree import Tree

from obhut.datamap.graph import Graph, LinkForm
from obhut.datamap.models import Treatment, Verb
from obhut.foundation.language import text

STYLES = {"delete": "red", "anonymise": "magenta", "unlink": "yellow", "keep": "blue", "delete_if_orphaned": "dark_orange", "": "dim"}


@dataclass(frozen=True, slots=True)
class Stop:
    """A table on the way. ``distance`` counts links from the person; shared parents stand one beyond the table that references them."""

    table: str
    treatment: str  # a verb, or empty
    detail: str  # ground and period of keep
    columns: tuple[str, ...]  # personal columns that are changed when the row stays
    personal: int
    distance: int
    rows: int


@dataclass(frozen=True, slots=True)
class Way:
    """A link from the nearer table to the further one."""

    near: str
    far: str
    label: str
    treatment: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """What happens to one kind of person, the subject's own table first."""

    kind: str
    stops: tuple[Stop, ...]
    ways: tuple[Way, ...]
    anonymising: bool


def outline(graph: Graph, kind: str, *, anonymising: bool = False) -> Outline:
    """Return the outline of one subject kind, for an erasure or for an anonymisation.

    Raises:
        DataMapError: the map has no such kind.
    """
    subject = graph.subject(kind)
    own = subject.when_anonymised if anonymising else subject.erase
    distance = {subject.table: 0}
    met: dict[int, list[Treatment]] = defaultdict(list)
    if own:
        met[subject.table].append(own)
    ways: list[Way] = []
    names = {oid: node.table.full_name for oid, node in graph.tables.items()}
    waiting = deque([subject.table])
    while waiting:
        oid = waiting.popleft()
        for link in sorted(graph.links_to(oid), key=lambda link: (names[link.child], link.name)):
            treatment = link.treatment(anonymising=anonymising)
            verb = treatment.verb if treatment else None
            ways.append(Way(names[oid], names[link.child], _label(link.form, link.columns, link.when, link.path), verb or ""))
            if treatment:
                met[link.child].append(treatment)
            if link.child not in distance:
                distance[link.child] = distance[oid] + 1
                if verb is not Verb.UNLINK and verb is not None:
                    waiting.append(link.child)
    _add_shared(graph, names, distance, met, ways)
    order = sorted(distance, key=lambda oid: (distance[oid], names[oid]))
    return Outline(kind, tuple(_stop(graph, oid, met[oid], distance[oid]) for oid in order), tuple(ways), anonymising)


def _add_shared(graph: Graph, names: dict[int, str], distance: dict[int, int], met: dict[int, list[Treatment]], ways: list[Way]) -> None:
    changed = True
    while changed:  # a shared parent may itself reference one
        changed = False
        for reference in graph.references:
            child = graph.catalogue.root(reference.child).oid
            way = Way(names.get(child, ""), names[reference.parent], ", ".join(reference.columns), Verb.DELETE_IF_ORPHANED, shared=True)
            if child in distance and way not in ways:
                rule = graph.tables[reference.parent].rule.erase
                distance.setdefault(reference.parent, distance[child] + 1)
                met[reference.parent] += [rule] if rule else []
                ways.append(way)
                changed = True


def _label(form: LinkForm, columns: tuple[str, ...], when: tuple[tuple[str, str], ...], path: tuple[str | None, ...]) -> str:
    label = ", ".join(columns)
    if form is LinkForm.ARRAY:
        label += "[]"
    if form is LinkForm.JSON:
        label += "".join("[*]" if step is None else f".{step}" for step in path)
    return label + "".join(f" ({column} = {value})" for column, value in when)


def _stop(graph: Graph, oid: int, treatments: list[Treatment], distance: int) -> Stop:
    node = graph.tables[oid]
    rank = [Verb.DELETE, Verb.KEEP, Verb.ANONYMISE, Verb.DELETE_IF_ORPHANED, Verb.UNLINK]  # the strongest one names the table
    strongest = min(treatments, key=lambda treatment: rank.index(treatment.verb), default=None)
    verb = strongest.verb if strongest else None
    columns = tuple(node.anonymise) if verb in {Verb.ANONYMISE, Verb.DELETE_IF_ORPHANED} else ()
    detail = f"{strongest.ground}, {strongest.period}" if strongest and verb is Verb.KEEP else ""
    rows = sum(leaf.estimated_rows for leaf in graph.catalogue.leaves(oid))
    return Stop(node.table.full_name, verb or "", detail, columns, len(node.rule.columns), distance, rows)


def tree(shown: Outline) -> Tree:
    """Return the outline as a tree; a table that several ways lead to is opened once."""
    stops = {stop.table: stop for stop in shown.stops}
    head = Text.assemble((shown.kind, "bold"), f": {text('what an anonymisation does' if shown.anonymising else 'what an erasure does')}")
    root = Tree(head)
    opened: set[str] = set()
    first = shown.stops[0]

    def grow(branch: Tree, stop: Stop) -> None:
        opened.add(stop.table)
        for way in (way for way in shown.ways if way.near == stop.table):
            far = stops[way.far]
            again = far.table in opened
            twig = branch.add(_line(far, way, again=again))
            if not again:
                grow(twig, far)

    grow(root.add(_line(first, None, again=False)), first)
    return root


def _line(stop: Stop, way: Way | None, *, again: bool) -> Text:
    verb = way.treatment if way else stop.treatment
    line = Text.assemble((stop.table, "bold"), "  ", (text(verb or "nothing"), STYLES.get(verb, "")))
    if way:
        line.append(f"  {'→' if way.shared else '←'} {way.label}", "dim")
    if again:
        line.append(f"  ({text('see above')})", "dim")
    elif verb == Verb.KEEP:
        line.append(f"  {stop.detail}")
    elif stop.columns and verb != Verb.UNLINK:
        line.append(f"  {', '.join(stop.columns)}", "dim")
    return line
