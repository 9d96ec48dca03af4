"""Files that say who may log in to a cluster of Obhut's own, and how its configuration is written.

Only the local socket, in a directory that only the account of the server and root can enter; on top of that the account is checked
by peer. Those accounts may be any role: the first thing a restore has to do is to become the owner of what it restores.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from obhut.postgres.users import User, own_name

MAP = "obhut"
_FIRST_WITH_ALL = 16  # pg_ident.conf knows the role name "all" since PostgreSQL 16
_SETTING = re.compile(r"([a-z_.0-9]+) = '((?:[^']|'')*)'")

Value = str | int | bool


def host_rules() -> str:
    """Return ``pg_hba.conf``: the local socket only, by peer.

    An account that the password database does not know (a container started under a bare number) cannot be looked up by the server
    either: there the private socket directory is the only door, and ``trust`` says so.
    """
    method = f"peer map={MAP}" if own_name() else "trust"
    return f"# Written by Obhut; no other way in than the private socket.\nlocal all all {method}\nlocal replication all {method}\n"


def role_map(major: int, user: User | None, roles: Iterable[str]) -> str:
    """Return ``pg_ident.conf``: the accounts that may be any role, before PostgreSQL 16 any of ``roles``."""
    accounts = {name for name in (own_name(), user.name if user else None) if name}
    targets = ["all"] if major >= _FIRST_WITH_ALL else [quoted(role) for role in sorted(set(roles))]
    lines = [f"{MAP} {quoted(account)} {target}" for account in sorted(accounts) for target in targets]
    return "\n".join(["# Written by Obhut.", *lines, ""])


def mapped_roles(text: str) -> set[str]:
    """Return the roles that a ``pg_ident.conf`` of ours lists."""
    found = re.findall(rf'^{MAP} "(?:[^"]|"")*" "((?:[^"]|"")*)"$', text, flags=re.MULTILINE)
    return {role.replace('""', '"') for role in found}


def quoted(name: str) -> str:
    """Return a name quoted for the access files.

    Raises:
        ValueError: the name has a line break, which those files cannot express.
    """
    if "\n" in name or "\r" in name:
        raise ValueError("a name with a line break cannot stand in an access file")
    return '"' + name.replace('"', '""') + '"'


def render(settings: Mapping[str, Value]) -> str:
    """Return a configuration file with one quoted setting a line."""
    return "".join(f"{name} = '{_text(value)}'\n" for name, value in sorted(settings.items()))


def parse(text: str) -> dict[str, str]:
    """Return the settings of a file made by :func:`render`."""
    found = (_SETTING.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2].replace("''", "'").replace("\\\\", "\\") for match in found if match}


def write(path: Path, text: str, owner: User | None) -> None:
    """Replace a file in one step, readable by its owner only.

    A new file takes the place of the old name, so a link that somebody laid there is replaced, never followed.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    work = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if owner:
                os.fchown(file.fileno(), owner.uid, owner.gid)
            os.fsync(file.fileno())
        work.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            work.unlink()
        raise


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value)
    if "\n" in text or "\r" in text:
        raise ValueError("a setting cannot have a line break")
    return text.replace("\\", "\\\\").replace("'", "''")
