"""What capture costs the application, and how fast it is.

The same server runs pgbench three ways in turn: without any audit; with Obhut's capture on (old values, facts of each transaction, and the
process that reads, encrypts and appends, on the same cores); with the usual alternative, a row trigger that writes JSONB into a table. The
consumer's own speed is measured apart: rows that wait in the slot, by the CPU seconds of the one process that puts them into the logs.
"""

from __future__ import annotations

import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import house, shop
from bench.measure import Comparison, compare, forget_peak
from obhut.auditlog.capture import enable, follow
from obhut.controllers import register
from obhut.foundation.settings import FILE_NAME, Settings, load
from obhut.postgres import sql
from obhut.postgres.clusters import Cluster, binaries, make_directory, server_user
from obhut.postgres.connections import Session
from obhut.postgres.control import open_control

_SERVER = {**shop.SERVER, "wal_level": "logical", "max_slot_wal_keep_size": "8GB"}
_CLIENTS = 4
_BRANCHES = 8
_WAYS = ("plain", "captured", "triggered")
_RUN = ("-n", "-c", str(_CLIENTS), "-M", "prepared")
_PATIENCE = 120  # seconds for the consumer to catch up
_MEMORY = 300  # MB
_LOOK = 0.5  # seconds between two looks at the lag
_BEHIND = "SELECT (pg_current_wal_insert_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE database = current_database()"
_STATEMENTS = {name: statement.as_string(None) for name, statement in sql.load("bench", "capturing").items()}
_TELLERS = """
obhut: 1
databases:
  shop:
    controller: {table: public.pgbench_branches}
    subjects:
      account: {table: public.pgbench_accounts, controller: {bid: bid}, never_reused: numbers are never given again}
    tables:
      public.pgbench_accounts: {erase: delete, columns: {abalance: user.financial, filler: user.content}, not_personal: [aid, bid]}
      public.pgbench_history:
        erase: delete
        links: [{to: public.pgbench_accounts, columns: {aid: aid}}]
        columns: {delta: user.financial, filler: user.content}
        not_personal: [tid, bid, aid, mtime]
      public.pgbench_branches: {personal: false}
      public.pgbench_tellers: {personal: false}
"""
_PEOPLE = """
obhut: 1
databases:
  people:
    controller: {table: public.tenant}
    subjects:
      person: {table: public.person, controller: {tenant_id: id}, never_reused: numbers are never given again}
    tables:
      public.person:
        erase: delete
        columns: {name: user.name, email: user.contact.email, street: user.contact.address.street, town: user.contact.address.city,
                  phone: user.contact.phone_number, born: user.demographic.date_of_birth, note: user.content}
        not_personal: [id, tenant_id, score, made, seen]
      public.tenant: {personal: false}
"""


def measure(place: Path, seconds: int, changes: int, rounds: int) -> list[Comparison]:
    """Return the comparisons.

    Args:
        place: directory for a server of its own.
        seconds: of one run of pgbench.
        changes: that wait for the consumer.
        rounds: how often each way runs.
    """
    make_directory(place)
    file = place / FILE_NAME
    file.write_text('[state]\ndirectory = "."\n', encoding="utf-8")
    settings = load(file)
    cluster = Cluster(place / "source", binaries(settings), server_user(settings))
    cluster.init(durable=False)
    cluster.configure(_SERVER)
    cluster.start()
    try:
        return [*_throughput(place, cluster, seconds, rounds), *_ingest(place, cluster, changes, rounds)]
    finally:
        cluster.remove()


def _throughput(place: Path, cluster: Cluster, seconds: int, rounds: int) -> list[Comparison]:
    for way in _WAYS:
        _database(cluster, way)
        _pgbench(cluster, way, "-i", "-s", str(_BRANCHES), "-q")
    with Session.connect(cluster.url("triggered")) as session:
        session.execute(sql.trusted(_STATEMENTS["trigger"]))
    settings = _installed(place / "tps", cluster.url("captured"), _TELLERS, shop.DATABASE)
    found: dict[str, list[float]] = {way: [] for way in _WAYS}
    behind: list[float] = []
    lags: list[float] = []
    try:
        enable.enable(settings, shop.DATABASE, house.ACTOR, house.CLOCK)
        for turn in range(rounds):
            for place_in_turn in range(len(_WAYS)):
                way = _WAYS[(turn + place_in_turn) % len(_WAYS)]
                with _serving(settings, cluster) if way == "captured" else _nothing():
                    _pgbench(cluster, way, *_RUN, "-T", "1")  # connections, plans and pages are warm when the clock starts
                    with _lag(cluster, lags) if way == "captured" else _nothing():
                        found[way].append(1 / _tps(_pgbench(cluster, way, *_RUN, "-T", str(seconds))))
                    if way == "captured":
                        behind.append(_caught_up(cluster))
    finally:
        house.leave([settings])
    sizes = {"clients": _CLIENTS, "seconds": seconds, "branches": _BRANCHES}
    tps = {way: round(1 / statistics.median(values)) for way, values in found.items()}
    says = f"pgbench with capture, {tps['captured']:,} tps / without, {tps['plain']:,} tps"
    than = f"pgbench with capture / with a JSONB trigger, {tps['triggered']:,} tps"
    late = f"seconds until {seconds} s of pgbench were in the logs, after its end"
    most = f"WAL that was not in the logs yet, at the most, in {seconds} s of pgbench"
    return [
        compare("capture", says, found["captured"], found["plain"], sizes, bound=1 / 0.85, aim=1 / 0.95),
        compare("capture-trigger", than, found["captured"], found["triggered"], sizes, bound=None),
        Comparison("capture-behind", late, statistics.median(behind), None, None, tuple(behind), (), sizes, "s"),
        Comparison("capture-lag", most, max(lags), None, None, (), (), sizes, "MB"),
    ]


def _ingest(place: Path, cluster: Cluster, changes: int, rounds: int) -> list[Comparison]:
    name = "people"
    _database(cluster, name)
    url = cluster.url(name)
    with Session.connect(url) as session:
        session.execute(sql.trusted(_STATEMENTS["people"]))
    settings = _installed(place / "ingest", url, _PEOPLE, name)
    each: list[float] = []
    forget_peak()
    try:
        enable.enable(settings, name, house.ACTOR, house.CLOCK)
        for _ in range(rounds):
            with Session.connect(url) as session:
                for number in range(changes // 2000):
                    session.execute(_STATEMENTS["change"], (str(number),))
            begun = time.process_time()
            done = follow.follow(settings, name, house.CLOCK, lambda: False, until_caught_up=True)
            if done.changes != changes // 2000 * 2000:
                raise AssertionError(f"{done.changes} changes came out of the slot; nothing was measured")
            each.append((time.process_time() - begun) / done.changes * 1e6)
    finally:
        house.leave([settings])
    median = statistics.median(each)
    says = f"CPU of one process a change, read to appended: {1e6 / median:,.0f} changes a second and core"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sizes = {"changes": changes, "columns": 12}
    return [
        Comparison("ingest", says, median, 50.0, 20.0, tuple(value / 1e6 for value in each), (), sizes, "us"),
        Comparison("ingest-memory", "peak of the process that reads", peak, _MEMORY, None, (), (), sizes, "MB"),
    ]


def _installed(directory: Path, url: str, map_text: str, name: str) -> Settings:
    make_directory(directory)
    (directory / "datamap.yaml").write_text(map_text, encoding="utf-8")
    file = directory / FILE_NAME
    file.write_text(f'[databases.{name}]\nurl = "{url}"\nmap = "datamap.yaml"\n', encoding="utf-8")
    settings = load(file)
    open_control(settings)
    for number in range(1, _BRANCHES + 1):
        register.add_controller(name, [str(number)], f"Controller {number}", actor=house.ACTOR, clock=house.CLOCK)
    return settings


def _database(cluster: Cluster, name: str) -> None:
    with Session.connect(cluster.url()) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _pgbench(cluster: Cluster, name: str, *options: str) -> str:
    program = cluster.binaries.path("pgbench")
    done = subprocess.run([program, *options, cluster.url(name)], capture_output=True, text=True, check=True, timeout=3600)
    return done.stdout


def _tps(said: str) -> float:
    found = re.search(r"tps = ([0-9.]+)", said)
    if found is None:
        raise AssertionError("pgbench did not say its transactions a second; nothing was measured")
    return float(found[1])


@contextmanager
def _serving(settings: Settings, cluster: Cluster) -> Iterator[None]:
    """Run the consumer as ``obhut serve audit`` does, for the block, which begins when it has caught up."""
    command = [sys.executable, "-m", "obhut.cli.main", "--quiet", "--config", str(settings.path), "serve", "audit"]
    quiet = subprocess.DEVNULL
    consumer = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)  # as a service is
    try:
        _caught_up(cluster)
        yield
    finally:
        consumer.send_signal(signal.SIGTERM)
        consumer.wait(120)


def _caught_up(cluster: Cluster) -> float:
    """Wait until everything that was committed is in the logs; returns the seconds that took."""
    begun = time.perf_counter()
    with Session.connect(cluster.url("captured")) as session:
        target = session.value("SELECT pg_current_wal_insert_lsn()")
        session.execute("SELECT pg_logical_emit_message(true, 'obhut', 'heartbeat')")  # so that something follows
        while not session.value(
            "SELECT bool_and(active AND confirmed_flush_lsn >= %s::pg_lsn) FROM pg_replication_slots WHERE database = current_database()",
            (target,),
        ):
            if time.perf_counter() - begun > _PATIENCE:
                raise AssertionError("the consumer does not catch up; nothing was measured")
            time.sleep(0.02)
    return time.perf_counter() - begun


@contextmanager
def _lag(cluster: Cluster, found: list[float]) -> Iterator[None]:
    """Note the most megabytes of WAL that lay before the consumer while the block ran: they stay few where it keeps up."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        with Session.connect(cluster.url("captured")) as session:
            while not ended.wait(_LOOK):
                seen.append(session.value(_BEHIND))

    thread = threading.Thread(target=look, name="lag")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        found.append(max(seen) / 1e6)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
