"""What can stop masking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from obhut.foundation.errors import ObhutError

if TYPE_CHECKING:
    from obhut.masking.model import Refusal


class MaskingRefusedError(ObhutError):
    """The plan of a masked copy holds refusals; carries every one of them."""

    code = "masking-refused"

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        first = refusals[0]
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        super().__init__(f"the copy cannot be masked: {first.fact}{more}", first.todo)
        self.refusals = tuple(refusals)


class MaskingKeyError(ObhutError):
    """The run's key was destroyed: nothing can be masked with it any more."""

    code = "masking-key-destroyed"


class MaskingStreamError(ObhutError):
    """A stream of rows does not have the form that the plan foresees; nothing of it is quoted."""

    code = "masking-stream"


class MaskingFactsError(ObhutError):
    """What the plan needs to know about the source was not read: the range of a key, the distribution of a column."""

    code = "masking-facts-missing"


class WordListError(ObhutError):
    """There is no word list for a language, or it lacks words."""

    code = "word-list-invalid"
