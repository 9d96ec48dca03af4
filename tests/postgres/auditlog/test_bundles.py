"""Bundles: what a controller is handed verifies without Obhut's servers; one tampered bundle per attack is refused with its own error."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from support.auditing import START, change, subject

from obhut.auditlog import bundles, entries, errors, log
from obhut.auditlog.export import Exporter
from obhut.auditlog.search import Cursor, Query, search
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import open_store
from obhut.auditlog.tlog import checkpoints, merkle, tiles
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.auditlog.verify import verify
from obhut.foundation import notes
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import Settings
from obhut.keystore import open_keystore
from obhut.keystore.sealing import key_of, seal
from obhut.postgres.control import control_session

CTL = "ctl_a"
STRANGER = Path(__file__).parents[2] / "stranger" / "audit_bundle.pl"


class Keys:
    """A key table of the test: keys by id, and what is no longer there was erased."""

    def __init__(self) -> None:
        self.known = {subject(number): key_of(subject(number), bytes([number]) * 32) for number in range(1, 8)}

    def by_id(self, ids: object) -> dict[bytes, object]:
        return {wanted: self.known.get(wanted, "erased") for wanted in ids}


def sealed_change(number: int, keys: Keys, *, octets: int = 0) -> entries.Entry:
    """A change whose row is sealed as the specification says."""
    person = number % 7 + 1
    bare = change(number, person=person)
    members = {"key": {"id": str(person)}, "new": {"email": f"person{person}@example.org", "note": "x" * octets}}
    plaintext = entries.plain(os.urandom(16), members)
    key = keys.known[subject(person)]
    bound = entries.binding(CTL, bare.database, bare.table, bare.operation, bare.position, "row")
    part = entries.Sealed("row", key.id, key.commitment, entries.digest(plaintext), seal(key, plaintext, bound))
    return entries.change(
        at=bare.at,
        position=bare.position,
        database=bare.database,
        table=bare.table,
        operation=bare.operation,
        sealed=[part],
        fact=bare.fact,
    )


@contextlib.contextmanager
def exporter(settings: Settings, keys: Keys | None = None) -> Iterator[Exporter]:
    signer = Signer.of(open_keystore(settings), CTL)
    with control_session() as session:
        yield Exporter(session, open_store(settings), signer, CTL, "VHS Musterstadt", FixedClock(START + timedelta(days=40)), keys)


def public_key(settings: Settings) -> str:
    return base64.b64encode(open_keystore(settings).signing_key(f"audit-log/{CTL}").public_key().public_bytes_raw()).decode()


def asked(bundle: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Ask the verifier that was written in another language, from the specification alone."""
    return subprocess.run(["perl", str(STRANGER), str(bundle), key], capture_output=True, text=True, check=False)


def stranger(bundle: Path, key: str) -> dict:
    found = asked(bundle, key)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def filled(settings: Settings, keys: Keys) -> None:
    """Three months: 700 changes with two long ciphertexts and a gap, then 20, then 5."""
    clock = FixedClock(START)
    found = [sealed_change(number, keys, octets=20_000 if number in {300, 650} else 0) for number in range(700)]
    hole = entries.gap(
        at=START + timedelta(seconds=500), database="courses", reason="truncate", table="public.booking", detail={"rows": 12}
    )
    with log.open_log(settings, "courses", clock) as writer:
        writer.append(CTL, [*found[:500], hole, *found[500:]])
        clock.move(timedelta(days=30))
        writer.append(CTL, [sealed_change(number, keys) for number in range(700, 720)])
        clock.move(timedelta(days=31))
        writer.append(CTL, [sealed_change(number, keys) for number in range(720, 725)])


def test_a_bundle_verifies_here_and_by_a_stranger_also_after_an_erasure(control: Settings, tmp_path: Path) -> None:
    """All entries, gaps and values of three months; then with a person erased; then the history of one person, each entry with its proof."""
    keys = Keys()
    filled(control, keys)
    key, seen = public_key(control), tmp_path / "seen.json"
    with exporter(control, keys) as made:
        contents = made.export(tmp_path / "all")
        assert contents.entries == 729 and contents.parts == {"open": 725}
    report = verify(tmp_path / "all", key=key, remember=seen)
    assert (report.entries, report.leaves, report.blobs, report.disclosed, report.new_key) == (729, 729, 2, 725, False)
    assert [(gap.reason, gap.table) for gap in report.gaps] == [("truncate", "public.booking")]
    assert stranger(tmp_path / "all", key) == {"entries": 729, "gaps": 1, "values": 725, "periods": 3}

    del keys.known[subject(3)]
    with exporter(control, keys) as made:
        contents = made.export(tmp_path / "later.zip", since=START + timedelta(seconds=300), until=START + timedelta(seconds=400))
        mine = made.history(tmp_path / "history", [subject(5)])
        with pytest.raises(errors.LogUnknownError):
            made.history(tmp_path / "nobody", [b"n" * 16])
    assert contents.parts["erased"] == len([number for number in range(300, 400) if number % 7 == 2])
    later = verify(tmp_path / "later.zip", remember=seen)
    assert (later.entries, later.leaves, later.blobs, later.compared_with_memory) == (100, 702, 1, 1)
    assert mine.entries == len([number for number in range(725) if number % 7 == 4])
    history = verify(tmp_path / "history", key=key, remember=seen)
    assert (history.entries, history.disclosed) == (mine.entries, mine.entries)
    assert stranger(tmp_path / "history", key)["values"] == mine.entries
    text = (tmp_path / "history" / "entries.jsonl").read_text()
    assert "person5@example.org" in text and "person6@example.org" not in text

    with exporter(control) as made:
        made.export(tmp_path / "december", since=START + timedelta(seconds=700), until=START + timedelta(seconds=720))
        with log.open_log(control, "courses", FixedClock(START + timedelta(days=62))) as writer:
            writer.append(CTL, [sealed_change(725, keys)])
        made.export(tmp_path / "closed")
    verify(tmp_path / "december", key=key, remember=tmp_path / "fresh.json")
    assert verify(tmp_path / "closed", remember=tmp_path / "fresh.json").compared_with_memory == 1
    with pytest.raises(errors.PeriodTruncatedError):
        verify(tmp_path / "all", key=key, remember=tmp_path / "fresh.json")
    assert "person5@example.org" not in (tmp_path / "closed" / "entries.jsonl").read_text()
    assert verify(tmp_path / "closed", key=key).disclosed == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing half made is left"


def test_search_finds_by_time_table_person_and_action_page_by_page(control: Settings) -> None:
    """The youngest first, over periods; a page goes on where the last one ended; what the index names is read from the log."""
    keys = Keys()
    filled(control, keys)
    with control_session() as session:
        store = open_store(control)

        def ask(**asked: object) -> list:
            return search(session, store, CTL, Query(**asked))

        pages, after = [], None
        while page := ask(limit=250, after=after):
            pages += page
            after = Cursor.parse(str(page[-1].cursor))
        assert len(pages) == 729 and len({(one.period, one.index) for one in pages}) == 729
        assert [one.period for one in pages] == sorted((one.period for one in pages), reverse=True)
        assert [one.index for one in ask(subjects=[subject(3)], limit=3)] == [
            one.index for one in pages if subject(3) in one.entry.subjects
        ][:3]
        assert len(ask(subjects=[subject(3)], limit=1000)) == len([number for number in range(725) if number % 7 == 2])
        assert [one.entry.operation for one in ask(kind=entries.Kind.GAP)] == ["truncate"]
        assert [one.entry.table for one in ask(table="public.booking")] == ["public.booking"]
        span = ask(since=START + timedelta(seconds=10), until=START + timedelta(seconds=13), operation="update")
        assert [one.entry.at.second for one in span] == [12, 11, 10]
        assert ask(subjects=[]) == [] and ask(table="public.nothing") == []


# ---- the corpus of attacks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(control: Settings, tmp_path: Path) -> tuple[Path, str, Path]:
    """A bundle of three periods with values, its key, and the memory of a verifier that has seen it."""
    keys = Keys()
    filled(control, keys)
    with exporter(control, keys) as made:
        made.export(tmp_path / "bundle")
    verify(tmp_path / "bundle", key=public_key(control), remember=tmp_path / "seen.json")
    return tmp_path / "bundle", public_key(control), tmp_path / "seen.json"


class Attack:
    """A bundle in the hands of somebody who has the log's key or has it not."""

    def __init__(self, root: Path, signing: Ed25519PrivateKey) -> None:
        self.root, self.signing = root, signing
        self.cover = json.loads((root / "bundle.json").read_text())

    def stretch(self, period: str) -> dict:
        return next(one for one in self.cover["logs"] if one["period"] == period)

    def tile(self, period: str, level: int | str, number: int) -> Path:
        size = self.stretch(period)["size"]
        return self.root / "logs" / period / tiles.path(level, number, tiles.width(size, 0 if level == "entries" else level, number))

    def entries(self, period: str) -> list[bytes]:
        count = tiles.count(self.stretch(period)["size"])
        return [entry for number in range(count) for entry in tiles.unframe(self.tile(period, "entries", number).read_bytes())]

    def edit(self, number: int, change: Callable[[list[bytes]], list[bytes]], period: str = "2026-11") -> None:
        """Change a bundle of entries and nothing else."""
        path = self.tile(period, "entries", number)
        path.write_bytes(tiles.frame(change(tiles.unframe(path.read_bytes()))))

    def rewrite(self, period: str, found: list[bytes]) -> None:
        """Write another history of a period and sign it with the log's own key."""
        stretch = self.stretch(period)
        shutil.rmtree(self.root / "logs" / period / "tile")
        stretch["size"], stretch["last"] = len(found), len(found) - 1
        hashes = merkle.leaves(found)
        edge = merkle.Edge()
        levels = dict(enumerate(edge.grow(b"".join(hashes))))
        for level, content in levels.items():
            for number in range(tiles.count(len(found), level)):
                path = self.tile(period, level, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content[number * merkle.TILE :][: merkle.TILE])
        for number in range(tiles.count(len(found))):
            path = self.tile(period, "entries", number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tiles.frame(found[number * 256 :][:256]))
        checkpoint = Checkpoint(stretch["origin"], len(found), edge.root())
        note = notes.Note(checkpoint.text, (checkpoints.sign(checkpoint, self.signing),))
        (self.root / "logs" / period / "checkpoint").write_text(str(note))
        self.save()
        self.readable()

    def readable(self) -> None:
        """Write what is to be read anew, without values."""
        lines, rows = [], [bundles.csv_line(bundles.CSV_HEAD)]
        for one in self.cover["logs"]:
            for index, octets in enumerate(self.entries(one["period"])):
                entry = entries.decode(octets)
                nothing = [None] * len(entry.sealed)
                lines.append(bundles.line(one["period"], index, octets, nothing))
                rows.append(bundles.csv_row(one["period"], index, entry, nothing))
        (self.root / "entries.jsonl").write_bytes(b"".join(lines))
        (self.root / "entries.csv").write_text("".join(rows))

    def save(self) -> None:
        (self.root / "bundle.json").write_text(json.dumps(self.cover))


def swap(found: list[bytes]) -> list[bytes]:
    found[3], found[4] = found[4], found[3]
    return found


def redate(octets: bytes) -> bytes:
    return octets.replace(b"2026-11-03T09:3", b"2026-11-02T09:3")


def wrong_key(attack: Attack) -> None:
    other = Signer(Ed25519PrivateKey.from_private_bytes(b"o" * 32), MLDSA44PrivateKey.from_seed_bytes(b"o" * 32))
    attack.signing = other.ed25519
    for period in [one["period"] for one in attack.cover["logs"]]:
        attack.rewrite(period, attack.entries(period))
    (attack.root / "key.txt").write_text("".join(f"{other.verifier_keys(one['origin'])[0]}\n" for one in attack.cover["logs"]))


def foreign_signature(attack: Attack) -> None:
    path = attack.root / "logs" / "2026-11" / "checkpoint"
    note = notes.parse(path.read_text())
    path.write_text(str(replace(note, signatures=tuple(replace(line, value=bytes(len(line.value))) for line in note.signatures))))


def swapped_blob(attack: Attack) -> None:
    one, two = sorted(path for path in (attack.root / "logs" / "2026-11" / "blob").rglob("*") if path.is_file())
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def altered_tile(attack: Attack) -> None:
    found = attack.tile("2026-11", "entries", 0)
    octets = tiles.unframe(found.read_bytes())
    octets[9] = redate(octets[9])
    found.write_bytes(tiles.frame(octets))
    attack.tile("2026-11", 0, 0).write_bytes(b"".join(merkle.leaves(octets)))


def dropped_period(attack: Attack) -> None:
    attack.cover["logs"] = [one for one in attack.cover["logs"] if one["period"] != "2026-12"]
    attack.save()
    attack.readable()


def copied_period(attack: Attack) -> None:
    attack.cover["logs"].append({**attack.cover["logs"][-1], "period": "2027-02"})
    shutil.copytree(attack.root / "logs" / "2027-01", attack.root / "logs" / "2027-02")
    attack.save()
    attack.readable()


def another_value(attack: Attack) -> None:
    for name in ("entries.jsonl", "entries.csv"):
        path = attack.root / name
        path.write_text(path.read_text().replace("person5@example.org", "person6@example.org"))


ATTACKS: dict[str, tuple[Callable[[Attack], None], type[errors.BundleError], bool]] = {
    # attack, the error it must end in, whether only somebody who remembers can see it
    "edited entry": (lambda a: a.edit(0, lambda found: [*found[:5], redate(found[5]), *found[6:]]), errors.EntryAlteredError, False),
    "edited entry and tile": (altered_tile, errors.TreeDiffersError, False),
    "dropped entry": (lambda a: a.edit(1, lambda found: [*found[:5], *found[6:]]), errors.EntryMissingError, False),
    "reordered entries": (lambda a: a.edit(0, swap), errors.EntriesReorderedError, False),
    "replayed entry": (lambda a: a.edit(0, lambda found: [*found[:5], found[4], *found[6:]]), errors.EntryReplayedError, False),
    "replayed in a signed log": (
        lambda a: a.rewrite("2026-11", [*a.entries("2026-11"), a.entries("2026-11")[9]]),
        errors.EntryReplayedError,
        False,
    ),
    "truncated period": (lambda a: a.rewrite("2026-11", a.entries("2026-11")[:-3]), errors.PeriodTruncatedError, False),
    "truncated last period": (lambda a: a.rewrite("2027-01", a.entries("2027-01")[:-3]), errors.PeriodTruncatedError, True),
    "rewritten past": (lambda a: a.rewrite("2026-11", list(map(redate, a.entries("2026-11")))), errors.BundleForkedError, False),
    "rewritten present": (
        lambda a: a.rewrite("2027-01", [*a.entries("2027-01")[:-1], a.entries("2027-01")[-1].replace(b'"web"', b'"app"')]),
        errors.BundleForkedError,
        True,
    ),
    "dropped period": (dropped_period, errors.PeriodMissingError, False),
    "copied period": (copied_period, errors.OpeningWrongError, False),
    "swapped blob": (swapped_blob, errors.BlobSwappedError, False),
    "another value": (another_value, errors.ValueAlteredError, False),
    "another key": (wrong_key, errors.KeyDiffersError, False),
    "foreign signature": (foreign_signature, errors.CheckpointSignatureError, False),
    "another file to read": (
        lambda a: (a.root / "entries.csv").write_text((a.root / "entries.csv").read_text().replace(",web,", ",psql,")),
        errors.ReadableDiffersError,
        False,
    ),
    "missing file": (lambda a: (a.root / "key.txt").unlink(), errors.BundleIncompleteError, False),
}


# Files that the stranger does not read.
UNREAD = {"another file to read", "missing file"}


def test_every_attack_ends_in_its_own_error(control: Settings, bundle: tuple[Path, str, Path], tmp_path: Path) -> None:
    """One tampered bundle per attack; those that only memory can see pass without it, and a stranger's verifier sees all others, too."""
    original, key, seen = bundle
    signing = open_keystore(control).signing_key(f"audit-log/{CTL}")
    before = seen.read_bytes()
    for name, (attack, expected, remembered) in ATTACKS.items():
        copy = tmp_path / name.replace(" ", "-")
        shutil.copytree(original, copy)
        attack(Attack(copy, signing))
        if remembered:
            verify(copy, key=key)
        with pytest.raises(errors.BundleError) as caught:
            verify(copy, key=key, remember=seen if remembered else None)
        assert type(caught.value) is expected, f"{name}: {caught.value.code}"
        found = asked(copy, key)
        assert found.returncode == (0 if remembered or name in UNREAD else 1), f"{name}: {found.stdout}{found.stderr}"
        assert found.returncode == 0 or found.stderr.startswith("does not verify: "), found.stderr
        with pytest.raises(errors.BundleError):
            verify(copy, key=key, remember=seen)
        assert seen.read_bytes() == before, "a bundle that does not verify teaches nothing"
        shutil.rmtree(copy)
    verify(original, key=key, remember=seen)
