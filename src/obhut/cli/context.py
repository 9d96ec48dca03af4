"""What every command needs besides its arguments: settings, actor, clock and output."""

from __future__ import annotations

import os
import re
from pathlib import Path

from obhut.cli.exits import UsageError
from obhut.cli.output import Output
from obhut.foundation import language
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import Clock, OffsetClock, SystemClock
from obhut.foundation.durations import parse_duration
from obhut.foundation.settings import Settings, load

CLOCK_VARIABLE = "OBHUT_CLOCK_OFFSET"
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Context:
    """The surroundings of one command; settings are read when they are first asked for, so that ``init`` needs none."""

    def __init__(
        self,
        *,
        config: Path | None = None,
        actor: Actor | None = None,
        clock: Clock | None = None,
        output: Output | None = None,
        language_chosen: bool = True,
    ) -> None:
        self.config = config
        self.actor = actor or default_actor()
        self.clock = clock or SystemClock()
        self.output = output or Output()
        self._language_chosen = language_chosen
        self._settings: Settings | None = None

    def database(self, name: str | None) -> str:
        """Return the name of a database of the settings; of their only one when none is given.

        Raises:
            SettingsError: there is none of that name, or more than one to choose from.
        """
        return self.settings.database(name).name if name else self.settings.only_database().name

    @property
    def settings(self) -> Settings:
        """The settings of this installation.

        Raises:
            SettingsError: there is no usable settings file.
        """
        if self._settings is None:
            self._settings = load(self.config)
            if not self._language_chosen:
                language.use(language.Language(self._settings.language.default))
        return self._settings


_current: Context | None = None


def context() -> Context:
    """Return the context of the running command; a plain one where a command is called as a function."""
    global _current  # noqa: PLW0603 - one command a process; cyclopts has no place to hang it on
    if _current is None:
        _current = Context()
    return _current


def enter(new: Context) -> Context:
    """Make a context the one of this process and return it."""
    global _current  # noqa: PLW0603 - as above
    _current = new
    return new


def default_actor() -> Actor:
    """Return the operator known by the number of the system account, which is no name."""
    return Actor(Role.OPERATOR, f"uid-{os.getuid()}")


def parse_actor(given: str) -> Actor:
    """Return the actor for ``REF`` or ``ROLE:REF``.

    Raises:
        UsageError: unknown role, or a reference that could be a name or an address.
    """
    role, _, reference = given.rpartition(":")
    try:
        known = Role(role or Role.OPERATOR)
    except ValueError:
        raise UsageError("--as: unknown role", f"Use one of these: {', '.join(Role)}.") from None
    if not _REFERENCE.fullmatch(reference):
        raise UsageError("--as: not an opaque reference", "Use an account or ticket id of letters, digits, dots and dashes; no address.")
    return Actor(known, reference)


def parse_clock(offset: str | None) -> Clock:
    """Return the machine's clock, shifted by an ISO 8601 duration if one is given here or in ``OBHUT_CLOCK_OFFSET``.

    Raises:
        UsageError: the text is no duration.
    """
    given = offset or os.environ.get(CLOCK_VARIABLE)
    if not given:
        return SystemClock()
    try:
        span = parse_duration(given)
    except ValueError as error:
        raise UsageError(f"--clock-offset: {error}", "The same goes for the variable OBHUT_CLOCK_OFFSET.") from None
    os.environ[CLOCK_VARIABLE] = given  # child processes live in the same month
    return OffsetClock(span)
