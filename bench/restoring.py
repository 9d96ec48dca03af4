"""Restoring through the filter, against ``pg_dump`` and ``pg_restore`` of the same database, and against an empty filter.

Every side starts from the same standing server and ends with a durable server that is made and configured alike and open to all. The
sides take turns in each round, so that a slow minute of the machine hits every one of them.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import house, shop
from bench.alone import TIMEOUT, alone
from bench.measure import Comparison, Stopwatch, compare
from obhut.controllers import register
from obhut.erasure import ledger
from obhut.erasure.entries import Action, NewTombstone
from obhut.erasure.erase import Eraser
from obhut.erasure.subjects import lookup
from obhut.foundation.settings import Settings
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session
from obhut.restores import target as targets

CHUNK = 10_000  # tombstones in one signature
LISTS = ("empty", "hundredth")


@dataclass
class Series:
    """Seconds of each side, round by round, and the peak memory of Obhut's processes in bytes."""

    ours: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LISTS})
    dumped: list[float] = field(default_factory=list)
    dumped_plain: list[float] = field(default_factory=list)
    memory: int = 0


def measure(directory: Path, source: Cluster, people: int, erased: Sequence[int], rounds: int) -> tuple[list[Comparison], int]:
    """Run all sides in turn; return the comparisons and the peak memory of the largest process of Obhut in bytes."""
    quiet(source)
    installations = {name: house.found(directory / name, source.url(shop.DATABASE)) for name in LISTS}
    try:
        condemn(installations["hundredth"], erased)
        series = Series()
        for _ in range(rounds):
            for name, settings in installations.items():
                seconds, memory = restore(settings, source.url(shop.DATABASE), expected=people - (len(erased) if name != "empty" else 0))
                series.ours[name].append(seconds)
                series.memory = max(series.memory, memory)
            series.dumped.append(dump_and_restore(directory, installations["empty"], source, []))
            series.dumped_plain.append(dump_and_restore(directory, installations["empty"], source, ["--compress=none"]))
    finally:
        house.leave(list(installations.values()))
    return list(_compared(series, source, people, len(erased))), series.memory


def long_list(directory: Path, source: Cluster, people: int, erased: Sequence[int], tombstones: int, rounds: int) -> tuple[Comparison, int]:
    """Restore with an empty list and with a long one in turn; return the comparison and the peak memory in bytes."""
    quiet(source)
    installations = {name: house.found(directory / name, source.url(shop.DATABASE)) for name in ("no-list", "long-list")}
    try:
        condemn(installations["long-list"], erased)
        strangers(installations["long-list"], first=people + 1, count=tombstones - len(erased))
        seconds: dict[str, list[float]] = {name: [] for name in installations}
        memory = 0
        for _ in range(rounds):
            for name, settings in installations.items():
                expected = people - (len(erased) if name == "long-list" else 0)
                took, peak = restore(settings, source.url(shop.DATABASE), expected=expected)
                seconds[name].append(took)
                memory = max(memory, peak)
    finally:
        house.leave(list(installations.values()))
    rows, size = shop.size(source.url(shop.DATABASE))
    sizes = {"people": people, "erased": len(erased), "rows": rows, "bytes": size, "tables": shop.TABLES, "tombstones": tombstones}
    says = f"filter with {tombstones:,} tombstones / filter with an empty list, {size / 1e9:.0f} GB"
    return compare("filter-million", says, seconds["long-list"], seconds["no-list"], sizes, bound=1.3), memory


def _compared(series: Series, source: Cluster, people: int, erased: int) -> Iterator[Comparison]:
    rows, size = shop.size(source.url(shop.DATABASE))
    sizes = {"people": people, "erased": erased, "rows": rows, "bytes": size, "tables": shop.TABLES}
    ours = series.ours
    yield compare(
        "restore",
        "filtered restore, proved and opened / pg_dump -Fd -j2 + pg_restore -j2",
        ours["hundredth"],
        series.dumped,
        sizes,
        bound=1.0,
        aim=0.7,
    )
    yield compare(
        "restore-uncompressed",
        "the same / pg_dump -Fd -j2 --compress=none + pg_restore -j2",
        ours["hundredth"],
        series.dumped_plain,
        sizes,
        bound=None,
    )
    yield compare(
        "filter", "filter with 1 % of the people / filter with an empty list", ours["hundredth"], ours["empty"], sizes, bound=1.15
    )


def restore(settings: Settings, quarantine: str, *, expected: int) -> tuple[float, int]:
    """Restore once in a process of its own; return seconds from its start to its end and its peak memory in bytes."""
    url, seconds, memory = alone("restore", str(settings.path), quarantine)
    with Session.connect(url) as session:
        found = session.value("SELECT count(*) FROM users")
    if found != expected:
        raise AssertionError(f"{found} people were restored and not {expected}; nothing was measured")
    for version in settings.state.directory.glob("restores/*/*/data/PG_VERSION"):
        Cluster(version.parent.parent, binaries(settings), server_user(settings)).remove()
    return seconds, memory


def dump_and_restore(directory: Path, settings: Settings, source: Cluster, options: Sequence[str]) -> float:
    """Do what people do without Obhut, into a new server made and configured as a restore of Obhut makes its own; return seconds."""
    dump = directory / "dump"
    programs = source.binaries
    with Stopwatch() as watch:
        cluster = targets.new_cluster(settings, directory / "other", programs.major, "obhut", 16)
        try:
            with Session.connect(cluster.url()) as session:
                session.execute(f"CREATE DATABASE {shop.DATABASE}")
            programs.run(["pg_dump", "-Fd", "-j2", "-f", dump, *options, source.url(shop.DATABASE)], timeout=TIMEOUT)
            programs.run(["pg_restore", "-j2", "-d", cluster.url(shop.DATABASE), dump], timeout=TIMEOUT)
            targets.make_durable(cluster)
            cluster.start()
        except BaseException:
            cluster.remove()
            raise
    cluster.remove()
    shutil.rmtree(dump)
    return watch.seconds


def condemn(settings: Settings, people: Sequence[int]) -> None:
    """Record tombstones of people who are in the database, without erasing them: that is what a restore to before finds."""
    house.enter(settings)
    with Eraser(settings, shop.DATABASE) as eraser:
        found = lookup(eraser.session, eraser.graph, "user", [(str(person),) for person in people], eraser.mac_key)
        owners = {controller.key: controller.id for controller in register.list_controllers(shop.DATABASE)}
        granted = {one.controller_id: one.id for one in register.list_instructions(database=shop.DATABASE)}
        _record(
            NewTombstone(
                database=shop.DATABASE,
                controller=owners[f'["{person.controller_key[0]}"]'],
                subject_kind="user",
                key=person.key,
                action=Action.ERASE,
                map_version=eraser.graph.version,
                instruction=granted[owners[f'["{person.controller_key[0]}"]']],
                fingerprint=person.fingerprint,
            )
            for person in found
        )


def strangers(settings: Settings, *, first: int, count: int) -> None:
    """Record tombstones of people who are not in the database: a long list, as years of erasures leave it."""
    house.enter(settings)
    controller = register.list_controllers(shop.DATABASE)[0].id
    instruction = register.list_instructions(database=shop.DATABASE)[0].id
    _record(
        NewTombstone(
            database=shop.DATABASE,
            controller=controller,
            subject_kind="user",
            key=(str(number),),
            action=Action.ERASE,
            map_version="0" * 64,
            instruction=instruction,
            fingerprint=secrets.token_hex(32),
        )
        for number in range(first, first + count)
    )


def quiet(cluster: Cluster) -> None:
    """Let nobody write to the server any more: it stands for a quarantine that was made elsewhere."""
    cluster.configure({"default_transaction_read_only": True})
    cluster.stop()
    cluster.start()


def _record(tombstones: Iterator[NewTombstone]) -> None:
    batch: list[NewTombstone] = []
    for tombstone in tombstones:
        batch.append(tombstone)
        if len(batch) == CHUNK:
            ledger.record(batch, house.CLOCK)
            batch = []
    if batch:
        ledger.record(batch, house.CLOCK)
