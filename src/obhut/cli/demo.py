"""``obhut demo``: the whole story on a sample vendor."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from obhut.cli.context import context
from obhut.demo import folder as folders
from obhut.demo.stage import WIDTH, Stage
from obhut.demo.story import play
from obhut.foundation import redaction

app = App(name="demo")

Folder = Annotated[Path | None, Parameter(help="Where everything lies; by default /var/tmp/obhut-demo-<uid>.")]


@app.default
def demo(
    *,
    folder: Folder = None,
    keep_running: Annotated[bool, Parameter(negative="", help="Leave the servers up afterwards, to look around.")] = False,
) -> None:
    """Play the whole story: a sample vendor, an erasure, a loss, a restore that does not bring the person back.

    Needs neither root nor a PostgreSQL on the machine, takes less than three minutes, and leaves nothing running. The folder is emptied
    at every start, and only if an earlier demo has made it.
    """
    here = context()
    redaction.configure(json=here.output.as_json, level=logging.ERROR)  # the story tells by itself what is only worth a warning
    place = (folder or folders.default_folder()).absolute()
    watched = sys.stdout.isatty() and not os.environ.get("CI") and not here.output.as_json
    stage = Stage(_console(watched=watched), live=watched)
    play(stage, place, here.actor, here.clock, keep_running=keep_running)
    document = {
        "folder": place,
        "seconds": round(stage.elapsed, 1),
        "steps": [{"act": one.act, "step": one.step, "seconds": round(one.seconds, 2)} for one in stage.figures],
    }
    here.output.result(document, lambda: None)


def _console(*, watched: bool) -> Console:
    output = context().output
    stream = sys.stderr if output.as_json else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal without the signs of the story still gets its words
    if watched:
        return Console(file=stream, quiet=output.quiet, no_color=not output.coloured, highlight=False, markup=False, emoji=False)
    return Console(
        file=stream, quiet=output.quiet, no_color=True, color_system=None, width=WIDTH, highlight=False, markup=False, emoji=False
    )


@app.command
def clean(*, folder: Folder = None) -> None:
    """Stop what a demo has left running and remove its folder."""
    place = (folder or folders.default_folder()).absolute()
    removed = folders.remove(place)
    sentence = "Removed: {folder}" if removed else "There is no demo in {folder}."
    context().output.result({"folder": place, "removed": removed}, lambda: context().output.say(sentence, folder=place))
