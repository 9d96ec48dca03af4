"""Run the benchmark: ``python -m bench``. ``BENCH_SCALE=small`` checks in a minute that it works; its ratios say nothing."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import obhut
from bench import capturing, cloning, erasing, restoring, rivals, shop, sweeping
from bench.measure import Comparison, host, watched
from obhut.demo import folder
from obhut.foundation.redaction import configure
from obhut.foundation.settings import FILE_NAME, load
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
    changes: int  # that wait for capture


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
        seconds=30,
        changes=200_000,
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
        changes=4_000,
    ),
}


def main() -> int:
    """Measure, print the table, write ``build/bench.json``; return 1 when a bound is missed."""
    configure()
    scale = SCALES[os.environ.get("BENCH_SCALE") or "full"]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    place = Path(os.environ.get("BENCH_FOLDER") or f"/var/tmp/obhut-bench-{os.getuid()}")  # noqa: S108 - refused when not our own
    facts, begun = host(), time.monotonic()
    with folder.taken(place):
        try:
            comparisons = measure(scale, place, console)
        finally:
            folder.empty(place)
    folder.remove(place)
    report(scale, comparisons, facts, time.monotonic() - begun, console)
    return 1 if scale.name == "full" and any(one.missed for one in comparisons) else 0


def measure(scale: Scale, place: Path, console: Console) -> list[Comparison]:
    """Make the data and run every comparison in the demo's kind of folder."""
    file = place / FILE_NAME
    file.write_text('[state]\ndirectory = "."\n', encoding="utf-8")
    settings = load(file)
    found: list[Comparison] = []
    source = Cluster(place / "source", binaries(settings), server_user(settings))
    with say(console, f"making {scale.people:,} people with {scale.people * shop.ROWS_OF_ONE:,} rows"):
        source.init(durable=False)
        source.configure(shop.SERVER)
        source.start()
        shop.make(source, scale.people)
    with watched(os.getpid()) as own:
        for mixed in (False, True):
            kind = "some rows stay" if mixed else "all rows go"
            with say(console, f"erasing {scale.batch:,} people at once, {scale.rounds} times each way; {kind}"):
                found.append(erasing.batch(place, source, range(1, scale.batch + 1), scale.rounds, mixed=mixed))
            with say(console, f"erasing {scale.single:,} people one by one, every second one by hand; {kind}"):
                found.append(erasing.one(place, source, range(1, scale.single + 1), mixed=mixed))
        with say(console, f"making {scale.portal:,} people, and anonymising the inactive tenth {scale.rounds} times each way"):
            sweeping.make(source, scale.portal)
            found.append(sweeping.inactive(place, source, scale.portal, scale.rounds))
    with say(console, f"copying masked in {scale.rounds} rounds, four ways in each"):
        copies, copying_peak = cloning.measure(place, source, scale.rounds)
        found += copies
    if scale.rivals:
        with say(console, f"copying {scale.rivals:,} people masked, by Obhut and three peers"):
            found += rivals.measure(place, scale.rivals)
    with say(console, f"running pgbench three ways, {scale.rounds} times each, and capturing {scale.changes:,} changes"):
        found += capturing.measure(place / "capture", scale.seconds, scale.changes, scale.rounds)
    with say(console, f"restoring in {scale.rounds} rounds, five ways in each"):
        every_hundredth = range(50, scale.people + 1, 100)
        compared, peak = restoring.measure(place, source, scale.people, every_hundredth, scale.rounds)
    source.remove()
    with say(
        console,
        f"restoring {scale.estate:,} people with an empty list and with {scale.tombstones:,} tombstones, {ESTATE_ROUNDS} times each",
    ):
        source = Cluster(place / "estate", binaries(settings), server_user(settings))
        source.init(durable=False)
        source.configure(shop.SERVER)
        source.start()
        shop.make(source, scale.estate)
        every_hundredth = range(50, scale.estate + 1, 100)
        long_list, estate_peak = restoring.long_list(place, source, scale.estate, every_hundredth, scale.tombstones, ESTATE_ROUNDS)
        compared.append(long_list)
    memory = max(own.largest, copying_peak, peak, estate_peak)
    peak_line = Comparison(
        "memory",
        "peak of the largest of Obhut's own processes",
        memory / 1_000_000,
        MEMORY_BOUND,
        None,
        (),
        (),
        {"erasing": own.largest, "copying": copying_peak, "restoring": max(peak, estate_peak)},
        "MB",
    )
    return [*compared, *found, peak_line]


@contextmanager
def say(console: Console, doing: str) -> Iterator[None]:
    """Say what is being measured, and what it took."""
    begun = time.monotonic()
    console.print(f"{doing} …", style="dim")
    yield
    console.print(f"  {time.monotonic() - begun:,.0f} s", style="dim")


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
    RESULT.write_text(json.dumps([{**one.document(), **about} for one in comparisons], indent=1) + "\n", encoding="utf-8")
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
    return f"{value:.0f} MB" if unit == "MB" else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
