"""The control database: opened, migrated, kept apart from protected clusters; its errors carry no values."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from obhut.foundation.settings import Settings, load
from obhut.postgres import control
from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session
from obhut.postgres.control import ControlIsProtectedError, ControlSchemaError
from obhut.postgres.errors import DatabaseError, LockTimeoutError, UnreachableError


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


OPEN = """
import sys, time
from pathlib import Path
from obhut.foundation.settings import load
from obhut.postgres import control
settings = load(Path(sys.argv[1]))
control.open_control(settings)
with control.control_session() as session:
    print(session.value("SELECT current_database()"), control.pending_migrations())
"""


def test_the_embedded_control_database_is_there_after_the_first_call(place: Path, base_settings: Settings) -> None:
    """Two processes open it at once on an empty directory: both succeed, the schema is complete, and a third finds it running."""
    (place / "obhut.toml").write_text('[state]\ndirectory = "v"\n', encoding="utf-8")
    settings = load(place / "obhut.toml")
    cluster = control.control_cluster(settings)
    try:
        results: list[subprocess.CompletedProcess[str]] = []
        threads = [threading.Thread(target=lambda: results.append(_python(OPEN, str(settings.path)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [(done.returncode, done.stdout.strip()) for done in results] == [(0, "obhut []")] * 2, [done.stderr for done in results]
        assert cluster.ready
        with Session.connect(cluster.url("obhut")) as session:
            assert session.value("SELECT to_regclass('procrastinate_jobs')") is not None
            assert session.value("SHOW synchronous_commit") == "on"
            assert session.value("SHOW fsync") == "on"
        cluster.kill(hard=True)
        again = _python(OPEN, str(settings.path))
        assert again.stdout.strip() == "obhut []", again.stderr
    finally:
        cluster.remove()


def test_a_half_made_control_cluster_is_completed(place: Path, base_settings: Settings) -> None:
    """A process killed between initdb and CREATE DATABASE does not lock Obhut out."""
    (place / "obhut.toml").write_text('[state]\ndirectory = "v"\n', encoding="utf-8")
    settings = load(place / "obhut.toml")
    cluster = control.control_cluster(settings)
    try:
        cluster.init(durable=False)
        cluster.start()
        done = _python(OPEN, str(settings.path))
        assert done.stdout.strip() == "obhut []", done.stderr
    finally:
        cluster.remove()


def test_the_models_and_the_migrations_say_the_same(control: Settings) -> None:
    """A fresh schema equals the migrated one: Django finds no change that a migration would have to make."""
    from django.core.management import call_command

    output = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=output, verbosity=1)
    assert "No changes detected" in output.getvalue()


def test_every_table_of_ours_has_enum_checks_or_none_to_check(control: Settings) -> None:
    """A column with choices is guarded by the database and not only by Django: raw SQL cannot store another word."""
    from django.apps import apps
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'")
        checks = cursor.fetchall()
    unguarded = [
        f"{model._meta.db_table}.{field.column}"
        for label in ("controllers", "journal")
        for model in apps.get_app_config(label).get_models()
        for field in model._meta.get_fields()
        if getattr(field, "choices", None) and not any(table == model._meta.db_table and field.column in text for table, text in checks)
    ]
    assert unguarded == []


def test_a_control_database_on_a_protected_cluster_is_refused(make_settings: Callable[..., Settings], database) -> None:
    """Restoring the protected cluster would turn back the erasure list, so the command does not start."""
    settings = make_settings(control=database.url, courses=database.url)
    with pytest.raises(ControlIsProtectedError) as caught:
        control.open_control(settings)
    assert caught.value.code == "control-not-separate"
    assert "courses" in caught.value.fact


def test_the_refusal_is_not_forgotten_by_the_cache(make_settings: Callable[..., Settings], database) -> None:
    """Only a different cluster is remembered; asking again refuses again."""
    settings = make_settings(control=database.url, courses=database.url)
    for _ in range(2):
        with pytest.raises(ControlIsProtectedError):
            control.open_control(settings)


def test_the_schema_of_a_control_database_by_url_changes_only_on_demand(make_settings: Callable[..., Settings], database) -> None:
    """An operator's own PostgreSQL is migrated when the operator says so."""
    settings = make_settings(control=database.url)
    try:
        with pytest.raises(ControlSchemaError):
            control.open_control(settings)
        with database.session() as session:
            assert session.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        control.migrate()
        control.open_control(settings)
    finally:
        control.close_control(settings)


def test_a_second_migration_waits_for_the_first_and_gives_up_in_time(
    make_settings: Callable[..., Settings],
    database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The advisory lock serialises migrations, bounded by a lock timeout."""
    settings = make_settings(control=database.url)
    with pytest.raises(ControlSchemaError):
        control.open_control(settings)
    monkeypatch.setattr(control, "_MIGRATION_WAIT", "200ms")
    with database.session() as session:
        session.execute("SELECT pg_advisory_lock(%s)", (control._MIGRATION_LOCK,))
        with pytest.raises(LockTimeoutError):
            control.migrate()
    control.migrate()
    assert control.pending_migrations() == []
    control.close_control(settings)


def test_errors_of_the_control_database_carry_no_values(control: Settings) -> None:
    """A violated constraint and a failed cast through Django lose the value and the cause."""
    from django.db import connection

    from obhut.postgres.control import control_safe

    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE c (x text PRIMARY KEY)")
        for statement, state in (
            ("INSERT INTO c VALUES ('canary-5150'), ('canary-5150')", "23505"),
            ("SELECT 'canary-5150'::int", "22P02"),
        ):
            with pytest.raises(DatabaseError) as caught, control_safe():
                cursor.execute(statement)
            assert caught.value.sqlstate == state
            assert "canary" not in f"{caught.value!r}{caught.value}"
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None


def test_a_lost_control_database_is_unreachable_and_comes_back(place: Path, base_settings: Settings, cluster: Cluster) -> None:
    """After a crash of the server the same process can go on with a new connection."""
    from django.db import connection

    (place / "obhut.toml").write_text('[state]\ndirectory = "v"\n', encoding="utf-8")
    settings = load(place / "obhut.toml")
    own = control.control_cluster(settings)
    try:
        control.open_control(settings)
        own.kill(hard=True)
        with pytest.raises(UnreachableError), control.control_safe(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        control.open_control(settings)
        with control.control_safe(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        control.close_control(settings, stop=True)
        assert not own.running
        own.remove()
