"""Who acts: carried through every use case instead of a web request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The side an actor acts for."""

    OPERATOR = "operator"  # staff of the processor, at the command line or in the portal
    CONTROLLER = "controller"  # a person of the customer
    SYSTEM = "system"  # a scheduled job


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor by role and opaque reference (an account or job id, never a name or an e-mail address)."""

    role: Role
    ref: str

    def __str__(self) -> str:
        return f"{self.role}:{self.ref}"
