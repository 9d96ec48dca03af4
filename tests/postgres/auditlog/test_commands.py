"""``obhut audit`` from the command line, with the real keys of people: who may see values, what is left of somebody who was erased."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.auditing import position

from obhut.auditlog import entries, log
from obhut.cli.main import main
from obhut.controllers import register
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action, Channel, InstructionKind, SubjectRef
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.settings import Settings
from obhut.keystore.destruction import destroy
from obhut.keystore.subjects import Ended, Keyring, SubjectKeys
from obhut.promises.logs import logs as examined
from obhut.promises.model import State

ACTOR = Actor(Role.OPERATOR, "op-1")
ANNA, BORIS = SubjectRef("customer", ("1",)), SubjectRef("customer", ("2",))
Run = Callable[..., Any]


@pytest.fixture
def run(control: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process and return its document; another exit status than the named one fails."""

    def command(*arguments: str, status: int = 0) -> Any:
        capsys.readouterr()
        ended = main(["--config", str(control.path), "--json", "audit", *arguments])
        said = capsys.readouterr()
        assert ended == status, said.out + said.err
        return json.loads(said.out)

    return command


def controller_with_log(settings: Settings, keyring: Keyring) -> str:
    """A controller with a contract and four changes of two people."""
    clock = SystemClock()
    record = register.add_controller("courses", ["1"], "VHS", actor=ACTOR, clock=clock)
    terms = ContractTerms("courses", "storage", "running courses", "term", ("user.contact",), ("customer",))
    since = datetime(2026, 1, 1, tzinfo=UTC)
    register.add_contract(record.id, version="1", terms=terms, document_hash="0" * 64, valid_from=since, actor=ACTOR, clock=clock)
    keys = SubjectKeys(keyring, record.id)
    found = []
    for number, (person, email) in enumerate([(ANNA, "anna@example.org"), (BORIS, "boris@example.org")] * 2):
        key = keys.one(person)
        plaintext = entries.plain(os.urandom(16), {"key": {"id": person.key[0]}, "new": {"email": email}})
        bound = entries.binding(record.id, "courses", "public.customer", "update", position(number), "row")
        part = entries.Sealed("row", key.id, key.commitment, entries.digest(plaintext), sealing(key, plaintext, bound))
        found.append(
            entries.change(
                at=clock.now(), position=position(number), database="courses", table="public.customer", operation="update", sealed=[part]
            )
        )
    with log.open_log(settings, "courses", clock) as writer:
        writer.append_all({record.id: found}, source="slot", upto=found[-1].position)
    return record.id


def sealing(key: Any, plaintext: bytes, bound: bytes) -> bytes:
    from obhut.keystore.sealing import seal

    return seal(key, plaintext, bound)


def test_values_need_an_instruction_and_go_with_the_person(control: Settings, run: Run, tmp_path: Path) -> None:
    """Without an instruction nobody sees values, and the refusal is logged; with it they are shown and logged; erased, they are gone."""
    with Keyring(control) as keyring:
        keyring.start()
        owner = controller_with_log(control, keyring)
        found = run("search", owner, "--person", "customer", "1")["entries"]
        assert [(one["index"], one["parts"][0]["state"]) for one in found] == [(3, "closed"), (1, "closed")]
        assert run("search", owner, "--values", status=4)["error"]["code"] == "not-instructed"
        refused = run("search", owner, "--operation", "refusal.export")["entries"]
        assert [one["entry"]["detail"]["code"] for one in refused] == ["no-instruction"]

        register.give_instruction(
            owner, kind=InstructionKind.STANDING, actions=[Action.EXPORT], database="courses", given_by="acct_1", channel=Channel.PORTAL,
            document_hash="1" * 64, actor=ACTOR, clock=SystemClock(),
        )  # fmt: skip
        (first, _) = run("search", owner, "--person", "customer", "1", "--values")["entries"]
        assert first["parts"][0]["value"]["new"] == {"email": "anna@example.org"}
        period = first["log"]
        key = run("key", owner)["ed25519"]
        assert run("history", owner, "customer", "2", str(tmp_path / "boris"))["entries"] == 2
        assert run("verify", str(tmp_path / "boris"), "--key", key)["disclosed"] == 2
        assert run("export", owner, str(tmp_path / "all.zip"))["values"] is False
        run("show", owner, period, "1", "--proof", str(tmp_path / "entry.tlog-proof"))
        assert (tmp_path / "entry.tlog-proof").read_text().startswith("c2sp.org/tlog-proof@v1\nextra ")

        destroy(keyring, {owner: [Ended(ANNA, SystemClock().now())]})
    states = {one["index"]: one["parts"][0] for one in run("search", owner, "--table", "public.customer", "--values")["entries"]}
    assert {index: part["state"] for index, part in states.items()} == {4: "open", 3: "erased", 2: "open", 1: "erased"}
    assert [one["index"] for one in run("search", owner, "--person", "customer", "1")["entries"]] == [3, 1], "that it happened stays"
    seen = str(tmp_path / "seen.json")
    report = run("verify", str(tmp_path / "all.zip"), "--key", key, "--remember", seen)
    assert (report["disclosed"], report["sealed"], report["new_key"]) == (0, 4, False)
    run("export", owner, str(tmp_path / "clear"), "--values")
    clear = (tmp_path / "clear" / "entries.jsonl").read_text()
    assert "boris@example.org" in clear and "anna@example.org" not in clear
    assert run("verify", str(tmp_path / "clear"), "--remember", seen)["compared_with_memory"] == 1
    said = [one["entry"]["operation"] for one in run("search", owner, "--kind", "action", "--limit", "100")["entries"]]
    assert {"disclosure.search", "disclosure.history", "history.done", "export.done", "instruction.given"} <= set(said)
    assert run("search", owner, "--after", "nonsense", status=2)["error"]["code"] == "usage"
    assert run("show", owner, period, "99999", status=2)["error"]["code"] == "audit-log-unknown"
    (tmp_path / "clear" / "entries.csv").write_text("log\n")
    assert run("verify", str(tmp_path / "clear"), status=5)["error"]["code"] == "audit-readable-differs"
    assert [one["size"] for one in run("logs", "--controller", owner)] == [len(said) + 5]
    assert run("retain", "--dry-run")["periods"] == [] and run("recover", "courses") == []


def test_the_promise_looks_at_capture_at_logs_and_at_what_is_not_said_yet(control: Settings) -> None:
    """Kept where the logs hold, unproven where nothing is captured; broken where a tile was changed behind its back."""
    with Keyring(control) as keyring:
        owner = controller_with_log(control, keyring)
    clock = SystemClock()
    looked = list(examined(control, clock))
    assert {evidence.state for evidence in looked} == {State.KEPT, State.UNPROVEN}
    assert [one.fact for one in looked if one.state is State.UNPROVEN] == ["no change is captured: the audit log is off"]
    tile = next((control.path.parent / "var/audit" / owner).rglob("tile/0/*.part"))
    content = bytearray(tile.read_bytes())
    content[0] ^= 1
    tile.write_bytes(bytes(content))
    broken = [evidence for evidence in examined(control, clock) if evidence.state is State.BROKEN]
    assert [evidence.database for evidence in broken] == ["courses"] and "does not give its root" in broken[0].fact
