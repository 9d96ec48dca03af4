"""``obhut datamap check`` and ``snapshot``: the map against the live catalogue, and against another commit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from obhut.cli.context import context
from obhut.cli.exits import Exit, UsageError
from obhut.cli.maps import Database, MapFile, SnapshotFile, Url, load_map, only, place_of
from obhut.datamap.archive import archive
from obhut.datamap.check import examine
from obhut.datamap.discovery.looking import sample
from obhut.datamap.drift import snapshot as snapshots
from obhut.datamap.drift.drift import Drift, Live, drift
from obhut.datamap.drift.state import of_catalogue
from obhut.datamap.findings import Finding, Severity
from obhut.datamap.graph import map_version
from obhut.datamap.load import LoadedMap, Located
from obhut.datamap.surroundings import probe, read_surroundings
from obhut.foundation.language import text
from obhut.postgres.catalogue import Catalogue, read_catalogue
from obhut.postgres.connections import Session


def check(
    database: Database = None,
    *,
    url: Url = None,
    map_file: MapFile = None,
    keep_version: Annotated[bool, Parameter(name="--archive", help="Keep this version of the map in the state directory.")] = False,
    against: Annotated[
        str | None, Parameter(help="Branch, tag or commit of git to compare map and schema with, such as origin/main.")
    ] = None,
    snapshot_file: SnapshotFile = None,
    offline: Annotated[bool, Parameter(help="Connect to no database: compare snapshot and map with those of --against.")] = False,
) -> int:
    """Check the data map against the live catalogue, and with --against what changed since another commit.

    Exit status 5 when there is an error: an unclassified column, an unknown table, a table that no person leads to, a treatment that
    the database forbids. Run it in the CI of the schema: a new column without a category then fails the build.

    With --against every new, dropped, renamed or retyped table and column and every new JSON path since that commit is named, with the line
    that the map lacks; what the map answers already is a remark. The schema of that commit is its stored snapshot ("obhut datamap
    snapshot"), or its map where it has none; types and JSON paths are compared where a snapshot tells them.
    """
    place = place_of(database, url, map_file, offline=offline and against is not None)
    loaded, findings, catalogue, live = load_map(place.map), list[Finding](), None, None
    name = place.name or only(loaded)
    if offline and against is None:
        raise UsageError("--offline needs --against", "Without a database there is only another commit to compare with.")
    if not offline:
        with Session.connect(place.url, application_name="obhut datamap") as session:
            catalogue, around = read_catalogue(session), read_surroundings(session)
            graph, findings = examine(loaded, name, catalogue, around)
            if graph is not None:
                findings = [*findings, *probe(session, graph, around)]
            live = Live(catalogue, sample(session, catalogue, documents_only=True)) if against is not None else None
    changed = None
    if against is not None:
        stored = snapshot_file or place.map.with_name(f"{name}{snapshots.SUFFIX}")
        changed = drift(name, loaded, place.map.read_text(encoding="utf-8"), against, stored, live)
        findings = [*findings, *changed.findings]
    located = loaded.locate(findings)
    counts = {severity.value: sum(1 for item in located if item.finding.severity is severity) for severity in Severity}
    if keep_version and not counts["error"]:
        archive(loaded.database(name), context().settings.state.directory / "maps")
    document = _checked(name, loaded, located, counts, changed)
    context().output.result(document, lambda: _show_findings(located, counts, catalogue, changed))
    return Exit.UNPROVEN if counts["error"] else Exit.OK


def _checked(name: str, loaded: LoadedMap, located: list[Located], counts: dict[str, int], changed: Drift | None) -> dict[str, object]:
    since = {"commit": changed.commit, "before": changed.before, "after": changed.after, "changes": changed.changes} if changed else None
    return {
        "database": name,
        "map": loaded.path,
        "version": map_version(loaded.database(name)),
        "counts": counts,
        **({"against": since} if since else {}),
        "findings": [
            {
                "severity": item.finding.severity,
                "code": item.finding.code,
                "file": item.file,
                "line": item.position.line,
                "fact": item.finding.fact,
                "todo": item.finding.todo,
            }
            for item in located
        ],
    }


def _show_findings(located: list[Located], counts: dict[str, int], catalogue: Catalogue | None, changed: Drift | None) -> None:
    out = context().output
    styles = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "dim"}
    for item in located:
        severity = item.finding.severity
        out.say(
            "{place}: {severity}: {fact}",
            place=f"{item.file}:{item.position.line}",
            severity=text(severity),
            fact=text(item.finding.fact),
            style=styles[severity],
        )
        out.say("    {todo}", todo=text(item.finding.todo))
    if changed is not None:
        sentence = "{changes} changes since {commit} (before: {before}, now: {after})."
        out.say(sentence, changes=len(changed.changes), commit=changed.commit[:12], before=changed.before, after=changed.after)
    if catalogue is None:
        out.say("{errors} errors, {warnings} warnings; no database was looked at.", errors=counts["error"], warnings=counts["warning"])
        return
    columns = sum(len(table.columns) for table in catalogue.roots)
    sentence = "{tables} tables, {columns} columns: {errors} errors, {warnings} warnings."
    out.say(sentence, tables=len(catalogue.roots), columns=columns, errors=counts["error"], warnings=counts["warning"])


def snapshot(
    database: Database = None,
    *,
    url: Url = None,
    map_file: MapFile = None,
    snapshot_file: SnapshotFile = None,
    names_only: Annotated[bool, Parameter(help="Do not look at JSON documents for their paths.")] = False,
) -> None:
    """Store the names, types and JSON paths of the schema beside the map, for "obhut datamap check --against".

    Commit the file: it reads well in a review, one column a line, and it accepts what it lists. It holds no value. Paths that it had
    stay in it, so that a database without rows makes it forget none.
    """
    place = place_of(database, url, map_file or (Path("datamap.yaml") if url and database else None))
    target = snapshot_file or place.map.with_name(f"{place.name}{snapshots.SUFFIX}")
    stored = snapshots.read(target.read_text(encoding="utf-8"), place.name, target.name) if target.is_file() else None
    with Session.connect(place.url, application_name="obhut datamap") as session:
        catalogue = read_catalogue(session)
        seen = None if names_only else sample(session, catalogue, documents_only=True)
    state = snapshots.remembered(of_catalogue(catalogue, seen), stored)
    _replace(target, snapshots.written(place.name, state))
    paths = sum(len(column.paths) for table in state.tables.values() for column in table.columns.values())
    unseen = sorted(catalogue.tables[oid].full_name for oid in seen.unseen) if seen else []
    facts = {"database": place.name, "file": target, "tables": len(state.tables), "json_paths": paths, "not_looked_at": unseen}
    context().output.result(facts, lambda: _show_snapshot(target, len(state.tables), paths, unseen))


def _show_snapshot(target: Path, tables: int, paths: int, unseen: list[str]) -> None:
    out = context().output
    out.say("Written: {file} with {tables} tables and {paths} JSON paths.", file=target, tables=tables, paths=paths)
    if unseen:
        out.warn("The documents of {tables} could not be looked at.", tables=", ".join(unseen))


def _replace(target: Path, text: str) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({os.strerror(error.errno or 0)})", "Name a file in a directory that you may write to."
        ) from None
