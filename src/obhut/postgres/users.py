"""Which unprivileged account runs PostgreSQL servers, and what that account can reach.

A PostgreSQL server refuses to run as root, so a root caller lends it another account. Everything else (backups, copies, Obhut
itself) keeps running as whoever started it: the account of the server need not be able to run Python.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from obhut.foundation.errors import MissingComponentError, SettingsError
from obhut.foundation.settings import Settings

_CUSTOMARY = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class User:
    """An account of the operating system."""

    name: str
    uid: int
    gid: int


def server_user(settings: Settings) -> User | None:
    """Return the account for servers, or None when the caller is unprivileged and runs them as itself.

    Order: the setting ``postgres.run_as``, the account that called sudo, ``postgres``, ``nobody``.

    Raises:
        SettingsError: ``postgres.run_as`` names no account, or root.
        MissingComponentError: none of the accounts exists.
    """
    if os.geteuid() != 0:
        return None
    wanted = settings.postgres.run_as
    if wanted:
        chosen = _named(wanted)
        if chosen is None or chosen.uid == 0:
            problem = "names no account of this machine" if chosen is None else "must not be root, the server refuses to run as root"
            raise SettingsError(f"{settings.path}: postgres.run_as {problem}", "Name an unprivileged account, or leave it out.")
        return chosen
    caller = os.environ.get("SUDO_UID", "")
    if caller.isdigit() and int(caller) != 0:
        try:
            return _account(pwd.getpwuid(int(caller)))
        except KeyError:
            pass  # an account that is not in the password database cannot log in by peer either
    for name in _CUSTOMARY:
        if (found := _named(name)) is not None and found.uid != 0:
            return found
    raise MissingComponentError(
        "there is no unprivileged account to run a PostgreSQL server",
        "Create an account and name it in the setting postgres.run_as.",
    )


def own_name() -> str | None:
    """Return the name of the account of this process, or None when the password database does not know it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def barrier(path: Path, user: User | None) -> Path | None:
    """Return the first directory on the way to ``path``, itself included, that the account cannot pass; None if it can.

    Looks at the permission bits and not at access lists. A path that does not exist yet counts up to its existing part.
    """
    if user is None:
        return None
    resolved = path.resolve()
    for step in [*reversed(resolved.parents), resolved]:
        try:
            status = step.stat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode) and not allows(status, user, stat.S_IXUSR):
            return step
    return None


def allows(status: os.stat_result, user: User, bit: int) -> bool:
    """Whether the account has the permission that ``bit`` (one of ``S_IRUSR``, ``S_IWUSR``, ``S_IXUSR``) stands for."""
    if status.st_uid == user.uid:
        return bool(status.st_mode & bit)
    return bool(status.st_mode & (bit >> 3 if status.st_gid == user.gid else bit >> 6))


def _named(name: str) -> User | None:
    try:
        return _account(pwd.getpwnam(name))
    except KeyError:
        return None


def _account(entry: pwd.struct_passwd) -> User:
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)
