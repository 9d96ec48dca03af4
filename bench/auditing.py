"""Measure the audit log: ``python -m bench.auditing``; adds to ``build/bench.json``. ``BENCH_SCALE=small`` checks that it works.

One controller, one month, ten million entries: how fast they are appended and found as the log grows, how fast a bundle is verified, and
how much memory that takes. The servers sync: what is acknowledged here would survive a power cut.
"""

from __future__ import annotations

import base64
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.measure import watched
from obhut.auditlog import entries, log
from obhut.auditlog.entries import Entry, Fact, Position, Sealed
from obhut.auditlog.export import Exporter
from obhut.auditlog.reading import log_of
from obhut.auditlog.search import Query, search
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import open_store
from obhut.auditlog.tlog import merkle, tiles
from obhut.auditlog.verify import verify
from obhut.demo import folder
from obhut.foundation.clock import FixedClock
from obhut.foundation.redaction import configure
from obhut.foundation.settings import FILE_NAME, Settings, load
from obhut.keystore import open_keystore
from obhut.postgres.control import close_control, control_session, open_control

RESULT: Final = Path("build/bench.json")
CONTROLLER: Final = "ctl_bench"
BATCH: Final = 5_000  # entries, a quarter of a second at the rate that is aimed at
PEOPLE: Final = 1_000_000
QUESTIONS: Final = 40
MEMORY_BOUND: Final = 300  # MB
VERIFY_BOUND: Final = 300_000  # leaves a second
TABLES: Final = ("public.customer", "public.booking", "public.payment", "public.address", "public.message")
START: Final = datetime(2026, 11, 1, tzinfo=UTC)
_SIZES: Final = {"full": (10_000_000, 1_000_000), "medium": (1_000_000, 200_000), "small": (20_000, 10_000)}


@dataclass(frozen=True, slots=True)
class Point:
    """The log at one size: microseconds an entry, processor microseconds of this process an entry, milliseconds a search."""

    size: int
    append_us: float
    cpu_us: float
    by_time_ms: float
    by_table_ms: float
    by_person_ms: float


def main() -> int:
    """Measure, print, write; return 1 when a bound is missed."""
    configure()
    scale = os.environ.get("BENCH_SCALE") or "full"
    total, step = _SIZES[scale]
    place = Path(os.environ.get("BENCH_FOLDER") or f"/var/tmp/obhut-bench-audit-{os.getuid()}")  # noqa: S108 - refused when not our own
    with folder.taken(place):
        try:
            document = measure(place, total, step)
        finally:
            folder.empty(place)
    folder.remove(place)
    document["scale"] = scale
    RESULT.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else []
    others = [one for one in kept if one.get("name") != document["name"]] if isinstance(kept, list) else []
    RESULT.write_text(json.dumps([*others, document], indent=1) + "\n", encoding="utf-8")
    missed = document["memory_mb"] > MEMORY_BOUND or document["leaves_verified_per_second"] < VERIFY_BOUND
    return 1 if scale == "full" and missed else 0


def measure(place: Path, total: int, step: int) -> dict[str, Any]:
    """Return the figures of one run."""
    file = place / FILE_NAME
    file.write_text('[state]\ndirectory = "."\n[audit_log]\nstore = "logs"\n[keystore]\ndirectory = "keys"\n', encoding="utf-8")
    settings = load(file)
    open_control(settings)
    try:
        with watched(os.getpid()) as memory:
            curve = list(grow(settings, total, step))
            verified = bundle(settings, place / "bundle")
    finally:
        close_control(settings, stop=True)
    first, last = curve[0], curve[-1]
    return {
        "name": "audit-log",
        "entries": total,
        "curve": [msgspec.to_builtins(point) for point in curve],
        "append_entries_per_second": round(1e6 / statistics.median(point.append_us for point in curve)),
        "append_last_by_first": round(last.append_us / first.append_us, 2),
        "search_last_by_first": round(last.by_person_ms / first.by_person_ms, 2),
        **verified,
        "memory_mb": round(memory.largest / 1e6),
    }


def grow(settings: Settings, total: int, step: int) -> Iterator[Point]:
    """Append ``total`` entries and look at the log each ``step`` of them."""
    chance = random.Random(4711)  # noqa: S311 - data of a benchmark
    with log.open_log(settings, "bench", FixedClock(START)) as writer, control_session() as session:
        store = open_store(settings)
        for begun in range(0, total, step):
            wall = cpu = 0.0
            for at in range(begun, begun + step, BATCH):
                batch = made(at, chance)
                wall_begun, cpu_begun = time.perf_counter(), time.process_time()
                writer.append_all({CONTROLLER: batch}, source="slot", upto=batch[-1].position)
                wall += time.perf_counter() - wall_begun
                cpu += time.process_time() - cpu_begun
            size = begun + step
            end = START + timedelta(milliseconds=size)

            def ask(query: Callable[[], Query]) -> float:
                spent = []
                for _ in range(QUESTIONS):
                    asked, since = query(), time.perf_counter()
                    search(session, store, CONTROLLER, asked)
                    spent.append(time.perf_counter() - since)
                return statistics.median(spent) * 1e3

            def moment(last: timedelta = end - START) -> datetime:
                return START + last * chance.random()

            point = Point(
                size,
                wall / step * 1e6,
                cpu / step * 1e6,
                ask(lambda: Query(until=moment(), limit=20)),
                ask(lambda: Query(table=chance.choice(TABLES), until=moment(), limit=20)),
                ask(lambda: Query(subjects=[person(chance.randrange(PEOPLE))], limit=20)),
            )
            print(  # noqa: T201 - a benchmark prints
                f"{point.size:>11,} entries: append {point.append_us:5.1f} us ({point.cpu_us:4.1f} us of this process), search by time "
                f"{point.by_time_ms:6.2f} ms, table {point.by_table_ms:6.2f} ms, person {point.by_person_ms:6.2f} ms",
                flush=True,
            )
            yield point


def person(number: int) -> bytes:
    """Return the key id of a person: spread over all values, as random ids are."""
    return ((number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).to_bytes(16, "big")


def made(first: int, chance: random.Random) -> list[Entry]:
    """Return changes of one row each: a ciphertext of 157 octets, as a few short columns are sealed."""
    fact, commitment, digest, data = Fact("app", "web", "10.0.0.7"), bytes(32), bytes(32), bytes(157)
    return [
        entries.change(
            at=START + timedelta(milliseconds=number),
            position=Position("7575000000000000001", 1, f"{number >> 28:X}/{(number << 4) & 0xFFFFFFFF:X}", 0),
            database="bench",
            table=TABLES[number % len(TABLES)],
            operation="update",
            sealed=[Sealed("row", person(chance.randrange(PEOPLE)), commitment, digest, data)],
            fact=fact,
        )
        for number in range(first, first + BATCH)
    ]


def bundle(settings: Settings, target: Path) -> dict[str, float]:
    """Export a stretch of the log, verify it whole, and the tree of the log alone."""
    keys = open_keystore(settings)
    signer = Signer.of(keys, CONTROLLER)
    with control_session() as session:
        store = open_store(settings)
        head = log_of(session, CONTROLLER, "2026-11")
        until = START + timedelta(milliseconds=min(head.size, 500_000))
        begun = time.perf_counter()
        contents = Exporter(session, store, signer, CONTROLLER, "bench", FixedClock(START)).export(target, until=until)
        exported = time.perf_counter() - begun
        begun = time.perf_counter()
        files, edge = head.files(store), merkle.Edge()
        for number, found in enumerate(files.scan(min(head.size, 1_000_000))):
            hashes = b"".join(merkle.leaves(found[1]))
            if hashes != files.hashes(0, number, len(found[1])):
                raise AssertionError("a leaf differs")
            edge.grow(hashes)
        leaves = edge.size / (time.perf_counter() - begun)  # seconds of the clock: nothing else should run beside this
    begun = time.perf_counter()
    public = base64.b64encode(signer.ed25519.public_key().public_bytes_raw()).decode()
    report = verify(target, key=public)
    spent = time.perf_counter() - begun
    print(  # noqa: T201 - as above
        f"{leaves:,.0f} leaves verified a second; a bundle of {report.entries:,} entries in a tree of {report.leaves:,}: exported at "
        f"{contents.entries / exported:,.0f} and verified at {report.entries / spent:,.0f} entries a second",
        flush=True,
    )
    return {
        "leaves_verified_per_second": round(leaves),
        "bundle_entries_verified_per_second": round(report.entries / spent),
        "bundle_entries_exported_per_second": round(contents.entries / exported),
        "tiles": tiles.count(head.size),
    }


if __name__ == "__main__":
    sys.exit(main())
