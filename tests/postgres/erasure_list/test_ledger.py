"""Recording, moving and reading tombstones."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from obhut.erasure import ledger, reading
from obhut.erasure.entries import Action, Decision, Inventory, State
from obhut.erasure.errors import CopyMayExistError, EntryError, IllegalMoveError, ListNotOpenError, TombstoneMissingError
from obhut.foundation.actors import Actor, Role
from obhut.keystore import KeyState
from obhut.postgres.errors import DatabaseError

INS = "ins_2"


def flat(database="courses", **options):
    return [item for chunk in reading.open_list(database, **options) for item in chunk]


def test_without_a_list_nothing_is_recorded(control, clock, new):
    """Using the list before it is opened is an error of its own."""
    ledger.close_ledger()
    with pytest.raises(ListNotOpenError):
        ledger.record([new(1)], clock)


def test_a_recorded_tombstone_is_in_list_mirror_and_anchor(opened_list, clock, new):
    """After record returns, the list verifies with all three places at the same size."""
    (tombstone,) = ledger.record([new(17, fingerprint="ab" * 32)], clock)
    assert (tombstone.seq, tombstone.key, tombstone.state, tombstone.epoch) == (1, ("17",), State.RECORDED, 0)
    assert tombstone.erased_at == clock.now()
    report = ledger.verify_list(opened_list)
    assert (report.size, report.anchored, report.segments) == (1, 1, 1)
    assert reading.head().size == 1
    assert reading.head().signed_at == clock.now()
    assert flat() == [tombstone]


def test_no_key_is_readable_in_the_mirror_or_in_the_words_of_a_tombstone(opened_list, clock, new):
    """The mirror's bytes, an entry's text and repr() of a tombstone do not show the key."""
    (tombstone,) = ledger.record([new("canary-4711")], clock)
    assert "canary" not in repr(tombstone)
    for path in opened_list.erasure_list.mirror.iterdir():
        assert b"canary-4711" not in path.read_bytes()
    bodies = ledger.places().session().rows("SELECT body FROM erasure_entry")
    assert "canary" not in str(bodies)


def test_recording_twice_adds_nothing(opened_list, clock, new):
    """A repeat returns the same tombstone: in a later call, within one batch, and when it is effective already."""
    first = ledger.record([new(1), new(2), new(1)], clock)
    assert first[0] == first[2]
    ledger.mark_effective("run_1", first[:1], "0/16B3748", clock)
    clock.move(timedelta(hours=1))
    again = ledger.record([new(2), new(1), new(3)], clock)
    assert [item.id for item in again[:2]] == [first[1].id, first[0].id]
    assert again[1].state is State.EFFECTIVE
    assert again[2].seq == 4
    assert reading.count("courses") == 3


def test_another_incarnation_action_epoch_or_database_is_another_tombstone(opened_list, clock, new):
    """The identity of a tombstone is database, subject kind, key, fingerprint, action and epoch together."""
    ledger.record([new(1, fingerprint="aa" * 32)], clock)
    others = [
        new(1, fingerprint="bb" * 32),
        new(1, fingerprint="aa" * 32, action=Action.ANONYMISE),
        new(1, fingerprint="aa" * 32, database="other"),
    ]
    assert [item.seq for item in ledger.record(others, clock)] == [2, 3, 4]
    ledger.new_epoch("courses", "run_9", 7_000_000_000_000_000_001, 2, clock)
    (again,) = ledger.record([new(1, fingerprint="aa" * 32)], clock)
    assert (again.seq, again.epoch) == (6, 1)


def test_composite_and_awkward_keys_come_back_as_they_were(opened_list, clock, new):
    """Quotes, backslashes, braces, commas, NULL as a word, empty text and any script survive."""
    keys = [("a", "b"), ('"', "\\"), ("{x}", "a,b"), ("NULL",), ("",), ("ß→\U0001f600", "\n\t\x01")]
    items = [type(new(1))("courses", "ctl_1", "user", key, Action.ERASE, "map-1", "ins_1") for key in keys]
    ledger.record(items, clock)
    assert [item.key for item in flat()] == keys
    assert [item.key for item in ledger.record(items, clock)] == keys
    assert reading.count("courses") == len(keys)
    assert ledger.verify_list(opened_list).size == len(keys)


def test_invalid_text_is_refused_before_anything_is_written(opened_list, clock, new):
    """A lone surrogate cannot enter the list and leaves nothing behind."""
    for key in ("\ud800", "a\x00b"):
        with pytest.raises(EntryError):
            ledger.record([new(1), new(key)], clock)
    with pytest.raises(EntryError):
        ledger.record([type(new(1))("courses", "ctl_1", "user", (), Action.ERASE, "map-1", "ins_1")], clock)
    assert reading.count("courses") == 0
    assert ledger.record([new(1)], clock)[0].seq == 1


def test_legal_moves_and_no_others(opened_list, clock, new):
    """Recorded → effective → retired, recorded or effective → lifted; everything else is refused and changes nothing."""
    a, b, c = ledger.record([new(1), new(2), new(3)], clock)
    assert ledger.mark_effective("run_1", [a, b], "0/1", clock) == 2
    assert ledger.mark_effective("run_1", [a, b], "0/1", clock) == 0
    assert ledger.lift([a.id], INS, clock) == 1
    for move in (lambda: ledger.lift([a.id], INS, clock), lambda: ledger.mark_effective("run_1", [a], "0/1", clock)):
        with pytest.raises(IllegalMoveError):
            move()
    with pytest.raises(TombstoneMissingError):
        ledger.lift(["ts_unknown"], INS, clock)
    assert [item.id for item in flat()] == [b.id, c.id]
    report = ledger.verify_list(opened_list)
    assert report.states == {State.RECORDED: 1, State.EFFECTIVE: 1, State.LIFTED: 1, State.RETIRED: 0}


def test_the_database_itself_refuses_changes(opened_list, clock, new):
    """UPDATE, DELETE and TRUNCATE of entries, and illegal moves of tombstones, fail for whoever connects."""
    ledger.record([new(1)], clock)
    session = ledger.places().session()
    for statement in (
        "UPDATE erasure_entry SET body = body",
        "DELETE FROM erasure_entry",
        "TRUNCATE erasure_entry",
        "DELETE FROM erasure_tombstone",
        "UPDATE erasure_tombstone SET state = 'retired', key = NULL, fingerprint = NULL, salt = NULL",
        "UPDATE erasure_tombstone SET state = 'effective', key = '{2}'",
        "UPDATE erasure_head SET size = 0",
        "DELETE FROM erasure_head",
    ):
        with pytest.raises(DatabaseError):
            session.execute(statement)
    assert ledger.verify_list(opened_list).size == 1


def test_lifting_forgets_the_person(opened_list, clock, new):
    """Key, fingerprint and salt of a lifted tombstone are gone; the list still verifies."""
    (tombstone,) = ledger.record([new(1, fingerprint="aa" * 32)], clock)
    ledger.lift([tombstone.id], INS, clock)
    assert reading.find([tombstone.id])[0].key is None
    assert ledger.places().session().row("SELECT key, fingerprint, salt FROM erasure_tombstone") == (None, None, None)
    ledger.verify_list(opened_list)


def test_nothing_retires_while_a_copy_may_exist(opened_list, clock, new):
    """A copy begun before the erasure, an incomplete inventory, and a tombstone that is not effective keep the person on the list."""
    a, _ = ledger.record([new(1), new(2)], clock)
    clock.move(timedelta(minutes=1))
    ledger.mark_effective("run_1", [a], "0/1", clock)
    effective_at = clock.now()
    clock.move(timedelta(days=40))
    with pytest.raises(CopyMayExistError):
        ledger.retire(Inventory("courses", complete=False, copies_since=None, taken_at=clock.now()), clock)
    assert ledger.retire(Inventory("courses", complete=True, copies_since=effective_at, taken_at=clock.now()), clock) == 0
    assert ledger.retire(Inventory("other", complete=True, copies_since=None, taken_at=clock.now()), clock) == 0
    assert (
        ledger.retire(Inventory("courses", complete=True, copies_since=effective_at + timedelta(seconds=1), taken_at=clock.now()), clock)
        == 1
    )
    assert [item.key for item in flat()] == [("2",)]


def test_retiring_the_last_of_a_day_destroys_what_opens_the_mirror(opened_list, clock, new):
    """The day's data key goes with its last tombstone, not before, and the list and mirror keep verifying."""
    first = ledger.record([new(1), new(2)], clock)
    label = "erasure-list/2026-11-23"
    keystore = ledger.places().keystore
    ledger.mark_effective("run_1", first[:1], "0/1", clock)
    clock.move(timedelta(days=40))
    inventory = Inventory("courses", complete=True, copies_since=None, taken_at=clock.now())
    assert ledger.retire(inventory, clock) == 1
    assert keystore.state(label) is KeyState.ACTIVE
    ledger.mark_effective("run_2", first[1:], "0/2", clock)
    clock.move(timedelta(days=40))
    assert ledger.retire(inventory, clock) == 1
    assert keystore.state(label) is KeyState.DESTROYED
    report = ledger.verify_list(opened_list)
    assert report.states[State.RETIRED] == 2
    assert report.forgotten_segments == 1
    ledger.record([new(3)], clock)
    assert ledger.verify_list(opened_list).size == 7


def test_a_conflict_is_settled_for_one_fingerprint_and_forgotten_with_the_person(opened_list, clock, new):
    """A decision names the row's fingerprint, the latest decision counts, and lifting forgets it."""
    (tombstone,) = ledger.record([new(1, fingerprint="aa" * 32)], clock)
    ledger.resolve(tombstone.id, "bb" * 32, Decision.SAME_PERSON, INS, clock)
    ledger.resolve(tombstone.id, "bb" * 32, Decision.OTHER_PERSON, INS, clock)
    assert reading.resolutions("courses") == {1: {"bb" * 32: Decision.OTHER_PERSON}}
    ledger.verify_list(opened_list)
    ledger.lift([tombstone.id], INS, clock)
    assert reading.resolutions("courses") == {}
    ledger.verify_list(opened_list)
    with pytest.raises(IllegalMoveError):
        ledger.resolve(tombstone.id, "bb" * 32, Decision.SAME_PERSON, INS, clock)


def test_epochs_count_up_a_database_and_repeat_for_the_same_run(opened_list, clock):
    """Each opened restore starts an epoch; asking again for the same run returns the same one."""
    assert reading.current_epoch("courses") == 0
    first = ledger.new_epoch("courses", "run_1", "7000000000000000001", 2, clock)
    assert ledger.new_epoch("courses", "run_1", "7000000000000000001", 2, clock) == first
    assert ledger.new_epoch("courses", "run_2", "7000000000000000001", 3, clock).number == 2
    assert ledger.new_epoch("other", "run_3", "7000000000000000002", 1, clock).number == 1
    assert reading.current_epoch("courses") == 2
    ledger.verify_list(opened_list)


def test_the_open_list_comes_in_chunks_of_one_kind_and_of_one_moment(opened_list, clock, new):
    """Chunks hold one subject kind, respect ``as_of`` and ``after``, and leave other databases out."""
    ledger.record([new(number, kind=kind) for number in range(25) for kind in ("user", "teacher")] + [new(1, database="other")], clock)
    chunks = list(reading.open_list("courses", size=10))
    assert [len(chunk) for chunk in chunks] == [10, 10, 5, 10, 10, 5]
    assert all(len({item.subject_kind for item in chunk}) == 1 for chunk in chunks)
    size = reading.head().size
    rest = reading.open_list("courses", size=10)
    next(rest)
    ledger.record([new(100)], clock)
    assert sum(len(chunk) for chunk in rest) == 40
    assert [item.key for item in flat(after=size)] == [("100",)]
    assert len(flat(as_of=size)) == 50
    assert len(flat(subject_kind="teacher")) == 25


def test_the_highest_keys_are_known_at_each_position(opened_list, clock, new):
    """Numbers count, texts and numbers beyond a sequence do not; positions are told apart."""
    make = type(new(1))
    for key in (("7", "x"), ("12", "9"), ("abc", "3"), ("9" * 30, "1")):
        ledger.record([make("courses", "ctl_1", "seat", key, Action.ERASE, "m", "i")], clock)
    assert reading.highest_keys("courses", "seat") == {0: 12, 1: 9}
    assert reading.highest_keys("courses", "user") == {}
    assert reading.subject_kinds("courses") == ["seat"]


def test_a_look_at_a_key_is_on_record(opened_list, clock, new):
    """Listing withholds keys; revealing one names the actor and the purpose."""
    (tombstone,) = ledger.record([new(5)], clock)
    assert reading.page()[0].key is None
    actor = Actor(Role.OPERATOR, "u-1")
    assert reading.reveal(tombstone.id, actor, reading.Purpose.AUDIT, clock) == (("5",), "")
    assert ledger.places().session().rows("SELECT tombstone, actor, purpose FROM erasure_access") == [(1, "operator:u-1", "audit")]
    with pytest.raises(TombstoneMissingError):
        reading.reveal("ts_unknown", actor, reading.Purpose.AUDIT, clock)


def test_several_writers_at_once_make_one_chain(opened_list, clock, new):
    """Four threads that record at once lose and double nothing; the same person recorded by all is one tombstone."""
    failures = []

    def work(number):
        try:
            for step in range(10):
                ledger.record([new(f"{number}-{step}"), new(f"same-{step}")], clock)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)
        finally:
            ledger.places().close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert reading.count("courses") == 50
    assert ledger.verify_list(opened_list).size == 50


def test_a_confirmation_finds_that_another_process_wrote_in_between(opened_list, clock, new):
    """The one statement that confirms at once sees a head that moved, or a writer at work, and takes the usual way: nothing is lost or forked."""
    (mine,) = ledger.record([new(1)], clock)
    before = ledger.places().last
    ledger.record([new(2)], clock)
    ledger.places().last = before  # what this process would believe had the other one written
    assert ledger.mark_effective("run_1", [mine], "0/16B3748", clock) == 1
    assert [item.state for item in flat()] == [State.EFFECTIVE, State.RECORDED]

    (third,) = ledger.record([new(3)], clock)
    busy, free = threading.Event(), threading.Event()

    def another_writer() -> None:
        with ledger.places().writing():
            busy.set()
            free.wait(30)
        ledger.places().close()

    writer = threading.Thread(target=another_writer)
    writer.start()
    assert busy.wait(30)
    threading.Timer(0.3, free.set).start()
    assert ledger.mark_effective("run_2", [third], "0/16B3749", clock) == 1
    assert free.is_set()  # it waited
    writer.join(30)
    assert ledger.verify_list(opened_list, settle_at=clock).states[State.EFFECTIVE] == 2


def test_a_tombstone_that_was_lifted_meanwhile_is_not_confirmed(opened_list, clock, new):
    """The state counts, not what the caller remembers of it."""
    (item,) = ledger.record([new(1)], clock)
    ledger.lift([item.id], INS, clock)
    with pytest.raises(IllegalMoveError):
        ledger.mark_effective("run_1", [item], "0/16B3748", clock)
    assert ledger.verify_list(opened_list).states[State.LIFTED] == 1


def test_a_batch_larger_than_a_segment_and_a_new_month(opened_list, clock, new):
    """A batch above 10,000 becomes several segments; a new month starts a new file."""
    ledger.record([new(number) for number in range(10_050)], clock)
    clock.move(timedelta(days=10))
    ledger.record([new("later")], clock)
    assert [path.name for path in sorted(opened_list.erasure_list.mirror.iterdir())] == ["2026-11.segments", "2026-12.segments"]
    assert ledger.verify_list(opened_list).segments == 3


def test_a_tombstone_outlives_a_rolled_back_transaction_of_the_caller(opened_list, clock, new):
    """Recording inside a Django transaction that rolls back keeps the tombstone: it can only hide too much."""
    from django.db import transaction

    with transaction.atomic():
        ledger.record([new(1)], clock)
        transaction.set_rollback(True)
    assert reading.count("courses") == 1
