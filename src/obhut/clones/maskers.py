"""Processes that mask streams: each part of a table passes through one of them, from psql to psql.

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
from obhut.foundation.errors import ObhutError
from obhut.masking.facts import Facts
from obhut.masking.keys import RunKey
from obhut.masking.model import MaskPlan
from obhut.masking.stream import Count, Masker, stream

_BUFFER = 1 << 20  # bytes that a pipe holds, where the system grants it
_ANSWER = 1 << 16  # bytes
_F_SETPIPE_SZ = 1031
_BROKEN = "broken"  # a program at one end of the stream ended early: its own words say why


@dataclass(frozen=True, slots=True)
class _Request:
    table: int  # oid of the topmost table
    read: str  # path of the mark that says that the source has ended well
    done: str  # path of the mark to make then


class Maskers:
    """The processes of a run; each does one part at a time."""

    def __init__(self, ends: Sequence[socket.socket]) -> None:
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        for end in ends:
            self._idle.put(end)

    def mask(self, table: int, source: IO[bytes], target: IO[bytes], read: Path, done: Path) -> Mapping[str, Count]:
        """Have a stream masked and return what was counted, by column; both files are closed.

        Raises:
            CloneWorkerError: the process could not go on. (A stream that broke off is no error here: its ends say why.)
        """
        end = self._idle.get()
        try:
            asked = pickle.dumps(_Request(table, str(read), str(done)), pickle.HIGHEST_PROTOCOL)
            with suppress(OSError):
                fcntl.fcntl(source.fileno(), _F_SETPIPE_SZ, _BUFFER)
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


@contextmanager
def forked(plan: MaskPlan, key: RunKey, facts: Facts, workers: int) -> Iterator[Maskers]:
    """Give the processes for the block; they forget the key when it ends."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
    parent = os.getpid()
    pids: list[int] = []
    for number in range(workers):
        pid = os.fork()
        if not pid:
            _serve(parent, number, pairs, plan, key, facts)
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


def _serve(
    parent: int, number: int, pairs: Sequence[tuple[socket.socket, socket.socket]], plan: MaskPlan, key: RunKey, facts: Facts
) -> None:
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
            mine.send(pickle.dumps(_answer(pickle.loads(asked), files, plan, key, facts), pickle.HIGHEST_PROTOCOL))  # noqa: S301 - as above
    finally:
        os._exit(0)  # sessions and files of the parent are not this process's to close


def _answer(
    request: _Request, files: Sequence[int], plan: MaskPlan, key: RunKey, facts: Facts
) -> tuple[str, str | None, dict[str, tuple[int, int, int]]]:
    source, target = files
    try:
        counts = _masked(request, source, target, plan, key, facts)
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


def _masked(request: _Request, source: int, target: int, plan: MaskPlan, key: RunKey, facts: Facts) -> Mapping[str, Count]:
    masker = Masker(plan.tables[request.table], key, facts, locale=plan.locale)
    try:
        for chunk in stream(iter(lambda: os.read(source, _BUFFER), b""), masker):
            waiting = memoryview(chunk)
            while waiting:
                waiting = waiting[os.write(target, waiting) :]
        if Path(request.read).exists():  # an end that was reached, and not a stream that broke off
            Path(request.done).write_text("1\n", encoding="ascii")
        return masker.counts
    finally:
        masker.close()
