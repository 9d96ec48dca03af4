"""The one place where an error's code becomes the exit status of a command (documented in ``docs/reference/errors.md``)."""

from __future__ import annotations

from enum import IntEnum

from obhut.foundation.errors import ObhutError


class Exit(IntEnum):
    """Exit status of every command."""

    OK = 0
    FAILURE = 1  # something broke: the database, the machine, a bug
    USAGE = 2  # the command line or a file that people write is wrong
    REFUSED = 3  # a safeguard said no; nothing was changed
    NOT_INSTRUCTED = 4  # no documented instruction of the controller permits it
    UNPROVEN = 5  # a check, verification or promise failed
    PARTIAL = 6  # begun and not finished; resume it
    INTERRUPTED = 130  # Ctrl-C


class UsageError(ObhutError):
    """The command line cannot be understood."""

    code = "usage"


class Interrupted(ObhutError):  # noqa: N818 - says what happened; it is not an error of anything
    """The person at the terminal stopped the command."""

    code = "interrupted"


# Codes that are not named here exit with 1.
STATUS: dict[str, Exit] = {
    "usage": Exit.USAGE,
    "settings-invalid": Exit.USAGE,
    "interrupted": Exit.INTERRUPTED,
    "component-missing": Exit.REFUSED,
    "control-not-separate": Exit.REFUSED,
    "not-instructed": Exit.NOT_INSTRUCTED,
}


def status(error: ObhutError) -> Exit:
    """Return the exit status for an error; a subclass without an entry of its own inherits its parent's."""
    for kind in type(error).__mro__:
        code = vars(kind).get("code")
        if code in STATUS:
            return STATUS[code]
    return Exit.FAILURE
