"""Named instants between two effects, where the fault tests kill the process.

``OBHUT_DIE_AT=erase.tombstoned`` makes the process end itself by SIGKILL when it gets there, so that nothing (no ``finally``, no
``atexit``) can tidy up: what is left is what a power cut leaves. ``OBHUT_TRACE_FAULTPOINTS=file`` appends each name that is
reached, from which the fault matrix learns the list instead of keeping one by hand.
"""

from __future__ import annotations

import os
import signal

_DIE_AT = os.environ.get("OBHUT_DIE_AT")
_TRACE = os.environ.get("OBHUT_TRACE_FAULTPOINTS")


def reach(name: str) -> None:
    """Mark that the instant ``name`` is reached; die here if the fault tests ask for it."""
    if _TRACE:
        with open(_TRACE, "a", encoding="utf-8") as trace:
            trace.write(name + "\n")
    if name == _DIE_AT:
        os.kill(os.getpid(), signal.SIGKILL)
