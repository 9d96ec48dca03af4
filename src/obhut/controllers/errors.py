"""Refusals and failures of the register and the gate."""

from __future__ import annotations

from obhut.controllers.plan import Refusal
from obhut.foundation.errors import ObhutError


class NotInstructedError(ObhutError):
    """No documented instruction permits the action.

    Attributes:
        reason: what is missing (the first one where several controllers are asked).
        missing: controller and reason, one pair a controller that has not instructed.
    """

    code = "not-instructed"

    def __init__(self, fact: str, hint: str, missing: tuple[tuple[str, Refusal], ...]) -> None:
        super().__init__(fact, hint)
        self.missing = missing
        self.reason = missing[0][1]


class ControllerUnknownError(ObhutError):
    """There is no such controller."""

    code = "controller-unknown"


class ControllerExistsError(ObhutError):
    """The controller key is registered already."""

    code = "controller-exists"


class ContractUnknownError(ObhutError):
    """There is no such contract."""

    code = "contract-unknown"


class InstructionUnknownError(ObhutError):
    """There is no such instruction."""

    code = "instruction-unknown"


class RegisterInvalidError(ObhutError):
    """A controller, contract or instruction cannot be recorded as given."""

    code = "register-invalid"
