"""Processes that mask streams, and look at what passes: each part of a table passes through one of them, from psql to psql.

They are forked before the first row flows, so that the run's key is inherited and never written down, and while this process has no other
thread that could hold a lock. Two ends of pipes go to a process with each request; what it counted comes back.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import queue
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from obhut.clones import crew
from obhut.clones.errors import CloneWorkerError
from obhut.clones.passing import Told, Watch
from obhut.foundation.errors import ObhutError
from obhut.masking.facts import Facts
from obhut.masking.keys import RunKey
from obhut.masking.model import MaskPlan
from obhut.masking.stream import Count, Masker, stream

_BUFFER = 1 << 20  # bytes that a pipe holds, where the system grants it
_BLOCK = 1 << 18  # bytes that are looked at together
_ANSWER = 1 << 16  # bytes
_F_SETPIPE_SZ = 1031
_TELL = b"tell"
_BROKEN = "broken"  # a program at one end of the stream ended early: its own words say why


@dataclass(frozen=True, slots=True)
class _Request:
    table: int  # oid of the topmost table
    binary: bool  # rows that nobody masks
    read: str  # path of the mark that says that the source has ended well
    done: str  # path of the mark to make then


class Maskers:
    """The processes of a run; each does one part at a time."""

    def __init__(self, ends: Sequence[socket.socket]) -> None:
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        for end in ends:
            self._idle.put(end)

    def mask(
        self, table: int, source: IO[bytes], target: IO[bytes], read: Path, done: Path, *, binary: bool = False
    ) -> Mapping[str, Count]:
        """Have a stream masked (a binary one only looked at) and return what was counted, by column; both files are closed.

        Raises:
            CloneWorkerError: the process could not go on. (A stream that broke off is no error here: its ends say why.)
        """
        end = self._idle.get()
        try:
            asked = pickle.dumps(_Request(table, binary, str(read), str(done)), pickle.HIGHEST_PROTOCOL)
            for file in (source, target):
                with suppress(OSError):
                    fcntl.fcntl(file.fileno(), _F_SETPIPE_SZ, _BUFFER)
            socket.send_fds(end, [asked], [source.fileno(), target.fileno()])
            source.close()
            target.close()
            said = end.recv(_ANSWER)
        except OSError:
            said = b""
        finally:
            self._idle.put(end)
        if not said:
            raise CloneWorkerError("a masking process ended without a word", "Is memory scarce? The system's log says who was ended.")
        fact, hint, counts = pickle.loads(said)  # noqa: S301 - from a process that this one forked, by a socket that no other has
        if fact and fact != _BROKEN:
            raise CloneWorkerError(fact, hint)
        return {name: Count(*numbers) for name, numbers in counts.items()}

    def told(self) -> list[Told]:
        """Return what each of the processes has seen; none of them is at work.

        Raises:
            CloneWorkerError: one of them has ended.
        """
        found: list[Told] = []
        for end in [self._idle.get() for _ in range(self._idle.qsize())]:
            reader, writer = os.pipe()
            with os.fdopen(reader, "rb") as answer:
                with suppress(OSError):
                    socket.send_fds(end, [_TELL], [writer])
                os.close(writer)
                said = answer.read()
            self._idle.put(end)
            if not said:
                raise CloneWorkerError("a masking process ended without a word", "Is memory scarce? The system's log says who was ended.")
            found.append(pickle.loads(said))  # noqa: S301 - as above
        return found


@contextmanager
def forked(plan: MaskPlan, key: RunKey, facts: Facts, watch: Watch, workers: int) -> Iterator[Maskers]:
    """Give the processes for the block; they forget the key when it ends. Each has a watch of its own."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
    parent = os.getpid()
    pids: list[int] = []
    for number in range(workers):
        pid = os.fork()
        if not pid:
            _serve(parent, number, pairs, _Work(plan, key, facts, watch))
        pids.append(pid)
    for _, far in pairs:
        far.close()
    try:
        yield Maskers([near for near, _ in pairs])
    finally:
        for near, _ in pairs:
            near.close()
        for pid in pids:
            with suppress(ChildProcessError, ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                os.waitpid(pid, 0)


@dataclass(frozen=True)
class _Work:
    """What a process works with."""

    plan: MaskPlan
    key: RunKey
    facts: Facts
    watch: Watch


def _serve(parent: int, number: int, pairs: Sequence[tuple[socket.socket, socket.socket]], work: _Work) -> None:
    """Mask whatever is asked for until the other end is closed; never returns."""
    try:
        crew.die_with(parent)
        for near, _ in pairs:
            near.close()
        mine = pairs[number][1]
        while True:
            asked, files, _, _ = socket.recv_fds(mine, _ANSWER, 2)
            if not asked:
                break
            if asked == _TELL:
                with os.fdopen(files[0], "wb") as answer:
                    pickle.dump(work.watch.told, answer, pickle.HIGHEST_PROTOCOL)
                continue
            mine.send(pickle.dumps(_answer(pickle.loads(asked), files, work), pickle.HIGHEST_PROTOCOL))  # noqa: S301 - as above
    finally:
        os._exit(0)  # sessions and files of the parent are not this process's to close


def _answer(request: _Request, files: Sequence[int], work: _Work) -> tuple[str, str | None, dict[str, tuple[int, int, int]]]:
    source, target = files
    try:
        counts = _watched(request, source, target, work) if request.binary else _masked(request, source, target, work)
    except ObhutError as error:
        return f"{error.code}: {error}", error.hint, {}
    except OSError:
        return _BROKEN, None, {}
    except BaseException as error:  # noqa: BLE001 - its text could hold a value, its name does not
        return f"a masking process met {type(error).__name__}", None, {}
    finally:
        os.close(source)
        os.close(target)
    return "", None, {name: (count.cells, count.nulls, count.unchanged) for name, count in counts.items()}


def _masked(request: _Request, source: int, target: int, work: _Work) -> Mapping[str, Count]:
    watch, table = work.watch, request.table
    masker = Masker(work.plan.tables[table], work.key, work.facts, locale=work.plan.locale, watched=watch.columns(table))
    try:
        for chunk in stream(_read(source), masker):
            watch.text(table, chunk)
            _write(target, chunk)
        _end(request)
        return masker.counts
    finally:
        masker.close()


def _watched(request: _Request, source: int, target: int, work: _Work) -> Mapping[str, Count]:
    for block in work.watch.binary(request.table, _read(source)):
        _write(target, block)
    _end(request)
    return {}


def _read(source: int) -> Iterator[bytes]:
    """Yield large blocks: programs write some kilobytes at a time, and each block has its price."""
    with open(source, "rb", buffering=_BUFFER, closefd=False) as file:
        while block := file.read(_BLOCK):
            yield block


def _write(target: int, chunk: bytes) -> None:
    waiting = memoryview(chunk)
    while waiting:
        waiting = waiting[os.write(target, waiting) :]


def _end(request: _Request) -> None:
    if Path(request.read).exists():  # an end that was reached, and not a stream that broke off
        Path(request.done).write_text("1\n", encoding="ascii")
