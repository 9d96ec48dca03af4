"""What a verifier has seen before: the key it pinned, the last checkpoint of each log. The file belongs to the controller."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from obhut.auditlog.errors import BundleError
from obhut.auditlog.tlog.checkpoints import Checkpoint


class Seen(msgspec.Struct, frozen=True):
    """The last checkpoint of a log."""

    controller: str
    period: str
    size: int
    root: bytes


class Memory(msgspec.Struct):
    """Keys by controller and logs by origin."""

    keys: dict[str, bytes] = {}
    logs: dict[str, Seen] = {}

    def note(self, controller: str, period: str, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that was verified, unless a larger one is known."""
        known = self.logs.get(checkpoint.origin)
        if known is None or known.size <= checkpoint.size:
            self.logs[checkpoint.origin] = Seen(controller, period, checkpoint.size, checkpoint.root)


def load(path: Path | None) -> Memory:
    """Return what a file remembers; nothing where there is none yet.

    Raises:
        BundleError: the file is not one of these.
    """
    if path is None or not path.exists():
        return Memory()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Memory)
    except (OSError, msgspec.MsgspecError):
        raise BundleError(f"{path}: not what a verifier has kept", "Name the file that an earlier verification wrote.") from None


def save(memory: Memory, path: Path) -> None:
    """Write the file anew, in one step."""
    work = path.with_name(path.name + ".new")
    with work.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(memory)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    work.replace(path)
