"""Runs on a real control database: committed step by step, one runner at a time, resumed after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta

import pytest

from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import FixedClock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.journal import locks, runs
from obhut.journal.errors import RunBusyError, RunStateError, RunUnknownError
from obhut.journal.states import RunKind, RunState, StepState
from obhut.postgres.control import control_safe, control_session
from obhut.postgres.errors import DatabaseError

ACTOR = Actor(Role.SYSTEM, "test")

# A run of three steps. Each effect is a line in a file, so that the test sees what really happened, and how often.
CHILD = """
import sys
from pathlib import Path
from obhut.foundation import faultpoints
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.settings import load
from obhut.journal import runs
from obhut.journal.states import RunState
from obhut.postgres.control import open_control

open_control(load(Path(sys.argv[1])))
effects, clock = Path(sys.argv[2]), SystemClock()
if len(sys.argv) > 3:
    run = runs.resume(sys.argv[3], clock)
else:
    run = runs.begin("erase", "courses", Actor(Role.SYSTEM, "test"), clock, {"tombstone": "tmb_1"}, "ins_1")
print(run.id, flush=True)
with runs.guarded(run, clock):
    for name in ("one", "two", "three"):
        with runs.step(run, name, clock) as step:
            if step.already is None:
                with effects.open("a") as file:
                    file.write(name + "\\n")
                faultpoints.reach(f"erase.{name}.middle")
                if sys.stdin.readline().strip() == "hold":
                    sys.stdin.readline()
                step.record(rows=7, word=name)
    runs.finish(run, RunState.DONE, clock=clock)
"""


class Child:
    """A process that carries out the run."""

    def __init__(self, settings: Settings, *arguments: object, die_at: str = "", stdin: str = "\n\n\n") -> None:
        environment = {**os.environ, "OBHUT_DIE_AT": die_at} if die_at else dict(os.environ)
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), settings.path, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.run_id = (self.process.stdout.readline() if self.process.stdout else "").strip()
        if stdin and self.process.stdin:
            try:
                self.process.stdin.write(stdin)
                self.process.stdin.flush()
            except BrokenPipeError:
                pass  # it died first, as asked

    def end(self) -> int:
        """Wait for the end and return the exit status."""
        try:
            _, errors = self.process.communicate(timeout=60)
        except BrokenPipeError:
            errors = ""
            self.process.wait(60)
        assert self.process.returncode in {0, -signal.SIGKILL}, errors
        return self.process.returncode


@pytest.fixture
def clock() -> FixedClock:
    """Give a clock that stands still."""
    return FixedClock(datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _let_go(control: Settings):
    yield
    locks.close()


def test_a_run_is_journalled_step_by_step(control: Settings, clock: FixedClock) -> None:
    """Another session sees the run and each step as soon as it has begun, and the facts as soon as it has ended."""
    run = runs.begin(RunKind.ERASE, "courses", ACTOR, clock, {"tombstone": "tmb_1"}, "ins_1", plan_hash="ab12")
    seen = "SELECT string_agg(name || ' ' || state || ' ' || facts::text, ', ' ORDER BY ordinal) FROM journal_step"
    with control_session() as other:
        assert other.row("SELECT state, actor, instruction_id, parameters->>'tombstone' FROM journal_run") == (
            "running", "system:test", "ins_1", "tmb_1",
        )  # fmt: skip
        with runs.guarded(run, clock):
            with runs.step(run, "plan", clock) as step:
                assert step.already is None
                step.record(rows=3)
                assert other.value(seen) == "plan running {}"
            assert other.value(seen) == 'plan done {"rows": 3}'
            with runs.step(run, "execute", clock):
                clock.move(timedelta(minutes=1))
            ended = runs.finish(run, RunState.DONE, clock=clock)
    assert ended.state is RunState.DONE
    assert ended.finished_at == clock.now() == ended.heartbeat_at
    assert [(one.ordinal, one.name, one.attempts) for one in runs.list_steps(run.id)] == [(1, "plan", 1), (2, "execute", 1)]
    assert runs.get(run.id) == ended
    assert runs.list_runs(kind="erase", database="courses", state="done") == [ended]
    assert runs.list_runs(database="shop") == []
    assert not locks.held(run.id)


@pytest.mark.parametrize(
    ("die_at", "effects"),
    [
        ("erase.one.before", ["one", "two", "three"]),
        ("erase.two.before", ["one", "two", "three"]),
        ("erase.two.middle", ["one", "two", "two", "three"]),
        ("erase.two.after", ["one", "two", "three"]),
        ("erase.three.middle", ["one", "two", "three", "three"]),
        ("erase.three.after", ["one", "two", "three"]),
        ("erase.finish.before", ["one", "two", "three"]),
    ],
)
def test_a_killed_run_is_resumed_where_it_was(control: Settings, die_at: str, effects: list[str]) -> None:
    """SIGKILL between and inside steps: the run shows as running but dead; the resume repeats the broken step only, and ends."""
    file = control.path.parent / "effects"
    child = Child(control, file, die_at=die_at)
    assert child.end() == -signal.SIGKILL
    left = runs.get(child.run_id)
    assert left.state is RunState.RUNNING
    assert not runs.alive(left)
    assert Child(control, file, child.run_id).end() == 0
    assert file.read_text().split() == effects
    after = runs.get(child.run_id)
    assert after.state is RunState.DONE
    steps = runs.list_steps(child.run_id)
    assert [(step.name, step.state, step.facts) for step in steps] == [
        (name, StepState.DONE, {"rows": 7, "word": name}) for name in ("one", "two", "three")
    ]


def test_a_second_runner_is_refused_while_the_first_lives(control: Settings, clock: FixedClock) -> None:
    """A run in the hands of a living process cannot be resumed or cancelled; after SIGKILL it can."""
    child = Child(control, control.path.parent / "effects", stdin="hold\n")
    try:
        left = runs.get(child.run_id)
        assert runs.alive(left)
        assert locks.held(child.run_id)
        with pytest.raises(RunBusyError):
            runs.resume(child.run_id, clock)
        with pytest.raises(RunBusyError):
            runs.cancel(child.run_id, clock)
        child.process.kill()
        child.process.wait()
        assert not runs.alive(left)
        resumed = runs.resume(child.run_id, clock)
        assert resumed.owner.pid == os.getpid()
        with pytest.raises(RunBusyError):
            runs.resume(child.run_id, clock)
    finally:
        child.process.kill()
        child.process.communicate()


def test_a_runner_on_another_machine_is_known_by_its_lock(control: Settings, clock: FixedClock) -> None:
    """Where a process number means nothing, the lock in the control database speaks."""
    run = runs.begin("backup", "courses", ACTOR, clock)
    with control_session() as other:
        other.execute("UPDATE journal_run SET boot_id = 'elsewhere'")
        assert runs.alive(runs.get(run.id))
        locks.release(run.id)
        assert not runs.alive(runs.get(run.id))
        other.value("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (run.id,))
        assert runs.alive(runs.get(run.id))
        with pytest.raises(RunBusyError):
            runs.resume(run.id, clock)


def test_of_many_threads_one_resumes(control: Settings, clock: FixedClock) -> None:
    """The lock is not shared between threads of a process."""
    run = runs.begin("restore", "courses", ACTOR, clock, planned=True)
    won: list[str] = []
    lost: list[str] = []

    def try_it() -> None:
        from django.db import connection

        try:
            won.append(runs.resume(run.id, clock).id)
        except ObhutError as error:
            lost.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [run.id]
    assert lost == ["run-busy"] * 3


def test_an_error_fails_step_and_run_with_its_code_and_no_words(control: Settings, clock: FixedClock) -> None:
    """What went wrong is stored as a code; an exception's text could quote a row. A resume clears it."""

    class FullError(ObhutError):
        code = "disk-full"

    run = runs.begin("erase", "courses", ACTOR, clock)

    def copy(run: runs.Run, error: Exception) -> None:
        with runs.guarded(run, clock), runs.step(run, "copy", clock) as step:
            step.record(rows=1)
            raise error

    with pytest.raises(FullError):
        copy(run, FullError("canary words"))
    assert (runs.get(run.id).state, runs.get(run.id).error_code) == (RunState.FAILED, "disk-full")
    assert runs.list_steps(run.id)[0].error_code == "disk-full"
    again = runs.resume(run.id, clock)
    assert again.error_code == ""
    with pytest.raises(ZeroDivisionError):
        copy(again, ZeroDivisionError("canary words"))
    assert runs.get(run.id).error_code == "internal"
    assert runs.list_steps(run.id)[0].attempts == 2
    with control_session() as session:
        assert "canary" not in session.value("SELECT string_agg(r::text || s::text, '') FROM journal_run r, journal_step s")


def test_partial_is_never_done(control: Settings, clock: FixedClock) -> None:
    """A run with a step that is not done cannot be called done; it can be partial, and resumed."""
    run = runs.begin("erase", "courses", ACTOR, clock)
    with pytest.raises(ValueError), runs.step(run, "execute", clock):
        raise ValueError
    with pytest.raises(RunStateError, match="not done"):
        runs.finish(run, "done", clock=clock)
    runs.finish(run, "partial", "database-unreachable", clock=clock)
    with pytest.raises(RunStateError):
        runs.cancel(run.id, clock)
    again = runs.resume(run.id, clock)
    with runs.step(again, "execute", clock):
        pass
    assert runs.finish(again, "done", clock=clock).error_code == ""
    for call in (lambda: runs.resume(run.id, clock), lambda: runs.cancel(run.id, clock), lambda: runs.finish(again, "failed", clock=clock)):
        with pytest.raises(RunStateError):
            call()


def test_a_finished_step_gives_its_facts_back(control: Settings, clock: FixedClock) -> None:
    """The second pass learns what the first found, and leaves the journal as it is."""
    run = runs.begin("erase", "courses", ACTOR, clock)
    with runs.step(run, "plan", clock) as step:
        step.record(lsn="0/16F2398")
    before = runs.list_steps(run.id)
    clock.move(timedelta(hours=1))
    with runs.step(run, "plan", clock) as step:
        assert step.already == {"lsn": "0/16F2398"}
        step.record(lsn="0/0")
    assert runs.list_steps(run.id) == before


def test_only_the_runner_writes_and_never_inside_a_transaction(control: Settings, clock: FixedClock) -> None:
    """A run that this process has not begun or resumed takes no step; a journal inside a transaction would be rolled back with it."""
    from django.db import transaction

    run = runs.begin("erase", "courses", ACTOR, clock, planned=True)
    with pytest.raises(RunStateError), runs.step(run, "plan", clock):
        pass
    begun = runs.resume(run.id, clock)
    with transaction.atomic(), pytest.raises(AssertionError, match="transactions of its own"), runs.step(begun, "plan", clock):
        pass
    with pytest.raises(RunUnknownError):
        runs.get("run_none")


def test_personal_values_do_not_get_into_the_journal(control: Settings, clock: FixedClock) -> None:
    """Parameters and facts that could be a person's are refused before anything is written."""
    with pytest.raises(ValueError, match="the fact who"):
        runs.begin("erase", "courses", ACTOR, clock, {"who": "anna@example.org"})
    assert runs.list_runs() == []
    run = runs.begin("erase", "courses", ACTOR, clock)
    with pytest.raises(ValueError, match="the fact name"), runs.step(run, "plan", clock) as step:
        step.record(name="Anna Schmidt")
    assert runs.list_steps(run.id)[0].facts == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal_run SET kind = 'something'",
        "UPDATE journal_run SET state = 'fine'",
        "UPDATE journal_run SET state = 'done'",
        "UPDATE journal_run SET finished_at = now()",
        "UPDATE journal_run SET state = 'done', finished_at = now(), error_code = 'x'",
        "UPDATE journal_step SET state = 'fine'",
        "UPDATE journal_step SET finished_at = NULL",
    ],
)
def test_the_database_itself_refuses_impossible_states(control: Settings, clock: FixedClock, statement: str) -> None:
    """A finished run has an end, a running one has none, and a done one no error, whoever writes."""
    from django.db import connection

    run = runs.begin("erase", "courses", ACTOR, clock)
    with runs.step(run, "plan", clock):
        pass
    with pytest.raises(DatabaseError) as caught, control_safe(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert caught.value.sqlstate == "23514"
