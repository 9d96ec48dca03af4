"""Where tiles, blobs and checkpoints lie: a directory of this machine, or a bucket (S3 and its like).

A file that grows is written at its committed end, so that what a crash left behind that end is overwritten by the next append and read by
nobody. Never decides what is valid: callers know how much of a file belongs to the log.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from obhut.auditlog.errors import LogStoreError
from obhut.foundation.errors import MissingComponentError
from obhut.foundation.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_FEW: Final = 64  # files that are synchronised by themselves; for more, one call for the whole file system is cheaper
_PRIVATE: Final = 0o600
_ROOM: Final = "Is there room, and may this account write there?"


class Store(Protocol):
    """A place of files by relative path."""

    def read(self, path: str, octets: int | None = None) -> bytes | None:
        """Return the content, or its first ``octets``; None where there is no such file."""
        ...

    def append(self, path: str, offset: int, content: bytes) -> None:
        """Write at ``offset`` of a growing file and cut off what stood behind it."""
        ...

    def put(self, path: str, content: bytes) -> None:
        """Replace a file in one step."""
        ...

    def rename(self, path: str, to: str) -> None:
        """Give a file another name, taking the place of a file of that name; harmless where that is done."""
        ...

    def sync(self) -> None:
        """Make everything written since the last call durable."""
        ...

    def children(self, path: str) -> list[str]:
        """Return the names directly below a path, sorted."""
        ...

    def remove(self, path: str) -> None:
        """Remove everything below a path, or the file itself; harmless where there is nothing."""
        ...


def open_store(settings: Settings) -> Store:
    """Return the store that the settings name."""
    place = settings.audit_log.store
    if "://" in place:
        return Bucket.connect(place)
    return Directory(Path(os.path.abspath(settings.path.parent / place)))  # noqa: PTH100 - relative to the settings, links stay visible


class Directory:
    """Files below a directory of this machine, private to its owner."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: list[int] = []  # descriptors of what was written and is not yet durable
        self._many = 0

    def read(self, path: str, octets: int | None = None) -> bytes | None:
        """Return the content, or its first ``octets``; None where there is no such file."""
        with _told("read"), contextlib.suppress(FileNotFoundError, NotADirectoryError), (self.root / path).open("rb") as file:
            return file.read(-1 if octets is None else octets)
        return None

    def append(self, path: str, offset: int, content: bytes) -> None:
        """Write at ``offset`` and cut off what stood behind it.

        Raises:
            LogStoreError: the file is shorter than that: something that was committed is gone.
        """
        with _told("write"):
            descriptor = self._opened(self.root / path, os.O_RDWR | os.O_CREAT)
            if os.fstat(descriptor).st_size < offset:
                self._keep(descriptor)
                raise LogStoreError(f"{self.root / path}: shorter than what the log has in it", "Was the directory restored or cut?")
            os.ftruncate(descriptor, offset)
            os.pwrite(descriptor, content, offset)
            self._keep(descriptor)

    def put(self, path: str, content: bytes) -> None:
        """Replace a file in one step."""
        with _told("write"):
            target = self.root / path
            work = target.with_name(f".{target.name}.new")
            descriptor = self._opened(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(descriptor, content)
            self._keep(descriptor)
            work.replace(target)

    def rename(self, path: str, to: str) -> None:
        """Give a file another name; harmless where that is done."""
        with _told("write"), contextlib.suppress(FileNotFoundError):
            (self.root / path).replace(self.root / to)

    def sync(self) -> None:
        """Make everything written since the last call durable."""
        with _told("write"):
            if self._many:
                _sync_file_system(self.root)
            else:
                _sync_files(self._open)
            for descriptor in self._open:
                os.close(descriptor)
            self._open.clear()
            self._many = 0

    def children(self, path: str) -> list[str]:
        """Return the names directly below a path, sorted."""
        with _told("read"), contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in (self.root / path).iterdir())
        return []

    def remove(self, path: str) -> None:
        """Remove everything below a path, or the file itself."""
        with _told("write"):
            target = self.root / path
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def _opened(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, _PRIVATE)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return os.open(path, flags | os.O_CLOEXEC, _PRIVATE)

    def _keep(self, descriptor: int) -> None:
        """Remember a file until it is durable; beyond a few, only that there were many."""
        if len(self._open) < _FEW:
            self._open.append(descriptor)
        else:
            os.close(descriptor)
            self._many += 1


class Bucket:
    """Objects of a bucket. An object cannot grow, so a growing one is read and written whole; every write is durable when it returns."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    @classmethod
    def connect(cls, url: str) -> Bucket:
        """Return the bucket of a URL; access keys come from the environment or the machine's role, never from the URL.

        Raises:
            MissingComponentError: the library for it is not installed.
        """
        try:
            from obstore.store import from_url
        except ImportError:
            raise MissingComponentError("the library obstore is not installed", "Install it: pip install 'obhut[bucket]'.") from None
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        return cls(from_url(url, client_options={"allow_http": plain}))

    def read(self, path: str, octets: int | None = None) -> bytes | None:
        """Return the content, or its first ``octets``; None where there is no such object."""
        with _told("read"), contextlib.suppress(FileNotFoundError):
            content = bytes(self._objects.get(path).bytes())
            return content if octets is None else content[:octets]
        return None

    def append(self, path: str, offset: int, content: bytes) -> None:
        """Write the object anew with ``content`` at ``offset``."""
        before = (self.read(path, offset) or b"") if offset else b""
        if len(before) < offset:
            raise LogStoreError(f"{path}: shorter than what the log has in it", "Was the bucket restored or cut?")
        self.put(path, before + content)

    def put(self, path: str, content: bytes) -> None:
        """Replace an object."""
        with _told("write"):
            self._objects.put(path, content)

    def rename(self, path: str, to: str) -> None:
        """Give an object another name; harmless where that is done."""
        with _told("write"), contextlib.suppress(FileNotFoundError):
            self._objects.rename(path, to, overwrite=True)

    def sync(self) -> None:
        """Do nothing: every write was durable."""

    def children(self, path: str) -> list[str]:
        """Return the names directly below a path, sorted."""
        with _told("read"):
            found: Any = self._objects.list_with_delimiter(prefix=path or None)
            names = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
            return sorted(str(name).rstrip("/").rpartition("/")[2] for name in names)

    def remove(self, path: str) -> None:
        """Remove everything below a path, or the object itself."""
        with _told("write"):
            for batch in self._objects.list(prefix=path):
                self._objects.delete([item["path"] for item in batch])
            with contextlib.suppress(FileNotFoundError):
                self._objects.delete(path)


def _sync_files(descriptors: Sequence[int]) -> None:
    """Make files durable, with their entries in new directories, on the journalling file systems of Linux.

    A call for the whole file system would also wait for, and hasten, everything that others have written there, such as a database.

    Raises:
        OSError: the kernel could not.
    """
    if len(descriptors) > 1:
        for descriptor in descriptors:
            # Begins to write it out: all are then part of one commit of the journal, and the waits below fall into one.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    for descriptor in descriptors:
        os.fsync(descriptor)


def _sync_file_system(directory: Path) -> None:
    """Make a whole file system durable: one wait, however many files a batch has touched.

    Raises:
        OSError: the kernel could not.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if hasattr(library, "syncfs"):
            if library.syncfs(descriptor):
                raise OSError(ctypes.get_errno(), "syncfs failed")
        else:
            os.sync()
    finally:
        os.close(descriptor)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn errors of the file system or the bucket into one that names no path of a person: paths here are ids, numbers and hashes."""
    try:
        yield
    except (FileNotFoundError, LogStoreError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("obstore"):
            raise
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
        raise LogStoreError(
            f"the store of the audit log cannot {what}: {reason}", "Is there room, and may this account write there?"
        ) from None
