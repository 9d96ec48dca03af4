"""Checking a copy again by its mark: is it one, is the mark its own, and does it still hold nothing of the source?"""

from __future__ import annotations

from dataclasses import dataclass

from obhut.clones import check, mark
from obhut.clones import target as places
from obhut.clones.check import Checked
from obhut.clones.errors import CloneMarkError
from obhut.clones.findings import Statement, failed
from obhut.clones.mark import Mark
from obhut.clones.texts import Database
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.keystore import open_keystore
from obhut.postgres.clusters import binaries
from obhut.postgres.connections import Session
from obhut.restores import schema, streams
from obhut.restores.schema import Section

_NAME = "obhut clone verify"


@dataclass(frozen=True, slots=True)
class Verified:
    """A copy with its mark and the answers of today."""

    mark: Mark
    url: str
    statements: tuple[Statement, ...]

    @property
    def holds(self) -> bool:
        """Whether no statement failed."""
        return not failed(self.statements)


def verify(settings: Settings, *, run_id: str = "", url: str = "") -> Verified:
    """Check a copy of a run, or the one at a connection string, against the living source.

    Raises:
        CloneMarkError: it is no copy of ours.
        DatabaseError: source or copy do not answer.
    """
    where = url or url_of(settings, run_id)
    with Session.connect(where, application_name=_NAME) as session:
        found = mark.read(session, open_keystore(settings))
        about = Checked(settings, found.database)
        protected = settings.database(found.database).url
        with Session.connect(protected, application_name=_NAME) as source:
            originals = check.against(about, source, Database(protected, _NAME))
            statements = check.copy(about, source, session, Database(where, _NAME), originals, None)
        major = session.server_version // 10_000
    scratch = settings.state.directory / places.CLONES / f"verify-{found.run}"
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        dumped = schema.dump(binaries(settings, major), where, scratch)
    finally:
        for path in scratch.iterdir():
            path.unlink()
        scratch.rmdir()
    entries = [entry for section in Section for entry in dumped[section] if entry.schema not in {streams.RECORDS, mark.SCHEMA}]
    return Verified(found, where, (check.definitions(entries, [], originals), *statements))


def url_of(settings: Settings, run_id: str) -> str:
    """Return where the copy of a run is; its own server is started.

    Raises:
        CloneMarkError: the run made no copy that is there.
    """
    run = runs.get(run_id)
    if run.kind is not RunKind.CLONE or run.state is not RunState.DONE:
        raise CloneMarkError(f"run {run_id} made no copy that is open", 'Look at "obhut clone list".')
    target = places.target_of(settings, run)
    if target.cluster is not None and not target.cluster.initialised:
        raise CloneMarkError(f"the copy of run {run_id} is gone", "It was dropped or its directory removed; make another.")
    return places.reached(settings, run).url
