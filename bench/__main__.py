"""Run the benchmark: ``python -m bench [part …]``. ``BENCH_SCALE=small`` checks in a minute that it works; its ratios say nothing."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import obhut
from bench import auditing, capturing, cloning, drifting, erasing, restoring, rivals, shop, sweeping
from bench.measure import Comparison, host, watched
from obhut.demo import folder
from obhut.foundation.redaction import configure
from obhut.foundation.settings import FILE_NAME, Settings, load
from obhut.postgres.clusters import Cluster, binaries, server_user

RESULT = Path("build/bench.json")
ESTATE_ROUNDS = 2  # minutes each
MEMORY_BOUND = 200  # MB, the largest of Obhut's own processes


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    name: str
    people: int
    single: int  # people erased one by one, half of them by hand
    batch: int
    tombstones: int
    rounds: int
    portal: int  # people, one in ten of them inactive
    estate: int  # people in the database that belongs to a list of that many tombstones
    rivals: int  # people in the slice that peers mask; 0: they do not run
    seconds: int  # of one run of pgbench
    turns: int  # of pgbench, each way
    changes: int  # that wait for capture
    entries: int  # of an audit log
    tables: int  # of the schema whose drift is checked


SCALES = {
    "full": Scale(
        "full",
        people=52_000,
        single=420,
        batch=10_000,
        tombstones=1_000_000,
        rounds=3,
        portal=1_000_000,
        estate=260_000,
        rivals=13_000,
        seconds=10,
        turns=6,
        changes=200_000,
        entries=10_000_000,
        tables=1_000,
    ),
    "small": Scale(
        "small",
        people=600,
        single=60,
        batch=100,
        tombstones=5_000,
        rounds=1,
        portal=20_000,
        estate=1_200,
        rivals=0,
        seconds=1,
        turns=1,
        changes=4_000,
        entries=20_000,
        tables=40,
    ),
}


@dataclass
class Run:
    """One run of the benchmark: where it works, what it says, and what memory each part took at the most, in bytes."""

    scale: Scale
    place: Path
    settings: Settings
    console: Console
    peaks: dict[str, int] = field(default_factory=dict)

    @cached_property
    def source(self) -> Cluster:
        """The shop that most parts work on; made when the first of them asks."""
        with self.say(f"making {self.scale.people:,} people with {self.scale.people * shop.ROWS_OF_ONE:,} rows"):
            return self.made("source", self.scale.people)

    def made(self, name: str, people: int) -> Cluster:
        """Make a shop of a size on a server of its own."""
        cluster = self.server(name)
        shop.make(cluster, people)
        return cluster

    def server(self, name: str) -> Cluster:
        """Make an empty server."""
        cluster = Cluster(self.place / name, binaries(self.settings), server_user(self.settings))
        cluster.init(durable=False)
        cluster.configure(shop.SERVER)
        cluster.start()
        return cluster

    @contextmanager
    def say(self, doing: str) -> Iterator[None]:
        """Say what is being measured, and what it took."""
        begun = time.monotonic()
        self.console.print(f"{doing} …", style="dim")
        yield
        self.console.print(f"  {time.monotonic() - begun:,.0f} s", style="dim")


def erase(run: Run) -> Iterator[Comparison]:
    """Erase people at once and one by one, beside the same by hand."""
    scale, source = run.scale, run.source
    with watched(os.getpid()) as own:
        for mixed in (False, True):
            kind = "some rows stay" if mixed else "all rows go"
            with run.say(f"erasing {scale.batch:,} people at once, {scale.rounds} times each way; {kind}"):
                yield erasing.batch(run.place, source, range(1, scale.batch + 1), scale.rounds, mixed=mixed)
            with run.say(f"erasing {scale.single:,} people one by one, every second one by hand; {kind}"):
                yield erasing.one(run.place, source, range(1, scale.single + 1), mixed=mixed)
    run.peaks["erasing"] = own.largest


def sweep(run: Run) -> Iterator[Comparison]:
    """Anonymise the inactive, beside one UPDATE a table by hand."""
    scale = run.scale
    with run.say(f"making {scale.portal:,} people, anonymising the inactive tenth {scale.rounds} times each way"):
        sweeping.make(run.source, scale.portal)
        compared, run.peaks["sweeping"] = sweeping.inactive(run.place, run.source, scale.portal, scale.rounds)
    yield compared


def clone(run: Run) -> Iterator[Comparison]:
    """Copy masked, beside the raw stream and beside peers."""
    with run.say(f"copying masked in {run.scale.rounds} rounds, four ways in each"):
        copies, run.peaks["copying"] = cloning.measure(run.place, run.source, run.scale.rounds)
    yield from copies
    if run.scale.rivals:
        with run.say(f"copying {run.scale.rivals:,} people masked, by Obhut and three peers"):
            yield from rivals.measure(run.place, run.scale.rivals)


def capture(run: Run) -> Iterator[Comparison]:
    """Run pgbench with and without the audit log, and catch up with changes."""
    scale = run.scale
    with run.say(f"running pgbench three ways, {scale.turns} times each, and capturing {scale.changes:,} changes"):
        yield from capturing.measure(run.place / "capture", scale.seconds, scale.changes, scale.turns)


def audit(run: Run) -> Iterator[Comparison]:
    """Append to one log, search it as it grows, and verify a bundle of it."""
    total = run.scale.entries
    with run.say(f"appending {total:,} entries to one log"):
        yield from auditing.measure(run.place / "audit", total, max(total // 10, auditing.BATCH))


def drift(run: Run) -> Iterator[Comparison]:
    """Check a wide schema against a commit."""
    with run.say(f"checking the drift of {run.scale.tables:,} tables, {run.scale.rounds} times"):
        cluster = run.server("wide")
        yield from drifting.measure(run.place / "drift", cluster, run.scale.tables, run.scale.rounds)
        cluster.remove()


def restore(run: Run) -> Iterator[Comparison]:
    """Restore through the filter, beside pg_dump and pg_restore. The shop refuses writes afterwards."""
    with run.say(f"restoring in {run.scale.rounds} rounds, four ways in each"):
        every_hundredth = range(50, run.scale.people + 1, 100)
        compared, run.peaks["restoring"] = restoring.measure(run.place, run.source, run.scale.people, every_hundredth, run.scale.rounds)
    yield from compared


def tombstones(run: Run) -> Iterator[Comparison]:
    """Restore with a long list, beside an empty one."""
    scale = run.scale
    if "source" in vars(run):
        run.source.remove()  # room on the disk
    doing = f"restoring {scale.estate:,} people with an empty list and with {scale.tombstones:,} tombstones, {ESTATE_ROUNDS} times each"
    with run.say(doing):
        source = run.made("estate", scale.estate)
        every_hundredth = range(50, scale.estate + 1, 100)
        found, run.peaks["restoring with a long list"] = restoring.long_list(
            run.place, source, scale.estate, every_hundredth, scale.tombstones, ESTATE_ROUNDS
        )
    yield found


# In this order: a restore leaves the shop read-only, the long list takes it away.
PARTS: dict[str, Callable[[Run], Iterator[Comparison]]] = {
    part.__name__: part for part in (erase, sweep, clone, capture, audit, drift, restore, tombstones)
}


def main(names: list[str]) -> int:
    """Measure the named parts, or all; print the table, write ``build/bench.json``; return 1 when a bound is missed."""
    configure()
    if unknown := set(names) - set(PARTS):
        print(f"no part of the benchmark: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)  # noqa: T201
        return 2
    scale = SCALES[os.environ.get("BENCH_SCALE") or "full"]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    place = Path(os.environ.get("BENCH_FOLDER") or f"/var/tmp/obhut-bench-{os.getuid()}")  # noqa: S108 - refused when not our own
    facts, begun = host(), time.monotonic()
    with folder.taken(place):
        try:
            comparisons = measure(scale, place, console, [name for name in PARTS if name in names or not names])
        finally:
            folder.empty(place)
    folder.remove(place)
    report(scale, comparisons, facts, time.monotonic() - begun, console)
    return 1 if scale.name == "full" and any(one.missed for one in comparisons) else 0


def measure(scale: Scale, place: Path, console: Console, parts: Sequence[str]) -> list[Comparison]:
    """Run the parts in the demo's kind of folder."""
    file = place / FILE_NAME
    file.write_text('[state]\ndirectory = "."\n', encoding="utf-8")
    run = Run(scale, place, load(file), console)
    found = [one for name in parts for one in PARTS[name](run)]
    if run.peaks:
        largest = max(run.peaks.values()) / 1_000_000
        found.append(
            Comparison("memory", "peak of the largest of Obhut's own processes", largest, MEMORY_BOUND, None, (), (), run.peaks, "MB")
        )
    return found


def report(scale: Scale, comparisons: list[Comparison], facts: dict[str, object], seconds: float, console: Console) -> None:
    """Print the table and write ``build/bench.json``: one object a comparison, the circumstances in each."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "what by what", "Obhut", "other", "ratio", "bound", "aim", ""):
        table.add_column(column, justify="left" if column in {"name", "what by what", ""} else "right")
    for one in comparisons:
        verdict = _verdict(one)
        table.add_row(
            one.name, one.says, _median(one.ours), _median(one.theirs), _figure(one.ratio, one.unit), _figure(one.bound, one.unit),
            _figure(one.aim, one.unit), verdict,
        )  # fmt: skip
    console.print(table)
    console.print(f"Medians; {seconds / 60:.1f} minutes. Method and limits: docs/explanation/benchmarks.md", style="dim")
    if scale.name != "full":
        console.print("Small scale: this shows that the benchmark works; its ratios say nothing.", style="yellow")
    RESULT.parent.mkdir(exist_ok=True)
    about = {"scale": scale.name, "host": facts, "version": obhut.__version__}
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    measured = {one.name for one in comparisons}
    kept = [one for one in before if one["name"] not in measured]  # of parts that did not run now
    RESULT.write_text(json.dumps([*kept, *({**one.document(), **about} for one in comparisons)], indent=1) + "\n", encoding="utf-8")
    console.print(f"Written: {RESULT}", style="dim")


def _verdict(one: Comparison) -> Text:
    if math.isnan(one.ratio):
        return Text("did not run", "yellow")
    if one.missed:
        return Text("missed", "bold red")
    return Text("kept", "green") if one.bound is not None else Text("shown", "dim")


def _median(seconds: tuple[float, ...]) -> str:
    if not seconds:
        return ""
    middle = statistics.median(seconds)
    return f"{middle * 1000:.1f} ms" if middle < 1 else f"{middle:.1f} s"


def _figure(value: float | None, unit: str) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:.0f} MB" if unit == "MB" else f"{value:.2f}" if unit == "x" else f"{value:.1f} {unit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
