"""One damaged list per attack: each is found, by its own code."""

from __future__ import annotations

import re
import shutil

import pytest

from obhut.erasure import errors, ledger, reading
from obhut.erasure.entries import Decision
from obhut.erasure.notes import ANCHOR_NAME, SIGNING_KEY_NAME
from obhut.keystore import LocalKeystore

INS = "ins_2"
ALL_TABLES = ("erasure_entry", "erasure_tombstone", "erasure_head", "erasure_epoch", "erasure_resolution", "erasure_access")


class Places:
    """The three places under an attacker's hands."""

    def __init__(self, settings) -> None:
        self.settings = settings
        self.mirror = settings.erasure_list.mirror
        self.state = settings.state.directory

    @property
    def session(self):
        """A session on the control database."""
        return ledger.places().session()

    def sql(self, *statements: str) -> None:
        """Run statements as a superuser who has switched the guards off."""
        self.session.execute("SET session_replication_role = replica")
        for statement in statements:
            self.session.execute(statement)
        self.session.execute("RESET session_replication_role")

    def keep(self) -> dict:
        """Take a copy of all places."""
        return {
            "tables": {name: self.session.rows(f"SELECT t::text FROM {name} t") for name in ALL_TABLES},
            "mirror": {path.name: path.read_bytes() for path in self.mirror.iterdir()},
            "anchor": (self.state / ANCHOR_NAME).read_bytes(),
        }

    def put_database(self, kept: dict) -> None:
        """Roll the control database back to a copy."""
        self.sql(*(f"DELETE FROM {name}" for name in ALL_TABLES))
        self.session.execute("SET session_replication_role = replica")
        for name, rows in kept["tables"].items():
            for (row,) in rows:
                self.session.execute(f"INSERT INTO {name} SELECT (%s::{name}).*", (row,))
        self.session.execute("RESET session_replication_role")

    def put_mirror(self, kept: dict) -> None:
        """Roll the mirror back to a copy."""
        for path in self.mirror.iterdir():
            path.unlink()
        for name, content in kept["mirror"].items():
            (self.mirror / name).write_bytes(content)

    def put_anchor(self, kept: dict) -> None:
        """Roll the anchor back to a copy."""
        (self.state / ANCHOR_NAME).write_bytes(kept["anchor"])

    @property
    def file(self):
        """The mirror's last file."""
        return max(self.mirror.iterdir())

    def edit(self, old: bytes, new: bytes, count: int = 1) -> None:
        """Replace bytes in the mirror."""
        content = self.file.read_bytes()
        assert old in content
        self.file.write_bytes(content.replace(old, new, count))

    def fresh(self) -> None:
        """Make the next call start like a new process."""
        ledger.close_ledger()
        ledger.open_ledger(self.settings)


@pytest.fixture
def places(opened_list, clock, new):
    """Give a list of seven entries in four segments, every kind of entry among them."""
    a, b, _ = ledger.record([new(1, fingerprint="aa" * 32), new(2), new(3)], clock)
    ledger.mark_effective("run_1", [a], "0/1", clock)
    ledger.lift([b.id], INS, clock)
    ledger.resolve(a.id, "bb" * 32, Decision.OTHER_PERSON, INS, clock)
    ledger.new_epoch("courses", "run_2", "7000000000000000001", 2, clock)
    found = Places(opened_list)
    assert ledger.verify_list(opened_list).size == 7
    return found


def code_of(settings) -> str:
    with pytest.raises(errors.ErasureListError) as caught:
        ledger.verify_list(settings)
    return caught.value.code


DATABASE_ATTACKS = {
    "an edited entry": ("erasure-list-tampered", ["UPDATE erasure_entry SET body = replace(body, 'ctl_1', 'ctl_2') WHERE seq = 2"]),
    "an edited entry with its state": (
        "erasure-list-tampered",
        [
            "UPDATE erasure_entry SET body = replace(body, 'ctl_1', 'ctl_2') WHERE seq = 2",
            "UPDATE erasure_tombstone SET controller = 'ctl_2' WHERE seq = 2",
        ],
    ),
    "an entry with white space": (
        "erasure-list-tampered",
        ["UPDATE erasure_entry SET body = replace(body, '\",\"', '\", \"') WHERE seq = 4"],
    ),
    "an edited hash": ("erasure-list-tampered", ["UPDATE erasure_entry SET hash = sha256('x') WHERE seq = 3"]),
    "an edited head": ("erasure-list-tampered", ["UPDATE erasure_head SET hash = sha256('x')"]),
    "a dropped entry": ("erasure-list-gap", ["DELETE FROM erasure_entry WHERE seq = 2", "DELETE FROM erasure_tombstone WHERE seq = 2"]),
    "a dropped first entry": (
        "erasure-list-gap",
        ["DELETE FROM erasure_entry WHERE seq = 1", "DELETE FROM erasure_tombstone WHERE seq = 1"],
    ),
    "swapped entries": (
        "erasure-list-reordered",
        [
            "CREATE TEMP TABLE swap AS SELECT * FROM erasure_entry WHERE seq IN (2, 3)",
            "UPDATE erasure_entry e SET body = s.body, hash = s.hash FROM swap s WHERE e.seq IN (2, 3) AND s.seq = 5 - e.seq",
            "DROP TABLE swap",
        ],
    ),
    "the last entries gone": ("erasure-list-truncated", ["DELETE FROM erasure_entry WHERE seq > 5"]),
    "the list gone": ("erasure-list-missing", [f"DELETE FROM {name}" for name in ALL_TABLES]),
    "a tombstone lifted without an entry": (
        "erasure-list-state",
        ["UPDATE erasure_tombstone SET state = 'lifted', key = NULL, fingerprint = NULL, salt = NULL WHERE seq = 1"],
    ),
    "a tombstone's row gone": ("erasure-list-state", ["DELETE FROM erasure_tombstone WHERE seq = 3"]),
    "a tombstone's row too many": (
        "erasure-list-state",
        [
            'INSERT INTO erasure_tombstone SELECT (json_populate_record(t, \'{"seq": 99, "id": "ts_99"}\')).* FROM erasure_tombstone t WHERE seq = 1'
        ],
    ),
    "another person's key": ("erasure-list-state", ["UPDATE erasure_tombstone SET key = '{4}' WHERE seq = 3"]),
    "a key that begins at five": (
        "erasure-list-state",
        ["UPDATE erasure_tombstone SET key = ('[5:5]=' || key::text)::text[] WHERE seq = 3"],
    ),
    "a key in two dimensions": ("erasure-list-state", ["UPDATE erasure_tombstone SET key = ARRAY[key] WHERE seq = 3"]),
    "another fingerprint": ("erasure-list-state", ["UPDATE erasure_tombstone SET fingerprint = repeat('cc', 32) WHERE seq = 1"]),
    "a later erased_at": ("erasure-list-state", ["UPDATE erasure_tombstone SET erased_at = erased_at + interval '1 us' WHERE seq = 1"]),
    "a forgotten key of an open tombstone": (
        "erasure-list-state",
        ["UPDATE erasure_tombstone SET key = NULL, fingerprint = NULL, salt = NULL WHERE seq = 3"],
    ),
    "an epoch turned back": ("erasure-list-state", ["DELETE FROM erasure_epoch"]),
    "a decision turned round": ("erasure-list-state", ["UPDATE erasure_resolution SET decision = 'same_person'"]),
    "a decision about another row": ("erasure-list-state", ["UPDATE erasure_resolution SET found = repeat('cc', 32)"]),
}


@pytest.mark.parametrize("attack", DATABASE_ATTACKS)
def test_tampering_with_the_control_database_is_found(places, attack):
    """Whoever changes the control database behind the list's back is found, whatever was changed."""
    expected, statements = DATABASE_ATTACKS[attack]
    places.sql(*statements)
    places.fresh()
    assert code_of(places.settings) == expected


PLAIN_ATTACKS = {
    "an edited entry": ("erasure-list-tampered", ["UPDATE erasure_entry SET body = replace(body, 'ctl_1', 'ctl_2') WHERE seq = 5003"]),
    "an edited entry with its state": (
        "erasure-list-tampered",
        [
            "UPDATE erasure_entry SET body = replace(body, 'ctl_1', 'ctl_2') WHERE seq = 5003",
            "UPDATE erasure_tombstone SET controller = 'ctl_2' WHERE seq = 5003",
        ],
    ),
    "an edited hash": ("erasure-list-tampered", ["UPDATE erasure_entry SET hash = sha256('x') WHERE seq = 5003"]),
    "hashes from an edited entry on": (
        "erasure-list-tampered",
        [
            "UPDATE erasure_entry SET body = replace(body, 'ctl_1', 'ctl_2') WHERE seq = 5099",
            "UPDATE erasure_tombstone SET controller = 'ctl_2' WHERE seq = 5099",
            (
                "UPDATE erasure_entry SET hash = sha256('obhut erasure list v1 entry\n'::text::bytea || (SELECT hash FROM erasure_entry WHERE seq = 5098)"
                " || body::bytea) WHERE seq = 5099"
            ),
        ],
    ),
    "a dropped entry": (
        "erasure-list-gap",
        ["DELETE FROM erasure_entry WHERE seq = 5003", "DELETE FROM erasure_tombstone WHERE seq = 5003"],
    ),
    "a dropped first entry": (
        "erasure-list-gap",
        ["DELETE FROM erasure_entry WHERE seq = 1", "DELETE FROM erasure_tombstone WHERE seq = 1"],
    ),
    "a dropped block": (
        "erasure-list-gap",
        ["DELETE FROM erasure_entry WHERE seq <= 5000", "DELETE FROM erasure_tombstone WHERE seq <= 5000"],
    ),
    "swapped entries": (
        "erasure-list-reordered",
        [
            "CREATE TEMP TABLE swap AS SELECT * FROM erasure_entry WHERE seq IN (5003, 5004)",
            "UPDATE erasure_entry e SET body = s.body, hash = s.hash FROM swap s WHERE e.seq IN (5003, 5004) AND s.seq = 10007 - e.seq",
            "DROP TABLE swap",
        ],
    ),
    "the last entries gone": ("erasure-list-truncated", ["DELETE FROM erasure_entry WHERE seq > 5050"]),
    "lifted without an entry": (
        "erasure-list-state",
        ["UPDATE erasure_tombstone SET state = 'lifted', key = NULL, fingerprint = NULL, salt = NULL WHERE seq = 5003"],
    ),
    "another state": ("erasure-list-state", ["UPDATE erasure_tombstone SET state = 'effective' WHERE seq = 5003"]),
    "a tombstone's row gone": ("erasure-list-state", ["DELETE FROM erasure_tombstone WHERE seq = 5003"]),
    "another person's key": ("erasure-list-state", ["UPDATE erasure_tombstone SET key = '{4}' WHERE seq = 5003"]),
    "swapped keys": (
        "erasure-list-state",
        [
            (
                "UPDATE erasure_tombstone t SET key = o.key, fingerprint = o.fingerprint, salt = o.salt FROM erasure_tombstone o"
                " WHERE t.seq IN (5003, 5004) AND o.seq = 10007 - t.seq"
            )
        ],
    ),
    "a key that begins at five": (
        "erasure-list-state",
        ["UPDATE erasure_tombstone SET key = ('[5:5]=' || key::text)::text[] WHERE seq = 5003"],
    ),
    "a key in two dimensions": ("erasure-list-state", ["UPDATE erasure_tombstone SET key = ARRAY[key] WHERE seq = 5003"]),
    "a key with nothing behind": ("erasure-list-state", ["UPDATE erasure_tombstone SET key = key || NULL::text WHERE seq = 5003"]),
    "another salt": ("erasure-list-state", ["UPDATE erasure_tombstone SET salt = sha256('x') WHERE seq = 5003"]),
    "a later erased_at": ("erasure-list-state", ["UPDATE erasure_tombstone SET erased_at = erased_at + interval '1 us' WHERE seq = 5003"]),
}


@pytest.fixture
def long_list(opened_list, clock, new):
    """Give a list of more than one block, of plain tombstones only: what is verified without looking at every row by itself."""
    ledger.record([new(number, fingerprint=f"{number:064x}") for number in range(1, 5101)], clock)
    assert ledger.verify_list(opened_list).size == 5100
    return Places(opened_list)


@pytest.mark.parametrize("attack", PLAIN_ATTACKS)
def test_tampering_with_one_of_many_plain_entries_is_found(long_list, attack):
    """The short way of verifying a long list finds what the long way finds, and names it alike."""
    expected, statements = PLAIN_ATTACKS[attack]
    long_list.sql(*statements)
    long_list.fresh()
    assert code_of(long_list.settings) == expected


def _flip_sealed(places) -> None:
    found = re.search(rb"sealed \S+ (\S{20})(\S)", places.file.read_bytes())
    places.edit(found[0], found[0][:-1] + (b"B" if found[2] != b"B" else b"C"))


def _flip_signature(places) -> None:
    found = re.search("\N{EM DASH} \\S+ \\S{30}(\\S)".encode(), places.file.read_bytes())
    places.edit(found[0], found[0][:-1] + (b"B" if found[1] != b"B" else b"C"))


MIRROR_ATTACKS = {
    "an edited entry": ("erasure-mirror-damaged", lambda p: p.edit(b'"ctl_1"', b'"ctl_2"')),
    "a dropped entry": ("erasure-mirror-damaged", lambda p: p.edit(p.file.read_bytes().split(b"\n")[1] + b"\n", b"")),
    "swapped entries": (
        "erasure-mirror-damaged",
        lambda p: p.edit(b"\n".join(p.file.read_bytes().split(b"\n")[1:3]), b"\n".join(p.file.read_bytes().split(b"\n")[2:0:-1])),
    ),
    "a segment gone in the middle": (
        "erasure-mirror-damaged",
        lambda p: p.edit(re.search(rb"segment 4 .*?end 4 [^\n]*\n", p.file.read_bytes(), re.DOTALL)[0], b""),
    ),
    "a flipped byte in a sealed part": ("erasure-mirror-unseal", _flip_sealed),
    "a sealed part gone": (
        "erasure-mirror-damaged",
        lambda p: p.edit(re.search(rb"sealed e[^\n]*\n", p.file.read_bytes())[0], b"sealed -\n"),
    ),
    "a flipped byte in a signature": ("erasure-list-signature", _flip_signature),
    "another time on a checkpoint": ("erasure-list-signature", lambda p: p.edit(b"time 2026", b"time 2025")),
    "the whole mirror gone": ("erasure-mirror-missing", lambda p: shutil.rmtree(p.mirror)),
    "the only file empty": ("erasure-mirror-rolled-back", lambda p: p.file.write_bytes(b"")),
    "an acknowledged segment cut short": ("erasure-mirror-damaged", lambda p: p.file.write_bytes(p.file.read_bytes()[:-10])),
    "zeros at the end of what was acknowledged": (
        "erasure-mirror-damaged",
        lambda p: p.file.write_bytes(p.file.read_bytes()[:-10] + bytes(10)),
    ),
}


@pytest.mark.parametrize("attack", MIRROR_ATTACKS)
def test_tampering_with_the_mirror_is_found(places, attack):
    """Whoever changes a byte of the mirror is found, and damage to what was acknowledged never passes for a torn write."""
    expected, act = MIRROR_ATTACKS[attack]
    act(places)
    places.fresh()
    assert code_of(places.settings) == expected


def test_a_rolled_back_database_is_found_and_recovered(places, clock, new):
    """An older copy of the control database is refused by verification and by recording, and completed from the mirror."""
    kept = places.keep()
    (later,) = ledger.record([new(9)], clock)
    ledger.lift([reading.page()[2].id], INS, clock)
    places.put_database(kept)
    places.fresh()
    assert code_of(places.settings) == "erasure-list-rolled-back"
    with pytest.raises(errors.ListRolledBackError):
        ledger.record([new(10)], clock)
    assert ledger.recover(places.settings, clock).to_list == 2
    assert ledger.verify_list(places.settings).size == 9
    assert reading.find([later.id])[0].key == ("9",)
    assert [item.key for chunk in reading.open_list("courses") for item in chunk] == [("1",), ("9",)]


def test_an_emptied_database_is_found_and_recovered(places, clock, new):
    """A new, empty control database is refused, and rebuilt from the mirror with every key that is still needed."""
    before = (
        [item for chunk in reading.open_list("courses") for item in chunk],
        reading.resolutions("courses"),
        reading.current_epoch("courses"),
    )
    places.sql(*(f"DELETE FROM {name}" for name in ALL_TABLES))
    places.fresh()
    with pytest.raises(errors.ListMissingError):
        ledger.record([new(10)], clock)
    assert ledger.recover(places.settings, clock).to_list == 7
    ledger.verify_list(places.settings)
    after = (
        [item for chunk in reading.open_list("courses") for item in chunk],
        reading.resolutions("courses"),
        reading.current_epoch("courses"),
    )
    assert after == before
    assert ledger.places().session().value("SELECT count(*) FROM erasure_tombstone WHERE key IS NULL") == 1


def test_a_rolled_back_mirror_is_found_and_recovered(places, clock, new):
    """An older copy of the mirror is refused, and completed from the list."""
    kept = places.keep()
    ledger.record([new(9)], clock)
    places.put_mirror(kept)
    places.fresh()
    assert code_of(places.settings) == "erasure-mirror-rolled-back"
    with pytest.raises(errors.MirrorRolledBackError):
        ledger.record([new(10)], clock)
    assert ledger.recover(places.settings, clock).to_mirror == 1
    assert ledger.verify_list(places.settings).size == 8


def test_a_lost_mirror_is_written_anew(places, clock, new):
    """A mirror whose disk is gone is refused, and written anew from the list; the new one can rebuild the list."""
    shutil.rmtree(places.mirror)
    places.fresh()
    with pytest.raises(errors.MirrorMissingError):
        ledger.record([new(10)], clock)
    assert ledger.recover(places.settings, clock).to_mirror == 7
    ledger.verify_list(places.settings)
    places.sql(*(f"DELETE FROM {name}" for name in ALL_TABLES))
    assert ledger.recover(places.settings, clock).to_list == 7
    ledger.verify_list(places.settings)


def test_both_behind_the_anchor_is_never_recovered(places, clock, new):
    """When list and mirror are rolled back together, the anchor tells, and no copy here can help."""
    kept = places.keep()
    ledger.record([new(9)], clock)
    places.put_database(kept)
    places.put_mirror(kept)
    places.fresh()
    assert code_of(places.settings) == "erasure-list-behind-anchor"
    with pytest.raises(errors.ListBehindAnchorError):
        ledger.recover(places.settings, clock)
    with pytest.raises(errors.ErasureListError):
        ledger.record([new(10)], clock)


def test_everything_emptied_but_the_anchor(places, clock, new):
    """Fresh database and fresh mirror do not start a new list while the anchor remembers the old one."""
    places.sql(*(f"DELETE FROM {name}" for name in ALL_TABLES))
    shutil.rmtree(places.mirror)
    places.fresh()
    assert code_of(places.settings) == "erasure-list-missing"
    with pytest.raises(errors.ListMissingError):
        ledger.record([new(10)], clock)
    with pytest.raises(errors.ListBehindAnchorError):
        ledger.recover(places.settings, clock)


def test_a_forked_list_is_found(places, clock, new):
    """Two histories of the same length do not pass, nor does a longer one that differs from the anchor."""
    kept = places.keep()
    ledger.record([new(9)], clock)
    first = places.keep()
    places.put_database(kept)
    places.put_mirror(kept)
    places.put_anchor(kept)
    places.fresh()
    ledger.record([new(10)], clock)
    places.put_mirror(first)
    places.fresh()
    assert code_of(places.settings) == "erasure-list-forked"
    with pytest.raises(errors.ListForkedError):
        ledger.recover(places.settings, clock)
    with pytest.raises(errors.ListForkedError):
        ledger.record([new(11)], clock)
    places.put_anchor(first)
    places.put_mirror(kept)
    places.fresh()
    assert code_of(places.settings) == "erasure-list-forked"


def test_a_missing_or_foreign_anchor_is_found(places, clock, new):
    """Without its anchor the list is not trusted until a person accepts that; a forged anchor is a wrong signature."""
    anchor = places.state / ANCHOR_NAME
    content = anchor.read_text()
    anchor.write_text(content.replace("\n7\n", "\n6\n"))
    places.fresh()
    assert code_of(places.settings) == "erasure-list-signature"
    anchor.unlink()
    places.fresh()
    assert code_of(places.settings) == "erasure-anchor-missing"
    with pytest.raises(errors.AnchorMissingError):
        ledger.record([new(10)], clock)
    with pytest.raises(errors.AnchorMissingError):
        ledger.recover(places.settings, clock)
    ledger.recover(places.settings, clock, accept_missing_anchor=True)
    assert ledger.verify_list(places.settings).anchored == 7


def test_another_key_does_not_sign_this_list(places):
    """With another key store every signature fails; a lost one is not taken for a fresh start."""
    keys = places.settings.keystore.directory
    keys.rename(keys.with_name("old-keys"))
    places.fresh()
    assert code_of(places.settings) == "erasure-list-signature"
    LocalKeystore(keys).signing_key(SIGNING_KEY_NAME)
    places.fresh()
    assert code_of(places.settings) == "erasure-list-signature"


def test_a_torn_last_write_is_told_from_damage_and_healed(places, clock, new):
    """Bytes of a segment that was never acknowledged are torn: verification says so, the next record cuts them off."""
    kept = places.keep()
    ledger.record([new(9)], clock)
    whole = places.file.read_bytes()
    places.put_anchor(kept)
    start = len(kept["mirror"][places.file.name])
    for length in (1, 9, 30, 200, len(whole) - start - 1):
        places.file.write_bytes(whole[: start + length])
        places.fresh()
        assert code_of(places.settings) == "erasure-mirror-torn", length
    places.file.write_bytes(whole[:-40] + bytes(40))
    assert code_of(places.settings) == "erasure-mirror-torn"
    middle = start + 100
    places.file.write_bytes(whole[:middle] + bytes(4) + whole[middle + 4 :])
    places.fresh()
    assert code_of(places.settings) == "erasure-mirror-torn"
    ledger.record([new(10)], clock)
    assert ledger.verify_list(places.settings).size == 9


def test_a_mirror_that_is_merely_behind_is_healed_by_the_next_record(places, clock, new):
    """List ahead of mirror and anchor is what a crash leaves: named, and healed in passing or by recover."""
    kept = places.keep()
    ledger.record([new(9)], clock)
    places.put_mirror(kept)
    places.put_anchor(kept)
    places.fresh()
    assert code_of(places.settings) == "erasure-mirror-behind"
    assert ledger.record([new(9)], clock)[0].seq == 8
    assert ledger.verify_list(places.settings).size == 8


def test_a_mirror_that_cannot_be_written_stops_the_erasure(places, clock, new, monkeypatch):
    """A full or missing mirror is an error, so nobody is erased; the entry is pushed once the mirror is back."""
    places.mirror.rename(places.mirror.with_name("away"))
    places.mirror.write_text("not a directory")
    with pytest.raises(errors.ErasureListError):
        ledger.record([new(9)], clock)
    places.mirror.unlink()
    places.mirror.with_name("away").rename(places.mirror)
    places.fresh()
    ledger.record([new(9)], clock)
    assert ledger.verify_list(places.settings).size == 8


def test_recover_finds_nothing_to_do_on_a_whole_list(places, clock):
    """Recovery is harmless when nothing is wrong."""
    recovery = ledger.recover(places.settings, clock)
    assert (recovery.to_list, recovery.to_mirror, recovery.torn, recovery.size) == (0, 0, False, 7)
    ledger.verify_list(places.settings)
