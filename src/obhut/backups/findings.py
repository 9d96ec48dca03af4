"""What a check can find: one code a condition, with how bad it is and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    WARNING = "warning"  # the promise still holds
    CRITICAL = "critical"  # it is broken, or will be without help


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that needs somebody; fact and hint as in errors."""

    code: str
    severity: Severity
    fact: str
    hint: str


def critical(code: str, fact: str, hint: str) -> Finding:
    """Return a finding that breaks the promise."""
    return Finding(code, Severity.CRITICAL, fact, hint)


def warning(code: str, fact: str, hint: str) -> Finding:
    """Return a finding that does not break the promise yet."""
    return Finding(code, Severity.WARNING, fact, hint)
