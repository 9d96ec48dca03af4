"""The one folder of the demo: made, recognised by its marker, emptied, removed. Nothing without the marker is ever deleted."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from obhut.backups import run as backups
from obhut.demo.errors import DemoFolderError, DemoRunningError
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import FILE_NAME, Settings, load
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.control import close_control

MARKER = ".obhut-demo"
_LINE = "This folder belongs to the demo of Obhut, which empties it at every start. Remove it with: obhut demo clean\n"


def default_folder() -> Path:
    """Return the folder that the demo uses unless it is told another: one for each account of the machine."""
    return Path(f"/var/tmp/obhut-demo-{os.getuid()}")  # noqa: S108 - private, and refused when it is not the demo's own


@contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Make the folder (or recognise it), empty it, and keep every other demo out while the block runs.

    Raises:
        DemoFolderError: it is somebody else's, or holds what no demo has put there.
        DemoRunningError: another demo plays in it.
    """
    _make(folder)
    descriptor = os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoRunningError(
                f"another demo is playing in {folder}", "Wait for its end, or name another folder with --folder."
            ) from None
        empty(folder)
        yield
    finally:
        os.close(descriptor)


def empty(folder: Path) -> None:
    """End every process of the demo and delete what it left, all but the marker."""
    require(folder)
    stop(folder)
    for cluster in clusters(folder):
        cluster.remove()
    for entry in folder.iterdir():
        if entry.name != MARKER:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def stop(folder: Path) -> None:
    """Stop everything of the demo that runs, WAL receivers first; a second Ctrl-C does not interrupt this. Bounded."""
    with _undisturbed():
        settings = settings_of(folder)
        if settings is None:
            return
        for name in settings.databases:
            with suppress(ObhutError, OSError):
                backups.stop(settings, name)
        with suppress(ObhutError, OSError):
            close_control(settings, stop=True)
        for cluster in clusters(folder):
            try:
                cluster.stop("fast", timeout=20)
            except ObhutError:
                cluster.kill()


def remove(folder: Path) -> bool:
    """Delete the folder with everything in it; return whether there was one.

    Raises:
        DemoFolderError: it is not the demo's.
        DemoRunningError: a demo plays in it.
    """
    if not folder.exists():
        return False
    require(folder)
    with taken(folder):
        (folder / MARKER).unlink()
        folder.rmdir()
    return True


def require(folder: Path) -> None:
    """Refuse a folder that the demo has not made.

    Raises:
        DemoFolderError: no marker, another owner, or a link.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or not (folder / MARKER).is_file():
        raise DemoFolderError(
            f"{folder} was not made by a demo of this account, so nothing in it is touched", "Name another folder with --folder."
        )


def clusters(folder: Path) -> list[Cluster]:
    """Return every server of Obhut's own below the folder: vendor, control, quarantines, targets."""
    settings = settings_of(folder)
    if settings is None:
        return []
    user = server_user(settings)
    programs = binaries(settings)
    found = sorted({version.parent.parent for version in folder.glob("**/data/PG_VERSION")})
    return [Cluster(directory, programs, user) for directory in found]


def settings_of(folder: Path) -> Settings | None:
    """Return the settings that the demo has written, if it got that far."""
    file = folder / FILE_NAME
    return load(file) if file.is_file() else None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        require(folder)
        return
    # Root lends servers another account, which has to pass the folder; nobody can list it.
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    (folder / MARKER).write_text(_LINE, encoding="utf-8")


@contextmanager
def _undisturbed() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
