"""Register and gate on a real control database: each refusal by name, single instructions taken once."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from obhut.controllers import gate, register
from obhut.controllers.errors import (
    ContractUnknownError,
    ControllerExistsError,
    ControllerUnknownError,
    InstructionUnknownError,
    NotInstructedError,
    RegisterInvalidError,
)
from obhut.controllers.plan import Refusal
from obhut.controllers.records import ContractTerms, ControllerRecord
from obhut.controllers.vocabulary import Action, Channel, InstructionKind, SubjectRef, canonical_key
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import Settings
from obhut.postgres.control import control_safe
from obhut.postgres.errors import DatabaseError

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ACTOR = Actor(Role.OPERATOR, "acc-7")
HASH = hashlib.sha256(b"document").hexdigest()
TERMS = ContractTerms("course booking", "storage", "bookings", "term", ("user.contact.email",), ("participant",))
ANNA = SubjectRef("participant", ("42",))
BEN = SubjectRef("participant", ("43",))


@dataclass
class World:
    """One controller with a contract, on a movable clock."""

    clock: FixedClock
    controller: ControllerRecord

    def instruct(self, **changes: Any) -> register.InstructionRecord:
        """Record an instruction: standing, to erase anybody, unless changed."""
        given: dict[str, Any] = {
            "kind": InstructionKind.STANDING,
            "actions": [Action.ERASE],
            "database": "courses",
            "given_by": "acc-1",
            "channel": Channel.TICKET,
            "document_hash": HASH,
            "actor": ACTOR,
            "clock": self.clock,
        }
        return register.give_instruction(self.controller.id, **{**given, **changes})

    def permit(self, action: Action = Action.ERASE, subject: SubjectRef | None = ANNA, **changes: Any) -> gate.Permission:
        """Ask the gate."""
        given: dict[str, Any] = {"controller_id": self.controller.id, "database": "courses", "actor": ACTOR, "clock": self.clock}
        return gate.permit(action, subject=subject, **{**given, **changes})

    def refusal(self, *arguments: Any, **changes: Any) -> Refusal:
        """Ask the gate and return why it said no."""
        with pytest.raises(NotInstructedError) as caught:
            self.permit(*arguments, **changes)
        assert caught.value.code == "not-instructed"
        assert caught.value.hint
        assert "42" not in caught.value.fact.replace(self.controller.id, "")
        return caught.value.reason


@pytest.fixture
def bare(control: Settings) -> World:
    """Give a controller without a contract."""
    clock = FixedClock(START + 30 * DAY)
    return World(clock, register.add_controller("courses", ["1"], "Volkshochschule Nord", actor=ACTOR, clock=clock))


@pytest.fixture
def world(bare: World) -> World:
    """Give a controller with a contract from January 1 on."""
    add_contract(bare)
    return bare


def add_contract(world: World, version: str = "2026-1", **changes: Any) -> register.ContractRecord:
    given: dict[str, Any] = {"terms": TERMS, "document_hash": HASH, "valid_from": START, "actor": ACTOR, "clock": world.clock}
    return register.add_contract(world.controller.id, version=version, **{**given, **changes})


def test_an_instruction_under_a_contract_permits(world: World) -> None:
    """The permission names instruction, contract, controller and time, for the run and the tombstone."""
    instruction = world.instruct()
    permission = world.permit(run_id="run_1")
    assert permission.instruction_id == instruction.id
    assert permission.contract_id == instruction.contract_id
    assert permission.controller_id == world.controller.id
    assert permission.granted_at == world.clock.now()
    assert world.permit(run_id="run_2").instruction_id == instruction.id


def test_an_unknown_controller_is_refused(world: World) -> None:
    """Nobody has instructed for a controller that is not registered."""
    world.instruct()
    assert world.refusal(controller_id="ctl_none") is Refusal.NO_CONTROLLER


def test_without_a_contract_nothing_is_permitted(bare: World) -> None:
    """No contract, no processing."""
    assert bare.refusal() is Refusal.NO_CONTRACT


def test_a_contract_that_ended_or_has_not_begun_permits_nothing(world: World) -> None:
    """The same instruction stops with its contract and works again under the next one."""
    world.instruct()
    contract = register.list_contracts(world.controller.id)[0]
    register.end_contract(contract.id, at=world.clock.now() + DAY)
    world.permit()
    world.clock.move(DAY)
    assert world.refusal() is Refusal.CONTRACT_ENDED
    renewed = add_contract(world, "2026-2", valid_from=world.clock.now() + DAY)
    assert world.refusal() is Refusal.CONTRACT_ENDED
    world.clock.move(DAY)
    assert world.permit().contract_id == renewed.id


def test_a_contract_of_tomorrow_permits_nothing_today(bare: World) -> None:
    """A contract counts from its first moment on."""
    add_contract(bare, valid_from=bare.clock.now() + DAY)
    assert bare.refusal() is Refusal.CONTRACT_NOT_YET


def test_each_missing_scope_is_named(world: World) -> None:
    """Another action, kind or person than the instruction covers is refused by name."""
    assert world.refusal() is Refusal.NO_INSTRUCTION
    world.instruct(actions=[Action.RESTORE])
    assert world.refusal() is Refusal.NO_INSTRUCTION
    world.instruct(subject_kind="teacher")
    assert world.refusal() is Refusal.WRONG_SUBJECT_KIND
    world.instruct(subjects=[BEN])
    assert world.refusal() is Refusal.WRONG_SUBJECT
    assert world.refusal(subject=None) is Refusal.WRONG_SUBJECT_KIND
    assert world.refusal(database="shop") is Refusal.WRONG_DATABASE


def test_time_and_revocation_end_an_instruction(world: World) -> None:
    """Not yet valid, expired and revoked are three different answers."""
    later = world.instruct(valid_from=world.clock.now() + DAY, valid_until=world.clock.now() + 2 * DAY)
    assert world.refusal() is Refusal.NOT_YET
    world.clock.move(DAY)
    assert world.permit().instruction_id == later.id
    world.clock.move(DAY)
    assert world.refusal() is Refusal.EXPIRED
    second = world.instruct()
    world.permit()
    register.revoke_instruction(second.id, actor=ACTOR, clock=world.clock)
    assert register.revoke_instruction(second.id, actor=ACTOR, clock=world.clock).revoked_at == world.clock.now()
    register.revoke_instruction(later.id, actor=ACTOR, clock=world.clock)
    assert world.refusal() is Refusal.REVOKED


def test_a_single_instruction_is_used_up_by_one_run_which_may_come_back(world: World) -> None:
    """Asking for a dry run takes nothing; the first run takes it; its resume passes, another run does not."""
    instruction = world.instruct(kind=InstructionKind.SINGLE, subjects=[ANNA])
    world.permit()
    assert register.get_instruction(instruction.id).used_by_run == ""
    world.permit(run_id="run_1")
    assert register.get_instruction(instruction.id).used_by_run == "run_1"
    world.permit(run_id="run_1")
    assert world.refusal(run_id="run_2") is Refusal.ALREADY_USED
    assert world.refusal() is Refusal.ALREADY_USED


def test_of_two_runs_at_once_one_gets_the_single_instruction(world: World) -> None:
    """The instruction is taken in one conditional update: eight threads, one winner."""
    world.instruct(kind=InstructionKind.SINGLE)
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def ask(number: int) -> None:
        from django.db import connection

        barrier.wait()
        try:
            world.permit(run_id=f"run_{number}")
            outcomes.append("granted")
        except NotInstructedError as error:
            outcomes.append(error.reason)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [Refusal.ALREADY_USED] * 7 + ["granted"]


def test_a_batch_is_permitted_whole_or_not_at_all(world: World) -> None:
    """One query serves thousands of people, each under the instruction that names it; one person without one stops all."""
    people = [SubjectRef("participant", (str(number),)) for number in range(2000)]
    singles = world.instruct(kind=InstructionKind.SINGLE, subjects=people[:1000])
    others = world.instruct(kind=InstructionKind.SINGLE, subjects=people[1000:])
    ask = {"controller_id": world.controller.id, "database": "courses", "actor": ACTOR, "clock": world.clock}
    with pytest.raises(NotInstructedError) as caught:
        gate.permit_subjects(Action.ERASE, subjects=[*people, SubjectRef("participant", ("x",))], run_id="run_1", **ask)
    assert caught.value.reason is Refusal.WRONG_SUBJECT
    assert register.get_instruction(singles.id).used_by_run == ""
    found = gate.permit_subjects(Action.ERASE, subjects=people, run_id="run_1", **ask)
    assert [one.instruction_id for one in found] == [singles.id] * 1000 + [others.id] * 1000


def test_restoring_a_database_needs_every_controller_in_it(world: World) -> None:
    """The refusal lists each controller that has not instructed, registered or not."""
    second = register.add_controller("courses", ["2"], "Musikschule Süd", actor=ACTOR, clock=world.clock)
    world.instruct(actions=[Action.RESTORE])
    keys = [canonical_key([number]) for number in ("1", "2", "3")]
    ask = {"database": "courses", "actor": ACTOR, "clock": world.clock}
    with pytest.raises(NotInstructedError) as caught:
        gate.permit_all(Action.RESTORE, controller_keys=keys, **ask)
    assert caught.value.missing == ((second.id, Refusal.NO_CONTRACT), ('["3"]', Refusal.NO_CONTROLLER))
    permissions = gate.permit_all(Action.RESTORE, controller_keys=keys[:1], **ask)
    assert [one.controller_id for one in permissions] == [world.controller.id]


def test_an_instruction_needs_a_contract_in_force(bare: World) -> None:
    """Without a contract there is nothing under which it could be given."""
    with pytest.raises(RegisterInvalidError, match="no contract in force"):
        bare.instruct()


@pytest.mark.parametrize(
    "changes",
    [
        {"given_by": "anna@example.org"},
        {"given_by": "Anna Schmidt"},
        {"document_hash": "abc"},
        {"actions": []},
        {"subjects": []},
        {"database": "shop"},
        {"subjects": [ANNA, SubjectRef("teacher", ("1",))]},
        {"valid_until": START},
    ],
)
def test_what_cannot_be_recorded_is_refused_without_repeating_it(world: World, changes: dict[str, Any]) -> None:
    """Names, addresses, empty scopes and impossible times do not get into the register, nor into the error."""
    with pytest.raises(RegisterInvalidError) as caught:
        world.instruct(**changes)
    assert "nna" not in caught.value.fact
    assert register.list_instructions() == []


@pytest.mark.parametrize(
    "terms",
    [
        ContractTerms("ask anna@example.org", "storage", "bookings", "term", ("user",), ("participant",)),
        ContractTerms("courses", "storage", "bookings", "two years", ("user",), ("participant",)),
        ContractTerms("courses", "storage", "bookings", "P", ("user",), ("participant",)),
        ContractTerms("courses", "storage", "bookings", "P2Y", (), ("participant",)),
        ContractTerms("courses", "storage", "bookings", "P2Y", ("user",), ("A person",)),
        ContractTerms("courses", "", "bookings", "P2Y", ("user",), ("participant",)),
    ],
)
def test_a_contract_states_what_article_28_wants_in_its_head(bare: World, terms: ContractTerms) -> None:
    """A contract without nature, duration or categories, or with somebody's address, is not recorded."""
    with pytest.raises(RegisterInvalidError):
        add_contract(bare, terms=terms)
    assert register.list_contracts(bare.controller.id) == []


def test_keys_and_versions_are_unique(world: World) -> None:
    """One controller a key and database, one contract a version; another database has keys of its own."""
    with pytest.raises(ControllerExistsError):
        register.add_controller("courses", ["1"], "Again", actor=ACTOR, clock=world.clock)
    register.add_controller("shop", ["1"], "Other", actor=ACTOR, clock=world.clock)
    with pytest.raises(RegisterInvalidError, match="of that version"):
        add_contract(world)
    assert register.find_controller("courses", ["1"]) == world.controller
    assert [one.database for one in register.list_controllers()] == ["courses", "shop"]


def test_unknown_ids_have_errors_of_their_own(control: Settings) -> None:
    """A mistyped id is told from an empty register."""
    clock = FixedClock(START)
    for error, call in (
        (ControllerUnknownError, lambda: register.get_controller("x")),
        (ContractUnknownError, lambda: register.end_contract("x", at=START)),
        (InstructionUnknownError, lambda: register.revoke_instruction("x", actor=ACTOR, clock=clock)),
    ):
        with pytest.raises(error):
            call()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE controllers_instruction SET kind = 'sometimes'",
        "UPDATE controllers_instruction SET actions = '{erase,steal}'",
        "UPDATE controllers_instruction SET actions = '{}'",
        "UPDATE controllers_instruction SET channel = 'rumour'",
        "UPDATE controllers_instruction SET given_by = 'anna@example.org'",
        "UPDATE controllers_instruction SET document_hash = 'none'",
        "UPDATE controllers_instruction SET subject_keys = '{}'",
        "UPDATE controllers_instruction SET used_by_run = 'run_1'",
        "UPDATE controllers_contract SET data_categories = '{}'",
        "UPDATE controllers_contract SET purpose = 'mail anna@example.org'",
        "UPDATE controllers_contract SET duration = 'long'",
        "UPDATE controllers_contract SET valid_until = valid_from",
        "UPDATE controllers_controller SET key = 'plain'",
    ],
)
def test_the_database_itself_refuses_other_words(world: World, statement: str) -> None:
    """Whoever writes around the use cases meets the same rules as constraints."""
    from django.db import connection

    world.instruct()
    with pytest.raises(DatabaseError) as caught, control_safe(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert caught.value.sqlstate == "23514"
