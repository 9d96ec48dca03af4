"""The first engine: Barman 3.19 with ``backup_method = postgres`` and WAL streaming; no ssh, no rsync, no cron.

Measured on 3.19.1: an incremental needs nothing of its parent but ``backup_manifest``, so a parent can be sealed; ``kill -9`` leaves status
STARTED for ever and an orphan pg_basebackup; ``check`` fails when ``cloud_staging_directory`` is not writable even without a cloud. The
``custom`` compression is marked deprecated by Barman but is the one filter that sees a segment before it reaches the archive.
"""

from __future__ import annotations

import ast
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import obhut
from obhut.backups import keys as key_lending
from obhut.backups import processes, sealing
from obhut.backups.engine import BaseCopy, CopyState
from obhut.backups.errors import EngineError
from obhut.backups.layout import Layout, fsync_directory
from obhut.foundation.clock import aware
from obhut.foundation.errors import SettingsError
from obhut.postgres.connections import with_parameters
from obhut.postgres.programs import Binaries, environment

_MAIN: Final = "import sys; from barman.cli import main; sys.exit(main())"
_LONGEST_BACKUP: Final = 86_400.0  # seconds
_LONGEST_STEP: Final = 600.0
_STATES: Final = {"DONE": CopyState.COPIED, "WAITING_FOR_WALS": CopyState.COPIED, "FAILED": CopyState.FAILED}
_SEGMENT_SIZE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Barman:
    """Barman for one database.

    Args:
        layout: the repository.
        url: the protected database; its role may replicate.
        slot: name of the physical replication slot.
        binaries: client programs, at least as new as the server.
        keys: lends the data keys to the WAL filter.
    """

    layout: Layout
    url: str
    slot: str
    binaries: Binaries
    keys: key_lending.DataKeys

    def prepare(self) -> None:
        """Write the configuration file and make the directories.

        Raises:
            SettingsError: the path cannot be written in Barman's configuration.
        """
        layout = self.layout
        if "%" in str(layout.root):
            raise SettingsError("the state directory has a percent sign in its path, which Barman cannot read", "Move the state directory.")
        layout.create()
        conninfo = with_parameters(self.url)
        options = {
            "description": "written by Obhut",
            "conninfo": with_parameters(conninfo, connect_timeout="10"),
            "streaming_conninfo": with_parameters(conninfo, connect_timeout="10"),
            "backup_method": "postgres",
            "streaming_archiver": "on",
            "archiver": "off",
            "slot_name": self.slot,
            "create_slot": "manual",
            "path_prefix": str(self.binaries.directory),
            "immediate_checkpoint": "true",
            "minimum_redundancy": "0",  # Obhut alone decides what goes
            "compression": "custom",
            "custom_compression_filter": self._filter(),
            "custom_decompression_filter": self._filter("--open"),
            "custom_compression_magic": "0x" + sealing.MAGIC.hex(),
            "cloud_staging_directory": str(layout.staging),
            "staging_path": str(layout.staging),
            "basebackup_retry_times": "0",
        }
        general = {
            "barman_home": str(layout.home),
            "barman_user": _user_name(),
            "barman_lock_directory": str(layout.locks),
            "configuration_files_directory": str(layout.staging),  # always empty: an option without a directory is a warning at each call
            "log_file": str(layout.log / "barman.log"),
            "log_level": "ERROR",
            "cloud_staging_directory": str(layout.staging),
        }
        text = "; Written by Obhut at each start; changes are lost.\n" + _section("barman", general) + _section(layout.database, options)
        temporary = layout.config.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o600)
        temporary.rename(layout.config)

    def ensure_slot(self) -> None:
        """Create the replication slot unless it is there."""
        self._run("slot", ["receive-wal", "--create-slot", "--if-not-exists", self.layout.database], timeout=_LONGEST_STEP)

    def receiver(self) -> processes.Child:
        """Start ``barman receive-wal``; a receiver that outlived an earlier process is ended first."""
        processes.sweep(self.layout.run, only="receiver")
        path = self._log("receiver")
        if path.exists():
            path.rename(path.with_suffix(".old"))  # what it says is about this receiver, see lost_wal
        with path.open("wb") as log:
            command = self._command(["receive-wal", self.layout.database], quiet=False)  # pg_receivewal's words are wanted
            return processes.start(command, env=self._environment(None), record=self.layout.run / "receiver", output=log)

    def lost_wal(self) -> bool:
        """Whether the last receiver said that the server has removed what it asked for."""
        path = self._log("receiver")
        return path.exists() and b"has already been removed" in path.read_bytes()

    def reset_receiver(self) -> None:
        """Begin where the server is now."""
        self._run("slot", ["receive-wal", "--reset", self.layout.database], timeout=_LONGEST_STEP)

    def archive(self, now: datetime) -> None:
        """Move finished segments into the archive through the sealing filter."""
        with key_lending.lent(self.keys, self.layout.database, self._moments(now, _LONGEST_STEP * 6)) as lent:
            self._run("archive", ["archive-wal", self.layout.database], timeout=_LONGEST_STEP * 6, lent=lent)

    def base_backup(self, parent: str | None, now: datetime) -> str:
        """Take a base backup and return its id.

        Raises:
            EngineError: Barman failed or said it was done without a copy.
        """
        before = {copy.id for copy in self.copies()}
        arguments = ["backup", *(["--incremental", parent] if parent else []), self.layout.database]
        _next_second(before)
        # Barman archives WAL once more when the copy is done, which may be hours from now.
        with key_lending.lent(self.keys, self.layout.database, self._moments(now, _LONGEST_BACKUP)) as lent:
            self._run("backup", arguments, timeout=_LONGEST_BACKUP, lent=lent)
        made = [copy for copy in self.copies() if copy.id not in before]
        if len(made) != 1 or made[0].state is not CopyState.COPIED:
            raise EngineError("the engine reported success but there is no finished base backup", self._hint("backup"))
        return made[0].id

    def copies(self) -> list[BaseCopy]:
        """Return every base backup on the disk or in the catalogue, oldest first."""
        names = {path.name for path in _listed(self.layout.base) if path.is_dir()}
        names |= {path.name.removesuffix("-backup.info") for path in _listed(self.layout.meta) if path.name.endswith("-backup.info")}
        return [self._copy(name) for name in sorted(names)]

    def forget(self, copy_id: str) -> None:
        """Remove a base backup: the copy first, its record last, so that a crash leaves something that is found again."""
        directory = self.layout.base / copy_id
        if directory.exists():
            shutil.rmtree(directory)
            fsync_directory(self.layout.base)
        record = self.layout.meta / f"{copy_id}-backup.info"
        if record.exists():
            record.unlink()
            fsync_directory(self.layout.meta)

    def _moments(self, now: datetime, seconds: float) -> list[datetime]:
        """Return a moment of every span for which a segment may ask for a key."""
        waiting = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in _listed(self.layout.streaming)]
        today = datetime.now(UTC)  # the segments' times are the machine's, whatever clock the caller has
        return [now, *waiting, *key_lending.spans(today, today + timedelta(seconds=seconds))]

    def _copy(self, name: str) -> BaseCopy:
        facts = _facts(self.layout.meta / f"{name}-backup.info") or _facts(self.layout.base / name / "backup.info")
        root = self.layout.base / name
        return BaseCopy(
            id=name,
            state=_STATES.get(facts.get("status", ""), CopyState.STARTED),
            parent=facts.get("parent_backup_id"),
            data=root / "data",
            begin_time=_moment(facts.get("begin_time")),
            end_time=_moment(facts.get("end_time")),
            begin_lsn=facts.get("begin_xlog"),
            end_lsn=facts.get("end_xlog"),
            timeline=_number(facts.get("timeline")),
            system_identifier=_number(facts.get("systemid")),
            server_version=_number(facts.get("version")),
            wal_segment_size=_number(facts.get("xlog_segment_size")) or _SEGMENT_SIZE,
            tablespaces=_tablespaces(facts.get("tablespaces"), root),
        )

    def _run(self, name: str, arguments: list[str], *, timeout: float, lent: str | None = None) -> None:
        with self._log(name).open("wb") as log:
            child = processes.start(self._command(arguments), env=self._environment(lent), record=self.layout.run / name, output=log)
            try:
                status = child.wait(timeout)
            except subprocess.TimeoutExpired:
                raise EngineError(f"barman {arguments[0]} did not end within {timeout:.0f} seconds", self._hint(name)) from None
            finally:
                # Also after success: an orphan of a crashed Barman would go on writing.
                child.end()
        if status != 0:
            how = f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
            raise EngineError(f"barman {arguments[0]} {how}", self._hint(name))

    def _command(self, arguments: list[str], *, quiet: bool = True) -> list[str]:
        options = ["-q"] if quiet else []
        return [sys.executable, "-P", "-W", "ignore", "-c", _MAIN, *options, "-c", str(self.layout.config), *arguments]

    def _environment(self, lent: str | None) -> Mapping[str, str]:
        own = environment()
        own["LC_ALL"] = "C.UTF-8"
        own["PATH"] = f"{self.binaries.directory}:{own['PATH']}"
        own["PYTHONPATH"] = str(Path(obhut.__file__).resolve().parent.parent)
        if lent is not None:
            own[key_lending.VARIABLE] = lent
        return own

    def _filter(self, *arguments: str) -> str:
        return shlex.join([sys.executable, "-P", "-m", "obhut.backups.seal_filter", *arguments])

    def _log(self, name: str) -> Path:
        self.layout.log.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.layout.log / f"{name}.log"
        if path.exists() and path.stat().st_size > 1 << 20:
            path.rename(path.with_suffix(".old"))
        return path

    def _hint(self, name: str) -> str:
        return f"Barman's words are in {self.layout.log / f'{name}.log'}; is the server up, and may its role replicate?"


def _section(name: str, options: Mapping[str, str]) -> str:
    for key, value in options.items():
        if "\n" in value or "\r" in value:
            raise EngineError(f"the engine's option {key} cannot hold a line break", "Look at the database URL in the settings.")
    return f"[{name}]\n" + "".join(f"{key} = {_escaped(value)}\n" for key, value in options.items()) + "\n"


def _escaped(value: str) -> str:
    return value.replace("%", "%%")  # the file is read with interpolation


def _facts(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key: value for key, value in pairs if value != "None"}


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return aware(moment) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _tablespaces(text: str | None, root: Path) -> tuple[tuple[int, Path], ...]:
    if text is None:
        return ()
    try:
        listed = ast.literal_eval(text)
        return tuple((int(oid), root / str(int(oid))) for _, oid, _ in listed)
    except (ValueError, SyntaxError, TypeError):
        raise EngineError("the engine's record of a base backup is malformed", "Was backup.info changed by hand?") from None


def _listed(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _next_second(taken: set[str]) -> None:
    # Ids are the time (UTC in our environment) to the second: a second backup within it would write into the first one's directory.
    for _ in range(3):
        if datetime.now(UTC).strftime("%Y%m%dT%H%M%S") not in taken:
            return
        time.sleep(1)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise EngineError(
            "the account that runs Obhut has no name", "Barman needs one: add the account to the password database."
        ) from None
