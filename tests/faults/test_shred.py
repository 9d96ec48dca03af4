"""Keys of erased people: killed at every instant, rolled back with the control database, and found gone afterwards."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.club import installed_club, instructed
from support.installation import Installation
from support.sweep import names_of, sweep

from obhut.controllers import register
from obhut.controllers.vocabulary import SubjectRef
from obhut.foundation.settings import load
from obhut.keystore.errors import KeyTableRolledBackError
from obhut.keystore.sealing import Key, seal, unseal
from obhut.keystore.subjects import Erased, Keyring
from obhut.postgres import control

pytestmark = [pytest.mark.fault, pytest.mark.postgres]

_fresh = itertools.count(100)
STAYS = SubjectRef("member", ("139",))


@pytest.fixture(scope="module")
def club() -> Iterator[Installation]:
    """Give a club with one studio whose members have keys."""
    with installed_club(studios={"1": "Studio Nord"}, prefix="obhut-k") as installation:
        instructed(installation)
        yield installation


@contextmanager
def keyring(club: Installation) -> Iterator[tuple[Keyring, str]]:
    """Open the key table as a process that captures changes does; closed, so that no erasure waits for it."""
    settings = load(club.folder / "obhut.toml")
    control.open_control(settings)
    (studio,) = register.list_controllers("club")
    try:
        with Keyring(settings) as opened:
            yield opened, studio.id
    finally:
        control.close_control(settings)


def sealed(club: Installation, number: int) -> tuple[bytes, bytes]:
    """Seal a value of a member; return the key's id and the value."""
    with keyring(club) as (keys, studio):
        held = keys.keys({studio: [SubjectRef("member", (str(number),)), STAYS]})[studio]
        key = held[SubjectRef("member", (str(number),))]
        assert isinstance(key, Key)
        assert isinstance(held[STAYS], Key)
        return key.id, seal(key, b"old value", b"entry")


def opens(club: Installation, key_id: bytes, value: bytes) -> bool:
    """Whether the value can still be read by whoever has the running system."""
    with keyring(club) as (keys, _):
        held = keys.by_id([key_id])[key_id]
        assert isinstance(held, Key | Erased)
        return isinstance(held, Key) and unseal(held, value, b"entry") == b"old value"


def stays(club: Installation) -> None:
    """Check that nobody else lost a key."""
    with keyring(club) as (keys, studio):
        assert isinstance(keys.keys({studio: [STAYS]})[studio][STAYS], Key)


def test_killed_anywhere_an_erasure_destroys_the_key_in_the_end(club: Installation) -> None:
    """While the key is there the erasure is not reported; whatever step was killed, finishing destroys it, once and for all."""

    def erased(env: dict[str, str]) -> None:
        number = next(_fresh)
        sealed(club, number)
        done = club.obhut("erase", "club", "member", number, env=env)
        assert done["keys"]["destroyed"] == 1

    names = names_of(erased)
    assert {"keys.destroy.counted", "keys.destroy.committed", "keys.destroy.anchored", "keys.destroy.forgotten", "erase.shredded"} <= set(
        names
    )

    def case(name: str) -> None:
        number = next(_fresh)
        key_id, value = sealed(club, number)
        assert opens(club, key_id, value)
        club.obhut.killed_at(name, "erase", "club", "member", number)
        listed = club.obhut("erasures", "list", "club", "--limit", 1000)
        if {one["state"] for one in listed} == {"effective"}:
            assert not opens(club, key_id, value), "reported as erased before the key was gone"
        club.obhut("erase", "club", "--finish")
        assert not opens(club, key_id, value)
        assert {one["state"] for one in club.obhut("erasures", "list", "club", "--limit", 1000)} == {"effective"}

    sweep([name for name in names if name.startswith("keys.") or name in {"erase.committed", "erase.shredded"}], case)
    stays(club)


def test_killed_anywhere_a_rotation_is_continued(club: Installation) -> None:
    """Survivors open at every moment; the same command once more ends with one open epoch, and all older ones destroyed."""
    key_id, value = sealed(club, 138)
    with keyring(club) as (_, studio):
        pass
    names = names_of(lambda env: club.obhut("keys", "rotate", studio, "--at-once", env=env))
    assert {"keys.epoch.created", "keys.rotate.opened", "keys.rotate.moved", "keys.rotate.closed", "keys.rotate.destroyed"} <= set(names)

    def case(name: str) -> None:
        club.obhut.killed_at(name, "keys", "rotate", studio, "--at-once")
        assert opens(club, key_id, value)
        club.obhut("keys", "rotate", studio, "--at-once")
        assert opens(club, key_id, value)
        (shown,) = club.obhut("keys", "status", studio)["controllers"]
        states = [epoch["state"] for epoch in shown["epochs"]]
        assert states == ["destroyed"] * (len(states) - 1) + ["open"]

    sweep([name for name in names if name.startswith("keys.")], case)
    assert club.obhut("keys", "status", studio)["controllers"][0]["not_final"] == 0


def test_a_restored_control_database_gives_nobody_their_key_back(club: Installation) -> None:
    """The key store remembers more destructions than the restored table: no key is handed out until the list has been applied again."""
    number = next(_fresh)
    key_id, value = sealed(club, number)
    club.obhut("control", "stop")
    copy = club.folder / "copy"
    subprocess.run(["cp", "-a", club.state / "control", copy], check=True)
    club.obhut("erase", "club", "member", number)
    club.obhut("control", "stop")
    shutil.rmtree(club.state / "control")
    copy.rename(club.state / "control")
    club.obhut("control", "start")
    club.obhut.refused("keys", "reconcile", code=["erasure-list-rolled-back", "erasure-list-missing"])
    with keyring(club) as (keys, _), pytest.raises(KeyTableRolledBackError):
        keys.by_id([key_id])
    club.obhut("erasures", "recover")
    assert club.obhut("keys", "reconcile")["destroyed"] == 1
    assert not opens(club, key_id, value)
    stays(club)
    verdicts = club.obhut("promises", "erasure")["promises"][0]
    assert "no erased person has a key of the audit log" in str(verdicts)
