"""The demo tells the truth and clears its stage: the whole story as a stranger plays it, an interruption, and folders that are not its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import SOURCE

LIMIT = 420.0  # seconds: a loaded machine with two cores; alone it takes less than a minute and a half


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a short path for a demo that does not exist yet; whatever is left of it goes."""
    parent = Path(tempfile.mkdtemp(prefix="obhut-d", dir="/var/tmp"))
    parent.chmod(0o711)
    yield parent / "demo"
    _demo("clean", "--folder", parent / "demo")
    for left in parent.iterdir():
        left.unlink() if left.is_file() else left.rmdir()
    parent.rmdir()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OBHUT_", "PG"))}
    return {**kept, "PYTHONPATH": str(SOURCE), "LC_ALL": "C.UTF-8", "CI": "1"}


def _line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "obhut.cli.main", "demo", *map(str, arguments)]


def _demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_line(*arguments), env=_environment(), capture_output=True, text=True, timeout=LIMIT, check=False)


def _running_in(folder: Path) -> list[str]:
    """Return the command lines of processes that name the folder or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = str((entry / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in line or place.startswith(str(folder)):
            found.append(line)
    return found


def test_whole_story(folder: Path) -> None:
    """The demo plays to its end: refused without instruction, back after a plain restore, absent after Obhut's; nothing runs afterwards."""
    played = _demo("--folder", folder)
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-3000:]
    lines = [line.strip() for line in played.stdout.splitlines()]
    said = " ".join(lines)
    assert "60,000 participants of 5 companies" in said
    assert "the controller has given no instruction for it" in said
    assert "✘ Participant 4711 is back: 1 person, 3 bookings, on 2 waiting lists" in lines
    assert '✔ Participant 4711 stays erased, and the word is there: "Leuchtturm"' in lines
    assert re.search(r"✔ [1-9]\d* people anonymised, tombstoned", said)
    assert re.search(r"✔ [1-9][\d,]* participants in the copy, not one address of a real one", said)
    assert "0 broken" in said
    log, _, erased = said.partition("And in the log?")
    assert re.search(r"participants +update +account-17 .*bookings +update +psql .*sessions +delete +kursblick-nightly", log)
    assert "needs a chair with arms" in log
    assert "needs a chair with arms" not in erased
    assert re.search(r"sessions +delete +kursblick-nightly +erased +erased", erased)
    assert "says itself that there was a gap: 1 entry" in said
    assert re.search(r" log +kept ", said)
    bundle = subprocess.run(
        [*_line()[:3], "audit", "verify", folder / "log-for-the-controller"], env=_environment(), capture_output=True, check=False
    )
    assert bundle.returncode == 0, bundle.stderr
    assert "\x1b" not in played.stdout  # plain text where nobody watches
    assert str(folder) in said
    assert _running_in(folder) == []
    certificates = list((folder / "obhut" / "certificates").glob("*.json"))
    assert len(certificates) == 1
    # Nothing of what it shows is a name: the only person of the story is a number.
    names = {line.split(maxsplit=1)[0] for line in _people()}
    assert not names & set(said.replace(",", " ").split())


def test_left_running_and_cleaned(folder: Path) -> None:
    """Interrupted by Ctrl-C in the middle of an act, the demo stops every server; "clean" then removes the folder."""
    process = subprocess.Popen(_line("--folder", folder), env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + LIMIT
        for line in process.stdout:
            if "obhut backup start" in line or time.monotonic() > deadline:
                break
        assert _running_in(folder), "the demo has servers running at this point"
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(LIMIT) == 130, said
    finally:
        process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()
    assert _running_in(folder) == []
    assert _demo("clean", "--folder", folder).returncode == 0
    assert not folder.exists()


def test_foreign_folder(folder: Path) -> None:
    """A folder that no demo has made is neither used nor cleaned."""
    folder.mkdir()
    (folder / "precious").write_text("mine")
    for arguments in ((), ("clean",)):
        refused = _demo(*arguments, "--folder", folder)
        assert refused.returncode != 0
        assert "was not made by a demo" in refused.stderr
    assert (folder / "precious").read_text() == "mine"
    (folder / "precious").unlink()
    folder.rmdir()


def _people() -> list[str]:
    """Return family names of the sample's word lists that are no ordinary words."""
    return ["Yılmaz", "Kowalski", "Köhler", "Schröder", "Öztürk", "Lindqvist", "Okafor", "Tariq", "Zeynep", "Łukasz"]
