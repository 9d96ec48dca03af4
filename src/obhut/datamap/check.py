"""``obhut datamap check``: the data map against the live catalogue. Pure; every finding at once."""

from __future__ import annotations

from collections.abc import Sequence

from obhut.datamap.checks import anonymisations, coverage, environment, links, masks, retained, subjects, treatments
from obhut.datamap.checks.context import Context
from obhut.datamap.findings import DataMapError, Finding, Severity
from obhut.datamap.graph import Graph, resolve
from obhut.datamap.load import LoadedMap
from obhut.datamap.models import DatabaseMap
from obhut.datamap.surroundings import Surroundings
from obhut.postgres.catalogue import Catalogue


def check(loaded: LoadedMap | DatabaseMap, database: str, catalogue: Catalogue, surroundings: Surroundings | None = None) -> list[Finding]:
    """Return every finding; the map may be used when none is an error.

    While a name of the map cannot be found in the database, only coverage and names are checked: the rest would guess.

    Args:
        loaded: the map as read from its file, or the map of the one database.
        database: its name in the map.
        catalogue: what the database contains.
        surroundings: triggers, views and the like; without them those checks find nothing.

    Raises:
        DataMapError: the map does not describe the database.
    """
    return examine(loaded, database, catalogue, surroundings)[1]


def examine(
    loaded: LoadedMap | DatabaseMap, database: str, catalogue: Catalogue, surroundings: Surroundings | None = None
) -> tuple[Graph | None, list[Finding]]:
    """Return the resolved graph too; None while names are missing."""
    rules = loaded.database(database) if isinstance(loaded, LoadedMap) else loaded
    graph, unresolved = resolve(database, rules, catalogue)
    context = Context(database, rules, catalogue, surroundings or Surroundings(), graph, list(unresolved))
    coverage.check(context)
    if graph is not None:
        for part in (links, treatments, anonymisations, masks, subjects, retained, environment):
            part.check(context)
    return graph, _sorted(context.findings)


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that stop every run."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def require_clean(findings: Sequence[Finding]) -> None:
    """Refuse a map with errors.

    Raises:
        DataMapError: carries the errors.
    """
    if found := errors(findings):
        raise DataMapError(found)


def _sorted(findings: list[Finding]) -> list[Finding]:
    unique = {(finding.code, finding.where, finding.fact): finding for finding in findings}
    return sorted(
        unique.values(), key=lambda finding: (finding.severity.rank, [str(step) for step in finding.where], finding.code, finding.fact)
    )
