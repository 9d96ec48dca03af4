"""``obhut serve``: everything that runs all day on one machine, together or each part alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cyclopts import App

from obhut.cli.context import Context
from obhut.cli.controllers import opened
from obhut.jobs import loops, supervise, worker

_BEHIND = 10  # by which capture is nicer than the applications it watches

app = App(name="serve", help="Run worker, WAL receiver, archiver, heartbeat and audit capture of this machine.")


@app.default
def serve() -> None:
    """Run all parts and keep them running until SIGTERM or Ctrl-C.

    worker takes base backups on schedule, expires and checks; receiver streams WAL; archiver seals finished WAL; heartbeat commits once a
    minute; audit puts changes into the controllers' logs where the audit log is on. Several machines may run workers; the other parts run
    once, receiver, archiver and heartbeat where the repository lies. Example units for systemd: deploy/systemd.
    """
    here = opened()
    here.output.note("Serving {count} databases; stop with Ctrl-C.", count=len(here.settings.databases))
    supervise.supervise(["--config", str(here.settings.path)], _environment())


@app.command(name="worker")
def worker_(*, until_empty: bool = False) -> None:
    """Run the job worker alone.

    Parameters
    ----------
    until_empty
        End when no job is left, instead of waiting for the next.
    """
    here = _part()
    worker.work(here.settings, here.clock, until_empty=until_empty)


@app.command
def receiver() -> None:
    """Run the WAL receivers alone."""
    here = _part()
    with loops.stopping() as stop:
        loops.receive(here.settings, stop)


@app.command
def archiver() -> None:
    """Run the WAL archiver alone."""
    here = _part()
    with loops.stopping() as stop:
        loops.archive(here.settings, stop, here.clock)


@app.command
def heartbeat() -> None:
    """Run the heartbeat alone."""
    here = _part()
    with loops.stopping() as stop:
        loops.beat(here.settings, stop)


@app.command
def audit() -> None:
    """Run the capture of audit logs alone, at low priority: where it shares processors with the protected server, that goes first.

    What it has not read yet waits on the server as WAL, within the limit of the slot; "obhut audit status" tells how much.
    """
    here = _part()
    _step_back()
    with loops.stopping() as stop:
        loops.audit(here.settings, stop, here.clock)


def _step_back() -> None:
    """Lower the priority of this process, and of its session where that is what Linux weighs against others (sched_autogroup)."""
    with contextlib.suppress(OSError):  # forbidden here, or no such thing
        os.nice(_BEHIND)
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(_BEHIND), encoding="ascii")


def _part() -> Context:
    supervise.watch_supervisor()
    return opened()


def _environment() -> dict[str, str]:
    # The package may be run from a source tree: children must find the same one.
    import obhut

    source = str(Path(obhut.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{inherited}" if inherited else source}
