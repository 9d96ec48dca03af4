"""The performance: the acts in order, and a stage that is empty afterwards, whatever happened."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from obhut.demo import acts, auditing, folder, going_on, restoring, vendor
from obhut.demo.scene import Scene
from obhut.demo.stage import Stage, number
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.language import text
from obhut.foundation.settings import FILE_NAME

ACTS: tuple[Callable[[Scene], None], ...] = (
    acts.fill,
    acts.check_map,
    acts.sign,
    acts.back_up,
    auditing.log_changes,
    acts.write_word,
    acts.erase,
    auditing.look_again,
    acts.lose,
    restoring.restore_plainly,
    restoring.restore,
    going_on.go_on,
    going_on.anonymise_inactive,
    going_on.copy_for_tests,
    going_on.judge,
)


def play(stage: Stage, place: Path, actor: Actor, clock: Clock, *, keep_running: bool = False) -> None:
    """Play the whole story in a folder; servers run afterwards only with ``keep_running``.

    Raises:
        DemoFailedError: something that Obhut promises did not hold.
        DemoFolderError, DemoRunningError: the folder cannot be used.
    """
    with _terminable(), folder.taken(place):
        stage.opening(
            "Obhut: erased people stay erased",
            text("The whole story on a sample vendor. Everything lies in {folder}", folder=place),
            text("The commands beside it are yours to try: export OBHUT_CONFIG={file}", file=place / FILE_NAME),
        )
        finished = False
        try:
            sample, settings = vendor.start(place)
            scene = Scene(stage, place, actor, clock, settings, sample)
            with scene.ending:
                for act in ACTS:
                    act(scene)
            finished = True
        finally:
            if not (finished and keep_running):
                folder.stop(place)
        _close(scene, keep_running=keep_running)


def _close(scene: Scene, *, keep_running: bool) -> None:
    lines = [
        text(
            "{seconds} s from an empty folder to here: {rows} rows restored and compared, one person not.",
            seconds=number(scene.stage.elapsed),
            rows=number(scene.rows),
        )
    ]
    if keep_running:
        lines.append(text("The servers run on. Look around: export OBHUT_CONFIG={file}", file=scene.folder / FILE_NAME))
        lines.append("  obhut restore list · obhut clone list · obhut erasures list · obhut promises --evidence")
    else:
        lines.append(text("Nothing runs any more. Look at the files, or play it again with --keep-running to look around."))
    lines.append(text("Remove everything: obhut demo clean"))
    scene.stage.closing(lines)
    if keep_running:
        scene.stage.command(f"psql '{scene.url}'")


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, so that it clears the stage."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
