"""What copies of a database really exist: the only thing that may let a tombstone retire."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from obhut.backups import survey
from obhut.backups.plan import ItemKind
from obhut.backups.workshop import open_workshop
from obhut.datamap.load import load as load_map
from obhut.datamap.models import LinkRule, TableRule, Verb
from obhut.erasure import ledger
from obhut.erasure.entries import Inventory
from obhut.erasure.plan import earlier_by
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings

SWEPT: Final = timedelta(days=7)  # so long after its period the last kept row is gone
MARGIN: Final = timedelta(days=1)  # a copy may hold what was committed while it was begun, and clocks may differ


def inventory_of(settings: Settings, database: str, clock: Clock) -> Inventory:
    """Return what the repository of a database really holds: every backup in whatever state, every segment, every other file."""
    workshop = open_workshop(settings, database)
    items = survey.items(workshop.repository, workshop.everything(), busy=True)
    born = [item.born for item in items if item.kind is not ItemKind.KEY]
    # To see nothing is not to know that there is nothing: the disk of the repository may not be mounted.
    complete = bool(born) and not any((settings.state.directory / "restores").glob("*/quarantine"))
    oldest = min((moment - MARGIN for moment in born), default=None)
    kept = [earlier_by(clock.now(), period) - SWEPT for period in _keep_periods(settings, database)]
    # Production is a copy, too, as long as the law keeps rows there: their tombstone says when they go.
    return Inventory(database, complete=complete, copies_since=min([oldest, *kept]) if oldest else None, taken_at=clock.now())


def _keep_periods(settings: Settings, database: str) -> set[str]:
    """Return the periods for which the data map keeps rows of erased people."""
    tables = load_map(settings.database(database).map).database(database).tables.values()
    rules: list[TableRule | LinkRule] = [*tables, *(link for table in tables for link in table.links)]
    treatments = [treatment for rule in rules for treatment in (rule.erase, rule.when_anonymised)]
    return {treatment.period for treatment in treatments if treatment and treatment.verb is Verb.KEEP and treatment.period}


def retire(settings: Settings, database: str, clock: Clock) -> int:
    """Retire the tombstones of a database that no existing copy can still hold, and return how many.

    Raises:
        CopyMayExistError: not every place that may hold a copy could be listed.
    """
    ledger.open_ledger(settings)
    return ledger.retire(inventory_of(settings, database, clock), clock)
