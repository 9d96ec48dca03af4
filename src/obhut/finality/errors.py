"""Why traces cannot be looked after."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError


class FinalityError(ObhutError):
    """Traces of erasures cannot be removed or looked for as asked."""

    code = "finality-refused"


class CleaningIncompleteError(FinalityError):
    """Some objects could not be vacuumed, rebuilt or rewritten; what was done counts."""

    code = "finality-incomplete"
