"""The database that was captured until now, where the settings name another one on the same server, such as the one restored beside it.

Its slot is the only one of that name, and holds changes that nobody has read. They are read first, by the old database's own catalogue;
then the slot goes, and the new database begins with a gap entry. System identifier and timeline of both are the same, and so is the WAL:
places of changes stay unique, and ascend.
"""

from __future__ import annotations

from obhut.auditlog.capture import place, state
from obhut.auditlog.capture.errors import ServerUnsuitableError
from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import DatabaseSettings
from obhut.postgres.connections import with_parameters
from obhut.postgres.errors import DatabaseError
from obhut.postgres.replication import Replication


def former(ours: DatabaseSettings) -> DatabaseSettings | None:
    """Return the settings by which the database that was captured until now is reached; None where nothing has moved.

    Raises:
        NotEnabledError: capture is not on.
        ServerUnsuitableError: the slot serves a database that was never captured, or one that cannot be read.
    """
    recorded = state.get(ours.name)
    with place.opened(ours.url) as there:
        slot = there.slot(recorded.slot, recorded.database_oid)
        if slot is None or not slot.elsewhere:
            return None
        with Replication(ours.url) as replication:
            if str(replication.identify().system_identifier) != recorded.system:
                there.slot(recorded.slot)  # another server, where oids may be the same: not ours, so it is refused
    url = with_parameters(ours.url, dbname=slot.elsewhere)
    try:
        with place.opened(url):
            return ours.model_copy(update={"url": url})
    except DatabaseError:
        raise ServerUnsuitableError(
            f"replication slot {recorded.slot} serves database {slot.elsewhere}, which cannot be read",
            "Let Obhut's role connect to it; or drop the slot there: then what it holds is missed, and an entry says so.",
        ) from None


def release(before: DatabaseSettings) -> None:
    """Drop the slot of a database whose changes were all read."""
    with place.opened(before.url) as there:
        there.drop_slot(state.get(before.name).slot)
    reach("audit-follow.former-released")
