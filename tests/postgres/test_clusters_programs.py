"""Finding PostgreSQL's programs, and making them reachable for the account of the server."""

from __future__ import annotations

import pytest

from obhut.foundation.errors import MissingComponentError, SettingsError
from obhut.foundation.settings import Settings, load
from obhut.postgres import programs
from obhut.postgres.clusters import Cluster
from obhut.postgres.programs import ProgramFailedError, binaries
from obhut.postgres.users import User, server_user


def test_an_unreachable_wheel_is_copied_once_and_serves(place, base_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's account cannot run the wheel, a copy below the state directory can; the second call finds it."""
    site, usable = programs._site(), programs._usable
    monkeypatch.setattr(programs, "_usable", lambda directory, user: directory != site and usable(directory, user))
    user = server_user(base_settings)
    first = programs._embedded(place, user)
    made = first.stat().st_mtime_ns
    assert first.is_relative_to(place)
    assert programs._embedded(place, user) == first
    assert first.stat().st_mtime_ns == made
    cluster = Cluster(place / "c", programs.Binaries(first, 18, user), user)
    try:
        cluster.init(durable=False)
        cluster.start()
        assert cluster.ready
    finally:
        cluster.remove()


def test_a_copy_that_others_can_write_is_refused(place, base_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs at a guessable place are only run if nobody else could have put them there."""
    site = programs._site()
    foreign = place / "copy"
    foreign.mkdir()
    foreign.chmod(0o777)
    with pytest.raises(MissingComponentError, match="not a copy"):
        programs._copied(site, foreign, server_user(base_settings))


def test_each_major_version_comes_from_its_setting(place, base_settings: Settings) -> None:
    """An unset version and a directory with another version are refused with the name of the setting."""
    assert binaries(base_settings, 15).major == 15
    with pytest.raises(MissingComponentError) as caught:
        binaries(base_settings, 14)
    assert "postgres.binaries.14" in str(caught.value)
    (place / "obhut.toml").write_text(f'[postgres.binaries]\n16 = "{base_settings.postgres.directory(15)}"\n', encoding="utf-8")
    with pytest.raises(MissingComponentError, match="has PostgreSQL 15, the setting asks for 16"):
        binaries(load(place / "obhut.toml"), 16)


def test_a_failed_program_does_not_quote_its_own_words(cluster: Cluster) -> None:
    """Messages of programs may quote values, so the error has name and status only."""
    with pytest.raises(ProgramFailedError) as caught:
        cluster.binaries.run(["psql", "-d", cluster.url(), "-v", "ON_ERROR_STOP=1", "-c", "SELECT 'canary-8812'::int"])
    assert "canary" not in str(caught.value)
    assert "psql failed with exit status" in caught.value.fact


@pytest.mark.parametrize("account", ["root", "no-such-account-here"])
def test_an_account_that_cannot_run_servers_is_refused(place, account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, ``postgres.run_as`` has to name an existing unprivileged account."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (place / "obhut.toml").write_text(f'[postgres]\nrun_as = "{account}"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"postgres\.run_as"):
        server_user(load(place / "obhut.toml"))


def test_an_unprivileged_caller_runs_servers_as_itself(base_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root lends an account; under sudo it is the caller's own."""
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert server_user(base_settings) is None
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", "65534")
    assert server_user(base_settings) == User("nobody", 65534, 65534)
