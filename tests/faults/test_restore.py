"""Kill a restore at every instant, and its servers and programs under it: it converges, and nothing opens before the proof."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import scanner
from support.commands import KILLED, children
from support.lost import LATER, Lost
from support.sweep import names_of, sweep

from obhut.postgres.clusters import Cluster

pytestmark = [pytest.mark.fault, pytest.mark.postgres, pytest.mark.slow]

NOT_PROVED = "restore-not-proved"


def _newest(lost: Lost, known: set[str]) -> str | None:
    new = [run for run in lost.runs() if run not in known]
    assert len(new) <= 1, "one command began more than one run"
    return new[0] if new else None


def _open_and_check(lost: Lost, run: str) -> str:
    opened = lost.obhut("restore", "open", run)
    lost.check(opened["url"])
    return str(opened["url"])


def _target(lost: Lost, run: str) -> Cluster:
    source = lost.installation.cluster
    return Cluster(lost.directory(run) / "target", source.binaries, source.user)


def _stop_target(lost: Lost, run: str) -> None:
    """Remove an opened target: it is the vendor's now, and no command of ours ends it."""
    _target(lost, run).remove()


def test_killed_at_one_instant_after_the_other(lost: Lost) -> None:
    """One restore is killed at each fault point in turn and resumed each time: in the end every row is right, and it was never open before."""
    clean: list[str] = []
    every = names_of(lambda env: clean.append(lost.run(env=env)["run"]))
    # The points inside the list belong to condemning a living canary, which happens once; the next test and test_erase.py die there.
    names = [name for name in every if not name.startswith("erasure-list.")]
    opening = names_of(lambda env: lost.obhut("restore", "open", clean[0], env=env))
    _stop_target(lost, clean[0])
    assert {"restore.preflight.before", "restore.recover.after", "restore.load.before", "restore.prove.after"} <= set(names)
    known = set(lost.runs())
    run: str | None = None
    proved = False
    killed = 0
    for name in names:
        for _attempt in (1, 2):
            command = ("restore", "resume", run) if run else ("restore", "run", "clinic", "--to", lost.point)
            result = lost.obhut.run(*command, env={"OBHUT_DIE_AT": name})
            if result.status == KILLED:
                break
            # What is done is not done again, so some instants come in a fresh run only.
            assert result.status == 0, f"resumed before {name}: {result}"
            assert run is not None, f"{name} was reached in the clean run and not in this one"
            lost.abandon(run)
            run, proved = None, False
        else:
            raise AssertionError(f"{name} is not reached in a fresh run")
        killed += 1
        run = run or _newest(lost, known)
        known.update([run] if run else [])
        proved = proved or name in {"restore.prove.after", "restore.finish.before", "restore.finish.after"}
        if run and name.endswith(".after") and not proved:
            lost.obhut.refused("restore", "open", run, code=NOT_PROVED, status=5)
    assert killed == len(names)
    assert run is not None
    done = lost.obhut.run("restore", "resume", run)
    assert done.status == 0 or done.error == "run-state", str(done)
    for name in opening:
        lost.obhut.run("restore", "open", run, env={"OBHUT_DIE_AT": name})
    state = next(one["state"] for one in lost.obhut("restore", "list", "clinic") if one["run"] == run)
    url = _open_and_check(lost, run) if state != "opened" else ""
    if url:
        _stop_target(lost, run)
    epochs = [one for one in lost.obhut("restore", "list", "clinic") if one["run"] == run]
    assert epochs[0]["state"] == "opened"
    assert lost.obhut("erasures", "verify")["size"] > 0


def test_killed_once_and_resumed(fresh: Lost) -> None:
    """A kill in the middle of each long step and one uninterrupted resume: proved, every row right, steps that were done are not repeated."""

    def case(name: str) -> None:
        known = set(fresh.runs())
        fresh.obhut.killed_at(name, "restore", "run", "clinic", "--to", fresh.point)
        run = _newest(fresh, known)
        assert run is not None
        shown = fresh.obhut("restore", "show", run)
        assert shown["state"] == "interrupted"
        done_before = {step["name"] for step in shown["steps"] if step["state"] == "done"}
        fresh.obhut.refused("restore", "open", run, code=NOT_PROVED, status=5)
        assert fresh.obhut("restore", "resume", run)["holds"] is True
        again = {step["name"]: step["attempts"] for step in fresh.obhut("restore", "show", run)["steps"]}
        assert all(again[step] == 1 for step in done_before & {"preflight", "condemn", "unseal", "wal", "recover"})
        opened = _open_and_check(fresh, run)
        assert opened
        _stop_target(fresh, run)

    sweep(["erasure-list.committed", "restore.link.unsealed", "restore.part.after", "restore.prove.before"], case)


def test_a_second_runner_is_refused(lost: Lost) -> None:
    """While a restore is at work nobody else can resume, open or abandon it."""
    known = set(lost.runs())
    process = lost.obhut.begin("restore", "run", "clinic", "--to", lost.point)
    run = None
    deadline = time.monotonic() + 60
    while run is None and time.monotonic() < deadline and process.poll() is None:
        run = _newest(lost, known)
    try:
        assert run is not None and process.poll() is None
        process.send_signal(signal.SIGSTOP)
        for command in ("resume", "open", "abandon"):
            lost.obhut.refused("restore", command, run, code={"run-busy", NOT_PROVED})
    finally:
        process.send_signal(signal.SIGCONT)
        assert process.wait(180) == 0
    lost.abandon(str(run))


# -- servers and programs below it --------------------------------------------------------------------------------------------------


def _reached(trace: Path, name: str) -> bool:
    return trace.exists() and name in trace.read_text(encoding="utf-8").split()


def _postmaster(directory: Path) -> int | None:
    """Return the number of the server of one data directory, and make sure that it is its server."""
    try:
        number = int((directory / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        words = Path(f"/proc/{number}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return None
    return number if str(directory / "data").encode() in words else None


def _kill_during(lost: Lost, find: Callable[[int, Path | None], int | None]) -> tuple[str | None, int]:
    """Run a restore, SIGKILL the process that ``find`` gives as soon as it gives one, and return the run and the status of the command."""
    place = lost.installation.state / "restores"
    place.mkdir(mode=0o711, exist_ok=True)
    known = {path.name for path in place.iterdir()}
    process = lost.obhut.begin(
        "restore", "run", "clinic", "--to", lost.point, env={"OBHUT_TRACE_FAULTPOINTS": str(lost.installation.folder / "trace")}
    )
    deadline = time.monotonic() + 120
    hit = False
    while process.poll() is None and time.monotonic() < deadline:
        if not hit:
            new = [path for path in place.iterdir() if path.name not in known]
            victim = find(process.pid, new[0] if new else None)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                hit = True
        time.sleep(0.002)
    status = process.wait(10)
    assert hit, "the process to be killed was never seen"
    return next((run for run in lost.runs() if run not in known), None), status


def test_its_servers_die(lost: Lost) -> None:
    """The quarantine's or the target's server is killed at different steps: the command fails cleanly or is through already; resume converges."""
    trace = lost.installation.folder / "trace"
    failed: list[str] = []

    def case(name: str) -> None:
        server, _, step = name.partition("@")

        def find(_pid: int, directory: Path | None) -> int | None:
            return _postmaster(directory / server) if directory is not None and _reached(trace, step) else None

        trace.unlink(missing_ok=True)
        run, status = _kill_during(lost, find)
        assert run is not None
        assert status != KILLED
        if status != 0:
            failed.append(name)
            lost.obhut.refused("restore", "open", run, code=NOT_PROVED, status=5)
            assert lost.obhut("restore", "resume", run)["holds"] is True
        _open_and_check(lost, run)
        _stop_target(lost, run)

    sweep(
        [
            "quarantine@restore.recover.before",
            "quarantine@restore.schema.before",
            "target@restore.schema.before",
            "target@restore.connect.before",
        ],
        case,
    )
    assert len(failed) >= 2, "the kills came too late to test anything"


@pytest.mark.parametrize("program", ["pg_combinebackup", "initdb", "pg_dump"])
def test_its_programs_die(lost: Lost, program: str) -> None:
    """A program below the restore is killed: the command fails with a stable code, or does without it; resume converges."""

    def find(pid: int, _directory: Path | None) -> int | None:
        return next((child for child, name in children(pid).items() if name == program), None)

    run, status = _kill_during(lost, find)
    assert run is not None and status != KILLED
    if status != 0:
        lost.obhut.refused("restore", "open", run, code=NOT_PROVED, status=5)
        assert lost.obhut("restore", "resume", run)["holds"] is True
    _open_and_check(lost, run)
    _stop_target(lost, run)


def test_an_erasure_arrives_during_the_restore(fresh: Lost) -> None:
    """Somebody is erased between load and proof, and somebody between proof and opening: neither is in the opened database, nor a byte of them."""
    first, second = LATER
    known = set(fresh.runs())
    fresh.obhut.killed_at("restore.prove.before", "restore", "run", "clinic", "--to", fresh.point)
    run = str(_newest(fresh, known))
    fresh.installation.erase("patient", first)
    assert fresh.obhut("restore", "resume", run)["holds"] is True
    fresh.installation.erase("patient", second)
    fresh.expected = fresh.later
    _open_and_check(fresh, run)
    assert fresh.obhut("restore", "verify", fresh.installation.state / "certificates" / f"{run}.json")["passed"] is True
    _target(fresh, run).stop()
    assert scanner.hits(fresh.directory(run), [fresh.token, *(f"secret{number}@mail.invalid" for number in LATER)]) == []
    _stop_target(fresh, run)
