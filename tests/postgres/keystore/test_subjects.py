"""Keys of data subjects: three states that differ, destruction that every process takes note of, rotation, and the fence."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from obhut.controllers.vocabulary import SubjectRef
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import Settings
from obhut.keystore import anchor, rotation
from obhut.keystore.destruction import destroy, in_use, remaining
from obhut.keystore.errors import KeyDestroyedError, KeyTableRolledBackError, SubjectErasedError
from obhut.keystore.renewal import lost_controllers, renew
from obhut.keystore.sealing import Key, seal, unseal
from obhut.keystore.subjects import Ended, Erased, Keyring, SubjectKeys
from obhut.keystore.vocabulary import EpochState
from obhut.postgres.errors import DatabaseError

pytestmark = pytest.mark.postgres

ADA, BOB, EVE = (SubjectRef("user", (name,)) for name in ("1", "2", "3"))
CTL, OTHER = "ctl_1", "ctl_2"
NO_TIME = timedelta()


def key(keyring: Keyring, ref: SubjectRef, controller: str = CTL) -> Key:
    return SubjectKeys(keyring, controller).one(ref)


def ended(at: datetime, *refs: SubjectRef) -> dict[str, list[Ended]]:
    return {CTL: [Ended(ref, at) for ref in refs]}


def test_a_subject_has_one_key_in_every_process_and_no_other_subject_has_it(keyring: Keyring, control: Settings) -> None:
    """The same subject gets the same key again, also by its id; another controller's subject of the same number gets another."""
    first = keyring.keys({CTL: [ADA, BOB], OTHER: [ADA]})
    assert len({held.id for mine in first.values() for held in mine.values()}) == 3
    with Keyring(control) as second:
        assert second.keys({CTL: [BOB, ADA], OTHER: [ADA]}) == first
        assert second.by_id([first[CTL][ADA].id, b"never had a key!"]) == {first[CTL][ADA].id: first[CTL][ADA]}


def test_the_three_states_differ(keyring: Keyring, clock: FixedClock) -> None:
    """Never had a key, active and erased are told apart by writers and by readers."""
    sealed = seal(key(keyring, ADA), b"value", b"place")
    ada = key(keyring, ADA)
    done = destroy(keyring, ended(clock.now(), ADA, BOB))
    assert (done.destroyed, done.already, done.never) == (1, 0, 1)
    held = keyring.keys({CTL: [ADA, BOB, EVE]})[CTL]
    assert held[ADA] == Erased(ada.id), "the row stays as a fence"
    assert held[BOB] == Erased(None), "a change from before the erasure must not make a key for somebody who is erased"
    assert isinstance(held[EVE], Key)
    assert keyring.by_id([ada.id]) == {ada.id: Erased(ada.id)}
    with pytest.raises(SubjectErasedError):
        key(keyring, ADA)
    again = destroy(keyring, ended(clock.now(), ADA, BOB))
    assert (again.destroyed, again.already, again.never) == (0, 1, 1)
    assert unseal(ada, sealed, b"place") == b"value", "only the key was destroyed, so whoever had kept it could read"


def test_nothing_in_the_key_table_opens_without_the_key_store(keyring: Keyring) -> None:
    """No row holds a secret, a lookup key or a primary key in clear."""
    ref = SubjectRef("user", ("known@person.example",))
    secret = key(keyring, ref).secret
    lookup = keyring.epochs.known([CTL])[CTL].lookup
    for table in ("keystore_subject", "keystore_owner", "keystore_epoch", "keystore_holder", "keystore_counter"):
        text = str(keyring.session.rows(f"SELECT string_agg(t::text, ' ') FROM {table} t"))
        assert "known@person" not in text
        assert secret.hex() not in text
        assert lookup.hex() not in text


def test_the_database_refuses_to_give_a_fence_a_key(keyring: Keyring, clock: FixedClock) -> None:
    """Whoever connects: a fence gets no key, and does not go away."""
    key(keyring, ADA)
    destroy(keyring, ended(clock.now(), ADA))
    for statement in (
        "UPDATE keystore_subject SET wrapped = 'x', destroyed_at = NULL, destruction = NULL",
        "DELETE FROM keystore_subject",
        "TRUNCATE keystore_subject",
        "UPDATE keystore_counter SET destructions = 0",
        "DELETE FROM keystore_epoch",
    ):
        with pytest.raises(DatabaseError) as caught:
            keyring.session.execute(statement)
        assert caught.value.sqlstate == "23001", statement


def short_lease(settings: Settings, seconds: float) -> Settings:
    keystore = settings.keystore.model_copy(update={"cache": timedelta(seconds=seconds)})
    return settings.model_copy(update={"keystore": keystore})


def test_a_process_that_works_forgets_before_a_destruction_is_reported(control: Settings, keyring: Keyring, clock: FixedClock) -> None:
    """While another process may hold the key, the destruction waits; when that process asks again it forgets, and the wait ends."""
    with Keyring(control) as other:
        ada = key(other, ADA)
        done: list[Any] = []
        thread = threading.Thread(target=lambda: done.append(destroy(keyring, ended(clock.now(), ADA))))
        thread.start()
        time.sleep(0.4)
        assert not done, "the other process may still seal under the key"
        assert other.keys({CTL: [ADA]})[CTL][ADA] == Erased(ada.id)
        thread.join(5)
        assert 0.3 < done[0].waited < 5


def test_a_process_that_is_silent_forgets_when_its_lease_ends(control: Settings, keyring: Keyring, clock: FixedClock) -> None:
    """A process that asks no more has no key in memory when the destruction is reported, though nobody told it."""
    with Keyring(short_lease(control, 1)) as other:
        key(other, ADA)
        destroy(keyring, ended(clock.now(), ADA))
        assert not other._young
        assert not other._old


def test_a_key_table_that_was_rolled_back_hands_out_no_key(keyring: Keyring, control: Settings, clock: FixedClock) -> None:
    """A table from before an erasure has the key again; the anchor in the key store knows better, until it is destroyed again."""
    key(keyring, ADA)
    copy = keyring.session.rows("SELECT wrapped, epoch FROM keystore_subject")[0]
    destroy(keyring, ended(clock.now(), ADA))
    restored(keyring, copy)
    keyring.lease.release(keyring.session)
    with Keyring(control, clock=clock) as later:
        for ask in (lambda: key(later, ADA), lambda: later.by_id([b"x"]), lambda: destroy(later, ended(clock.now(), BOB))):
            with pytest.raises(KeyTableRolledBackError):
                ask()
        assert destroy(later, ended(clock.now(), ADA), recovering=True).destroyed == 1
        assert remaining(later, ended(clock.now(), ADA)) == (0, 0)
        assert isinstance(later.keys({CTL: [ADA]})[CTL][ADA], Erased)
        assert anchor.read(control.keystore.directory) == 2


def restored(keyring: Keyring, copy: Any) -> None:
    """Put the key table back to what it was, as an older copy of the control database does: guards do not fire."""
    keyring.session.set("session_replication_role", "replica")
    values = {"wrapped": copy[0], "epoch": copy[1]}
    keyring.session.execute(
        "UPDATE keystore_subject SET wrapped = %(wrapped)s, epoch = %(epoch)s, destroyed_at = NULL, destruction = NULL", values
    )
    keyring.session.execute("UPDATE keystore_counter SET destructions = 0")
    keyring.session.set("session_replication_role", "origin")


def test_rotation_makes_older_copies_of_the_key_table_worthless(keyring: Keyring, control: Settings, clock: FixedClock) -> None:
    """Survivors open under the new epoch, what was wrapped under the old one does not; the erasure is final from then on."""
    ada, bob = key(keyring, ADA), key(keyring, BOB)
    copy = keyring.session.rows("SELECT wrapped, epoch FROM keystore_subject WHERE key_id = %s", (ada.id,))[0]
    destroy(keyring, ended(clock.now(), ADA))
    assert [(one.active, one.erased, one.not_final) for one in rotation.status(keyring)] == [(1, 1, 1)]
    done = rotation.rotate(keyring, CTL, grace=timedelta(days=1), copies_kept=NO_TIME)
    assert (done.epoch, done.survivors, done.closed, done.destroyed) == (2, 1, (1,), ())
    assert rotation.destroy_due(keyring, copies_kept=NO_TIME) == [], "the old key stays until copies of the control database catch up"
    clock.move(timedelta(days=1))
    assert [item[:2] for item in rotation.destroy_due(keyring, copies_kept=timedelta(days=5))] == [(CTL, 1)]
    (shown,) = rotation.status(keyring, CTL)
    assert [epoch.state for epoch in shown.epochs] == [EpochState.DESTROYED, EpochState.OPEN]
    assert shown.epochs[0].final_on is not None and shown.epochs[0].final_on >= clock.now() + timedelta(days=5)
    assert shown.not_final == 1, "final only when copies of the key store are gone, too"
    clock.move(timedelta(days=365))
    assert rotation.status(keyring, CTL)[0].not_final == 0
    with Keyring(control, clock=clock) as later:
        assert later.keys({CTL: [BOB]})[CTL][BOB] == bob
        restored_row = "UPDATE keystore_subject SET wrapped = %s, epoch = %s, destroyed_at = NULL, destruction = NULL WHERE key_id = %s"
        later.session.set("session_replication_role", "replica")
        later.session.execute(restored_row, (copy[0], copy[1], ada.id))
        with pytest.raises(KeyDestroyedError):
            later.by_id([ada.id])


def test_writers_and_rotation_do_not_lose_each_other(keyring: Keyring, control: Settings) -> None:
    """Keys made while an epoch closes are wrapped under the next one: nothing alive is left under a key that goes."""
    refs = [SubjectRef("user", (str(number),)) for number in range(3000)]
    key(keyring, ADA)
    held: dict[SubjectRef, Any] = {}
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with Keyring(control) as writer:
                for start in range(0, len(refs), 10):
                    held.update(SubjectKeys(writer, CTL).of(refs[start : start + 10]))
                    time.sleep(0.004)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    rotations = 0
    while thread.is_alive():
        rotations += 1
        rotation.rotate(keyring, CTL, grace=NO_TIME, copies_kept=NO_TIME)
    thread.join()
    assert not failures
    assert rotations > 1
    rotation.rotate(keyring, CTL, grace=NO_TIME, copies_kept=NO_TIME)
    with Keyring(control) as reader:
        found = reader.by_id([one.id for one in held.values()])
        assert {one.id: one for one in held.values()} == found
    states = [epoch.state for epoch in rotation.status(keyring, CTL)[0].epochs]
    assert states == [EpochState.DESTROYED] * (len(states) - 1) + [EpochState.OPEN]


def test_a_second_bearer_of_a_key_gets_a_new_life(keyring: Keyring, clock: FixedClock) -> None:
    """Changes from before the erasure stay fenced; a row inserted after it begins a life with another key, which no old tombstone ends."""
    first = key(keyring, ADA)
    erased_at = clock.now()
    destroy(keyring, ended(erased_at, ADA))
    assert keyring.begin(CTL, ADA, erased_at - timedelta(seconds=1)) == Erased(first.id)
    second = keyring.begin(CTL, ADA, erased_at + timedelta(hours=1))
    assert isinstance(second, Key)
    assert second.id != first.id
    assert keyring.begin(CTL, ADA, erased_at + timedelta(hours=2)) == second
    destroy(keyring, ended(erased_at, ADA))
    assert key(keyring, ADA) == second, "the tombstone of the first bearer applied again"
    rotation.rotate(keyring, CTL, grace=NO_TIME, copies_kept=NO_TIME)
    assert keyring.by_id([first.id, second.id]) == {first.id: Erased(first.id), second.id: second}
    destroy(keyring, ended(erased_at + timedelta(days=1), ADA))
    assert keyring.keys({CTL: [ADA]})[CTL][ADA] == Erased(second.id)


def test_the_daily_job_rotates_what_is_due_and_nothing_else(keyring: Keyring, control: Settings, clock: FixedClock) -> None:
    """A controller of whom nobody was erased keeps its epoch; the other gets a new one when the old one's time is over, then loses the old key."""
    from obhut.jobs import tasks

    key(keyring, ADA)
    key(keyring, ADA, OTHER)
    destroy(keyring, ended(clock.now(), ADA))
    keyring.lease.release(keyring.session)
    tasks.configure(control, clock)

    def states() -> dict[str, list[str]]:
        return {one.controller: [epoch.state for epoch in one.epochs] for one in rotation.status(keyring)}

    tasks.rotate_keys(0)
    assert states() == {CTL: ["open"], OTHER: ["open"]}
    clock.move(timedelta(days=31))
    tasks.rotate_keys(0)
    assert states() == {CTL: ["closed", "open"], OTHER: ["open"]}
    clock.move(timedelta(days=1))
    tasks.rotate_keys(0)
    assert states() == {CTL: ["destroyed", "open"], OTHER: ["open"]}


def test_a_copy_from_before_the_last_rotation_begins_anew(keyring: Keyring, control: Settings, clock: FixedClock) -> None:
    """Its keys do not open and are given up; new ones are made, fences hold, and who is on the erasure list gets no key again."""
    ada, bob = key(keyring, ADA), key(keyring, BOB)
    destroy(keyring, ended(clock.now(), ADA))
    assert lost_controllers(keyring) == []
    keyring.driver.destroy("audit/ctl_1/1")
    keyring.close()
    with Keyring(control, clock=clock) as later:
        with pytest.raises(KeyDestroyedError) as caught:
            key(later, BOB)
        assert caught.value.hint is not None and "obhut keys renew" in caught.value.hint
        assert lost_controllers(later) == [CTL]
        (done,) = renew(later, [CTL])
        assert (done.lost, done.epoch) == (1, 2)
        assert rotation.destroy_due(later, copies_kept=NO_TIME)[0][:2] == (CTL, 1)
        assert lost_controllers(later) == []
        assert destroy(later, ended(clock.now(), ADA), recovering=True).never == 1
        held = later.keys({CTL: [ADA, BOB]})[CTL]
        assert held[ADA] == Erased(None)
        assert isinstance(held[BOB], Key) and held[BOB].id != bob.id
        assert later.by_id([ada.id, bob.id]) == {ada.id: Erased(ada.id)}, "lost is not erased"


def test_an_installation_without_keys_fences_nobody(control: Settings) -> None:
    """Where no change is captured an erasure asks one question and writes nothing."""
    with Keyring(control) as fresh:
        assert not in_use(fresh.session)
        fresh.start()
        assert in_use(fresh.session)
