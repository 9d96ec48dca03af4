"""Words of retention: reasons for holds, states of cases and sweeps."""

from __future__ import annotations

from enum import StrEnum


class HoldReason(StrEnum):
    """Why somebody must not be anonymised for now; an enumeration, because a remark would be free text."""

    LITIGATION = "litigation"  # legal claims, Art. 17(3)(e)
    AUTHORITY = "authority"  # an investigation
    REQUEST = "request"  # an open request of the person: access before erasure
    RESTRICTION = "restriction"  # Art. 18
    CONTROLLER = "controller"  # the controller has asked for it


class CaseState(StrEnum):
    """Where the case of a person stands who is about to be anonymised; the row goes when the case is closed."""

    WAITING = "waiting"  # to be told
    TOLD = "told"  # the grace runs
    TAKEN = "taken"  # this person's rows are being anonymised, or a process died over it


class SweepState(StrEnum):
    """How a sweep ended."""

    RUNNING = "running"  # also what a killed process leaves behind
    DONE = "done"
    FAILED = "failed"


class Obstacle(StrEnum):
    """Why a rule does not act today; the value is part of documents."""

    NONE = ""
    NOT_INSTRUCTED = "not-instructed"
    IMPLAUSIBLE = "implausible-share"
    NO_CHANNEL = "no-channel"
