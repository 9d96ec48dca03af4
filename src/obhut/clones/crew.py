"""Forked workers: pure computing in several processes, because one interpreter computes on one processor only.

A worker inherits everything by fork, keys and digests too, so nothing secret is ever written down; it opens sessions of its own, and what
it found comes back through a pipe. It ends with this process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

from obhut.clones.errors import CloneWorkerError
from obhut.foundation.errors import ObhutError

P = TypeVar("P")
R = TypeVar("R")


def share(work: Callable[[Sequence[P]], R], pieces: Sequence[P], workers: int) -> list[R]:
    """Return what each of the workers makes of its share of the pieces; dealt out in turn, so that shares are alike.

    With one worker, or one piece, nothing is forked.

    Raises:
        ObhutError: as a worker raised it.
        CloneWorkerError: a worker ended otherwise.
    """
    count = min(workers, len(pieces))
    if count < 2:
        return [work(pieces)]
    running = [_forked(work, pieces[number::count]) for number in range(count)]
    try:
        return [_result(pid, reader) for pid, reader in running]
    finally:
        for pid, reader in running:
            os.close(reader)
            _end(pid)


def _forked(work: Callable[[Sequence[P]], R], pieces: Sequence[P]) -> tuple[int, int]:
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    status = 1
    try:
        os.close(reader)
        die_with(parent)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(_answer(work, pieces), pipe, pickle.HIGHEST_PROTOCOL)
        status = 0
    finally:
        os._exit(status)  # sessions and files of the parent are not this process's to close


def _answer(work: Callable[[Sequence[P]], R], pieces: Sequence[P]) -> tuple[str, str | None, R | None]:
    try:
        return "", None, work(pieces)
    except ObhutError as error:
        return f"{error.code}: {error}", error.hint, None
    except BaseException as error:  # noqa: BLE001 - its text could hold a value, its name does not
        return f"a worker ended with {type(error).__name__}", None, None


def _result(pid: int, reader: int) -> R:  # type: ignore[type-var]  # what the pipe holds is what the worker was given to make
    with os.fdopen(os.dup(reader), "rb") as pipe:
        said = pipe.read()
    if not said:
        raise CloneWorkerError(f"worker {pid} ended without a word", "Is memory scarce? The system's log says who was ended.")
    fact, hint, result = pickle.loads(said)  # noqa: S301 - from the process that this one forked, by a pipe that no other has
    if fact:
        raise CloneWorkerError(fact, hint)
    return result  # type: ignore[no-any-return]


def _end(pid: int) -> None:
    try:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        return


def die_with(parent: int) -> None:
    """Have the system end this process when its parent dies; where it cannot, the closed pipe does at the next result.

    The search for cyclic garbage is switched off: lists by the thousand set it off all the time, and copy the parent's memory.
    """
    gc.disable()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(1)
