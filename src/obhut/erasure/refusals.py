"""Why an erasure is not carried out; nothing has been deleted when one of these is raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obhut.foundation.errors import ObhutError
from obhut.postgres.errors import DatabaseError

_RAISED = "P0001"  # a trigger's own exception


class ErasureRefusedError(ObhutError):
    """An erasure cannot be carried out as asked."""

    code = "erasure-refused"


class PlanConflictError(ErasureRefusedError):
    """The data map and the foreign keys do not agree about rows that the plan reaches."""

    code = "erasure-plan-conflict"


class ForbiddenError(ErasureRefusedError):
    """The database or the data map forbids an erasure that is recorded already; repeating it will not help."""

    code = "erasure-forbidden"


class SubjectMissingError(ErasureRefusedError):
    """There is no row of this subject kind with the key asked for, and no tombstone of it."""

    code = "subject-missing"


class IncarnationConflictError(ErasureRefusedError):
    """A row has the key of a tombstone but is perhaps another person."""

    code = "incarnation-conflict"


class ErasureIncompleteError(ErasureRefusedError):
    """Rows of the person remain, or came back while the erasure ran (a trigger, a concurrent writer)."""

    code = "erasure-incomplete"


class StaleViewsError(ErasureIncompleteError):
    """The rows are gone, and a materialised view that could not be refreshed may still show them."""

    code = "erasure-views-stale"


class CanaryRuleError(ErasureRefusedError):
    """The data map's recipe for a canary is missing or does not work."""

    code = "canary-rule"


class SupersededError(ErasureRefusedError):
    """The database URL leads to a server that a restore has replaced."""

    code = "database-superseded"


def is_lasting(error: DatabaseError) -> bool:
    """Whether a constraint or a trigger forbids what was tried, so that trying again will not do."""
    state = error.sqlstate or ""
    return state.startswith("23") or state == _RAISED


@contextmanager
def explained() -> Iterator[None]:
    """Say of a recorded erasure that is refused for a lasting reason what can be done about it: nobody would find out by repeating it.

    Raises:
        ForbiddenError: a constraint, a trigger or a conflict in the map forbids it.
    """
    try:
        yield
        return
    except PlanConflictError as error:
        fact = error.fact
    except DatabaseError as error:
        if not is_lasting(error):
            raise
        fact = error.fact
    raise ForbiddenError(
        f"a recorded erasure cannot be carried out: {fact}",
        'Correct the data map or the rows and run "obhut erase --finish", or take the tombstone back with "obhut erasures lift";'
        ' "obhut erasures list" shows those that are recorded. Until then every restore is refused or leaves the person out.',
    )
