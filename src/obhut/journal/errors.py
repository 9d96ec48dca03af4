"""Refusals of the journal."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError


class RunUnknownError(ObhutError):
    """There is no such run."""

    code = "run-unknown"


class RunBusyError(ObhutError):
    """Another process carries out the run."""

    code = "run-busy"


class RunStateError(ObhutError):
    """The run cannot make that move from where it stands."""

    code = "run-state"
