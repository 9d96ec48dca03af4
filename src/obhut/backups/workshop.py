"""Everything a use case needs for one database: settings checked, repository, the server as it is now, its archive and engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from obhut.backups import plan, source
from obhut.backups.archive import Archive
from obhut.backups.barman import Barman
from obhut.backups.engine import Engine
from obhut.backups.repository import Repository
from obhut.backups.source import ServerFacts
from obhut.foundation.errors import MissingComponentError
from obhut.foundation.settings import DatabaseSettings, Settings
from obhut.postgres.programs import EMBEDDED_MAJOR, Binaries, binaries

ENGINES: Final[Mapping[str, type[Barman]]] = {"barman": Barman}


@dataclass(frozen=True, slots=True)
class Workshop:
    """The surroundings of the use cases of one database."""

    settings: Settings
    database: DatabaseSettings
    rules: plan.Rules
    repository: Repository

    @property
    def slot(self) -> str:
        """Name of the replication slot."""
        return f"obhut_{self.database.name}"

    def engine(self, archive: Archive, programs: Binaries) -> Engine:
        """Return the engine that writes an archive."""
        kind = ENGINES[self.database.backup.engine]
        return kind(archive.layout, self.database.url, self.slot, programs, self.repository.keys)

    def server(self) -> ServerFacts:
        """Return the facts of the server as it is now."""
        with source.opened(self.database.url) as opened:
            return opened.facts()

    def present(self) -> tuple[ServerFacts, Archive, Engine]:
        """Return the server as it is now with its archive and its engine."""
        facts = self.server()
        archive = self.repository.archive(facts.system_identifier)
        return facts, archive, self.engine(archive, programs_for(self.settings, facts.major))

    def everything(self) -> list[tuple[Archive, Engine]]:
        """Return every archive with its engine, the servers need not run."""
        programs = programs_for(self.settings, None)
        return [(archive, self.engine(archive, programs)) for archive in self.repository.archives()]


def open_workshop(settings: Settings, database: str) -> Workshop:
    """Return the workshop of a database.

    Raises:
        SettingsError: no such database, or its limits cannot be kept.
    """
    chosen = settings.database(database)
    return Workshop(settings, chosen, plan.validated(rules_of(chosen)), Repository(settings, database))


def rules_of(database: DatabaseSettings) -> plan.Rules:
    """Return the limits that the settings name."""
    backup = database.backup
    return plan.Rules(backup.restorable, backup.gone_after, backup.full_every, backup.incremental_every)


def programs_for(settings: Settings, major: int | None) -> Binaries:
    """Return client programs that fit a server: its own version, or the embedded one, which speaks to older servers too."""
    try:
        return binaries(settings, major)
    except MissingComponentError:
        if major is None or major > EMBEDDED_MAJOR:
            raise
        return binaries(settings)
