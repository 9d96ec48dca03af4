"""What the writer remembers of rows and people changes nothing about what it writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from datamap_schemas import column, load_map, people
from hypothesis import given
from hypothesis import strategies as st

from obhut.auditlog import entries
from obhut.auditlog.capture.intake import Row, Transaction
from obhut.auditlog.capture.owners import Owners, Record
from obhut.auditlog.capture.parts import images
from obhut.auditlog.capture.pgoutput import Change, Operation, Relation, RelationColumn, Values
from obhut.auditlog.capture.seals import Server
from obhut.auditlog.capture.write import Writer
from obhut.controllers.vocabulary import SubjectRef
from obhut.datamap.graph import Graph, require
from obhut.keystore.sealing import Key, new_key, unseal
from obhut.keystore.subjects import Erased, Held

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
VISIT = """
      public.visit:
        links: [{to: public.patient, columns: {patient_id: id}}]
        columns: {note: {category: user.content, anonymise: null}}
        erase: delete
"""
SCHEMA = people().table("visit", column("id"), column("patient_id"), column("note", "text")).key("visit", "patient_id", "patient")
RELATIONS = {
    name: Relation(SCHEMA.names[f"public.{name}"], "public", name, "f", tuple(RelationColumn(c, c == "id", 25) for c in names), names)
    for name, names in {"patient": ("id", "clinic_id", "email", "created_at"), "visit": ("id", "patient_id", "note")}.items()
}


def graph() -> Graph:
    return require("d", load_map(VISIT).database("d"), SCHEMA.catalogue)


@dataclass
class Ring:
    """Keys in memory."""

    held: dict[tuple[str, SubjectRef], Key] = field(default_factory=dict)

    def keys(self, wanted: Mapping[str, Iterable[SubjectRef]]) -> dict[str, dict[SubjectRef, Held]]:
        return {who: {ref: self.held.setdefault((who, ref), new_key()) for ref in refs} for who, refs in wanted.items()}

    def begin(self, controller: str, ref: SubjectRef, committed_at: datetime) -> Held:
        raise AssertionError("nobody was erased")


@dataclass
class Database:
    """The rows of both tables, and every change of them as the stream tells it."""

    patients: dict[bytes, Values] = field(default_factory=dict)
    visits: dict[bytes, Values] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    standing: list[dict[str, Record]] = field(default_factory=list)  # patients after each change, as the live database would answer

    def change(self, table: str, old: Values | None, new: Values | None) -> None:
        operation = Operation.INSERT if old is None else Operation.DELETE if new is None else Operation.UPDATE
        rows = self.patients if table == "patient" else self.visits
        if new is None:
            del rows[self.key(old)]
        else:
            rows[self.key(new)] = new
        self.rows.append(Row(Change(RELATIONS[table], operation, old, new), Transaction(500, AT), len(self.rows), None))
        names = RELATIONS["patient"].names
        self.standing.append({
            key.decode(): {n: v.decode() if isinstance(v, bytes) else None for n, v in zip(names, row, strict=True)}
            for key, row in self.patients.items()
        })  # fmt: skip

    @staticmethod
    def key(row: Values | None) -> bytes:
        assert row is not None
        assert isinstance(row[0], bytes)
        return row[0]


@st.composite
def histories(draw: st.DrawFn) -> Database:
    """Patients come, change their address, move to another clinic, are visited, and go."""
    found = Database()
    for number in range(draw(st.integers(1, 25))):
        who = draw(st.sampled_from([b"1", b"2", b"3"]))
        patient = found.patients.get(who)
        act = draw(st.sampled_from(["address", "move", "visit", "visit", "go"]))
        if patient is None:
            found.change("patient", None, [who, draw(st.sampled_from([b"1", b"2"])), b"a@example.org", b"2026-01-01"])
        elif act == "visit":
            found.change("visit", None, [b"%d" % number, who, b"note %d" % number])
        elif act == "go":
            found.change("patient", patient, None)
        else:
            clinic = {b"1": b"2", b"2": b"1"}[bytes(patient[1])] if act == "move" else patient[1]  # type: ignore[arg-type]  # made above
            found.change("patient", patient, [who, clinic, b"%d@example.org" % number, patient[3]])
    return found


def written(writer: Writer, rows: Sequence[Row], ring: Ring) -> list[Any]:
    """Return what the entries of a batch say, opened."""
    batch = writer.batch(rows, Server("7575", 1), ring)
    keys = {key.id: (who, ref, key) for (who, ref), key in ring.held.items()}
    found = []
    for controller, made in batch.entries.items():
        for entry in made:
            for part in entry.sealed:
                whose, ref, key = keys[part.key]
                assert whose == controller
                bound = entries.binding(controller, "d", entry.table, entry.operation, entry.position, part.part)
                plaintext = unseal(key, part.data, bound)
                assert entries.digest(plaintext) == part.digest
                said = msgspec.json.decode(plaintext)
                del said["salt"]
                assert entry.position is not None
                found.append((entry.position.ordinal, controller, ref, entry.table, entry.operation, sorted(said.items())))
    return sorted(found, key=repr)


def writer_of(live: dict[str, Record]) -> Writer:
    resolved = graph()

    def fetch(table: int, columns: tuple[str, ...], keys: Sequence[tuple[str, ...]], wanted: tuple[str, ...]) -> Iterator[Record]:
        assert (table, columns) == (SCHEMA.names["public.patient"], ("id",))
        yield from ({name: live[key][name] for name in wanted} for (key,) in keys if key in live)

    return Writer("d", resolved, Owners(resolved, fetch), {("1",): "ctl_1", ("2",): "ctl_2"}, "unassigned:d")


@given(histories(), st.integers(1, 9))
def test_batches_say_what_single_changes_say(found: Database, size: int) -> None:
    """One writer with all it remembers, over batches of any size, writes what a new writer with the live rows of each moment writes."""
    ring = Ring()
    live: dict[str, Record] = {}  # a stream lags: by now everybody may be gone, and what was shown is all there is
    lasting = writer_of(live)
    together = [part for at in range(0, len(found.rows), size) for part in written(lasting, found.rows[at : at + size], ring)]
    single = [part for row, standing in zip(found.rows, found.standing, strict=True) for part in written(writer_of(standing), [row], ring)]
    assert sorted(together, key=repr) == sorted(single, key=repr)


@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=5), st.none() | st.binary(max_size=5)), min_size=4, max_size=4),
)
def test_whole_rows_differ_in_the_same_columns_either_way(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    """The quick way for rows that are all there shows what the way for rows that lack a value shows."""
    old: Values = [before for before, _ in pairs]
    new: Values = [now for _, now in pairs]
    relation = RELATIONS["patient"]
    quick = images(Change(relation, Operation.UPDATE, old, new), ("id",))
    assert quick == images(Change(relation, Operation.UPDATE, old, new, lacking=True), ("id",))
    assert set(quick.new) == {name for name, before, now in zip(relation.names, old, new, strict=True) if before != now}


@dataclass
class Gone(Ring):
    """Patient 1 was erased; who is asked to begin anew is noted."""

    begun: list[SubjectRef] = field(default_factory=list)

    def keys(self, wanted: Mapping[str, Iterable[SubjectRef]]) -> dict[str, dict[SubjectRef, Held]]:
        return {who: {ref: self.held.get((who, ref)) or Erased(None) for ref in refs} for who, refs in wanted.items()}

    def begin(self, controller: str, ref: SubjectRef, committed_at: datetime) -> Held:
        self.begun.append(ref)
        return self.held.setdefault((controller, ref), new_key())


def test_a_visit_begins_no_new_life() -> None:
    """Rows that are led to an erased person by a link are dropped; only the person's own row, inserted anew, begins a new life."""
    patient: Values = [b"1", b"1", b"a@example.org", b"2026-01-01"]
    changed: Values = [b"1", b"1", b"b@example.org", b"2026-01-01"]
    changes = [("patient", patient, changed), ("visit", None, [b"7", b"1", b"note"])]
    rows = [
        Row(Change(RELATIONS[table], Operation.UPDATE if old else Operation.INSERT, old, new), Transaction(500, AT), number, None)
        for number, (table, old, new) in enumerate(changes)
    ]
    ring = Gone()
    writer = writer_of({})
    made = writer.batch(rows, Server("7575", 1), ring).entries["ctl_1"]
    assert [part.dropped for entry in made for part in entry.sealed] == ["erased", "erased"]
    assert ring.begun == []
    again = Row(Change(RELATIONS["patient"], Operation.INSERT, None, patient), Transaction(600, AT), 0, None)
    (entry,) = writer.batch([again], Server("7575", 1), ring).entries["ctl_1"]
    assert [part.dropped for part in entry.sealed] == [""]
    assert ring.begun == [SubjectRef("patient", ("1",))]
