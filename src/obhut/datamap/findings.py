"""What a check found: a place in the file, the fact, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from obhut.foundation.errors import ObhutError


class Severity(StrEnum):
    """Errors stop every run; warnings are for the reviewer; information is for the record."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """Errors first."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``where`` is a path in the map such as ``("clinic", "tables", "public.visit", "links", 0)``."""

    code: str
    where: tuple[str | int, ...]
    fact: str
    todo: str
    severity: Severity = Severity.ERROR


class DataMapError(ObhutError):
    """The data map cannot be used; carries every finding, not only the first."""

    code = "datamap-invalid"

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(
            f"the data map does not fit: {first.fact}{more}", 'Run "obhut datamap check" for every finding with file and line.'
        )
        self.findings = tuple(findings)
