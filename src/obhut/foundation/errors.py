"""One root for all errors that a user can act upon.

Style: PostgreSQL's message style guide; the fact in lower case without a full stop, the hint a whole sentence that names the
next check. A fact or hint never carries a value of personal data; schema, table, column and constraint names are allowed.
"""

from __future__ import annotations

from typing import ClassVar


class ObhutError(Exception):
    """A refusal or failure with a stable code.

    Subclasses set :attr:`code` (kebab-case, documented in ``docs/reference/errors.md``, never reused). Faces map the code to an exit
    status or an HTTP status in one place.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, fact: str, hint: str | None = None) -> None:
        super().__init__(fact)
        self.fact = fact
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.fact}\nHINT: {self.hint}" if self.hint else self.fact


class SettingsError(ObhutError):
    """The configuration cannot be used as written."""

    code = "settings-invalid"


class MissingComponentError(ObhutError):
    """A program or library that the operation needs is not on this machine."""

    code = "component-missing"
