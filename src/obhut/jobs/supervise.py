"""Runs the parts of ``obhut serve`` as child processes and keeps them running.

A part that ends is started again after a pause that doubles; a part that ends too often ends the whole service, so that the service
manager of the machine sees it. Children end with their supervisor, also when it is killed: each holds the reading end of a pipe that
nobody else writes to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from obhut.foundation.errors import ObhutError
from obhut.jobs.loops import stopping

PARTS: Final = ("worker", "receiver", "archiver", "heartbeat", "audit")
VARIABLE: Final = "OBHUT_SERVE_CHILD"
_MOST: Final = 10  # ends of one part …
_WITHIN: Final = 600.0  # … within so many seconds
_GRACE: Final = 30.0
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_MAIN: Final = "import sys; from obhut.cli.main import main; sys.exit(main())"
_log = structlog.get_logger("obhut.serve")


class PartFailedError(ObhutError):
    """A part of the service ended again and again."""

    code = "serve-part-failed"


@dataclass(slots=True)
class _Part:
    name: str
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    pause: float = _PAUSE
    ends: deque[float] = field(default_factory=deque)


def supervise(options: Sequence[str], environment: Mapping[str, str], parts: Sequence[str] = PARTS) -> None:
    """Run the parts until SIGTERM or SIGINT.

    Args:
        options: global options of the command, such as ``--config FILE``.
        environment: of the children.
        parts: which ones.

    Raises:
        PartFailedError: one ended too often; the others are ended, too.
    """
    running = [_Part(name) for name in parts]
    with stopping() as stop:
        try:
            while not stop:
                for part in running:
                    _look_after(part, options, environment)
                stop.wait(0.5)
        finally:
            _end_all(running)


def watch_supervisor() -> None:
    """In a child: end when the supervisor is gone. Does nothing for a part that was started on its own."""
    if os.environ.get(VARIABLE) != "1":
        return

    def wait() -> None:
        while os.read(0, 1):  # nothing is ever written: this returns when the other end is closed
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor-watch", daemon=True).start()


def _look_after(part: _Part, options: Sequence[str], environment: Mapping[str, str]) -> None:
    now = time.monotonic()
    if part.process is not None:
        status = part.process.poll()
        if status is None:
            return
        _log.warning("serve.part-ended", part=part.name, exit=status)
        _close(part)
        part.ends.append(now)
        while part.ends and now - part.ends[0] > _WITHIN:
            part.ends.popleft()
        if len(part.ends) > _MOST:
            raise PartFailedError(
                f"{part.name} ended {len(part.ends)} times within {_WITHIN / 60:.0f} minutes",
                f'Run "obhut serve {part.name}" alone to see why.',
            )
        part.due, part.pause = now + part.pause, min(part.pause * 2, _LONGEST_PAUSE) if len(part.ends) > 1 else _PAUSE * 2
    if now >= part.due:
        part.process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *options, "serve", part.name],
            stdin=subprocess.PIPE,
            env={**environment, VARIABLE: "1"},
            start_new_session=True,  # a Ctrl-C reaches the supervisor alone, which ends them in order
        )
        _log.info("serve.part-started", part=part.name)


def _end_all(parts: Sequence[_Part]) -> None:
    for part in parts:
        if part.process is not None and part.process.poll() is None:
            part.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    for part in parts:
        if part.process is None:
            continue
        try:
            part.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.error("serve.part-killed", part=part.name)
            part.process.kill()
            part.process.wait(5)
        _close(part)


def _close(part: _Part) -> None:
    if part.process is not None and part.process.stdin is not None:
        part.process.stdin.close()
    part.process = None
