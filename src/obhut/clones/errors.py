"""What can go wrong with a masked copy: one class and code for each situation that a caller can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from obhut.foundation.errors import ObhutError

if TYPE_CHECKING:
    from obhut.clones.findings import Statement
    from obhut.masking.verdict import Verdict


class CloneError(ObhutError):
    """A masked copy could not be made."""

    code: ClassVar[str] = "clone-failed"


class CloneRefusedError(CloneError):
    """Something speaks against a masked copy; nothing was made."""

    code = "clone-refused"


class CloneSubsetError(CloneError):
    """The part of the people that is asked for is not understood, or nobody is in it."""

    code = "clone-subset-invalid"


class CloneOvertakenError(CloneError):
    """Somebody was erased while the copy was being made, so the copy holds that person's masked rows; it was dropped."""

    code = "clone-overtaken"


class CloneLeakError(CloneError):
    """The copy holds values of the source, or the check could not look; the copy was dropped."""

    code = "clone-leak"

    def __init__(self, fact: str, hint: str | None = None, statements: Sequence[Statement] = ()) -> None:
        super().__init__(fact, hint)
        self.statements = tuple(statements)


class CloneNotAnonymousError(CloneError):
    """A criterion of the gate is not met or was not measured; the copy keeps its label."""

    code = "clone-not-anonymous"

    def __init__(self, fact: str, hint: str | None = None, verdict: Verdict | None = None) -> None:
        super().__init__(fact, hint)
        self.verdict = verdict


class CloneFixtureError(CloneError):
    """The rows of a copy cannot be written as a fixture there: too many, or something else lies at the path."""

    code = "clone-fixture-refused"


class CloneMarkError(CloneError):
    """A database has no mark of a masked copy, or the mark is not its own."""

    code = "clone-mark-invalid"


class CloneWorkerError(CloneError):
    """A process that carried or searched rows side by side with others did not end well; the copy was dropped."""

    code = "clone-worker-failed"
