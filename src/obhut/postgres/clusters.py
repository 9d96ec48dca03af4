"""Clusters of Obhut's own: control database, sample vendor, quarantine, target.

Each listens on a private socket only, never on the network, and keeps values out of its log. Every operation can be repeated: a
killed caller leaves a cluster that the next call initialises, starts, stops or removes. A process is stopped only after it has been
recognised as the postmaster of exactly this data directory.

Layout of a cluster's directory: ``data``, ``log``, ``s`` (socket) or the file ``socket`` (where the socket went), ``lock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from obhut.foundation.errors import ObhutError
from obhut.postgres import access, postmaster
from obhut.postgres.programs import Binaries, ProgramFailedError, binaries
from obhut.postgres.users import User, barrier, server_user

__all__ = ["Binaries", "Cluster", "ClusterError", "User", "binaries", "make_directory", "server_user"]

_SOCKET_PATH_BYTES = 107  # sockaddr_un holds 108 with the closing zero
_SOCKET_NAME = "/.s.PGSQL.5432"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@:~-]+")  # the server splits its socket directories at commas and quotes
_LOG_LIMIT = 10_000_000
_PRIVATE = 0o700
_CHECKSUMS_BY_DEFAULT = 18
_PID_FILE_DELAY = 2  # seconds from the return of pg_ctl until a postmaster stands in its data directory, generously
_CONFIGURATION = "obhut.conf"

# Nothing of a statement or of an error reaches the log: messages of level ERROR quote values, LOG, FATAL and PANIC do not.
_QUIET: dict[str, access.Value] = {
    "listen_addresses": "",
    "port": 5432,
    "unix_socket_permissions": "0700",
    "logging_collector": False,
    "log_destination": "stderr",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": -1,
    "log_checkpoints": False,
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class ClusterError(ObhutError):
    """A cluster of Obhut's own cannot be used as it stands."""

    code = "cluster-failed"


class ClusterUnreachableError(ClusterError):
    """The account that runs the server cannot pass a directory on the way to the cluster."""

    code = "cluster-directory-closed"


class ClusterStartError(ClusterError):
    """The server did not start, or was not ready in time."""

    code = "cluster-start-failed"


class ClusterStopError(ClusterError):
    """The server did not stop in time."""

    code = "cluster-stop-failed"


class Cluster:
    """One PostgreSQL data directory and the server on it.

    Args:
        directory: where everything of the cluster lies; made when missing.
        binaries: the programs of its major version.
        user: the account of the server; None: the caller's own.
    """

    def __init__(self, directory: Path, binaries: Binaries, user: User | None) -> None:
        self.directory = Path(os.path.abspath(directory))  # noqa: PTH100 - keeps links, a message should show the configured path
        self.binaries = binaries
        self.user = user
        self.data = self.directory / "data"
        self.log = self.directory / "log"

    # -- making ---------------------------------------------------------------------------------------------------------------

    @property
    def initialised(self) -> bool:
        """Whether there is a complete data directory."""
        return (self.data / "PG_VERSION").is_file()

    def init(
        self,
        *,
        locale: str = "C.UTF-8",
        checksums: bool = True,
        superuser: str = "obhut",
        wal_segsize_mb: int = 16,
        durable: bool = True,
    ) -> None:
        """Make the data directory; an existing one is left as it is.

        Args:
            locale: libc locale of the template databases.
            checksums: page checksums.
            superuser: name of the first role.
            wal_segsize_mb: size of a WAL segment.
            durable: flush the new files to disk (a quarantine can do without).

        Raises:
            ClusterUnreachableError: the account of the server cannot get to the directory.
            ProgramFailedError: initdb failed.
        """
        with self._lock():
            if self.initialised:
                return
            self._prepare()
            # Under another name until it is complete, so that a killed initdb is never mistaken for a cluster.
            work = self.directory / "data.new"
            shutil.rmtree(work, ignore_errors=True)
            self._make_private(work)
            options = ["--locale", locale, "--encoding", "UTF8", "--username", superuser, f"--wal-segsize={wal_segsize_mb}"]
            if checksums:
                options.append("--data-checksums")
            elif self.binaries.major >= _CHECKSUMS_BY_DEFAULT:
                options.append("--no-data-checksums")
            if not durable:
                options.append("--no-sync")
            self.binaries.run(["initdb", "--pgdata", work, "--auth=peer", "--no-instructions", *options], as_server_user=True, timeout=300)
            with (work / "postgresql.conf").open("a", encoding="utf-8") as configuration:
                configuration.write(f"\ninclude '{_CONFIGURATION}'\n")
            self._write_access(work, superuser)
            work.rename(self.data)

    def adopt(self, *, superuser: str) -> None:
        """Take over a data directory that was made elsewhere (``data`` holds a base backup): its configuration is replaced.

        Nothing of the old configuration survives: not its addresses, archive command, preload libraries or login rules.

        Args:
            superuser: a superuser of that cluster, for logins.
        """
        with self._lock():
            self._prepare()
            for name in ("postmaster.pid", "postmaster.opts", "postgresql.auto.conf"):
                (self.data / name).unlink(missing_ok=True)
            self._make_private(self.data)
            if self.user:
                for path in self.data.rglob("*"):
                    os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)
            access.write(self.data / "postgresql.conf", f"# Written by Obhut.\ninclude '{_CONFIGURATION}'\n", self.user)
            access.write(self.data / "postgresql.auto.conf", "", self.user)
            self._write_access(self.data, superuser)

    def configure(self, settings: Mapping[str, access.Value | None]) -> None:
        """Add run-time settings to ``obhut.conf``; None removes one. They take effect at the next start or :meth:`reload`."""
        path = self.data / _CONFIGURATION
        merged: dict[str, access.Value] = dict(access.parse(path.read_text(encoding="utf-8"))) if path.exists() else {}
        for name, value in settings.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = value
        access.write(path, access.render(merged), self.user)

    def allow_role(self, role: str) -> None:
        """Let the permitted accounts log in as a role (PostgreSQL 16 and later: they may be any role already)."""
        path = self.data / "pg_ident.conf"
        roles = access.mapped_roles(path.read_text(encoding="utf-8"))
        text = access.role_map(self.binaries.major, self.user, {*roles, role})
        if text != path.read_text(encoding="utf-8"):
            access.write(path, text, self.user)
            self.reload()

    # -- running --------------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the server of this data directory runs."""
        with self._postmaster() as process:
            return process is not None

    @property
    def ready(self) -> bool:
        """Whether the server runs and accepts connections."""
        return self.running and postmaster.status(self.data) in {"ready", "standby"}

    def start(self, timeout: float = 60, *, wait: bool = True) -> None:
        """Start the server, unless it runs, and wait until it accepts connections.

        Args:
            timeout: seconds.
            wait: when false, return as soon as the server has been launched (a long recovery is watched by the caller).

        Raises:
            ClusterUnreachableError: the account of the server cannot get to the directory.
            ClusterStartError: the server did not start, or is not ready yet; starting again waits on.
        """
        deadline = time.monotonic() + timeout
        with self._lock(timeout):
            if not self.initialised:
                raise ClusterStartError(f"{self.directory} holds no database cluster", "Was it initialised or restored?")
            while True:
                with self._postmaster() as process:
                    if process is None:
                        self._launch(deadline)
                        self._wait_started(deadline)
                    elif postmaster.status(self.data) == "stopping" and process.wait(deadline - time.monotonic()):
                        continue
                break
        if wait:
            self._wait_ready(deadline)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast", timeout: float = 60) -> None:
        """Stop the server if it runs.

        Raises:
            ClusterStopError: it still runs after ``timeout`` seconds.
        """
        with self._lock(timeout), self._postmaster() as process:
            if process is not None:
                process.signal(_SIGNALS[mode])
                if not process.wait(timeout):
                    raise ClusterStopError(
                        f"the server of {self.directory} did not stop within {timeout:g} seconds",
                        "Which session keeps it? Look at pg_stat_activity.",
                    )

    def kill(self, *, hard: bool = False) -> None:
        """End the server at once, as a crash would, and wait until none of its processes is left.

        Args:
            hard: SIGKILL straight away, instead of an immediate shutdown first.
        """
        with self._lock():
            with self._postmaster() as process:
                if process is not None and not hard:
                    process.signal(signal.SIGQUIT)
                    process.wait(5)
                if process is not None:
                    process.signal(signal.SIGKILL)
                    process.wait(5)
            for left in postmaster.all_in(self.data):
                left.signal(signal.SIGKILL)
                left.wait(5)
                left.close()

    def reload(self) -> None:
        """Make a running server read its configuration again."""
        with self._postmaster() as process:
            if process is not None:
                process.signal(signal.SIGHUP)

    def remove(self) -> None:
        """End the server and delete everything of the cluster."""
        if not self.directory.exists():
            return
        self.kill()
        socket = self._recorded_socket()
        if socket is not None and socket.exists():
            shutil.rmtree(socket)
        shutil.rmtree(self.directory)

    # -- facts ----------------------------------------------------------------------------------------------------------------

    def url(self, dbname: str = "postgres", user: str = "obhut") -> str:
        """Return the connection URI of a database."""
        return f"postgresql://{quote(user, safe='')}@/{quote(dbname, safe='')}?host={quote(str(self.socket_directory), safe='')}&port=5432"

    @property
    def socket_directory(self) -> Path:
        """Directory of the socket."""
        short = self.directory / "s"
        path = f"{short}{_SOCKET_NAME}"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(str(short)):
            return short
        recorded = self._recorded_socket()
        if recorded is None or not self._owned(recorded):
            # A name nobody can guess, recorded for the next caller. Temporary directories are swept, so it may have to be made again.
            recorded = Path(tempfile.mkdtemp(prefix="obhut-", dir="/tmp"))
            if self.user:
                os.chown(recorded, self.user.uid, self.user.gid)
            access.write(self.directory / "socket", f"{recorded}\n", None)
        return recorded

    def system_identifier(self) -> int:
        """Return the identifier that initdb gave the cluster, read from its control file; the server need not run."""
        with (self.data / "global" / "pg_control").open("rb") as control:
            (identifier,) = struct.unpack("=Q", control.read(8))  # the first field of ControlFileData
        return int(identifier)

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def _launch(self, deadline: float) -> None:
        self._prepare()
        if not postmaster.wait_until_gone(self.data, deadline - time.monotonic()):
            raise ClusterStartError(
                f"processes of an earlier server still live in {self.directory}",
                "They end with their clients. Which ones are they? Look for postgres processes in that directory.",
            )
        # No server process is left (looked up, not assumed). Lock files that name a live process then name a stranger's, or a dead
        # postmaster that nobody has reaped yet; the server would believe both.
        if (pid := postmaster.recorded_pid(self.data)) is not None and Path(f"/proc/{pid}").exists():
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        for name in (_SOCKET_NAME, f"{_SOCKET_NAME}.lock"):
            Path(f"{self.socket_directory}{name}").unlink(missing_ok=True)
        self._rotate_log()
        self.configure({"unix_socket_directories": str(self.socket_directory)})
        left = max(1, int(deadline - time.monotonic()))
        try:
            self.binaries.run(
                ["pg_ctl", "start", "--pgdata", self.data, "--log", self.log, "--no-wait", "--silent"], as_server_user=True, timeout=left
            )
        except ProgramFailedError as error:
            failure = error.fact
        else:
            return
        raise ClusterStartError(f"the server of {self.directory} did not start: {failure}", f"The last lines of {self.log} say why.")

    def _wait_started(self, deadline: float) -> None:
        """Wait, still under the lock, until the postmaster has written its file: pg_ctl returns before.

        Whoever took the lock in between would see no postmaster and launch a second one.
        """
        ended = time.monotonic() + _PID_FILE_DELAY
        while not self.running and time.monotonic() < deadline:
            if time.monotonic() > ended and not self._alive():
                return
            time.sleep(0.005)

    def _alive(self) -> bool:
        processes = postmaster.all_in(self.data)
        for process in processes:
            process.close()
        return bool(processes)

    def _wait_ready(self, deadline: float) -> None:
        pause = 0.005
        while not self.ready:
            if not self.running:
                raise ClusterStartError(f"the server of {self.directory} ended while starting", f"The last lines of {self.log} say why.")
            if time.monotonic() > deadline:
                raise ClusterStartError(
                    f"the server of {self.directory} is not ready yet",
                    "It may be recovering after a crash; run the command again to wait on.",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    @contextmanager
    def _postmaster(self) -> Iterator[postmaster.Process | None]:
        process = postmaster.postmaster(self.data)
        try:
            yield process
        finally:
            if process is not None:
                process.close()

    @contextmanager
    def _lock(self, timeout: float = 60) -> Iterator[None]:
        make_directory(self.directory)
        deadline = time.monotonic() + timeout
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ClusterError(f"another command is working on {self.directory}", "Wait for it, then run this again.") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        """Make what the server needs around its data directory, and refuse a place that its account cannot get to."""
        make_directory(self.directory)
        closed = barrier(self.directory, self.user)
        if closed is not None and self.user is not None:
            raise ClusterUnreachableError(
                f"{self.user.name}, the account of the server, cannot pass {closed}",
                f"Put the state directory elsewhere, let others pass it (chmod o+x {closed}), or start Obhut as an unprivileged user.",
            )
        if not os.path.lexists(self.log):
            access.write(self.log, "", self.user)
        if self.socket_directory == self.directory / "s":
            self._make_private(self.socket_directory)

    def _make_private(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)
        if self.user:
            os.chown(directory, self.user.uid, self.user.gid)

    def _write_access(self, data: Path, superuser: str) -> None:
        access.write(data / "pg_hba.conf", access.host_rules(), self.user)
        access.write(data / "pg_ident.conf", access.role_map(self.binaries.major, self.user, {superuser}), self.user)
        access.write(data / _CONFIGURATION, access.render(_QUIET), self.user)

    def _rotate_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_LIMIT:
                self.log.rename(self.log.with_name("log.1"))
                access.write(self.log, "", self.user)

    def _recorded_socket(self) -> Path | None:
        try:
            return Path((self.directory / "socket").read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return None

    def _owned(self, directory: Path) -> bool:
        """Whether a recorded socket directory still is the private directory that was made for this cluster."""
        try:
            status = directory.lstat()
        except FileNotFoundError:
            return False
        owner = self.user.uid if self.user else os.geteuid()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and stat.S_IMODE(status.st_mode) == _PRIVATE


def make_directory(directory: Path) -> None:
    """Make a directory and its missing parents, which other accounts may pass but not list (0711)."""
    for step in [*reversed(directory.parents), directory]:
        if not step.exists():
            with contextlib.suppress(FileExistsError):
                step.mkdir(mode=0o711)
                step.chmod(0o711)  # whatever the umask
