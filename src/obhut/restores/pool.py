"""Tasks side by side: each waits for others, some exclude each other, the first failure ends all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W")


@dataclass(frozen=True)
class Task(Generic[W]):
    """A piece of work.

    Attributes:
        name: unique in its run.
        work: is given the worker's own surroundings (its sessions).
        after: names of tasks that must have ended before.
        locks: things that no two running tasks may share (tables that both would lock).
        rank: higher goes first among those that could start.
    """

    name: str
    work: Callable[[W], None]
    after: frozenset[str] = frozenset()
    locks: frozenset[str] = frozenset()
    rank: float = 0


@dataclass
class _Board(Generic[W]):
    waiting: list[Task[W]]
    ended: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    running: int = 0
    failure: BaseException | None = None


def run(  # noqa: C901 - a scheduler and its three callbacks, which share one board
    tasks: Iterable[Task[W]], surroundings: Callable[[], W], leave: Callable[[W], None], *, workers: int, done: Iterable[str] = ()
) -> None:
    """Carry out all tasks.

    Args:
        tasks: in any order; a task that waits for an unknown name waits for nothing.
        surroundings: makes what one worker works with, in its thread.
        leave: takes it away again.
        workers: threads.
        done: tasks that an earlier run has finished.

    Raises:
        BaseException: the first failure of a task; those that had not begun are left out.
    """
    wanted = list(tasks)
    names = {task.name for task in wanted}
    board: _Board[W] = _Board(sorted(wanted, key=lambda task: -task.rank), set(done))
    board.waiting = [task for task in board.waiting if task.name not in board.ended]
    changed = threading.Condition()

    def ready() -> Task[W] | None:
        for task in board.waiting:
            if not (task.after & names) - board.ended and not task.locks & board.held:
                return task
        return None

    def worker() -> None:
        mine: W | None = None
        try:
            mine = surroundings()
            while (task := take()) is not None:
                task.work(mine)
                give_back(task)
        except BaseException as error:  # noqa: BLE001 - carried to the caller, who raises it
            with changed:
                board.failure = board.failure or error
                changed.notify_all()
        finally:
            if mine is not None:
                leave(mine)

    def take() -> Task[W] | None:
        with changed:
            while True:
                if board.failure is not None or not board.waiting:
                    return None
                task = ready()
                if task is not None:
                    board.waiting.remove(task)
                    board.held |= task.locks
                    board.running += 1
                    return task
                if not board.running:
                    raise AssertionError("tasks wait for each other in a circle")
                changed.wait(timeout=60)

    def give_back(task: Task[W]) -> None:
        with changed:
            board.ended.add(task.name)
            board.held -= task.locks
            board.running -= 1
            changed.notify_all()

    threads = [threading.Thread(target=worker, name=f"obhut-restore-{number}", daemon=True) for number in range(max(1, workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if board.failure is not None:
        raise board.failure
