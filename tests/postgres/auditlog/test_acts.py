"""What Obhut does with a controller's data stands in the controller's log; periods go, witnesses sign, a restored control database catches up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.auditing import START, changes, position

from obhut.auditlog import acts, entries, errors, log, reading, recover, retain, witness
from obhut.auditlog.search import Query, search
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import open_store
from obhut.auditlog.tlog import checkpoints, proofs
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.controllers import gate, register
from obhut.controllers.errors import NotInstructedError
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action, Channel, InstructionKind
from obhut.foundation import notes
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.keystore import open_keystore
from obhut.postgres.control import control_session

ACTOR = Actor(Role.OPERATOR, "op-1")
CTL = "ctl_a"


def entries_of(settings: Settings, controller: str) -> list[entries.Entry]:
    """All entries of a controller, the oldest first."""
    store = open_store(settings)
    with control_session() as session:
        heads = sorted(reading.logs(session, [controller]), key=lambda head: head.period)
        return [entries.decode(one) for head in heads for _, bundle in head.files(store).scan(head.size) for one in bundle]


def controller_of(clock: FixedClock, key: str) -> str:
    record = register.add_controller("courses", [key], "VHS", actor=ACTOR, clock=clock)
    terms = ContractTerms("courses", "storage", "running courses", "term", ("user.contact",), ("customer",))
    register.add_contract(record.id, version="1", terms=terms, document_hash="0" * 64, valid_from=START, actor=ACTOR, clock=clock)
    return record.id


def test_what_obhut_does_is_in_the_log_of_those_it_concerns(control: Settings) -> None:
    """Contracts, instructions and refusals in one log, a restore in everybody's; noted by the transaction that did it, said once."""
    clock = FixedClock(START)
    one, two = controller_of(clock, "1"), controller_of(clock, "2")
    with pytest.raises(NotInstructedError):
        gate.permit(Action.ERASE, controller_id=one, database="courses", subject=None, actor=ACTOR, clock=clock)
    with pytest.raises(NotInstructedError):
        gate.permit(Action.ERASE, controller_id=one, database="courses", subject=None, actor=ACTOR, clock=clock)
    given = register.give_instruction(
        one, kind=InstructionKind.STANDING, actions=[Action.ERASE], database="courses", given_by="acct_1", channel=Channel.PORTAL,
        document_hash="1" * 64, actor=ACTOR, clock=clock,
    )  # fmt: skip
    register.revoke_instruction(given.id, actor=ACTOR, clock=clock)
    run = runs.begin(RunKind.RESTORE, "courses", ACTOR, clock)
    runs.finish(run, RunState.FAILED, "restore-refused", clock=clock)
    erasing = runs.begin(RunKind.BACKUP, "courses", ACTOR, clock)
    runs.finish(erasing, RunState.DONE, clock=clock)
    with control_session() as session:
        assert acts.pending(session)[0] == 9
        writer = log.Log(session, open_store(control), open_keystore(control), "courses", clock)
        acts.drain(session, writer, "courses")
        assert acts.drain(session, writer, "courses") == 0 and acts.pending(session)[0] == 0
    mine = entries_of(control, one)
    assert [entry.operation for entry in mine[1:]] == [
        "controller.added", "contract.added", "refusal.erase", "instruction.given", "instruction.revoked", "restore.started", "restore.failed",
    ]  # fmt: skip
    assert (mine[3].detail["code"], mine[3].detail["actor"]) == ("no-instruction", str(ACTOR))
    assert mine[7].detail["code"] == "restore-refused" and mine[7].detail["run"] == run.id
    assert [entry.operation for entry in entries_of(control, two)[1:]] == [
        "controller.added",
        "contract.added",
        "restore.started",
        "restore.failed",
    ]
    assert len({entry.detail["outbox"] for entry in mine[1:]}) == len(mine) - 1


def test_an_act_whose_transaction_is_rolled_back_was_none(control: Settings) -> None:
    """The outbox shares the fate of what it speaks of; a statement about many tombstones is one act a controller."""
    clock = FixedClock(START)
    tombstones = """
        INSERT INTO erasure_tombstone (seq, id, database, controller, subject_kind, key, fingerprint, salt, action, map_version, instruction,
                                       epoch, erased_at, state, sealed_under)
        SELECT n, 'ts_' || n, 'courses', 'ctl_' || n % 2, 'user', ARRAY[n::text], '', 'x', 'erase', '1', 'ins_1', 0, now(), 'recorded', 'l'
        FROM generate_series(1, 100) n"""
    with control_session() as session:
        session.execute("BEGIN")
        session.execute(tombstones)
        session.execute("ROLLBACK")
        assert acts.pending(session)[0] == 0
        session.execute(tombstones)
        session.execute("UPDATE erasure_tombstone SET state = 'effective', effective_at = now() WHERE seq <= 10")
        writer = log.Log(session, open_store(control), open_keystore(control), "courses", clock)
        assert acts.drain(session, writer, "courses") == 4
    mine = entries_of(control, "ctl_1")[1:]
    assert [(entry.operation, entry.detail["people"], entry.detail["last"]) for entry in mine] == [
        ("erase.recorded", 50, 99),
        ("erase.effective", 5, 9),
    ]


def test_whole_periods_go_when_their_retention_has_ended(control: Settings) -> None:
    """The default and a controller's own time; the checkpoint stays, the next period still names it, and writing goes on."""
    clock = FixedClock(START)
    keys, store = open_keystore(control), open_store(control)
    with log.open_log(control, "courses", clock) as writer:
        for months in range(3):
            writer.append_all({CTL: changes(3, first=months * 3), "ctl_b": changes(2, first=months * 3)})
            clock.move(timedelta(days=31))
    with control_session() as session:
        retain.set_retention(session, "ctl_b", timedelta(days=20), ACTOR, clock)
        due = retain.plan(reading.logs(session), retain.retentions(session), timedelta(days=365), clock.now())
        assert [(one.head.controller, one.head.period) for one in due] == [("ctl_b", "2026-11"), ("ctl_b", "2026-12")]
        last = next(head for head in reading.logs(session, ["ctl_b"]) if head.period == "2026-12")
        assert retain.remove(session, store, keys, due, clock) == 2
        assert store.children("ctl_b/2026-12") == ["checkpoint"]
        assert Checkpoint.of(notes.parse(store.read("ctl_b/2026-12/checkpoint").decode())).root == last.root
        found = search(session, store, "ctl_b", Query())
        assert {one.period for one in found} == {"2027-01"} and len(search(session, store, CTL, Query())) == 12
        with pytest.raises(errors.LogUnknownError):
            reading.log_of(session, "ctl_b", "2026-12")
        clock.move(timedelta(days=365))
        due = retain.plan(reading.logs(session), retain.retentions(session), timedelta(days=365), clock.now())
        retain.remove(session, store, keys, due, clock)
        assert not session.value("SELECT to_regclass('auditlog_index_202611') IS NOT NULL"), "a month without logs has no index"
    with log.open_log(control, "courses", clock) as writer:
        assert writer.append("ctl_b", changes(1, first=50)).sizes == {"ctl_b": 2}
    assert entries_of_last(control, "ctl_b").detail["previous_size"] == 3


def entries_of_last(settings: Settings, controller: str) -> entries.Entry:
    with control_session() as session:
        head = reading.logs(session, [controller])[0]
        return entries.decode(head.files(open_store(settings)).entry(0, head.size))


def test_a_witness_signs_what_only_grew(control: Settings) -> None:
    """Asked with a consistency proof from what it saw; its answer is checked under the declared key before it is kept."""
    clock, key = FixedClock(START), Ed25519PrivateKey.from_private_bytes(b"w" * 32)
    store, signer = open_store(control), Signer.of(open_keystore(control), CTL)
    with log.open_log(control, "courses", clock) as writer:
        writer.append(CTL, changes(300))
    with control_session() as session:
        old = reading.log_of(session, CTL, "2026-11")
    with log.open_log(control, "courses", clock) as writer:
        writer.append(CTL, changes(300, first=300))
    with control_session() as session:
        head = reading.log_of(session, CTL, "2026-11")
        body = witness.request(session, store, signer, head, old.size, clock)
        lines, _, note = body.partition("\n\n")
        path = [__import__("base64").b64decode(line) for line in lines.split("\n")[1:]]
        asked = Checkpoint.of(notes.parse(note))
        proofs.verify_consistency(old.size, old.root, asked.size, asked.root, path)
        answer = str(checkpoints.cosign(asked, "witness.example/w", key, 1_800_000_000))
        head = reading.log_of(session, CTL, "2026-11")
        with pytest.raises(errors.WitnessError):
            witness.accept(session, head, answer)
        witness.declare(session, CTL, str(checkpoints.cosigner("witness.example/w", key)), ACTOR, clock)
        foreign = str(checkpoints.cosign(Checkpoint(asked.origin, asked.size, b"x" * 32), "witness.example/w", key, 1_800_000_000))
        with pytest.raises(errors.WitnessError):
            witness.accept(session, head, foreign)
        assert witness.accept(session, head, answer) == [("witness.example/w", 1_800_000_000)]
        assert "witness.example/w" in reading.log_of(session, CTL, "2026-11").checkpoint
        with pytest.raises(errors.WitnessError):
            witness.request(session, store, signer, head, head.size + 1, clock)


@pytest.mark.parametrize("lost", ["some", "all"])
def test_a_restored_control_database_catches_up_with_what_was_published(control: Settings, lost: str) -> None:
    """Entries that it had forgotten are read from the logs, the mark is raised, and only then is anything signed again."""
    clock = FixedClock(datetime(2026, 11, 5, tzinfo=UTC))
    found = changes(600)
    with log.open_log(control, "courses", clock) as writer:
        writer.append_all({CTL: found[:250]}, source="slot", upto=found[249].position)
        with control_session() as session:
            before = session.row("SELECT size, root, tail FROM auditlog_log")
        writer.append_all({CTL: found[250:]}, source="slot", upto=found[-1].position)
    place = found[249].position
    with control_session() as session:
        session.execute("UPDATE auditlog_mark SET lsn = %s, ordinal = %s", (place.lsn, place.ordinal))
        session.execute("DELETE FROM auditlog_index" + (" WHERE seq >= 251" if lost == "some" else ""))
        if lost == "some":
            session.execute("UPDATE auditlog_log SET size = %s, root = %s, tail = %s", before)
        else:
            session.execute("DELETE FROM auditlog_log")
        keys, store = open_keystore(control), open_store(control)
        writer = log.Log(session, store, keys, "courses", clock)
        with pytest.raises(errors.LogRolledBackError):
            writer.append(CTL, changes(1, first=900))
        done = recover.recover(session, store, keys, writer, "courses", [CTL])
        assert [(one.before, one.after) for one in done] == [(251 if lost == "some" else 0, 601)]
        again = writer.append_all({CTL: found[240:]}, source="slot", upto=found[-1].position)
        assert (again.appended, again.skipped) == (0, 360)
        assert writer.append(CTL, changes(1, first=900)).sizes == {CTL: 602}
        assert len(search(session, store, CTL, Query(limit=1000))) == 602
        assert not recover.recover(session, store, keys, writer, "courses", [CTL])
    assert [entry.position for entry in entries_of(control, CTL)[1:]] == [position(number) for number in [*range(600), 900]]
