"""Clusters of Obhut's own: made, started, crashed, stopped and removed, whatever state the last caller left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from obhut.foundation.settings import Settings
from obhut.postgres import access, postmaster
from obhut.postgres.clusters import Cluster, ClusterStartError, ClusterUnreachableError, server_user
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError


@pytest.fixture
def own(place: Path, cluster: Cluster) -> Cluster:
    """Give a cluster of the test's own, not made yet."""
    made = Cluster(place / "c", cluster.binaries, cluster.user)
    yield made
    made.remove()


def test_a_cluster_can_be_made_started_stopped_and_removed_and_each_step_repeated(own: Cluster) -> None:
    """Every operation is idempotent, and nothing is left at the end."""
    assert not own.running
    for _ in range(2):
        own.init(durable=False)
    for _ in range(2):
        own.start()
    assert own.ready
    with Session.connect(own.url()) as session:
        assert session.value("SELECT system_identifier FROM pg_control_system()") == own.system_identifier()
        assert session.value("SHOW listen_addresses") == ""
        assert session.value("SHOW data_checksums") == "on"
    for _ in range(2):
        own.stop()
    assert not own.running
    for _ in range(2):
        own.remove()
    assert not own.directory.exists()


@pytest.mark.parametrize("hard", [True, False])
def test_a_crashed_server_starts_again(own: Cluster, hard: bool) -> None:
    """After a crash with an open session the data directory recovers: stale lock files do not keep the server down."""
    own.init(durable=False)
    own.start()
    session = Session.connect(own.url())
    session.execute("CREATE TABLE t AS SELECT 1 AS x")
    own.kill(hard=hard)
    assert not own.running
    assert postmaster.all_in(own.data) == []
    with pytest.raises(DatabaseError):
        session.value("SELECT 1")
    own.start()
    with Session.connect(own.url()) as session:
        assert session.value("SELECT x FROM t") == 1


def test_a_process_that_inherited_the_number_of_a_dead_postmaster_is_not_touched(own: Cluster) -> None:
    """A stale postmaster.pid that names a stranger's process neither passes for a running server nor gets the stranger killed."""
    own.init(durable=False)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        access.write(own.data / "postmaster.pid", f"{stranger.pid}\n{own.data}\n1\n5432\n\n\n\nready\n", own.user)
        assert not own.running
        own.stop()
        own.kill(hard=True)
        own.start()
        assert own.ready
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_callers_that_start_at_once_start_one_server(own: Cluster) -> None:
    """The file lock makes concurrent first starts one."""
    failures: list[BaseException] = []

    def start() -> None:
        try:
            mine = Cluster(own.directory, own.binaries, own.user)
            mine.init(durable=False)
            mine.start()
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert own.ready


def test_an_initdb_that_was_killed_leaves_nothing_that_passes_for_a_cluster(own: Cluster) -> None:
    """The data directory gets its name when it is complete; leftovers of an attempt are replaced."""
    (own.directory / "data.new").mkdir(parents=True)
    (own.directory / "data.new" / "PG_VERSION").write_text("18\n")
    assert not own.initialised
    own.init(durable=False)
    assert own.initialised


def test_a_socket_path_that_is_too_long_moves_to_a_private_directory(place: Path, cluster: Cluster) -> None:
    """Deep state directories work: the socket goes to a private directory, which is recorded, remade if swept, and removed."""
    deep = Cluster(place / ("d" * 100) / "c", cluster.binaries, cluster.user)
    deep.init(durable=False)
    deep.start()
    first = deep.socket_directory
    assert not first.is_relative_to(place)
    assert first.stat().st_mode & 0o777 == 0o700
    assert Cluster(deep.directory, cluster.binaries, cluster.user).socket_directory == first
    with Session.connect(deep.url()) as session:
        assert session.value("SELECT 1") == 1
    deep.stop()
    first.rmdir()
    deep.start()
    second = deep.socket_directory
    with Session.connect(deep.url()) as session:
        assert session.value("SELECT 1") == 1
    deep.remove()
    assert not second.exists()
    assert not deep.directory.exists()


def test_data_and_socket_are_closed_to_other_accounts(cluster: Cluster) -> None:
    """Only the account of the server can enter the data and the socket; the way there can be passed but not listed."""
    for directory in (cluster.data, cluster.socket_directory):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert cluster.directory.stat().st_mode & 0o777 == 0o711
    assert cluster.log.stat().st_mode & 0o777 == 0o600


def test_no_value_of_a_statement_or_an_error_reaches_the_log(cluster: Cluster) -> None:
    """A failed cast quotes its value in the primary message and a violation in its detail; neither is logged."""
    with Session.connect(cluster.url()) as session:
        for statement in ("SELECT 'canary-log-7391'::int", "CREATE TEMP TABLE c (x text CHECK (x <> 'canary-log-7391'))", ""):
            if statement:
                with contextlib.suppress(DatabaseError):
                    session.execute(statement)
        with pytest.raises(DatabaseError):
            session.execute("INSERT INTO c VALUES ('canary-log-7391')")
    assert "canary-log-7391" not in cluster.log.read_text(encoding="utf-8")


def test_configuration_survives_and_settings_can_be_taken_back(own: Cluster) -> None:
    """Values with quotes and backslashes arrive unchanged; None restores the server's default."""
    own.init(durable=False)
    own.configure({"cluster_name": r"it's a back\slash", "work_mem": "7MB"})
    own.configure({"work_mem": None})
    own.start()
    with Session.connect(own.url()) as session:
        assert session.value("SHOW cluster_name") == r"it's a back\slash"
        assert session.value("SHOW work_mem") == "4MB"


def test_any_role_can_be_used_on_18(database) -> None:
    """Whoever may enter the socket directory may be any role: a restore becomes the owner of what it restores."""
    with database.session() as session:
        session.execute('CREATE ROLE "wei""rd role" LOGIN')
    with Session.connect(database.cluster.url(database.name, 'wei"rd role')) as session:
        assert session.value("SELECT current_user") == 'wei"rd role'
        session.close()
    with database.session() as session:
        session.execute('DROP ROLE "wei""rd role"')


def test_a_role_has_to_be_allowed_on_15(database15) -> None:
    """Before PostgreSQL 16 the map lists roles one by one; an allowed role gets in, another does not."""
    cluster = database15.cluster
    with database15.session() as session:
        session.execute('CREATE ROLE "wei""rd role" LOGIN')
        session.execute("CREATE ROLE other LOGIN")
        try:
            with pytest.raises(DatabaseError):
                Session.connect(cluster.url(database15.name, 'wei"rd role'))
            cluster.allow_role('wei"rd role')
            _eventually(lambda: Session.connect(cluster.url(database15.name, 'wei"rd role')).close())
            with pytest.raises(DatabaseError):
                Session.connect(cluster.url(database15.name, "other"))
        finally:
            session.execute('DROP ROLE "wei""rd role"')
            session.execute("DROP ROLE other")


def test_a_foreign_data_directory_is_adopted_without_its_configuration(place: Path, cluster: Cluster) -> None:
    """A base backup runs under Obhut's configuration only: addresses, archive command and login rules of its origin are gone."""
    origin = Cluster(place / "o", cluster.binaries, cluster.user)
    copy = Cluster(place / "k", cluster.binaries, cluster.user)
    try:
        origin.init(durable=False, superuser="vendor")
        origin.configure({"archive_mode": True, "archive_command": "false", "shared_preload_libraries": "auto_explain"})
        origin.start()
        with Session.connect(origin.url(user="vendor")) as session:
            session.execute("ALTER SYSTEM SET work_mem = '9MB'")
        (place / "k").mkdir(mode=0o711)
        origin.binaries.run(["pg_basebackup", "-D", copy.data, "-d", origin.url(user="vendor"), "-c", "fast", "-X", "stream", "--no-sync"])
        copy.adopt(superuser="vendor")
        copy.start()
        with Session.connect(copy.url(user="vendor")) as session:
            shown = {name: session.value(f"SHOW {name}") for name in ("archive_mode", "shared_preload_libraries", "work_mem")}
        assert shown == {"archive_mode": "off", "shared_preload_libraries": "", "work_mem": "4MB"}
        assert copy.system_identifier() == origin.system_identifier()
    finally:
        copy.remove()
        origin.remove()


def test_a_server_that_cannot_start_says_where_to_look(own: Cluster) -> None:
    """A wrong setting ends in an error that names the log, not in waiting."""
    own.init(durable=False)
    own.configure({"max_connections": "many"})
    with pytest.raises(ClusterStartError, match="log say why"):
        own.start()


def test_a_closed_directory_is_named_before_anything_is_made(tmp_path: Path, cluster: Cluster) -> None:
    """As root, a place that the server's account cannot get to is refused with the directory to open."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    made = Cluster(closed / "c", cluster.binaries, cluster.user)
    with pytest.raises(ClusterUnreachableError) as caught:
        made.init()
    assert "cannot pass" in caught.value.fact
    assert not (closed / "c" / "data").exists()


if os.geteuid() != 0:  # an unprivileged caller runs servers as itself
    del test_a_closed_directory_is_named_before_anything_is_made


def test_a_stop_that_takes_too_long_leaves_the_server_alone_and_says_so(own: Cluster) -> None:
    """A smart shutdown waits for sessions; when time is up the caller learns it and can stop fast."""
    own.init(durable=False)
    own.start()
    with Session.connect(own.url()) as session:
        assert session.value("SELECT 1") == 1
        with pytest.raises(Exception, match="did not stop within"):
            own.stop("smart", timeout=0.3)
        assert own.running
    own.stop()
    assert not own.running


def test_servers_of_root_run_as_somebody_else(base_settings: Settings, cluster: Cluster) -> None:
    """The postmaster never has root's user id, nor a supplementary group of root."""
    user = server_user(base_settings)
    pid = postmaster.recorded_pid(cluster.data)
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    groups = next(line.split()[1:] for line in status.splitlines() if line.startswith("Groups:"))
    assert set(uids) == {str(user.uid if user else os.geteuid())}
    assert user is None or groups in ([], [str(user.gid)])


def test_nothing_listens_on_the_network(cluster: Cluster) -> None:
    """The postmaster holds no internet socket."""
    pid = postmaster.recorded_pid(cluster.data)
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    listening = [line.split()[9] for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    assert inodes.isdisjoint(listening)


def _eventually(attempt, timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return attempt()
        except DatabaseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_signal_names_are_the_servers_own() -> None:
    """Fast is SIGINT for PostgreSQL; a mix-up would turn a clean stop into a crash."""
    from obhut.postgres.clusters import _SIGNALS

    assert _SIGNALS == {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
