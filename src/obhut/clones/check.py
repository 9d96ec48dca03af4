"""Everything that is looked at before a copy is opened, and again whenever somebody asks whether it still holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from obhut.clones import leaks, views
from obhut.clones.errors import CloneRefusedError
from obhut.clones.findings import Statement
from obhut.clones.mark import SCHEMA
from obhut.clones.originals import FEW, Originals, gather
from obhut.clones.originals import again as gather_again
from obhut.clones.passing import Passed
from obhut.clones.texts import Database
from obhut.datamap.graph import Graph
from obhut.datamap.surroundings import read_surroundings
from obhut.erasure import canary
from obhut.foundation.settings import Settings
from obhut.masking.model import MaskPlan
from obhut.masking.plan import plan as plan_masks
from obhut.masking.stream import Count
from obhut.postgres.catalogue import Catalogue, read_catalogue
from obhut.postgres.connections import Session
from obhut.restores import preflight, scan, streams
from obhut.restores.schema import Entry

_MARK = f"{SCHEMA}.copy"


@dataclass(frozen=True, slots=True)
class Checked:
    """What is checked: a copy of this database by this installation's map."""

    settings: Settings
    database: str
    locale: str = "de"
    workers: int = 2  # processes that search side by side


def definitions(entries: Iterable[Entry], roles: Sequence[str], originals: Originals) -> Statement:
    """Search the schema (comments, defaults, constraints, predicates, bodies of functions and views) and the roles."""
    return leaks.texts("definitions", scan.schema_places(entries, roles), originals)


def copy(
    about: Checked, source: Session, session: Session, copied: Database, originals: Originals, counts: Mapping[str, Count] | None,
    passed: Passed | None = None,
) -> list[Statement]:  # fmt: skip
    """Search the copy itself: rows, those of materialised views too, the rules of the server, statistics.

    Args:
        about: which copy.
        source: on the source, for what is to be confirmed.
        session: on the copy.
        copied: the same for other sessions.
        originals: values of the source.
        counts: what the streams counted; None when the copy is an older one, whose mark keeps that statement.
        passed: what was searched already, on its way into the copy.
    """
    _, catalogue, masks = afresh(about, session)
    planted = [one.token for one in canary.living(about.database)]
    judged = views.judged(originals, catalogue, read_surroundings(session))
    found = leaks.rows(source, session, copied, judged, views.searched(catalogue), planted, about.workers, passed or Passed())
    found += [leaks.rules(session, masks, catalogue), _statistics(session, originals)]
    if counts is not None:
        found.append(leaks.stream(masks, counts))
    return found


def against(about: Checked, session: Session, source: Database, passing: frozenset[str] = frozenset()) -> Originals:
    """Return the values that a copy is compared with: of its snapshot, or of the source as it is today.

    The plan is made from the map again: what a run's own plan has lost is what is looked for.

    Args:
        about: which copy.
        session: on the source.
        source: the same for other sessions.
        passing: places whose values will be gathered while their rows pass into the copy.
    """
    catalogue = read_catalogue(session)
    return gather(session, source, _planned(about, session, catalogue)[1], catalogue, about.workers, passing)


def again(about: Checked, session: Session, source: Database, places: AbstractSet[str], originals: Originals) -> None:
    """Read the values of places that were not settled while their rows passed; arguments as for :func:`against`."""
    if places:
        catalogue = read_catalogue(session)
        gather_again(session, source, _planned(about, session, catalogue)[1], catalogue, about.workers, places, originals)


def afresh(about: Checked, session: Session) -> tuple[Graph, Catalogue, MaskPlan]:
    """Return the map resolved against a copy, its catalogue, and the plan of its columns made from the map alone.

    Raises:
        CloneRefusedError: no known version of the map fits the copy.
    """
    catalogue = preflight.hidden(read_catalogue(session), streams.RECORDS)
    catalogue = replace(catalogue, tables={oid: table for oid, table in catalogue.tables.items() if table.full_name != _MARK})
    graph, masks = _planned(about, session, catalogue)
    return graph, catalogue, masks


def _planned(about: Checked, session: Session, catalogue: Catalogue) -> tuple[Graph, MaskPlan]:
    graph, findings, unknown = preflight.fitting_map(about.settings, about.database, catalogue)
    if graph is None:
        fact = (findings or unknown or ["it names other tables"])[0]
        raise CloneRefusedError(f"no known version of the data map fits: {fact}", 'Run "obhut datamap check".')
    return graph, plan_masks(graph, read_surroundings(session), locale=about.locale)


def _statistics(session: Session, originals: Originals) -> Statement:
    places, columns = scan.statistics_places(session)
    judged = []
    for place in places:
        schema, table, column = columns.get(place.name, ("", "", ""))
        rule = originals.invented.get(f"{schema}.{table}.{column}")
        if rule is None or rule.transformer not in FEW:
            judged.append(place)
    return leaks.texts("statistics", judged, originals)
