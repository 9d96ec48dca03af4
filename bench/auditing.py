"""How fast one controller's log of one month is appended to and searched as it grows, and how fast a bundle of it is verified.

The servers sync: what is acknowledged here would survive a power cut.
"""

from __future__ import annotations

import base64
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from bench.measure import Comparison, compare, forget_peak, watched
from obhut.auditlog import bundles, entries, hashes, log
from obhut.auditlog.entries import Entry, Fact, Position, Sealed
from obhut.auditlog.export import Exporter
from obhut.auditlog.reading import log_of
from obhut.auditlog.search import Query, search
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import open_store
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.auditlog.tlog.merkle import WIDTH
from obhut.auditlog.verify import verify
from obhut.foundation import notes
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import FILE_NAME, Settings, load
from obhut.keystore import open_keystore
from obhut.postgres.clusters import make_directory
from obhut.postgres.control import close_control, control_session, open_control

CONTROLLER: Final = "ctl_bench"
BATCH: Final = 5_000  # entries, a quarter of a second at the rate that is aimed at
PEOPLE: Final = 1_000_000
QUESTIONS: Final = 40
EXPORTED: Final = 300_000  # entries
_GROWTH: Final = 1.25  # by which the last part of a log may be slower than the first
_SEARCH: Final = 10.0  # milliseconds a page of entries that stand side by side
_LEAF: Final = 1e6 / 300_000  # microseconds a leaf
_MEMORY: Final = 300  # MB
TABLES: Final = ("public.customer", "public.booking", "public.payment", "public.address", "public.message")
START: Final = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Point:
    """The log at one size: microseconds an entry, processor microseconds of this process an entry, milliseconds a search."""

    size: int
    append_us: float
    cpu_us: float
    by_time_ms: float
    by_table_ms: float
    by_person_ms: float


def measure(place: Path, total: int, step: int) -> list[Comparison]:
    """Return the comparisons of one log that grows.

    Args:
        place: directory for an installation of its own.
        total: entries in the end.
        step: entries between two looks.
    """
    make_directory(place)
    file = place / FILE_NAME
    file.write_text('[state]\ndirectory = "."\n[audit_log]\nstore = "logs"\n[keystore]\ndirectory = "keys"\n', encoding="utf-8")
    settings = load(file)
    open_control(settings)
    try:
        forget_peak()
        with watched(os.getpid()) as memory:
            curve = list(grow(settings, total, step))
            leaf, entry = verified(settings, place / "bundle")
    finally:
        close_control(settings, stop=True)
    first, last = curve[0], curve[-1]
    points = tuple(msgspec.to_builtins(point) for point in curve)
    sizes = {"entries": total, "step": step, "people": PEOPLE, "batch": BATCH}

    def found(name: str, what: str, milliseconds: float, bound: float | None = _SEARCH) -> Comparison:
        seconds = (milliseconds / 1e3,)
        says = f"a page of the youngest entries of {what}, found in {total:,}"
        return Comparison(name, says, milliseconds, bound, None, seconds, (), sizes, "ms", points)

    rate = 1e6 / statistics.median(point.append_us for point in curve)
    appended = f"an entry of the last {step:,} appended / of the first; {rate:,.0f} a second"
    leaves = f"a leaf verified, entry's hash and node: {1e6 / leaf:,.0f} a second"
    whole = f"an entry of a bundle verified, parsed and read: {1e6 / entry:,.0f} a second"
    peak = "peak of the process that appends, searches and verifies"
    return [
        replace(compare("audit-append", appended, [last.append_us / 1e6], [first.append_us / 1e6], sizes, bound=_GROWTH), curve=points),
        found("audit-search-time", "a time", last.by_time_ms),
        found("audit-search-table", "a table", last.by_table_ms),
        found("audit-search-person", "a person", last.by_person_ms, None),  # each of them lies in another file
        Comparison("audit-verify", leaves, leaf, _LEAF, None, (leaf / 1e6,), (), sizes, "us"),
        Comparison("audit-verify-whole", whole, entry, None, None, (entry / 1e6,), (), sizes, "us"),
        Comparison("audit-memory", peak, memory.largest / 1e6, _MEMORY, None, (), (), sizes, "MB"),
    ]


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


def verified(settings: Settings, target: Path) -> tuple[float, float]:
    """Export a stretch of the log and verify it; returns microseconds a leaf and microseconds an entry.

    A leaf: its entry is hashed, compared with the tile of hashes, and the tree above is computed up to the signed root, as ``obhut audit
    verify`` does for each. An entry: the whole command, which also parses it and compares it with the files for readers.
    """
    signer = Signer.of(open_keystore(settings), CONTROLLER)
    with control_session() as session:
        head = log_of(session, CONTROLLER, f"{START:%Y-%m}")
        until = START + timedelta(milliseconds=min(head.size, EXPORTED))
        Exporter(session, open_store(settings), signer, CONTROLLER, "bench", FixedClock(START)).export(target, until=until)
    source = bundles.open_source(target)
    (stretch,) = bundles.read_cover(source).logs
    files = hashes.Files(source, stretch)
    begun = time.perf_counter()
    hashes.check_tree(files, Checkpoint.of(notes.parse(files.note())), stretch, 0)
    tree = (time.perf_counter() - begun) / stretch.size
    begun = time.perf_counter()
    counted = sum(len(hashes.checked_entries(files, stretch, number)) for number in range(stretch.last // WIDTH + 1))
    leaf = tree + (time.perf_counter() - begun) / counted
    begun = time.perf_counter()
    report = verify(target, key=base64.b64encode(signer.ed25519.public_key().public_bytes_raw()).decode())
    spent = time.perf_counter() - begun - tree * (report.leaves - report.entries)  # the leaves whose entries are not in the bundle
    return leaf * 1e6, spent / report.entries * 1e6
