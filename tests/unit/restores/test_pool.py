"""Tasks side by side."""

from __future__ import annotations

import threading

import pytest

from obhut.restores import pool
from obhut.restores.pool import Task


def _run(tasks, workers=3, done=()):
    pool.run(tasks, lambda: None, lambda _: None, workers=workers, done=done)


def test_a_task_waits_for_those_before_it():
    """What comes after never begins earlier, however many workers there are."""
    order = []
    tasks = [Task(f"t{n}", lambda _, n=n: order.append(n), after=frozenset({f"t{n - 1}"})) for n in range(50)]
    _run(list(reversed(tasks)))
    assert order == list(range(50))


def test_tasks_with_a_common_lock_never_overlap():
    """Two tasks that lock the same table exclude each other."""
    inside, seen = threading.Semaphore(1), []

    def work(_):
        assert inside.acquire(blocking=False)
        seen.append(1)
        inside.release()

    _run([Task(str(n), work, locks=frozenset({"a"})) for n in range(100)], workers=8)
    assert len(seen) == 100


def test_the_first_failure_ends_all_and_is_raised():
    """Later tasks are not begun."""
    ran = []

    def fail(_):
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        _run([Task("a", fail, rank=2), Task("b", lambda _: ran.append(1), after=frozenset({"a"}))], workers=2)
    assert ran == []


def test_finished_tasks_are_not_done_again():
    """A resumed run does what is missing only, and those waiting for finished ones begin."""
    ran = []
    _run([Task("a", lambda _: ran.append("a")), Task("b", lambda _: ran.append("b"), after=frozenset({"a"}))], done=["a"])
    assert ran == ["b"]
