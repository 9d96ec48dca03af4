"""A vendor's server with WAL summaries, an installation with a controller that has instructed backups, and a helper that recovers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from obhut.backups import run
from obhut.backups.catalogue import Backup
from obhut.backups.repository import Repository
from obhut.backups.workshop import Workshop, open_workshop, programs_for
from obhut.controllers import register
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action, Channel, InstructionKind
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.settings import Settings, load
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session

ACTOR = Actor(Role.OPERATOR, "acc-7")
CANARY = "canary.b4ckup@example.org"
HASH = hashlib.sha256(b"document").hexdigest()
CLOCK = SystemClock()
SERVER = {
    "wal_level": "replica",
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "summarize_wal": True,
    "full_page_writes": True,
    "synchronous_commit": True,
}


@pytest.fixture(scope="session")
def vendor(base_settings: Settings) -> Iterator[Cluster]:
    """Give a running PostgreSQL 18 that summarises WAL."""
    cluster = Cluster(base_settings.state.directory / "v18", binaries(base_settings, 18), server_user(base_settings))
    try:
        cluster.init(durable=False)
        cluster.configure({**SERVER, "fsync": False})
        cluster.start()
        with Session.connect(cluster.url()) as session:
            session.execute("CREATE DATABASE courses")
        with Session.connect(cluster.url("courses")) as session:
            session.execute("CREATE TABLE person (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL)")
        yield cluster
    finally:
        cluster.remove()


@dataclass
class Installation:
    """An installation that backs up the vendor's database."""

    settings: Settings
    url: str

    @property
    def workshop(self) -> Workshop:
        """The workshop of the database."""
        return open_workshop(self.settings, "courses")

    @property
    def repository(self) -> Repository:
        """The repository of the database."""
        return Repository(self.settings, "courses")

    def start(self) -> run.Taken:
        """Begin to back up."""
        return run.start(self.settings, "courses", ACTOR, CLOCK)

    def full(self) -> Backup:
        """Take a full backup."""
        taken = run.run(self.settings, "courses", run.Wanted.FULL, ACTOR, CLOCK)
        assert taken.backup
        return taken.backup

    def incremental(self) -> Backup:
        """Take an incremental backup."""
        taken = run.run(self.settings, "courses", run.Wanted.INCREMENTAL, ACTOR, CLOCK)
        assert taken.backup
        return taken.backup

    def add_person(self, email: str) -> str:
        """Commit a row and return a position behind the commit."""
        with Session.connect(self.url) as session:
            session.execute("INSERT INTO person (email) VALUES (%s)", (email,))
            return str(session.value("SELECT pg_current_wal_insert_lsn()"))

    def archive(self) -> None:
        """Finish the WAL segment, wait until it is here, archive it."""
        self.flush()
        run.archive_wal(self.settings, "courses", CLOCK)

    def flush(self) -> None:
        """Finish the WAL segment and wait until it has been received."""
        with Session.connect(self.url) as session:
            session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            session.execute("SELECT pg_switch_wal()")
            session.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            target = session.value("SELECT pg_current_wal_flush_lsn()")
            for _ in range(200):
                if session.value("SELECT coalesce(bool_and(sent_lsn >= %s::pg_lsn), false) FROM pg_stat_replication", (target,)):
                    session.execute("SELECT pg_sleep(0.3)")  # sent, so written in a moment; flushed is told every ten seconds only
                    return
                session.execute("SELECT pg_sleep(0.05)")
        pytest.fail("the receiver did not get the WAL within ten seconds")

    def stop(self) -> None:
        """End the receiver and drop the slot."""
        run.stop(self.settings, "courses", drop_slot=True)


def instruct(settings: Settings) -> None:
    """Register a controller that has instructed backups."""
    controller = register.add_controller("courses", ["1"], "Volkshochschule Nord", actor=ACTOR, clock=CLOCK)
    terms = ContractTerms("course booking", "storage", "bookings", "term", ("user.contact.email",), ("participant",))
    register.add_contract(
        controller.id,
        version="2026-1",
        terms=terms,
        document_hash=HASH,
        valid_from=CLOCK.now() - timedelta(days=1),
        actor=ACTOR,
        clock=CLOCK,
    )
    register.give_instruction(
        controller.id,
        kind=InstructionKind.STANDING,
        actions=[Action.BACKUP],
        database="courses",
        given_by="acc-1",
        channel=Channel.TICKET,
        document_hash=HASH,
        actor=ACTOR,
        clock=CLOCK,
    )


def with_schedule(settings: Settings) -> Settings:
    """Return the settings with a schedule that keeps both limits."""
    text = settings.path.read_text(encoding="utf-8")
    if "[databases.courses.backup]" not in text:
        settings.path.write_text(text + '\n[databases.courses.backup]\nfull_every = "P1D"\nincremental_every = "PT6H"\n', encoding="utf-8")
    return load(settings.path)


def opened(settings: Settings, url: str) -> Iterator[Installation]:
    """Give an installation with an emptied control database and no backups yet."""
    from obhut.postgres import control as control_module

    try:
        control_module.open_control(settings)
    except control_module.ControlSchemaError:
        control_module.migrate()
    with control_module.control_session() as session:
        session.set("session_replication_role", "replica")
        session.execute(
            "DO $$ DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND relname NOT LIKE 'django\\_%' LOOP EXECUTE format('TRUNCATE %I CASCADE', t); END LOOP; END $$"
        )
    instruct(settings)
    made = Installation(settings, url)
    try:
        yield made
    finally:
        for log in sorted(made.repository.root.rglob("log/*.log")):
            if words := log.read_text(errors="replace"):
                print(f"--- {log.name}\n{words[-1500:]}")
        made.stop()
        control_module.close_control(settings)


@pytest.fixture
def installation(vendor: Cluster, control_schema: str, make_settings: Callable[..., Settings]) -> Iterator[Installation]:
    """Give an installation that protects a database on PostgreSQL 18."""
    yield from opened(with_schedule(make_settings(courses=vendor.url("courses"))), vendor.url("courses"))


@pytest.fixture
def installation15(cluster15: Cluster, control_schema: str, make_settings: Callable[..., Settings]) -> Iterator[Installation]:
    """Give an installation that protects a database on Debian's PostgreSQL 15."""
    with Session.connect(cluster15.url()) as session:
        session.execute("DROP DATABASE IF EXISTS courses")
        session.execute("CREATE DATABASE courses")
    with Session.connect(cluster15.url("courses")) as session:
        session.execute("CREATE TABLE person (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL)")
    yield from opened(with_schedule(make_settings(courses=cluster15.url("courses"))), cluster15.url("courses"))


class Recovery:
    """A server recovered from a chain of backups; never promoted, on a private socket."""

    def __init__(self, installation: Installation, directory: Path) -> None:
        self.installation = installation
        self.directory = directory
        self.cluster: Cluster | None = None

    def to(self, backup: Backup, lsn: str | None = None) -> Session:
        """Open the chain, stage WAL, recover to a position (or the end of the backup) and return a session."""
        repository, settings = self.installation.repository, self.installation.settings
        chain = repository.chain(backup.id)
        links = []
        for number, link in enumerate(chain):
            links.append(self.directory / f"link{number}")
            repository.unseal(link, links[-1])
        cluster = Cluster(self.directory / "q", programs_for(settings, backup.major), server_user(settings))
        cluster.directory.mkdir(mode=0o711)
        if len(links) > 1:
            cluster.binaries.run(["pg_combinebackup", *links, "--output", cluster.data])
        else:
            links[0].rename(cluster.data)
        segments = repository.wal_segments(repository.latest_timeline(backup), backup.begin_lsn, lsn)
        assert repository.wal_hole(backup.timeline, backup.begin_lsn, lsn) is None
        wal = self.directory / "wal"
        wal.mkdir(mode=0o700)
        repository.stage_wal(segments, wal)
        for path in (wal, *wal.iterdir()):
            if cluster.user:
                shutil.chown(path, cluster.user.uid, cluster.user.gid)
        cluster.adopt(superuser="obhut")
        target = {"recovery_target_lsn": lsn} if lsn else {"recovery_target": "immediate"}
        cluster.configure(
            {
                **target,
                "max_prepared_transactions": 10,
                "recovery_target_action": "pause",
                "restore_command": f"cp {wal}/%f %p",
                "archive_mode": "off",
                "hot_standby": True,
            }
        )
        signal = cluster.data / "recovery.signal"
        signal.touch()
        if cluster.user:
            shutil.chown(signal, cluster.user.uid, cluster.user.gid)
        self.cluster = cluster
        cluster.start()
        session = Session.connect(cluster.url("courses"))
        for _ in range(200):
            if session.value("SELECT pg_get_wal_replay_pause_state() = 'paused'"):
                break
            session.execute("SELECT pg_sleep(0.05)")
        return session


@pytest.fixture
def recovery_of(place: Path) -> Iterator[Callable[[Installation], Recovery]]:
    """Give a function that prepares a recovery of an installation, in a directory of its own."""
    made: list[Recovery] = []

    def prepare(installation: Installation) -> Recovery:
        directory = place / f"r{len(made)}"
        directory.mkdir(mode=0o711)
        made.append(Recovery(installation, directory))
        return made[-1]

    yield prepare
    for one in made:
        if one.cluster is not None:
            one.cluster.remove()


@pytest.fixture
def recovery(installation: Installation, recovery_of: Callable[[Installation], Recovery]) -> Recovery:
    """Give a recovery of the installation."""
    return recovery_of(installation)
