"""Why an erasure is not carried out; nothing has been deleted when one of these is raised."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError


class ErasureRefusedError(ObhutError):
    """An erasure cannot be carried out as asked."""

    code = "erasure-refused"


class PlanConflictError(ErasureRefusedError):
    """The data map and the foreign keys do not agree about rows that the plan reaches."""

    code = "erasure-plan-conflict"


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
